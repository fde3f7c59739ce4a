"""One module for each kind of black box that `--teacher KIND:WHERE` can name."""
