"""Explain job: targets first (once for all methods), then maps, both as Ray Data jobs with one file a shard."""

import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch

from cluster.parquet import read_computed_by
from cluster.session import WorkerResources, ray_session, worker_resources
from cluster.sharded_job import RowCounts, Summary, make_shards, require_results, run_shards, shard_size
from distill.data.frames import without_image_ids
from distill.data.versions import delete_results, update_versions
from distill.teachers.engines.backends import EngineChoice, has_native_bfloat16
from distill.teachers.query_budget import check_budget
from explain.compiled.select import EAGER, GRAPH_IMAGES, GRAPH_QUERIES, select_engine
from explain.config import Job
from explain.maps import SCHEMA_VERSION, mendable_errors
from explain.methods.registry import METHODS
from explain.plan import Plan, make_plan
from explain.runners.query_cache import open_responses
from explain.runners.white_box import passes_over
from explain.surrogate import logits
from explain.targets import stored_targets, targets_folder
from explain.worker import MapTask, MapWorker

SHARD_IMAGES = 64
"""Images of a shard. A part of 64 maps at 224 px is at most 13 MB: small to redo, large enough for an object store."""

QUERY_SHARD_IMAGES = 8
"""Images of a shard of a query-based method, whose maps cost thousands of passes each."""


def explain(name: str, job: Job) -> Summary:
    """Write the maps of method `name` for the whole data set into `job.out`; go on where an earlier start stopped.

    Raises:
        ValueError, FileNotFoundError: As `make_plan`; or the folder holds another configuration's maps.
        WorkError: No image has got a map, or a worker finds another model than the job was checked with.
    """
    plan = make_plan(name, job)
    print(plan.describe_images(), file=sys.stderr)
    if plan.teacher is not None:
        check_budget(plan.teacher, plan.shares(), job.max_queries)
    engine = engine_for(plan)
    folder, method = plan.folder, plan.method
    folder.claim(plan.config, what="maps")
    changed = update_versions(folder, plan.images, whole_parts=True)
    if changed:
        print(
            f"{len(changed)} images have changed since their maps were made; they are explained again", file=sys.stderr
        )
    size = shard_size(len(plan.images.image_ids), QUERY_SHARD_IMAGES if method.is_query_based else SHARD_IMAGES)
    responses = open_responses(plan, size) if method.is_query_based else None
    with ray_session(math.ceil(len(plan.images.image_ids) / size)):
        resources = worker_resources(job.num_workers)
        shards = make_shards(map_items(plan, resources), size)
        summary = run_shards(
            MapWorker,
            MapTask(
                method=method,
                options=job.options,
                config=plan.config,
                images=without_image_ids(plan.images),
                size=plan.size,
                batch_size=job.batch_size,
                engine=engine,
                responses=responses,
            ),
            shards,
            folder,
            resources=resources,
            description=name,
            counts=RowCounts(queries="teacher_queries"),
            reports=method.explains != "nothing" and not method.static,  # minutes a shard
        )
    if responses is not None:
        responses.sweep()
    if folder.finished() is None or summary.skipped_rows < summary.rows:
        made = {"schema_version": SCHEMA_VERSION, "num_parts": len(shards), **read_computed_by(folder)}
        folder.finish({**asdict(summary), **made})
    sources = [targets_folder(folder, plan.teacher, plan.images)] if plan.teacher and plan.target == "teacher" else []
    require_results(summary, folder, "maps", sources=sources)
    return summary


def engine_for(plan: Plan) -> EngineChoice:
    """Choose what computes the network's passes. Raises: ValueError for an engine or precision that cannot."""
    method, job = plan.method, plan.job
    is_graph = method.static or plan.queries_student
    if job.precision == "bfloat16":
        return _low_precision(plan, is_graph=is_graph)
    if not is_graph and job.engine in ("auto", "eager"):
        return EAGER
    if not is_graph:
        graphs = ", ".join(one.name for one in METHODS.values() if one.static)
        raise ValueError(
            f"method {method.name!r} is no static graph for --engine {job.engine}; these are: {graphs}, and a student "
            "that is queried"
        )
    few = len(plan.images.image_ids) < GRAPH_IMAGES
    if plan.queries_student:
        each = max(getattr(job.options, str(method.budget)), 0 if job.ask == "student" else job.options.prior_samples)
        few = len(plan.images.image_ids) * each < GRAPH_QUERIES
    if torch.cuda.is_available() or (few and job.engine == "auto"):
        return EAGER
    if plan.queries_student:
        assert plan.student is not None, "Job.check lets no such job through"
        return select_engine(passes_over(plan.student, logits), plan.student, job.engine, name="logits")
    assert plan.explained is not None, "a static method looks into a network"
    assert plan.explainer is not None, "a static method looks into a network"
    return select_engine(plan.explainer, plan.explained, job.engine, name=method.name)


def _low_precision(plan: Plan, *, is_graph: bool) -> EngineChoice:
    """Choose what computes a method in bfloat16. Raises: ValueError where nothing does."""
    method, job = plan.method, plan.job
    engine = "openvino" if is_graph else "eager"
    passes = is_graph or (method.explains == "student" and job.student is not None)
    if not passes or job.engine not in ("auto", engine) or torch.cuda.is_available():
        where = f"--engine {job.engine}{' on a GPU' if torch.cuda.is_available() else ''}"
        raise ValueError(
            "--precision bfloat16 is for the student's passes on a CPU: a static graph's, or those of a student that "
            f"is queried, in OpenVINO, others in torch (eager); not for {method.name!r} with {where}; leave it out"
        )
    if not has_native_bfloat16():
        raise ValueError(
            "--precision bfloat16 needs OpenVINO (pip install openvino onnx) and a CPU with such units; leave it out"
        )
    return replace(EAGER, engine=engine, precision="bfloat16")


def map_items(plan: Plan, resources: WorkerResources) -> Iterator[dict[str, Any]]:
    """Yield one item per image: image_id, label, target, target_prob, error (why it has no target).

    At the end parts are deleted that hold an error which has gone since, such as that of an image that was unreadable.
    """
    targets = iter(())
    if plan.target == "teacher" and plan.teacher is not None:
        targets = stored_targets(plan.folder, plan.teacher, plan.images, resources)
    errors = mendable_errors(plan.folder) if plan.folder.parts() else ()
    mended = set()
    for image_id, label in zip(plan.images.image_ids, plan.labels, strict=True):
        item = {"image_id": image_id, "label": label, "target": None, "target_prob": None, "error": None}
        if plan.target == "teacher":
            item |= next(targets)
            assert item["image_id"] == image_id, (item["image_id"], image_id)
        elif plan.target == "label":
            item |= {"target": label, "error": "the image has no label" if label is None else None}
        elif isinstance(plan.target, int):
            item["target"] = plan.target
        if image_id in errors and item["error"] is None and plan.is_readable(image_id):
            mended.add(image_id)
        yield item
    if mended:
        delete_results(plan.folder, mended, whole_parts=True)
