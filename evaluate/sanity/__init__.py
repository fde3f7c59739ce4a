"""Sanity checks (Adebayo et al. 2018): saliency maps must change when the student's parameters or the target change."""
