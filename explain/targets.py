"""Which class each image's map explains; the teacher's top-1 is asked for once and stored for every method."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.parquet import read_parquet
from cluster.storage import Folder
from distill.data import ImageSet
from distill.data.frames import read_frame
from distill.teachers import RefusedImageError, load_teacher

if TYPE_CHECKING:
    import pyarrow as pa

    from distill.teachers import Teacher

SPECS = "teacher, student, label, or a class index"


def choose_target(
    target: str | None, *, has_student: bool, has_teacher: bool, labels: Sequence[int | None], num_classes: int | None
) -> str | int | None:
    """Check what --target says and fill in its default.

    Args:
        target: "teacher", "student" (their top-1), "label", a class index in digits, or None: the teacher's top-1
            where there is a teacher, else the student's, else no target.
        has_student: Whether a student was given.
        has_teacher: Whether a teacher was given.
        labels: The images' labels.
        num_classes: Number of the model's classes, where there is a model.

    Raises:
        ValueError: If nothing can answer, or for an index that is no class.
    """
    if target is None:
        return "teacher" if has_teacher else "student" if has_student else None
    if (target, has_teacher) == ("teacher", False) or (target, has_student) == ("student", False):
        raise ValueError(f"target {target!r} needs --{target}; or give another --target: {SPECS}")
    if target == "label" and all(label is None for label in labels):
        raise ValueError(f"target 'label', but the images have no labels (no class folders); targets: {SPECS}")
    if target in ("teacher", "student", "label"):
        return target
    if not target.isdecimal():
        raise ValueError(f"unknown target {target!r}; targets: {SPECS}")
    if num_classes is not None and int(target) >= num_classes:
        raise ValueError(f"target {target} is not a class of the model; classes: 0..{num_classes - 1}")
    return int(target)


def targets_folder(out: str, teacher: "Teacher", images: ImageSet) -> Folder:
    """Return the folder beside the maps for this teacher's top-1 of these images, and claim it."""
    folder = Folder(out).beside(f"targets-{teacher.fingerprint}-{images.fingerprint}")
    config = {
        "teacher": teacher.spec,
        "teacher_fingerprint": teacher.fingerprint,
        "data": images.root,
        "data_fingerprint": images.fingerprint,
    }
    folder.claim(config, what="targets")
    return folder


class TargetWorker:
    """Ask the teacher for its top-1 of each image, whole and resized to the teacher's input size."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Load the teacher on this worker's cores or GPU. `config`: teacher (KIND:WHERE), images (an ImageSet)."""
        import torch

        from cluster.device import own_device

        self.images: ImageSet = config["images"]
        device = own_device()
        self.teacher = load_teacher(config["teacher"], num_threads=torch.get_num_threads(), device=device)

    def __call__(self, items: list[dict[str, Any]]) -> "pa.Table":
        """Return one row per item: image_id, target, target_prob, error."""
        import pyarrow as pa

        read = [read_frame(self.images, item["image_id"], self.teacher.input_size) for item in items]
        frames = [frame for frame, _ in read if frame is not None]
        answers = iter(responses_or_errors(self.teacher, frames))
        rows = [
            {"image_id": item["image_id"], **_target(error if frame is None else next(answers))}
            for item, (frame, error) in zip(items, read, strict=True)
        ]
        schema = pa.schema(
            {"image_id": pa.string(), "target": pa.int32(), "target_prob": pa.float32(), "error": pa.string()}
        )
        return pa.Table.from_pylist(rows, schema=schema)


def responses_or_errors(teacher: "Teacher", frames: Sequence[np.ndarray]) -> list[np.ndarray | str]:
    """Return each frame's probabilities, (K,), or the error that the teacher has with it alone.

    Raises:
        TeacherError: the teacher fails on every image.
    """
    try:
        return list(teacher.probabilities(np.stack(frames))) if frames else []
    except RefusedImageError as error:
        if len(frames) == 1:
            return [str(error)]
        return [answer for frame in frames for answer in responses_or_errors(teacher, [frame])]


def _target(answer: np.ndarray | str | None) -> dict[str, Any]:
    return top_class(answer) if isinstance(answer, np.ndarray) else {"error": answer}


def top_class(probs: np.ndarray) -> dict[str, Any]:
    """Return the class with the highest probability (the first of equals) and that probability."""
    target = int(probs.argmax())
    return {"target": target, "target_prob": float(probs[target])}


def read_targets(folder: Folder, parts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Read stored targets part by part: image_id, target, target_prob and error of each image, in their order."""
    for part in parts:
        yield from read_parquet(folder, f"{part}.parquet").to_pylist()
