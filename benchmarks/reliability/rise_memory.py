"""Whether RISE's memory depends on the number of its masks: the peaks of processes that do nothing else."""

import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor

from benchmarks.speed.ratio import Row
from benchmarks.speed.world import World
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rise

UNITS_PER_MB = 1024  # of Linux' ru_maxrss
SIZE_PX = 112


def rise_memory(world: World) -> Row:
    """Compare the peak memory of a process with few and with many masks."""
    few, many = world.number(500, 64), world.number(4000, 256)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        peaks = [(pool.submit(peak_mb, few).result(), pool.submit(peak_mb, many).result()) for _ in range(2)]
    return Row(
        key="rise",
        what=f"RISE's peak memory, {many} masks",
        against=f"{few} masks, each in a process of its own",
        at_most=1.05,
        figures=[late / early for early, late in peaks],
        note=f"{peaks[0][0]:.0f} and {peaks[0][1]:.0f} MB, torch itself included, at {SIZE_PX} px with a black box "
        "that computes nothing",
    )


def peak_mb(num_masks: int) -> float:
    """Return the largest memory that this process had once RISE has asked so many masks of nothing."""
    image, target = torch.rand(1, 3, SIZE_PX, SIZE_PX), torch.zeros(1, dtype=torch.long)
    rise(Queries(_nothing), image, target, seeds=[0], num_masks=num_masks)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNITS_PER_MB


def _nothing(frames: Tensor) -> Tensor:
    return frames.mean(dim=(1, 2, 3))[:, None]
