"""Saliency methods by family, their options, and the registry that names them."""
