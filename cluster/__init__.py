"""Where work runs and what it leaves behind: Ray, folders on any file system, progress, MLflow.

Plumbing only: nothing in here knows what a teacher, a map or a game is.
"""

from cluster.telemetry import switch_off

switch_off()  # before any other import of this project brings one of the libraries that it is about
