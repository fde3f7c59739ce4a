"""Fit a read-out to a student: from the maps that a method that asks has made of training images.

Those maps are noisy and unbiased, which is enough: what they have in common over thousands of images is what the
read-out learns, and it is paid for once. Everything is held in memory; no Ray.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.progress import Progress
from cluster.storage import Folder
from distill.device import own_device
from distill.images import open_images
from distill.student import Student, load_student
from explain.fit_settings import FitSettings
from explain.frames import read_frame
from explain.grids import grid_size
from explain.readout import ReadOut, Views, look, standardised
from explain.readouts import new_readout, save_readout
from explain.schema import map_parts, read_part, saliency_maps

LOOK_IMAGES = 16
"""Images per pass of the student, each with its mirror image."""


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What is read of the student for each image and its mirror image, and the map to learn."""

    maps: Tensor
    """`Views.maps`, (N, 2, M, h, w) float16."""
    layers: tuple[Tensor, ...]
    """`Views.layers`, each (N, 2, C, h', w') float16."""
    labels: Tensor
    """(N, h, w) float32, standardised, of the image as it is."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def batch(self, numbers: Tensor, mirrored: Tensor, device: torch.device) -> tuple[Views, Tensor]:
        """Return views and labels of some images, each as it is (0) or mirrored (1)."""
        maps, *layers = (kept[numbers, mirrored].to(device).float() for kept in (self.maps, *self.layers))
        labels = self.labels[numbers]
        labels = torch.where(mirrored[:, None, None] == 1, labels.flip(2), labels)
        return Views(maps, tuple(layers)), labels.to(device)


def fit(settings: FitSettings) -> dict[str, Any]:
    """Fit a read-out and leave it in its student's folder; return what is said of it there.

    Raises:
        ValueError, FileNotFoundError: student, maps and images do not fit together; before any work starts.
    """
    device = torch.device(own_device())
    student = load_student(settings.student, device=str(device))
    config = label_config(settings, student)
    lessons = gather(settings, student, config, device)
    torch.manual_seed(settings.seed)
    head = new_readout(student.model).to(device)
    figures = train(head, lessons, settings, device)
    about = {"settings": settings.fields(), "maps_config": config, "num_images": len(lessons), **figures}
    fingerprint = save_readout(settings.student, head, student, about)
    return {"fingerprint": fingerprint, "num_images": len(lessons), **figures}


def label_config(settings: FitSettings, student: Student) -> dict[str, Any]:
    """Read what made the maps.

    Raises:
        ValueError: they are unfinished, of other images than training ones, or of another black box.
    """
    folder = Folder(settings.maps)
    config, manifest = folder.config(), folder.finished()
    if manifest is None:
        raise ValueError(f"{settings.maps} holds unfinished maps; start its `python -m explain` again first")
    if config.get("split") != "train":
        raise ValueError(
            f"{settings.maps} holds maps of the split {config.get('split')!r}; a read-out is fitted to training "
            "images: give maps made with --split train"
        )
    if config.get("teacher_fingerprint") != student.teacher_fingerprint:
        raise ValueError(
            f"{settings.maps} explains the black box {config.get('teacher')} ({config.get('teacher_fingerprint')}), "
            f"and {settings.student} was distilled from {student.teacher} ({student.teacher_fingerprint}); "
            "give its own maps"
        )
    return {**config, "rows": manifest["rows"]}


def gather(settings: FitSettings, student: Student, config: dict[str, Any], device: torch.device) -> Lessons:
    """Look at every image that has a map, and at its mirror image."""
    images = open_images(config["data"], split=config["split"])
    size = grid_size(*student.input_size)
    found: list[tuple[Views, Tensor]] = []
    with Progress("read-out: student passes", config["rows"]) as progress:
        for batch in _batches(_labelled(settings.maps), LOOK_IMAGES):
            read = [(read_frame(images, image_id, student.input_size)[0], *rest) for image_id, *rest in batch]
            kept = [row for row in read if row[0] is not None]
            if kept:
                frames, targets, labels = zip(*kept, strict=True)
                views = _both(student, np.stack(frames), torch.tensor(targets, device=device))
                small = [F.interpolate(torch.tensor(one)[None, None], size=size, mode="area")[0, 0] for one in labels]
                found.append((views, standardised(torch.stack(small))))
            progress.advance(len(batch))
    if len(found) * LOOK_IMAGES < 2 / settings.held_out:
        raise ValueError(f"{settings.maps} holds too few maps to learn from and be judged by; explain more images")
    maps, layers = [views.maps for views, _ in found], [views.layers for views, _ in found]
    return Lessons(
        maps=torch.cat(maps),
        layers=tuple(torch.cat(parts) for parts in zip(*layers, strict=True)),
        labels=torch.cat([labels for _, labels in found]),
    )


def _both(student: Student, frames: np.ndarray, targets: Tensor) -> Views:
    """Look at images (B, H, W, 3) and their mirror images: `Views` of (B, 2, ...), float16 on the CPU."""
    pixels = student.normalise(frames)
    views = look(student.model, torch.cat([pixels, pixels.flip(3)]), targets.repeat(2))
    maps, *layers = (
        part.unflatten(0, (2, len(frames))).transpose(0, 1).half().cpu() for part in (views.maps, *views.layers)
    )
    return Views(maps, tuple(layers))


def _labelled(uri: str) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield image_id, target and map of every image that has one."""
    for part in map_parts(uri):
        table = read_part(uri, part)
        rows = zip(table["image_id"].to_pylist(), table["target"].to_pylist(), saliency_maps(table), strict=True)
        for image_id, target, saliency in rows:
            if saliency is not None:
                yield image_id, target, saliency


def _batches(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(rows, size)):  # itertools.batched comes with Python 3.12
        yield batch


def train(head: ReadOut, lessons: Lessons, settings: FitSettings, device: torch.device) -> dict[str, float]:
    """Fit the read-out's maps to the labels by their correlation over cells; keep the epoch that does best on others.

    Returns:
        held_out_correlation (mean over held-out images) and epoch, of what is kept.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(lessons), generator=generator)
    num_held = max(1, round(settings.held_out * len(lessons)))
    held, own = order[:num_held], order[num_held:]
    steps = settings.epochs * -(-len(own) // settings.batch_size)
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total_steps=steps)
    best = {"held_out_correlation": -2.0, "epoch": 0}
    weights = copy.deepcopy(head.state_dict())
    with Progress("read-out: fit", settings.epochs * len(own)) as progress:
        for epoch in range(settings.epochs):
            for numbers in own[torch.randperm(len(own), generator=generator)].split(settings.batch_size):
                mirrored = torch.randint(2, (len(numbers),), generator=generator)
                views, labels = lessons.batch(numbers, mirrored, device)
                loss = 1 - correlation(head(views), labels).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                progress.advance(len(numbers))
            judged = judge(head, lessons, held, settings.batch_size, device)
            if judged > best["held_out_correlation"]:
                best, weights = {"held_out_correlation": judged, "epoch": epoch + 1}, copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    return best


def judge(head: ReadOut, lessons: Lessons, numbers: Tensor, batch_size: int, device: torch.device) -> float:
    """Return the mean correlation of the read-out's maps and the labels of some images."""
    total = 0.0
    with torch.no_grad():
        for some in numbers.split(batch_size):
            views, labels = lessons.batch(some, torch.zeros_like(some), device)
            total += float(correlation(head(views), labels).sum())
    return total / len(numbers)


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Correlate maps (B, h, w) over their cells: (B,) in [-1, 1]; 0 for a constant map."""
    return (standardised(one) * standardised(other)).mean(dim=(1, 2))
