"""Client of the Open Inference Protocol v2: connection, wire format, rate limit and response cache."""
