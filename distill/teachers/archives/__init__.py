"""torch.export archives of untrusted origin: validation before loading, and unflattening into modules."""
