"""Progress of jobs on a terminal or in a log, with rate and time left."""
