"""The sanity checks as a Ray Data job: images in, one row per image, method, check and stage out.

Each row compares the intact student's map of the black box's top-1 with one that should be another: of a student whose
parameters were redrawn, of the black box's second choice, or of another student.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cluster.device import own_device
from cluster.sharded_job import RowCounts
from cluster.storage import Folder, as_stored
from distill.data import ImageSet, open_images
from distill.data.frames import read_frame, without_image_ids
from distill.student.checkpoint import check_pair
from distill.student.model import ResCBAM, Student
from distill.teachers import load_teacher
from distill.teachers.query_budget import Share, check_budget
from evaluate.config import SanityConfig
from evaluate.jobs import Job, JobResult, computed_by, load_worker_teacher, provenance, run_job
from evaluate.metrics.settings import settings_hash
from evaluate.sanity.checks import STAGES, cascade, rank_correlations, scaled, untrained
from evaluate.sanity.schema import SCHEMA_VERSION, sanity_schema
from evaluate.sanity.summary import CheckSummary, summarize_checks, track_checks
from explain.methods.registry import METHODS, Method, find_method
from explain.readout.checkpoint import has_readout, load_explained, readout_of
from explain.runners.white_box import PASS_IMAGES, Explanation, Request, explainer_of
from explain.seeds import image_seed
from explain.targets import responses_or_errors

SHARD_IMAGES = PASS_IMAGES  # they share a draw of parameters, and so their passes; ten methods make 90 maps an image
Pair = tuple[str, str | None]  # check, and the stage of "randomised"
# What decides the numbers and is no option.
CONSTANTS = {
    "target": "the black box's top-1 on the whole image; wrong class: its second choice",
    "redrawn": "parameters and batch norm statistics as in a new student, from the top down, added up: "
    f"{', '.join(STAGES)}; drawn anew for every {SHARD_IMAGES} images",
    "rank_correlation": "Spearman over pixels, at the student's input size",
    "ssim": "Wang et al. 2004: Gaussian of sigma 1.5 over 11 x 11 pixels, maps min-max scaled to [0, 1]",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SanityWork:
    """Argument of every worker of a job of sanity checks."""

    stored: dict[str, Any]
    """Configuration that the folder keeps."""
    images: ImageSet
    """Data set, without its list of images."""
    readouts: tuple[str | None, str | None]
    """Fingerprints of the read-outs of the student and of the other one; None where no method needs them."""


def check_maps(config: SanityConfig) -> JobResult[CheckSummary]:
    """Check the maps that explain a student, and write the similarities; go on where a start stopped.

    Raises:
        ValueError: anything does not fit together, before any work starts.
        FileNotFoundError: images, teacher or a student are missing.
    """
    named, run = config.methods, config.student
    methods = [method for method in check_methods(named) if named or not method.needs_readout or has_readout(run)]
    teacher, student = load_teacher(config.teacher), load_explained(run, with_readout=_needs_readout(methods))
    check_pair(config.student, student, teacher)
    if student.shuffled:
        raise ValueError(f"student {config.student} was trained on permuted labels; give it as --other-student")
    other = None if config.other_student is None else load_other(config.other_student, student, methods)
    if teacher.num_ranked == 1 and any(method.class_specific for method in methods):
        raise ValueError(
            f"teacher {teacher.spec!r} names one class and no second choice, so that there is no wrong class to "
            "explain; check methods whose maps are of no class (--methods matt)"
        )
    images = open_images(config.data, split=config.split, limit=config.limit, per_class=config.per_class)
    check_budget(teacher, [Share(what="sanity", each=1, number=len(images.image_ids))], config.max_queries)
    settings = {"seed": config.seed, **CONSTANTS}
    stored = {
        "schema_version": SCHEMA_VERSION,
        "methods": {method.name: as_stored(method.options()) for method in methods},
        **settings,
        "protocol_hash": settings_hash(settings),
        **provenance(teacher, images, config),
        "student": Folder(config.student).uri,
        "student_fingerprint": student.fingerprint,
        "other_student": None if config.other_student is None else Folder(config.other_student).uri,
        "other_student_fingerprint": None if other is None else other.fingerprint,
    }

    def finalize(folder: Folder) -> list[CheckSummary]:
        summaries = summarize_checks(folder)
        track_checks(folder, images.name, summaries, stored)
        return summaries

    readouts = _readout(student, methods), _readout(other, methods)
    job = Job(
        name="sanity",
        rows="sanity checks",
        worker=SanityWorker,
        work=SanityWork(stored=stored, images=without_image_ids(images), readouts=readouts),
        images=images,
        items=({"image_id": image_id, "draw": k // SHARD_IMAGES} for k, image_id in enumerate(images.image_ids)),
        shard_items=SHARD_IMAGES,
        counts=RowCounts(per_item=sum(len(pairs(method, other=other is not None)) for method in methods)),
        finalize=finalize,
    )
    return run_job(job, config)


def _readout(student: Student | None, methods: Sequence[Method]) -> str | None:
    """Return the fingerprint of a student's read-out, where a method needs it."""
    return readout_of(student).fingerprint if student is not None and _needs_readout(methods) else None


