"""Where a process computes: its GPU, if it has one, else its cores."""

import torch


def own_device() -> str:
    """Return "cuda" where torch finds a GPU, else "cpu". Ray shows a worker the GPUs that are its own."""
    return "cuda" if torch.cuda.is_available() else "cpu"
