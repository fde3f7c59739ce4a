"""Check a job before any work starts: load what it names, and see that it fits together."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cluster.storage import Folder, as_stored
from distill.data import ImageSet, open_images
from distill.student.checkpoint import check_pair
from distill.student.model import Student
from distill.teachers import load_teacher
from distill.teachers.query_budget import Share
from explain.config import Job
from explain.maps import SCHEMA_VERSION
from explain.methods.registry import Method, find_method
from explain.readout.checkpoint import load_explained, readout_of
from explain.runners.white_box import network_of
from explain.targets import choose_target

if TYPE_CHECKING:
    from distill.teachers import Teacher

DEFAULT_SIZE = (224, 224)
"""Map size (height, width) where no model says one, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked job: everything is loaded and fits together, and nothing has been written."""

    method: Method
    """What runs."""
    images: ImageSet
    """What it runs on."""
    labels: tuple[int | None, ...]
    """One per image, as the model numbers classes."""
    target: str | int | None
    """As `choose_target` returns it."""
    student: Student | None
    """Loaded, where one was given."""
    teacher: "Teacher | None"
    """Loaded, where one was given."""
    config: dict[str, Any]
    """What decides the maps; stored beside them."""

    @property
    def size(self) -> tuple[int, int]:
        """Return the maps' (height, width): the input size of what is explained, else of the other, else 224 x 224."""
        model = self.teacher if self.method.is_query_based else self.student or self.teacher
        return tuple(model.input_size) if model is not None else DEFAULT_SIZE  # pyright: ignore[reportReturnType]

    def shares(self) -> list[Share]:
        """List what the job asks of the black box."""
        number = len(self.images.image_ids)
        found = [Share(what="targets", each=1, number=number)] if self.target == "teacher" else []
        if self.method.budget is not None and self.config.get("explains") != "student":
            each = self.config["options"][self.method.budget]
            found.append(Share(what=self.method.name, each=each, number=number))
        return found


def make_plan(name: str, job: Job) -> Plan:
    """Load what the job names and check that it fits together.

    Raises:
        ValueError: If anything does not; the message says what was got, what is allowed and what to do.
        FileNotFoundError: If the images, the student or the teacher are not there.
    """
    method = find_method(name)
    job.check(method)
    images = open_images(job.data, split=job.split, limit=job.limit, per_class=job.per_class)
    reads = job.needs_readout(method)
    student = None if job.student is None else load_explained(job.student, with_readout=reads)
    teacher = load_teacher(job.teacher) if job.teacher is not None else None
    if student is not None and teacher is not None:
        assert job.student is not None, "it was loaded from there"
        check_pair(job.student, student, teacher)
    model = student or teacher
    num_classes = None if model is None else model.num_classes
    labels = images.labels(num_classes) if num_classes is not None else images.class_ids
    target = choose_target(
        job.target,
        has_student=student is not None,
        has_teacher=teacher is not None,
        labels=labels,
        num_classes=num_classes,
    )
    if method.is_query_based and target == "student":
        raise ValueError(f"method {name!r} asks the black box; its --target is teacher, label, or a class index")
    explained = explained_model(method, student, teacher)
    if explained is not None:
        dry_run(method, asdict(job.options), explained)
    config = {
        "schema_version": SCHEMA_VERSION,
        "method": name,
        "options": as_stored(job.options),
        "data": images.root,
        "data_name": images.name,
        "data_fingerprint": images.fingerprint,
        "split": images.split,
        "limit": job.limit,
        "student": None if job.student is None else Folder(job.student).uri,
        "student_fingerprint": None if student is None else student.fingerprint,
        "teacher": None if teacher is None else teacher.spec,
        "teacher_fingerprint": None if teacher is None else teacher.fingerprint,
        "target": target,
        "seed": job.seed,
    }
    if job.per_class is not None:
        config["per_class"] = job.per_class
    if student is not None and job.needs_readout(method):
        config["readout_fingerprint"] = readout_of(student).fingerprint
    if method.version > 1:
        config["version"] = method.version
    if explained is not None and explained is teacher:
        config["explains"] = "teacher"
    if job.ask == "student":
        config["explains"] = "student"
    if job.precision != "float32":
        config["precision"] = job.precision
    if job.map_cells is not None:
        config["map_cells"] = job.map_cells
    if teacher is not None and teacher.num_ranked is not None:
        config["teacher_ranks"] = teacher.num_ranked
    return Plan(
        method=method,
        images=images,
        labels=labels,
        target=target,
        student=student,
        teacher=teacher,
        config=config,
    )


def explained_model(method: Method, student: Student | None, teacher: "Teacher | None") -> "Student | Teacher | None":
    """Return what the method looks into: the student, else a teacher that is a torch network; None if it needs none.

    Raises:
        ValueError: If it needs one and there is none; or of a torch: archive, the reason why it cannot be looked into.
    """
    if method.explains != "student":
        return None
    if student is not None:
        return student
    assert teacher is not None, "Job.check lets no such job through"
    if teacher.module is None:
        raise ValueError(
            f"method {method.name!r} looks into a network, and teacher {teacher.spec!r} cannot be looked into; "
            "give --student RUN (python -m distill), or a torchvision: or torch: teacher that returns logits"
        )
    return teacher


def dry_run(method: Method, options: dict[str, Any], explained: "Student | Teacher") -> None:
    """Explain one black image, so that an option that does not fit the network fails before any work starts."""
    frame = np.zeros((1, *explained.input_size, 3), dtype=np.uint8)
    seeds = {"seeds": [0]} if method.seeded else {}
    rehearsed = options | {name: 1 for name in ("num_iterations", "num_steps") if name in options}
    target = torch.zeros(1, dtype=torch.long)
    method.load()(network_of(explained), explained.normalize(frame), target, **rehearsed, **seeds)
