"""The job: targets first (once for all methods), then maps, both as Ray Data jobs with one file a shard."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cluster.device import own_device
from cluster.session import WorkerResources, ray_session, worker_resources
from cluster.sharded_job import Summary, make_shards, require_results, run_shards, shard_size
from cluster.storage import Folder
from distill.data.frames import read_frame, without_list
from distill.teachers import load_teacher
from distill.teachers.engines.backends import EngineChoice, has_native_bfloat16
from distill.teachers.query_budget import check_budget
from explain.compiled.select import EAGER, GRAPH_IMAGES, GRAPH_QUERIES, select_engine, with_engine
from explain.config import Job
from explain.maps import SCHEMA_VERSION, maps_table
from explain.methods.registry import METHODS, Method, find_method
from explain.plan import Plan, explained_model, make_plan
from explain.rank_maps import compact
from explain.readout.checkpoint import load_explained
from explain.runners.query import QueryRunner
from explain.runners.query_cache import regroup_responses, response_cache_folder
from explain.runners.white_box import (
    PASS_IMAGES,
    Explainer,
    Explanation,
    ProgressCallback,
    Request,
    explainer_of,
    no_progress,
    passes_over,
)
from explain.seeds import image_seed
from explain.surrogate import logits, make_surrogate
from explain.targets import TargetWorker, read_targets, targets_folder

if TYPE_CHECKING:
    import pyarrow as pa


SHARD_IMAGES = 64
"""One part of 64 maps at 224 px is at most 13 MB: small to redo, large enough for an object store."""

QUERY_SHARD_IMAGES = 8
"""Images a shard of a query-based method, whose maps cost thousands of passes each."""


def explain(name: str, job: Job) -> Summary:
    """Write the maps of method `name` for the whole data set into `job.out`; go on where an earlier start stopped.

    Raises:
        ValueError, FileNotFoundError: As `make_plan`; or the folder holds another configuration's maps.
        WorkError: No image has got a map.
    """
    plan = make_plan(name, job)
    if plan.teacher is not None:
        check_budget(plan.teacher, plan.shares(), job.max_queries)
    choice = engine_for(plan, job)
    folder = Folder(job.out)
    folder.claim(plan.config, what="maps")
    with ray_session():
        resources = worker_resources(job.num_workers)
        items = map_items(plan, job.out, resources)
        config = {
            "stored": plan.config,
            "options": asdict(job.options),
            "images": without_list(plan.images),
            "size": plan.size,
            "batch_size": job.batch_size,
            "engine": asdict(choice),
            "answers": response_cache_folder(job.out, plan.method, plan.config) if plan.method.is_query_based else None,
        }
        image_ids = plan.images.image_ids
        size = shard_size(len(image_ids), QUERY_SHARD_IMAGES if plan.method.is_query_based else SHARD_IMAGES)
        shards = make_shards(items, size)
        if config["answers"] is not None:
            regroup_responses(config["answers"], [image_ids[k : k + size] for k in range(0, len(image_ids), size)])
        summary = run_shards(
            MapWorker,
            config,
            shards,
            folder,
            resources=resources,
            description=name,
            queries="teacher_queries",
            reports=plan.method.explains != "nothing" and not plan.method.static,  # minutes a shard
        )
    if config["answers"] is not None:
        config["answers"].sweep()
    if folder.finished() is None or summary.skipped_rows < summary.rows:
        made = {"schema_version": SCHEMA_VERSION, "num_parts": len(shards), "engine": str(choice)}
        folder.finish({**asdict(summary), **made})
    asked = [targets_folder(job.out, plan.teacher, plan.images)] if plan.teacher and plan.target == "teacher" else []
    require_results(summary, folder, "maps", sources=asked)
    return summary


def engine_for(plan: Plan, job: Job) -> EngineChoice:
    """Return what computes the method here. Raises: ValueError for an engine that cannot."""
    method, queries_student = plan.method, job.queries_student(plan.method)
    if job.precision == "bfloat16":
        return low_precision(method, job)
    if not (method.static or queries_student) and job.engine in ("auto", "eager"):
        return EAGER
    if not (method.static or queries_student):
        graphs = ", ".join(one.name for one in METHODS.values() if one.static)
        raise ValueError(
            f"method {method.name!r} is no static graph for --engine {job.engine}; these are: {graphs}, and a student "
            "that is asked"
        )
    options, number = asdict(job.options), len(plan.images.image_ids)
    few = number < GRAPH_IMAGES
    if queries_student:
        each = options[str(method.budget)]
        few = number * max(each, 0 if job.ask == "student" else options["prior_samples"]) < GRAPH_QUERIES
    if torch.cuda.is_available() or (few and job.engine == "auto"):
        return EAGER
    if queries_student:
        assert plan.student is not None, "Job.check lets no such job through"
        return select_engine(passes_over(plan.student, logits), plan.student, job.engine, name="logits")
    explained = explained_model(method, plan.student, plan.teacher)
    assert explained is not None, "a static method looks into a network"
    return select_engine(explainer_of(method, explained, options), explained, job.engine, name=method.name)


def low_precision(method: Method, job: Job) -> EngineChoice:
    """Return what computes a method in bfloat16. Raises: ValueError where nothing does."""
    is_graph = method.static or job.queries_student(method)
    engine = "openvino" if is_graph else "eager"
    passes = is_graph or (method.explains == "student" and job.student is not None)
    if not passes or job.engine not in ("auto", engine) or torch.cuda.is_available():
        where = f"--engine {job.engine}{' on a GPU' if torch.cuda.is_available() else ''}"
        raise ValueError(
            "--precision bfloat16 is for the student's passes on a CPU: a static graph's, or those of a student that "
            f"is asked, in OpenVINO, others in torch (eager); not for {method.name!r} with {where}; leave it out"
        )
    if not has_native_bfloat16():
        raise ValueError(
            "--precision bfloat16 needs OpenVINO (pip install openvino onnx) and a CPU with such units; leave it out"
        )
    return replace(EAGER, engine=engine, precision="bfloat16")


def map_items(plan: Plan, out: str, resources: WorkerResources) -> Iterator[dict[str, Any]]:
    """Yield one item per image: image_id, label, target, target_prob, error (why it has no target)."""
    targets = stored_targets(plan, out, resources) if plan.target == "teacher" else iter(())
    for image_id, label in zip(plan.images.image_ids, plan.labels, strict=True):
        item = {"image_id": image_id, "label": label, "target": None, "target_prob": None, "error": None}
        if plan.target == "teacher":
            item |= next(targets)
            assert item["image_id"] == image_id, (item["image_id"], image_id)
        elif plan.target == "label":
            item |= {"target": label, "error": "the image has no label" if label is None else None}
        elif isinstance(plan.target, int):
            item["target"] = plan.target
        yield item


def stored_targets(plan: Plan, out: str, resources: WorkerResources) -> Iterator[dict[str, Any]]:
    """Read the teacher's top-1 of each image, in their order; ask the teacher first where it is not stored yet."""
    assert plan.teacher is not None
    folder = targets_folder(out, plan.teacher, plan.images)
    image_ids = plan.images.image_ids
    shards = make_shards(({"image_id": one} for one in image_ids), shard_size(len(image_ids), SHARD_IMAGES))
    if folder.finished() is None:
        config = {"teacher": plan.teacher.spec, "images": without_list(plan.images)}
        summary = run_shards(TargetWorker, config, shards, folder, resources=resources, description="targets")
        folder.finish(asdict(summary))
    return read_targets(folder, [shard.name for shard in shards])


