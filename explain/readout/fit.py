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
from explain.readout.dataset import Lessons, correlation, gather, label_config
from explain.readout.network import ReadOut
from explain.readout.refine import HARD_POINTS, Judge, refine
from explain.readout.train import Passes, held_out_maps, learn


def fit(settings: FitSettings) -> dict[str, Any]:
    """Fit a read-out and leave it in its student's folder; return what is said of it there.

    Raises:
        ValueError, FileNotFoundError: student, maps, images and black box do not fit together; before any work starts.
        TeacherError: the black box fails.
    """
    device = own_device()
    student = load_student(settings.student, device=device)
    config = label_config(settings, student)
    teacher = None if settings.teacher is None else _own_teacher(settings, student, config["rows"], device)
    images = open_images(config["data"], split=config["split"])
    lessons = gather(settings, student, images, config["rows"])
    torch.manual_seed(settings.seed)
    head = new_readout(student.model).to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    held, own = hold_out(len(lessons), settings, generator)
    figures: dict[str, Any] = train(head, lessons, own, held, settings=settings, generator=generator)
    if teacher is not None:
        judge = _judge(teacher, lessons, held, images)
        figures["games"] = refine(
            head, lessons, own, held, student=student, judge=judge, epochs=settings.game_epochs, seed=settings.seed
        )
    about = {"settings": settings.fields(), "maps_config": config, "num_images": len(lessons), **figures}
    fingerprint = save_readout(settings.student, head, student, about)
    return {"fingerprint": fingerprint, "num_images": len(lessons), **figures}


def hold_out(num_images: int, settings: FitSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the numbers of the images held out, and of those to learn from."""
    order = torch.randperm(num_images, generator=generator)
    num_held = num_held_out(num_images, settings)
    return order[:num_held], order[num_held:]


def num_held_out(num_images: int, settings: FitSettings) -> int:
    """Count the images held out."""
    return max(1, round(settings.held_out * num_images))


def _own_teacher(settings: FitSettings, student: Student, num_images: int, device: str) -> Teacher:
    """Load the student's black box, and say what it will be asked."""
    assert settings.teacher is not None, "fit asks for none without it"
    teacher = load_teacher(settings.teacher, device=device)
    check_pair(settings.student, student, teacher)
    each = 2 * HARD_POINTS * (settings.game_epochs + 1)
    shares = [Share(what="games", each=each, number=num_held_out(num_images, settings), unit="images held out")]
    check_budget(teacher, shares, settings.max_queries)
    return teacher


def _judge(teacher: Teacher, lessons: Lessons, held: Tensor, images: ImageSet) -> Judge:
    frames = [read_frame(images, lessons.image_ids[number], teacher.input_size) for number in held.tolist()]
    if any(frame is None for frame, _ in frames):
        raise ValueError(f"images in {images.root} changed while they were read; start again")
    return Judge(
        teacher=teacher,
        frames=np.stack([frame for frame, _ in frames if frame is not None]),
        targets=lessons.targets[held],
    )


def train(
    head: ReadOut,
    lessons: Lessons,
    own: Tensor,
    held: Tensor,
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
        views, labels = lessons.batch(numbers, mirrored)
        return 1 - correlation(head(views), labels).mean()

    def judged() -> dict[str, float]:
        maps = held_out_maps(head, lessons, held)
        return {"held_out_correlation": float(correlation(maps, lessons.labels[held].to(maps.device)).mean())}

    passes = Passes(epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr)
    worth = itemgetter("held_out_correlation")
    epoch, best = learn(head, own, loss, judged, passes=passes, generator=generator, worth=worth)
    return {**best, "epoch": epoch}
