"""Sim N of a student and its teacher over a data set, with bootstrap intervals (the paper's Table 1)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cluster import command_line
from cluster.device import own_device
from cluster.progress.bar import Progress
from cluster.storage import Folder, config_hash
from cluster.tracking.tracker import Tracker
from distill.data import ImageSet, open_images
from distill.data.decode import ImageError, center_crop, resize
from distill.student.checkpoint import check_pair, load_student
from distill.student.model import Student
from distill.student.similarity import sim_n
from distill.teachers import load_teacher
from distill.teachers.query_budget import Share, check_budget
from evaluate.config import SimilarityConfig, View
from evaluate.runs import INTERVAL, inputs_of
from evaluate.statistics import mean_interval

if TYPE_CHECKING:
    from distill.teachers import Teacher

VIEWS = {"centre_crop": center_crop, "resize": resize}
MAX_N = 5
BATCH_IMAGES = 32


def compute_similarity(config: SimilarityConfig) -> dict[str, Any]:
    """Compute Sim 1 to 5, store them as JSON in the student's folder and log an MLflow run.

    Returns:
        sim1 ... sim5 (each mean, low, high; fewer for fewer classes), num_images, num_errors and the
        settings.

    Raises:
        ValueError: the student was made for another teacher, or no image can be read.
        FileNotFoundError: the student, the teacher or the images are missing.
    """
    images = open_images(config.data, split=config.split, limit=config.limit, per_class=config.per_class)
    device = own_device()
    student, teacher = load_student(config.student, device=device), load_teacher(config.teacher, device=device)
    check_pair(config.student, student, teacher)
    check_budget(teacher, [Share(what="similarity", each=1, number=len(images.image_ids))], config.max_queries)
    settings = {
        "view": config.view,
        "data": images.root,
        "data_fingerprint": images.fingerprint,
        "split": images.split,
        "limit": config.limit,
        "teacher": teacher.spec,
        "teacher_fingerprint": teacher.fingerprint,
        "student_fingerprint": student.fingerprint,
    } | ({} if config.per_class is None else {"per_class": config.per_class})
    agreed, num_errors = agreements(student, teacher, images, config.view, device)
    sims = {f"sim{n}": _interval(values) for n, values in agreed.items()}
    counts = {"num_images": len(agreed[1]), "num_errors": num_errors}
    result = {**sims, **counts, "data_name": images.name, **settings}
    name = f"similarity-{config_hash(settings)}.json"
    Folder(config.student).write_json(name, result)
    command_line.store(Folder(config.student), f"_command-{name}")
    _track(images.name, config.student, sims, settings, len(agreed[1]))
    return result


def agreements(
    student: Student, teacher: "Teacher", images: ImageSet, view: View, device: str = "cpu"
) -> tuple[dict[int, np.ndarray], int]:
    """Compare both on every image that can be read: n -> agreement, float (N,), and the number unreadable.

    The student is on `device`.
    """
    last = min(MAX_N, teacher.num_ranked or teacher.num_classes)
    agreed: dict[int, list[np.ndarray]] = {n: [] for n in range(1, last + 1)}
    num_read = 0
    with Progress("similarity", len(images.image_ids)) as progress:
        for size, pairs in _batches(images, (teacher.input_size, student.input_size), view):
            if pairs:
                num_read += len(pairs)
                probs = torch.from_numpy(teacher.probabilities(np.stack([a for a, _ in pairs])))
                with torch.inference_mode():
                    logits = student.model(student.normalize(np.stack([b for _, b in pairs])).to(device)).float().cpu()
                for n, found in agreed.items():
                    found.append(sim_n(probs, torch.softmax(logits, dim=1), n).numpy())
            progress.advance(size)
    if num_read == 0:
        raise ValueError(f"none of {len(images.image_ids)} images in {images.root} can be read; check --data")
    joined = {n: np.concatenate(found).astype(np.float64) for n, found in agreed.items()}
    return joined, len(images.image_ids) - num_read


def _batches(
    images: ImageSet, sizes: Sequence[tuple[int, int]], view: View
) -> Iterator[tuple[int, list[tuple[np.ndarray, np.ndarray]]]]:
    for start in range(0, len(images.image_ids), BATCH_IMAGES):
        ids = images.image_ids[start : start + BATCH_IMAGES]
        yield len(ids), [pair for image_id in ids if (pair := _views(images, image_id, sizes, view)) is not None]


def _views(
    images: ImageSet, image_id: str, sizes: Sequence[tuple[int, int]], view: View
) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        image = images.image(image_id)
        first, second = (VIEWS[view](image, size) for size in sizes)
    except (ImageError, FileNotFoundError):
        return None
    return first, second


def _interval(values: np.ndarray) -> dict[str, float]:
    interval = mean_interval(values)
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _track(
    experiment: str, run: str, found: dict[str, dict[str, float]], settings: dict[str, Any], num_images: int
) -> None:
    params, tags = {"student": run, **settings}, {"stage": "similarity"}
    with Tracker(experiment, "similarity", params=params, tags=tags) as tracker:
        tracker.inputs(inputs_of({"data_name": experiment, **settings}))
        tracker.log({f"similarity/{name}": interval["mean"] for name, interval in found.items()})
        tracker.table("similarity", INTERVAL, [[name, *i.values(), num_images] for name, i in found.items()])
