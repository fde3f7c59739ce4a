"""Distil a black-box image classifier into a student that can be looked into."""
