"""Plan of an explain job: everything that the job names is opened and checked before any work starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.storage import Folder, as_stored
from distill.data import ImageSet, open_images
from distill.data.frames import read_frame
from distill.student.checkpoint import check_pair
from distill.student.model import Student
from distill.teachers import load_teacher
from distill.teachers.query_budget import Share
from explain.config import Job
from explain.maps import SCHEMA_VERSION
from explain.methods.registry import Method, find_method
from explain.readout.checkpoint import load_explained, readout_of
from explain.runners.white_box import Explainer, explainer_of

if TYPE_CHECKING:
    from distill.teachers import Teacher

DEFAULT_SIZE = (224, 224)
"""Map size (height, width) where no model has an input size, in pixels."""
TARGETS = "teacher, student, label, or a class index"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Checked job: everything is open and fits together, and nothing has been written."""

    job: Job
    """Options of the command."""
    method: Method
    """Method that computes the maps."""
    folder: Folder
    """Where the maps go."""
    images: ImageSet
    """Images to explain."""
    labels: tuple[int | None, ...]
    """Label of each image, as the model numbers classes."""
    target: str | int | None
    """Class to explain, as `choose_target` returns it."""
    student: Student | None
    """The student, where one was given."""
    teacher: "Teacher | None"
    """The black box, where one was given."""
    config: dict[str, Any]
    """Everything that decides the maps; stored beside them."""
    size: tuple[int, int]
    """Height and width of the images, and mostly of the maps: the input size of the model."""
    queries_student: bool = False
    """Whether the student is queried, as a surrogate of the black box or for a prior."""
    explained: "Student | Teacher | None" = None
    """Network that a white-box method looks into."""
    explainer: Explainer | None = None
    """The method over that network, in torch."""

    def shares(self) -> list[Share]:
        """List the queries of the job to the black box."""
        number = len(self.images.image_ids)
        shares = [Share(what="targets", each=1, number=number)] if self.target == "teacher" else []
        if self.method.budget is not None and self.config.get("explains") != "student":
            each = self.config["options"][self.method.budget]
            shares.append(Share(what=self.method.name, each=each, number=number))
        return shares

    def describe_images(self) -> str:
        """Say in one line what is explained: number of images, classes, split, and how labels are matched."""
        model = self.teacher or self.student
        if model is None:
            return self.images.describe()
        return self.images.describe(model.num_classes, model.class_names)

    def is_readable(self, image_id: str) -> bool:
        """Tell whether an image can be read now."""
        return read_frame(self.images, image_id, self.size)[0] is not None


def make_plan(name: str, job: Job) -> Plan:
    """Load what the job names and check that it fits together.

    Raises:
        ValueError: If anything does not; the message says what was got, what is allowed and what to do.
        FileNotFoundError: If the images, the student or the teacher are not there.
    """
    method = find_method(name)
    job.check(method)
    images = open_images(job.data, split=job.split, limit=job.limit, per_class=job.per_class)
    reads, queries_student = job.needs_readout(method), job.queries_student(method)
    student = None if job.student is None else load_explained(job.student, with_readout=reads)
    teacher = load_teacher(job.teacher) if job.teacher is not None else None
    if student is not None and teacher is not None:
        assert job.student is not None, "it was loaded from there"
        check_pair(job.student, student, teacher)
    model = teacher or student
    labels = images.class_ids if model is None else images.labels(model.num_classes, model.class_names)
    target = choose_target(
        job.target,
        has_student=student is not None,
        has_teacher=teacher is not None,
        labels=labels,
        num_classes=None if model is None else model.num_classes,
    )
    explained = explained_model(method, student, teacher)
    explainer = None
    if explained is not None:
        explainer = explainer_of(method, explained, job.options)
        explainer.dry_run(explained.input_size)
    shown_to = teacher if method.explains == "teacher" else student or teacher
    return Plan(
        job=job,
        method=method,
        folder=Folder(job.out),
        images=images,
        labels=labels,
        target=target,
        student=student,
        teacher=teacher,
        config=_stored_config(job, method, images, target, student=student, teacher=teacher),
        size=DEFAULT_SIZE if shown_to is None else tuple(shown_to.input_size),  # pyright: ignore[reportArgumentType]
        queries_student=queries_student,
        explained=explained,
        explainer=explainer,
    )


def _stored_config(
    job: Job,
    method: Method,
    images: ImageSet,
    target: str | int | None,
    *,
    student: Student | None,
    teacher: "Teacher | None",
) -> dict[str, Any]:
    """Describe everything that decides the maps; a key for what is not the default is left out where it is."""
    config = {
        "schema_version": SCHEMA_VERSION,
        "method": method.name,
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
    if method.explains == "student" and student is None:
        config["explains"] = "teacher"
    if job.ask == "student":
        config["explains"] = "student"
    if job.precision != "float32":
        config["precision"] = job.precision
    if job.map_cells is not None:
        config["map_cells"] = job.map_cells
    if teacher is not None and teacher.num_ranked is not None:
        config["teacher_ranks"] = teacher.num_ranked
    return config


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
        raise ValueError(f"target {target!r} needs --{target}; or give another --target: {TARGETS}")
    if target == "label" and all(label is None for label in labels):
        raise ValueError(f"target 'label', but the images have no labels (no class folders); targets: {TARGETS}")
    if target in ("teacher", "student", "label"):
        return target
    if not target.isdecimal():
        raise ValueError(f"unknown target {target!r}; targets: {TARGETS}")
    if num_classes is not None and int(target) >= num_classes:
        raise ValueError(f"target {target} is not a class of the model; classes: 0..{num_classes - 1}")
    return int(target)


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
