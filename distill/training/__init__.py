"""Distillation and fine-tuning with Ray Train and accelerate: recipes, data views, losses, checkpoints."""