def check_methods(names: Sequence[str]) -> list[Method]:
    """Return the methods, each once; without names all that explain a student. Raises: ValueError."""
    students = [method for method in METHODS.values() if method.explains == "student"]
    for name in names:
        if find_method(name).explains != "student":
            raise ValueError(
                f"method {name!r} does not look into the student, so nothing here can change its map; "
                f"choose from {', '.join(method.name for method in students)}"
            )
    return [method for method in students if method.name in names or not names]


def _needs_readout(methods: Sequence[Method]) -> bool:
    return any(method.needs_readout for method in methods)


def load_other(run: str, student: Student, methods: Sequence[Method]) -> Student:
    """Load the student to compare with. Raises: ValueError where its maps cannot be held against the first one's."""
    other = load_explained(run, with_readout=_needs_readout(methods))
    for name in ("num_classes", "input_size"):
        mine, its = getattr(student, name), getattr(other, name)
        if mine != its:
            raise ValueError(
                f"--other-student {run} has {name} {its}, --student {mine}: their maps cannot be compared; "
                "give one that was distilled by the same recipe"
            )
    if other.fingerprint == student.fingerprint:
        raise ValueError(f"--other-student {run} is --student itself; give another one")
    return other


def pairs(method: Method, *, other: bool) -> list[Pair]:
    """List the checks of a method, and the stages, in the order of their rows.

    Args:
        method: one that explains a student; where it says nothing of a class, there is no wrong one.
        other: whether there is another student.
    """
    found: list[Pair] = [("randomised", stage) for stage in STAGES]
    if method.class_specific:
        found.append(("wrong_class", None))
    return [*found, ("other_student", None)] if other else found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """One image to check, or why it cannot be."""

    image_id: str
    """Its id."""
    frame: np.ndarray | None = None
    """uint8 (H, W, 3) at the student's input size."""
    classes: tuple[int, ...] = ()
    """The black box's first and second choice; the first alone where it has no other class."""
    error: str | None = None
    """Why there is no frame."""

    def request(self, place: int, seed: int) -> Request | None:
        """Ask for the map of the black box's choice number `place`; None where there is none."""
        if self.frame is None or place >= len(self.classes):
            return None
        return Request(frame=self.frame, target=self.classes[place], seed=seed, image_id=self.image_id)


