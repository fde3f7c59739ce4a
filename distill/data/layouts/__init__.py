"""One module for each data set's official layout on disk; `folder` reads everything else."""
