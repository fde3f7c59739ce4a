"""Training set of a read-out: student features and the target saliency map of each training image.

All is held in memory: 0.5 MB for an image of 160 px and a student of 18 layers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.progress.bar import Progress
from cluster.storage import Folder, same_fingerprint
from distill.data import ImageSet
from distill.data.frames import read_frame
from distill.student.model import Student
from explain.maps import map_parts, read_part, saliency_maps
from explain.methods.grid import grid_size
from explain.readout.config import FitSettings
from explain.readout.network import StudentFeatures, extract_features, standardised

FEATURE_IMAGES = 16
"""Images per pass of the student, each with its mirror image."""


@dataclass(frozen=True, kw_only=True)
class ReadOutDataset:
    """Student features of each image and its mirror image, and the saliency map to learn."""

    maps: Tensor
    """`StudentFeatures.maps`, (N, 2, M, h, w) float16."""
    layers: tuple[Tensor, ...]
    """`StudentFeatures.layers`, each (N, 2, C, h', w') float16."""
    labels: Tensor
    """(N, h, w) float32, standardised, of the image as it is."""
    image_ids: tuple[str, ...]
    """(N,)."""
    targets: Tensor
    """The classes explained, (N,)."""
    frames: np.ndarray
    """The images at the student's size, uint8 (N, H, W, 3)."""
    device: str
    """Device of student and read-out: cpu or cuda."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def batch(self, numbers: Tensor, mirrored: Tensor) -> tuple[StudentFeatures, Tensor]:
        """Return features and labels of some images, each as it is (0) or mirrored (1), on the student's device."""
        maps, *layers = (kept[numbers, mirrored].to(self.device).float() for kept in (self.maps, *self.layers))
        labels = self.labels[numbers]
        labels = torch.where(mirrored[:, None, None] == 1, labels.flip(2), labels)
        return StudentFeatures(maps, tuple(layers)), labels.to(self.device)


def read_maps_config(settings: FitSettings, student: Student) -> dict[str, Any]:
    """Read and check the configuration of the maps.

    Raises:
        ValueError: They are unfinished, of other images than training ones, or of another black box.
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
    if not same_fingerprint(config.get("teacher_fingerprint"), student.teacher_fingerprint):
        raise ValueError(
            f"{settings.maps} explains the black box {config.get('teacher')} ({config.get('teacher_fingerprint')}), "
            f"and {settings.student} was distilled from {student.teacher} ({student.teacher_fingerprint}); "
            "give its own maps"
        )
    return {**config, "rows": manifest["rows"]}


def extract_dataset(settings: FitSettings, student: Student, images: ImageSet, num_rows: int) -> ReadOutDataset:
    """Extract the features of every image that has a map, among so many rows, and of its mirror image."""
    size = grid_size(*student.input_size)
    parts: list[tuple[StudentFeatures, Tensor]] = []
    rows: list[tuple[str, int, np.ndarray]] = []
    with Progress("read-out: student passes", num_rows) as progress:
        for batch in _batches(_labelled(settings.maps), FEATURE_IMAGES):
            read = [(read_frame(images, row[0], student.input_size)[0], *row) for row in batch]
            kept = [(image_id, target, frame, label) for frame, image_id, target, label in read if frame is not None]
            if kept:
                _, targets, frames, labels = zip(*kept, strict=True)
                rows.extend(row[:3] for row in kept)
                features = _both(student, np.stack(frames), torch.tensor(targets, device=student.device))
                small = [F.interpolate(torch.tensor(one)[None, None], size=size, mode="area")[0, 0] for one in labels]
                parts.append((features, standardised(torch.stack(small))))
            progress.advance(len(batch))
    if len(parts) * FEATURE_IMAGES < 2 / settings.held_out:
        raise ValueError(f"{settings.maps} holds too few maps for training and validation; explain more images")
    maps, layers = [features.maps for features, _ in parts], [features.layers for features, _ in parts]
    return ReadOutDataset(
        maps=torch.cat(maps),
        layers=tuple(torch.cat(parts) for parts in zip(*layers, strict=True)),
        labels=torch.cat([labels for _, labels in parts]),
        image_ids=tuple(image_id for image_id, _, _ in rows),
        targets=torch.tensor([target for _, target, _ in rows]),
        frames=np.stack([frame for _, _, frame in rows]),
        device=student.device,
    )


def _both(student: Student, frames: np.ndarray, targets: Tensor) -> StudentFeatures:
    """Extract the features of images (B, H, W, 3) and their mirror images: (B, 2, ...) float16 on the CPU."""
    pixels = student.normalize(frames)
    features = extract_features(student.model, torch.cat([pixels, pixels.flip(3)]), targets.repeat(2))
    maps, *layers = (
        part.unflatten(0, (2, len(frames))).transpose(0, 1).half().cpu() for part in (features.maps, *features.layers)
    )
    return StudentFeatures(maps, tuple(layers))


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


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Correlate maps (B, h, w) over their cells: (B,) in [-1, 1]; 0 for a constant map."""
    return (standardised(one) * standardised(other)).mean(dim=(1, 2))
