"""Distill a black-box teacher into a white-box student: images, teachers, ResCBAM, losses, training loop, recipes."""

import cluster  # noqa: F401 - switches telemetry off, before a file in here imports an engine