class MapWorker:
    """Make the maps of a shard: read, explain, and keep one row per image whatever happens."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Load the model on this worker's cores or GPU, once."""
        self.config, stored = config, config["stored"]
        self.method = find_method(stored["method"])
        device = own_device()
        make = make_query_runner if self.method.is_query_based else make_explainer
        self.explainer = make(self.method, config, device)

    def __call__(self, items: list[dict[str, Any]], on_progress: ProgressCallback = no_progress) -> "pa.Table":
        """Return one row per item, in their order; the next images are read while some are explained.

        `on_progress` hears how far it is.
        """
        size = math.ceil(self.config["batch_size"] / PASS_IMAGES) * PASS_IMAGES
        rows: list[dict[str, Any]] = []
        with ThreadPoolExecutor(torch.get_num_threads()) as readers:
            read = readers.map(self._read, items)
            for i in range(0, len(items), size):
                batch = items[i : i + size]
                rows += self._rows(batch, list(islice(read, len(batch))), partial(_shifted, on_progress, i))
        return maps_table(rows, self.config["stored"])

    def _rows(
        self, items: Sequence[dict[str, Any]], read: Sequence[Request | str], on_progress: ProgressCallback
    ) -> list[dict[str, Any]]:
        explanations = self.explainer([found if isinstance(found, Request) else None for found in read], on_progress)
        return [
            self._row(item, explanation)
            if isinstance(explanation, Explanation)
            else {**item, "error": explanation or found}
            for item, found, explanation in zip(items, read, explanations, strict=True)
        ]

    def _read(self, item: dict[str, Any]) -> Request | str:
        """Return the image to explain, or why it cannot be."""
        if item["error"] is not None:
            return item["error"]
        frame, error = read_frame(self.config["images"], item["image_id"], self.config["size"])
        if frame is None:
            return str(error)
        seed = image_seed(self.config["stored"]["seed"], item["image_id"], self.method.name)
        return Request(frame=frame, target=item["target"], seed=seed, image_id=item["image_id"])

    def _row(self, item: dict[str, Any], explanation: Explanation) -> dict[str, Any]:
        explained = self.config["stored"].get("explains", self.method.explains)
        row = {
            **item,
            "target": explanation.target,
            "target_prob": item["target_prob"] if explanation.target_prob is None else explanation.target_prob,
            "seconds": explanation.seconds,
            "teacher_queries": explanation.passes if explained == "teacher" else 0,
            "student_passes": explanation.passes if explained == "student" else explanation.prior_passes,
        }
        if not np.isfinite(explanation.saliency).all():
            return {**row, "error": "the map has values that are not finite numbers"}
        cells = self.config["stored"].get("map_cells")
        saliency = explanation.saliency if cells is None else compact(explanation.saliency, cells)
        size = {"map_height": saliency.shape[0], "map_width": saliency.shape[1]}
        return {**row, "saliency": saliency, "saliency_std": None if cells else explanation.std, **size}


