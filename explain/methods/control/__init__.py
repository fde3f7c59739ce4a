"""Controls: maps that know nothing of any model, which every method must beat."""
