"""Fit a read-out to a student: from maps of training images by a query-based method, then by both games.

Those maps are noisy and unbiased, which is enough: the read-out learns what they have in common over thousands of
images, and their queries are spent once. No Ray.
"""

import sys
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.device import own_device
from cluster.locations import Locations
from cluster.storage import Folder
from distill.data import ImageSet, open_images
from distill.data.frames import read_frame
from distill.data.versions import require_unchanged
from distill.student.checkpoint import check_pair, load_student
from distill.student.model import Student
from distill.teachers import load_teacher
from distill.teachers.base import Teacher
from distill.teachers.query_budget import Share, check_budget
from explain.readout.checkpoint import new_readout, save_readout
from explain.readout.config import FitSettings
from explain.readout.dataset import ReadOutDataset, correlation, extract_dataset, read_maps_config
from explain.readout.network import ReadOut
from explain.readout.refine import HARD_POINTS, GameValidation, refine
from explain.readout.train import Schedule, maps_of_images, train_epochs


def fit(settings: FitSettings) -> dict[str, Any]:
    """Fit a read-out and leave it in its student's folder; return its fingerprint, images and scores.

    Raises:
        ValueError, FileNotFoundError: Student, maps, images and black box do not fit together, or the maps name images
            that the user did not name; before any work starts.
        TeacherError: the black box fails.
    """
    device = own_device()
    student = load_student(settings.student, device=device)
    config = read_maps_config(settings, student)
    teacher = None if settings.teacher is None else _own_teacher(settings, student, config["rows"], device)
    images = open_labelled_images(settings, config)
    print(images.describe(), file=sys.stderr)
    dataset = extract_dataset(settings, student, images, config["rows"])
    torch.manual_seed(settings.seed)
    head = new_readout(student.model).to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    validation, training = split_validation(len(dataset), settings, generator)
    scores: dict[str, Any] = train(head, dataset, training, validation, settings=settings, generator=generator)
    if teacher is not None:
        validate = _game_validation(teacher, dataset, validation, images)
        scores["games"] = refine(
            head,
            dataset,
            training,
            validation,
            student=student,
            validate=validate,
            epochs=settings.game_epochs,
            seed=settings.seed,
        )
    provenance = {"settings": settings.fields(), "maps_config": config, "num_images": len(dataset), **scores}
    fingerprint = save_readout(settings.student, head, student, provenance)
    return {"fingerprint": fingerprint, "data": images.root, "num_images": len(dataset), **scores}


def open_labelled_images(settings: FitSettings, config: Mapping[str, Any]) -> ImageSet:
    """Open the images that the maps explain.

    A location that only the maps' configuration names, which may be somebody else's, is opened where it lies in the run
    of the maps or of the student.

    Raises:
        ValueError: The location is another one, the images are others, or they have changed since the maps were made.
    """
    locations = Locations((settings.maps, settings.student))
    data = settings.data or locations.check(config["data"], what="data")
    images = open_images(data, split=config["split"], limit=config.get("limit"), per_class=config.get("per_class"))
    stored = config.get("data_fingerprint", images.fingerprint)
    if images.fingerprint != stored:
        raise ValueError(
            f"{images.root} holds images {images.fingerprint}, and the maps in {settings.maps} explain {stored} of "
            f"{config['data']}; give --data with those images"
        )
    require_unchanged(Folder(settings.maps), images, what="maps")
    return images


def split_validation(num_images: int, settings: FitSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the indices of the validation images, and of the training images."""
    order = torch.randperm(num_images, generator=generator)
    num_held_out = num_validation(num_images, settings)
    return order[:num_held_out], order[num_held_out:]


def num_validation(num_images: int, settings: FitSettings) -> int:
    """Count the validation images."""
    return max(1, round(settings.held_out * num_images))


def _own_teacher(settings: FitSettings, student: Student, num_images: int, device: str) -> Teacher:
    """Load the student's black box, and check the budget of its queries."""
    assert settings.teacher is not None, "fit loads none without it"
    teacher = load_teacher(settings.teacher, device=device)
    check_pair(settings.student, student, teacher)
    each = 2 * HARD_POINTS * (settings.game_epochs + 1)
    shares = [Share(what="games", each=each, number=num_validation(num_images, settings), unit="images held out")]
    check_budget(teacher, shares, settings.max_queries)
    return teacher


def _game_validation(teacher: Teacher, dataset: ReadOutDataset, validation: Tensor, images: ImageSet) -> GameValidation:
    frames = [read_frame(images, dataset.image_ids[number], teacher.input_size) for number in validation.tolist()]
    if any(frame is None for frame, _ in frames):
        raise ValueError(f"images in {images.root} changed while they were read; start again")
    return GameValidation(
        teacher=teacher,
        frames=np.stack([frame for frame, _ in frames if frame is not None]),
        targets=dataset.targets[validation],
    )


def train(
    head: ReadOut,
    dataset: ReadOutDataset,
    training: Tensor,
    validation: Tensor,
    *,
    settings: FitSettings,
    generator: torch.Generator,
) -> dict[str, float]:
    """Train the read-out's maps to correlate with the labels over cells; keep the epoch that validates best.

    Args:
        head: The read-out, on the device where it is trained.
        dataset: Student features and target maps.
        training: Indices of the training images.
        validation: Indices of the validation images.
        settings: Epochs, learning rate and images per step.
        generator: Draws the order of the images and which are mirrored.

    Returns:
        held_out_correlation (mean over the validation images) and epoch, of the read-out that is kept.
    """

    def loss(numbers: Tensor, generator: torch.Generator) -> Tensor:
        mirrored = torch.randint(2, (len(numbers),), generator=generator)
        features, labels = dataset.batch(numbers, mirrored)
        return 1 - correlation(head(features), labels).mean()

    def validated() -> dict[str, float]:
        maps = maps_of_images(head, dataset, validation)
        return {"held_out_correlation": float(correlation(maps, dataset.labels[validation].to(maps.device)).mean())}

    schedule = Schedule(epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr)
    score = itemgetter("held_out_correlation")
    epoch, best = train_epochs(head, training, loss, validated, schedule=schedule, generator=generator, score=score)
    return {**best, "epoch": epoch}
