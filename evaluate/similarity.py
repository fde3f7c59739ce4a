"""Sim N of a student and its teacher over a data set, with bootstrap intervals (the paper's Table 1)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

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
from evaluate.statistics import mean_interval

if TYPE_CHECKING:
    from distill.teachers import Teacher

View = Literal["centre_crop", "resize"]
VIEWS = {"centre_crop": center_crop, "resize": resize}
MAX_N = 5
BATCH_IMAGES = 32


def measure(
    run: str,
    *,
    teacher: str,
    data: str,
    split: str | None = None,
    limit: int | None = None,
    per_class: int | None = None,
    view: View = "centre_crop",
    max_queries: int | None = None,
) -> dict[str, Any]:
    """Measure Sim 1 to 5, store them as JSON in the student's folder and log an MLflow run.

    Args:
        run: the student's folder, `--out` of `python -m distill`.
        teacher: the black box, KIND:WHERE.
        data: folder or URI of images.
        split: part of the data set.
        limit: take only the first so many images.
        per_class: take only the first so many images of each class.
        view: what both models see, each at its own input size.
        max_queries: refuse to ask the teacher more often than this.

    Returns:
        sim1 ... sim5 (each mean, low, high; fewer for fewer classes), num_images, num_errors and the
        settings.

    Raises:
        ValueError: the student was made for another teacher, or no image can be read.
        FileNotFoundError: the student, the teacher or the images are missing.
    """
    images = open_images(data, split=split, limit=limit, per_class=per_class)
    device = own_device()
    student, judge = load_student(run, device=device), load_teacher(teacher, device=device)
    check_pair(run, student, judge)
    check_budget(judge, [Share(what="similarity", each=1, number=len(images.image_ids))], max_queries)
    settings = {
        "view": view,
        "data": images.root,
        "data_fingerprint": images.fingerprint,
        "split": images.split,
        "limit": limit,
        "teacher": judge.spec,
        "teacher_fingerprint": judge.fingerprint,
        "student_fingerprint": student.fingerprint,
    } | ({} if per_class is None else {"per_class": per_class})
    agreed, num_errors = agreements(student, judge, images, view, device)
    found = {f"sim{n}": _interval(values) for n, values in agreed.items()}
    counts = {"num_images": len(agreed[1]), "num_errors": num_errors}
    result = {**found, **counts, "data_name": images.name, **settings}
    Folder(run).write_json(f"similarity-{config_hash(settings)}.json", result)
    _track(images.name, run, found, settings, len(agreed[1]))
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
    with Tracker(
        experiment, "similarity", params={"student": run, **settings}, tags={"stage": "similarity"}
    ) as tracker:
        metrics = {name: interval["mean"] for name, interval in found.items()}
        if num_images > 1:
            metrics |= {f"{name}_{end}": i[end] for name, i in found.items() for end in ("low", "high")}
        tracker.log({**metrics, "num_images": num_images})
