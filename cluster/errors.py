"""Errors that cross from a worker to the command that started it; a file of its own because it imports nothing."""


class WorkError(RuntimeError):
    """No work can come of any shard: a worker that raises it ends the job, and the message is for the user."""
