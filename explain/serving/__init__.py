"""Serving of a student's saliency maps from MLflow's model registry."""
