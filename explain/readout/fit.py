"""Fit a read-out to a student: from the maps that a method that asks has made of training images, then by the games.

Those maps are noisy and unbiased, which is enough: what they have in common over thousands of images is what the
read-out learns, and it is paid for once. No Ray.
"""

from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.device import own_device
from distill.data import ImageSet, open_images
from distill.data.frames import read_frame
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
    """Fit a read-out and leave it in its student's folder; return what is said of it there.

    Raises:
        ValueError, FileNotFoundError: student, maps, images and black box do not fit together; before any work starts.
        TeacherError: the black box fails.
    """
    device = own_device()
    student = load_student(settings.student, device=device)
    config = read_maps_config(settings, student)
    teacher = None if settings.teacher is None else _own_teacher(settings, student, config["rows"], device)
    images = open_images(config["data"], split=config["split"])
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
    about = {"settings": settings.fields(), "maps_config": config, "num_images": len(dataset), **scores}
    fingerprint = save_readout(settings.student, head, student, about)
    return {"fingerprint": fingerprint, "num_images": len(dataset), **scores}


def split_validation(num_images: int, settings: FitSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the numbers of the images held out, and of those to learn from."""
    order = torch.randperm(num_images, generator=generator)
    num_held = num_validation(num_images, settings)
    return order[:num_held], order[num_held:]


def num_validation(num_images: int, settings: FitSettings) -> int:
    """Count the images held out."""
    return max(1, round(settings.held_out * num_images))


def _own_teacher(settings: FitSettings, student: Student, num_images: int, device: str) -> Teacher:
    """Load the student's black box, and say what it will be asked."""
    assert settings.teacher is not None, "fit asks for none without it"
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
    """Fit the read-out's maps to the labels by their correlation over cells; keep the epoch that does best on others.

    Args:
        head: On the device where it shall learn.
        lessons: What is read of the images.
        own: Numbers of the images to learn from.
        held: Numbers of the images that the epochs are judged by.
        settings: Epochs, learning rate and images per step.
        generator: Draws their order and which are mirrored.

    Returns:
        held_out_correlation (mean over held-out images) and epoch, of what is kept.
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
