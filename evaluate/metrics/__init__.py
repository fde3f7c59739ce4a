"""Metrics of saliency maps beside the games: ROAD, mu-fidelity, pointing game, max-sensitivity and student fidelity."""
