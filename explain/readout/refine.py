"""Refinement of a read-out by the games themselves: a soft version on its student, validated on the black box.

A game shows or hides the pixels that a map ranks first, and a rank has no gradient. Here the border between shown and
hidden is soft, so that the student's response to a frame tells how each cell's value should change. But the student is
only a surrogate: after each epoch the black box plays the games, hard, on the validation images, and the read-out with
the best score is kept, which may be the one before the refinement.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.perturb.blur import blur, rise_blur
from distill.perturb.curves import Perturbation, play_points, rank_pixels
from distill.student.model import Student
from distill.teachers.base import Teacher
from explain.readout.dataset import ReadOutDataset, correlation
from explain.readout.network import ReadOut, resized, standardised
from explain.readout.train import Schedule, Scores, maps_of_images, train_epochs

LR = 0.0005
"""Highest learning rate of AdamW; it rises, then falls to nothing."""

BATCH_IMAGES = 8
"""Images per step, each with `SOFT_POINTS` frames of either game."""

SOFT_POINTS = 3
"""Frames of each game per image and step: one share of the pixels from each third of (0, 1)."""

SOFTNESS = 0.3
"""Width of the border between shown and hidden, in standard deviations of a map."""

ANCHOR = 0.3
"""Weight of 1 - correlation with the labels beside the games' mean probabilities: the labels know more of the black box
than the student does."""

BLUR_SIGMA = 0.014
"""Standard deviation of the soft insertion's blur, as a share of the longer side: RISE's is as wide at 224 px."""

HARD_POINTS = 10
"""Frames of each game that the black box sees per validation image: the middles of so many equal shares."""


@dataclass(frozen=True, kw_only=True)
class GameValidation:
    """Validation by the black box: it plays both games on the validation images."""

    teacher: Teacher
    frames: np.ndarray
    """uint8 (N, H, W, 3) at the black box's size."""
    targets: Tensor
    """(N,)."""

    def games(self, maps: Tensor) -> tuple[float, float]:
        """Return the mean probabilities along both games, deletion (lower is better) and insertion, of maps (N, h, w).

        Each has `HARD_POINTS` points: zero (the mean color) in place of deleted pixels, RISE's blur in place of those
        not inserted yet.
        """
        curves = list(play_points(self.teacher.forward, self._games(maps), batch_size=self.teacher.batch_size or 64))
        deletion, insertion = np.stack(curves).reshape(-1, 2, HARD_POINTS).mean(axis=(0, 2), dtype=np.float64)
        return float(deletion), float(insertion)

    def _games(self, maps: Tensor) -> Iterator[tuple[Perturbation, Sequence[int]]]:
        for pixels, target, saliency in zip(self.frames, self.targets.tolist(), maps, strict=True):
            image = self.teacher.normalize(pixels[None])[0]
            ranks = rank_pixels(saliency.to(image.device), (image.shape[1], image.shape[2])).ranks
            steps = ranks * (2 * HARD_POINTS) // ranks.numel()
            for start, finish in ((image, torch.zeros_like(image)), (rise_blur(image), image)):
                game = Perturbation(start=start, finish=finish, steps=steps, num_steps=2 * HARD_POINTS, target=target)
                yield game, range(1, 2 * HARD_POINTS, 2)


def refine(
    head: ReadOut,
    dataset: ReadOutDataset,
    training: Tensor,
    validation: Tensor,
    *,
    student: Student,
    validate: GameValidation,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    """Refine a read-out in place; the epoch with the highest insertion minus deletion is kept.

    Args:
        head: The read-out, fitted to the labels, on the student's device.
        dataset: Student features and target maps.
        training: Indices of the training images.
        validation: Indices of the validation images.
        student: Plays the soft games.
        validate: Plays the games on the black box.
        epochs: Passes over the images.
        seed: Seed of order, mirroring and frames.

    Returns:
        epoch of the read-out that is kept (0: not refined), and deletion and insertion before and after.
    """

    def validated() -> Scores:
        deletion, insertion = validate.games(maps_of_images(head, dataset, validation))
        return {"deletion": deletion, "insertion": insertion}

    before = validated()
    epoch, after = train_epochs(
        head,
        training,
        lambda numbers, generator: soft_loss(head, dataset, numbers, student, generator),
        validated,
        schedule=Schedule(epochs=epochs, batch_size=BATCH_IMAGES, lr=LR, title="games"),
        generator=torch.Generator().manual_seed(seed),
        score=lambda scores: scores["insertion"] - scores["deletion"],
        before=before,
    )
    return {"epoch": epoch, "before": before, "after": after}


def soft_loss(
    head: ReadOut, dataset: ReadOutDataset, numbers: Tensor, student: Student, generator: torch.Generator
) -> Tensor:
    """Compute the soft games' loss on the student: mean probability in deletion minus that in insertion."""
    mirrored = torch.randint(2, (len(numbers),), generator=generator)
    features, labels = dataset.batch(numbers, mirrored)
    maps = head(features)
    images = student.normalize(dataset.frames[numbers])
    images = torch.where(mirrored.to(images.device)[:, None, None, None] == 1, images.flip(3), images)
    thirds = torch.arange(SOFT_POINTS)[:, None]
    shares = (torch.rand(SOFT_POINTS, len(numbers), generator=generator) + thirds) / SOFT_POINTS
    frames = torch.cat(list(soft_frames(images, maps, shares.to(images.device))))
    targets = dataset.targets[numbers].to(images.device).repeat(2 * SOFT_POINTS)
    probs = torch.softmax(student.model(frames).float(), dim=1).gather(1, targets[:, None])
    deletion, insertion = probs.view(SOFT_POINTS, 2, len(numbers)).mean(dim=(0, 2))
    return deletion - insertion + ANCHOR * (1 - correlation(maps, labels).mean())


def soft_frames(images: Tensor, maps: Tensor, shares: Tensor) -> Iterator[Tensor]:
    """Yield frames (B, 3, H, W) of deletion and of insertion in turn, for each row of shares (K, B) of the cells.

    A cell is taken by sigmoid((value - quantile) / `SOFTNESS`), of values in standard deviations of the map.
    """
    values = standardised(maps)
    size = (images.shape[2], images.shape[3])
    blurred = blur(images.flatten(0, 1), BLUR_SIGMA).view_as(images)
    for row in shares:
        limits = torch.stack(
            [one.detach().quantile(1 - share) for one, share in zip(values.flatten(1), row, strict=True)]
        )
        taken = resized(torch.sigmoid((values - limits[:, None, None]) / SOFTNESS)[:, None], size)
        yield images * (1 - taken)
        yield torch.lerp(blurred, images, taken)
