"""Device and CPU threads of a process: its GPU, if it has one, and one thread for torch beside another engine.

Torch's threads go on spinning for a while after each operation that they shared, at the cost of whoever computes next:
on two cores a softmax of eight rows cost an inference engine a fifth of its rate.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def own_device() -> str:
    """Return "cuda" where torch finds a GPU, else "cpu". Ray shows a worker the GPUs that are its own."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block's torch operations on the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
