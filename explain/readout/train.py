"""Training loop of a read-out: several epochs, of which the one with the best validation score is kept."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.progress.bar import Progress
from explain.readout.dataset import ReadOutDataset
from explain.readout.network import ReadOut

VALIDATION_IMAGES = 32
"""Validation images whose maps are computed at once."""

Scores = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Epochs, batch size and learning rate of a read-out's training."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step."""
    lr: float
    """Highest learning rate of AdamW; it rises, then falls to nothing."""
    title: str = "fit"
    """Name in the progress bar."""


def train_epochs(
    head: ReadOut,
    training: Tensor,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    validate: Callable[[], Scores],
    *,
    schedule: Schedule,
    generator: torch.Generator,
    score: Callable[[Scores], float],
    before: Scores | None = None,
) -> tuple[int, Scores]:
    """Train a read-out in place and keep the weights of its best epoch.

    Args:
        head: The read-out, on the device where it is trained.
        training: Indices of the training images.
        loss: Maps indices of images and a generator to their loss.
        validate: Returns the validation scores of the read-out as it is.
        schedule: Epochs, batch size and learning rate.
        generator: Draws the order of the images, and whatever the loss draws.
        score: Reduces validation scores to one number; higher is better.
        before: Validation scores of the untrained read-out, where that one may be kept too.

    Returns:
        The best epoch, from 1 (0 is the read-out as it was given), and its validation scores.
    """
    steps = schedule.epochs * -(-len(training) // schedule.batch_size)
    optimizer = torch.optim.AdamW(head.parameters(), lr=schedule.lr, weight_decay=0.01)
    lr_schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.lr, total_steps=steps)
    best, weights = (0, before or {}), copy.deepcopy(head.state_dict())
    with Progress(f"read-out: {schedule.title}", schedule.epochs * len(training)) as progress:
        progress.advance(0, **best[1])
        for epoch in range(schedule.epochs):
            for numbers in training[torch.randperm(len(training), generator=generator)].split(schedule.batch_size):
                optimizer.zero_grad()
                loss(numbers, generator).backward()
                optimizer.step()
                lr_schedule.step()
                progress.advance(len(numbers))
            scores = validate()
            progress.advance(0, **scores)
            if not best[1] or score(scores) > score(best[1]):
                best, weights = (epoch + 1, scores), copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    return best


def maps_of_images(head: ReadOut, dataset: ReadOutDataset, numbers: Tensor) -> Tensor:
    """Compute a read-out's maps of the images `numbers`, not mirrored: (N, h, w)."""
    with torch.no_grad():
        parts = [head(dataset.batch(some, torch.zeros_like(some))[0]) for some in numbers.split(VALIDATION_IMAGES)]
    return torch.cat(parts)
