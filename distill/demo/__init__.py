"""The demo's rendered data set with known object masks, and the black box trained on it."""
