"""Inference engines behind model files, and their selection by measurement."""
