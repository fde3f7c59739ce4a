"""Image perturbations that training, methods and games share: masks, superpixels, patches, imputation, curves."""