def _shifted(on_progress: ProgressCallback, before: int, rows: int, asked: int) -> None:
    """Tell of a batch behind `before` others."""
    on_progress(before + rows, asked)


def make_explainer(method: Method, config: dict[str, Any], device: str) -> Explainer:
    """Load what the method looks into: the student, else a teacher that is a torch network, else nothing."""
    stored = config["stored"]
    student = load_explained(stored["student"], device=device) if stored["student"] is not None else None
    teacher = load_teacher(stored["teacher"], device=device) if stored.get("explains") == "teacher" else None
    explainer = explainer_of(method, student or teacher, config["options"])
    return (
        explainer
        if device == "cuda"
        else with_engine(explainer, EngineChoice(**config["engine"]), tuple(config["size"]))
    )


def make_query_runner(method: Method, config: dict[str, Any], device: str) -> QueryRunner:
    """Load what a query-based method asks: the black box, or the student in its place; and the student as a prior."""
    stored, student = config["stored"], None
    teacher = load_teacher(stored["teacher"], num_threads=torch.get_num_threads(), device=device)
    teacher.caches_responses = False  # thousands for an image: `QueryRunner` keeps the target's probability alone
    queries_student, prior = stored.get("explains") == "student", config["options"].get("prior")
    starts, size = None, None
    if queries_student or prior == "student":
        found = load_explained(stored["student"], device=device)
        student = make_surrogate(found, teacher, EngineChoice(**config["engine"]))
    if prior == "readout":
        read = load_explained(stored["student"], device=device)
        starts, size = explainer_of(find_method("readout"), read, {}), read.input_size
    return QueryRunner(
        function=method.load_with_std(),
        teacher=student if queries_student and student is not None else teacher,
        student=None if queries_student else student,
        starts=starts,
        student_size=size,
        folder=config["answers"],
        options=config["options"],
        device=device,
    )
