"""Passes of a read-out over training images, of which the one that does best on others is kept."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.progress.bar import Progress
from explain.readout.dataset import Lessons
from explain.readout.network import ReadOut

JUDGED_IMAGES = 32
"""Images held out whose maps are made at once."""

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How a read-out goes over its images."""

    epochs: int
    """How often."""
    batch_size: int
    """Images per step."""
    lr: float
    """Highest learning rate of AdamW; it rises, then falls to nothing."""
    title: str = "fit"
    """What the progress calls it."""


def learn(
    head: ReadOut,
    own: Tensor,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    judge: Callable[[], Figures],
    *,
    passes: Passes,
    generator: torch.Generator,
    worth: Callable[[Figures], float],
    before: Figures | None = None,
) -> tuple[int, Figures]:
    """Teach a read-out in place, and leave it as it was after the best pass.

    Args:
        head: On the device where it shall learn.
        own: Numbers of the images to learn from.
        loss: Of images by their numbers, with a source of randomness.
        judge: Says how good the read-out is at the moment.
        passes: How to go over the images.
        generator: Draws the order, and what the loss draws.
        worth: Of the judge's figures; more is better.
        before: The judge's figures of the read-out as it came, where that may stay.

    Returns:
        The best pass, from 1 (0 is the read-out as it came), and the judge's figures of it.
    """
    steps = passes.epochs * -(-len(own) // passes.batch_size)
    optimiser = torch.optim.AdamW(head.parameters(), lr=passes.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, passes.lr, total_steps=steps)
    best, weights = (0, before or {}), copy.deepcopy(head.state_dict())
    with Progress(f"read-out: {passes.title}", passes.epochs * len(own)) as progress:
        progress.advance(0, **best[1])
        for epoch in range(passes.epochs):
            for numbers in own[torch.randperm(len(own), generator=generator)].split(passes.batch_size):
                optimiser.zero_grad()
                loss(numbers, generator).backward()
                optimiser.step()
                schedule.step()
                progress.advance(len(numbers))
            found = judge()
            progress.advance(0, **found)
            if not best[1] or worth(found) > worth(best[1]):
                best, weights = (epoch + 1, found), copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    return best


def held_out_maps(head: ReadOut, lessons: Lessons, held: Tensor) -> Tensor:
    """Make a read-out's maps of some images as they are, (N, h, w)."""
    with torch.no_grad():
        parts = [head(lessons.batch(some, torch.zeros_like(some))[0]) for some in held.split(JUDGED_IMAGES)]
    return torch.cat(parts)