class SanityWorker:
    """Check the maps of a shard's images; whatever happens to one, it keeps all its rows."""

    def __init__(self, work: SanityWork) -> None:
        """Load the models on this worker's cores or GPU, once."""
        self.stored, self.images = work.stored, work.images
        self.num_threads = 1 if torch.cuda.is_available() else torch.get_num_threads()
        self.teacher = load_worker_teacher(self.stored)
        self.schema = sanity_schema(self.stored, computed_by(self.teacher))
        self.methods = [METHODS[name] for name in self.stored["methods"]]
        readout, other_readout = work.readouts
        self.student = self._load("student", readout)
        self.other = None if self.stored["other_student"] is None else self._load("other_student", other_readout)

    def _load(self, name: str, readout: str | None) -> Student:
        return load_explained(
            self.stored[name],
            device=own_device(),
            with_readout=_needs_readout(self.methods),
            expected_fingerprint=self.stored[f"{name}_fingerprint"],
            expected_readout=readout,
        )

    def __call__(self, items: list[dict[str, Any]]) -> pa.Table:
        """Return, for each item in order, each method's rows in the order of `pairs`."""
        (draw,) = {item["draw"] for item in items}
        subjects = self._subjects([item["image_id"] for item in items])
        compared = {("wrong_class", None): self.student, ("other_student", None): self.other, **self._redrawn(draw)}
        columns = [rows for method in self.methods for rows in self._columns(method, compared, subjects)]
        rows = [{**row, "draw": draw} for of_one in zip(*columns, strict=True) for row in of_one]
        return pa.Table.from_pylist(rows, schema=self.schema)

    def _redrawn(self, draw: int) -> dict[Pair, Student]:
        """Make the students whose stages are redrawn, the top one first; the intact ones share their weights."""
        student, seed = self.student, self.stored["seed"]
        fresh = untrained(lambda: ResCBAM(student.depth, student.num_classes), seed=seed, draw=draw)
        fresh.to(device=student.model.fc.weight.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        stages = cascade(student.model, fresh)
        return {("randomised", stage): dataclasses.replace(student, model=model) for stage, model in stages}

    def _subjects(self, image_ids: Sequence[str]) -> list[Subject]:
        seen = [read_frame(self.images, image_id, self.teacher.input_size) for image_id in image_ids]
        frames = [frame for frame, _ in seen if frame is not None]
        answers = iter(responses_or_errors(self.teacher, frames))
        return [
            self._subject(image_id, error if frame is None else next(answers))
            for image_id, (frame, error) in zip(image_ids, seen, strict=True)
        ]

    def _subject(self, image_id: str, answer: np.ndarray | str | None) -> Subject:
        if not isinstance(answer, np.ndarray):
            return Subject(image_id=image_id, error=answer)
        frame, error = read_frame(self.images, image_id, self.student.input_size)
        classes = tuple(np.argsort(-answer, kind="stable")[:2].tolist())  # the first of equals, as `top_class`
        return Subject(image_id=image_id, frame=frame, classes=classes, error=error)

    def _columns(
        self, method: Method, compared: Mapping[Pair, Student | None], subjects: Sequence[Subject]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield, for each check and stage of a method, a row per subject."""
        wanted = pairs(method, other=self.other is not None)
        asked = [(self.student, 0), *((compared[pair], int(pair[0] == "wrong_class")) for pair in wanted)]
        with ThreadPoolExecutor(self.num_threads) as pool:
            intact, *made = pool.map(lambda one: self._explain(method, subjects, *one), asked)
        for (check, stage), answers in zip(wanted, made, strict=True):
            same = {"method": method.name, "check": check, "stage": stage}
            same["protocol_hash"] = self.stored["protocol_hash"]
            yield [{**same, **_row(*found)} for found in zip(subjects, intact, answers, strict=True)]

    def _explain(
        self, method: Method, subjects: Sequence[Subject], student: Student | None, place: int
    ) -> list[Explanation | None]:
        """Map the black box's choice number `place` of each image: one pass, as a shard is no larger."""
        assert student is not None, "pairs names another student only where there is one"
        seeds = [image_seed(self.stored["seed"], subject.image_id, method.name) for subject in subjects]
        requests = [subject.request(place, seed) for subject, seed in zip(subjects, seeds, strict=True)]
        options = method.read_options(self.stored["methods"][method.name])
        explainer = explainer_of(method, student, options)
        return dataclasses.replace(explainer, num_threads=1)(requests)


def _row(subject: Subject, intact: Explanation | None, compared: Explanation | None) -> dict[str, Any]:
    """Compare two maps of an image: everything in its row that is not of the check."""
    row: dict[str, Any] = {"image_id": subject.image_id, "target": subject.classes[0] if subject.classes else None}
    if intact is None or compared is None:
        return {**row, "error": subject.error or "the black box has no second class"}
    row["compared_target"] = compared.target
    row |= {"student_passes": compared.passes, "seconds": compared.seconds}
    try:
        return {**row, **similarities(intact.saliency, compared.saliency)}
    except ValueError as error:
        return {**row, "error": str(error)}


def similarities(intact: np.ndarray, compared: np.ndarray) -> dict[str, float]:
    """Compare two maps by the checks' three similarities. Raises: ValueError where one has no order."""
    from skimage.metrics import structural_similarity

    for whose, saliency in (("intact student's", intact), ("compared", compared)):
        if not np.isfinite(saliency).all():
            raise ValueError(f"the {whose} map holds values that are not finite")
        if np.ptp(np.abs(saliency)) == 0:
            raise ValueError(f"the {whose} map is constant: it ranks no pixels")
    signed, absolute = rank_correlations(intact, compared)
    found: Any = structural_similarity(
        scaled(intact), scaled(compared), data_range=1, gaussian_weights=True, use_sample_covariance=False
    )
    return {"rank_correlation": signed, "rank_correlation_absolute": absolute, "ssim": float(found)}
