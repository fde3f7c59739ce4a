"""Distil a black-box teacher into a white-box student: images, teachers, ResCBAM, losses, training loop, recipes."""
