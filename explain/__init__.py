"""Maps for a whole data set: one file per method, the registry, the choice of target, and the Ray Data job.

Nothing is imported here, so that `python -m explain --help` answers before torch is loaded.
"""
