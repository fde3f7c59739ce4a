"""Worker of an explain job: reads the images of a shard, explains them, and returns one row per image.

A worker loads the models that the job was checked with, or ends the job: files may be replaced while Ray starts. What
computed a part (engine, precision, device) is the worker's own word, and is stored in the part.
"""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from cluster.device import own_device
from cluster.storage import Folder
from distill.data import ImageSet
from distill.data.frames import read_frame
from distill.student.model import Student
from distill.teachers import load_teacher
from distill.teachers.engines.backends import EngineChoice
from explain.compiled.select import EAGER, with_engine
from explain.maps import explanation_row, maps_table
from explain.methods.registry import Method, find_method
from explain.readout.checkpoint import load_explained
from explain.runners.query import QueryRunner
from explain.runners.white_box import PASS_IMAGES, Explainer, ProgressCallback, Request, explainer_of, no_progress
from explain.seeds import image_seed
from explain.surrogate import make_surrogate

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class MapTask:
    """Work of every worker of an explain job; small, because each gets a copy."""

    method: Method
    """Method that computes the maps."""
    options: Any
    """Its options."""
    config: Mapping[str, Any]
    """Configuration of the maps as stored, with the fingerprints of the models."""
    images: ImageSet
    """Images, read by their ids; without their list."""
    size: tuple[int, int]
    """Height and width at which images are read."""
    batch_size: int
    """Images that a worker holds at once."""
    engine: EngineChoice = EAGER
    """What computes a network's passes on a CPU."""
    responses: Folder | None = None
    """Response cache of a query-based method."""


class MapWorker:
    """Compute the maps of a shard: every image gets a row, with a map or with the reason why it has none."""

    def __init__(self, task: MapTask) -> None:
        """Load the models on this worker's cores or GPU, once.

        Raises:
            WorkError: If one of them is not the model that the job was checked with.
        """
        self.task = task
        open_runner = open_query_runner if task.method.is_query_based else open_explainer
        self.runner, self.computed_by = open_runner(task, own_device())

    def __call__(self, items: list[dict[str, Any]], on_progress: ProgressCallback = no_progress) -> "pa.Table":
        """Return one row per item, in their order; the next images are read while some are explained.

        `on_progress` gets the number of images done and of queries for them.
        """
        task, rows = self.task, []
        size = math.ceil(task.batch_size / PASS_IMAGES) * PASS_IMAGES
        with ThreadPoolExecutor(torch.get_num_threads()) as readers:
            reading = readers.map(self._read, items)
            for start in range(0, len(items), size):
                batch = items[start : start + size]
                requests = list(islice(reading, len(batch)))
                valid = [request if isinstance(request, Request) else None for request in requests]
                explanations = self.runner(valid, on_progress, start)
                for item, request, explanation in zip(batch, requests, explanations, strict=True):
                    outcome = request if isinstance(request, str) else explanation
                    assert outcome is not None, "a request is explained or refused"
                    rows.append(explanation_row(item, outcome, task.method, task.config))
        return maps_table(rows, task.config, self.computed_by)

    def _read(self, item: dict[str, Any]) -> Request | str:
        """Return the image to explain, or the reason why it cannot be explained."""
        if item["error"] is not None:
            return item["error"]
        task = self.task
        frame, error = read_frame(task.images, item["image_id"], task.size)
        if frame is None:
            return str(error)
        seed = image_seed(task.config["seed"], item["image_id"], task.method.name)
        return Request(frame=frame, target=item["target"], seed=seed, image_id=item["image_id"])


def open_explainer(task: MapTask, device: str) -> tuple[Explainer, dict[str, str]]:
    """Load the network that is explained: the student, else a teacher that is a torch network, else none.

    Returns:
        What explains images, and what it computes on: engine with precision, and device.
    """
    config, explained = task.config, None
    if config["student"] is not None:
        explained = _open_student(task, device)
    elif config.get("explains") == "teacher":
        expected = config.get("teacher_fingerprint")
        explained = load_teacher(config["teacher"], device=device, expected_fingerprint=expected)
    explainer = explainer_of(task.method, explained, task.options)
    if explained is None:
        return explainer, {"engine": str(EAGER), "device": "cpu"}
    if device == "cpu" and task.engine != EAGER:
        return with_engine(explainer, task.engine, task.size), {"engine": str(task.engine), "device": device}
    return explainer, {"engine": str(EAGER), "device": device}


def open_query_runner(task: MapTask, device: str) -> tuple[QueryRunner, dict[str, str]]:
    """Load the model that is queried: the black box, or the student as its surrogate; and the student for a prior.

    Returns:
        As `open_explainer`.
    """
    config, prior = task.config, getattr(task.options, "prior", "none")
    teacher = load_teacher(
        config["teacher"],
        num_threads=torch.get_num_threads(),
        device=device,
        expected_fingerprint=config.get("teacher_fingerprint"),
    )
    teacher.caches_responses = False  # thousands for an image: `QueryRunner` keeps the target's probability alone
    queried, surrogate, readout = teacher, None, None
    student = _open_student(task, device) if config.get("explains") == "student" or prior != "none" else None
    if student is not None and prior == "readout":
        readout = explainer_of(find_method("readout"), student)
    elif student is not None:
        surrogate = make_surrogate(student, teacher, task.engine)
    if config.get("explains") == "student" and surrogate is not None:
        queried, surrogate = surrogate, None
    runner = QueryRunner(
        function=partial(task.method.load_with_std(), options=task.options),
        teacher=queried,
        student=surrogate,
        readout=readout,
        student_size=None if student is None else student.input_size,
        folder=task.responses,
        device=device,
    )
    engine = teacher.engine if queried is teacher else str(task.engine if device == "cpu" else EAGER)
    return runner, {"engine": engine, "device": queried.device}


def _open_student(task: MapTask, device: str) -> Student:
    config = task.config
    return load_explained(
        config["student"],
        device=device,
        with_readout="readout_fingerprint" in config,
        expected_fingerprint=config.get("student_fingerprint"),
        expected_readout=config.get("readout_fingerprint"),
    )
