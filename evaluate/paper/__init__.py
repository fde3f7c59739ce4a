"""The paper's tables 1 to 3 and figures 5 and 6, filled with our scores beside its printed numbers."""
