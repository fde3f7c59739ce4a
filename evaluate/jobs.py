"""What the Ray Data jobs of this package share: what they are about, the run to the manifest, MLflow runs made once."""

import dataclasses
import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.session import ray_session, worker_resources
from cluster.sharded_job import Summary, Worker, make_shards, require_results, run_shards
from cluster.storage import Folder
from cluster.tracking.tracker import tracking_uri
from distill.data import ImageSet

if TYPE_CHECKING:
    from distill.teachers import Teacher

Found = TypeVar("Found")
RUNS_FILE = "_mlflow.json"  # which runs were made, so that a rerun makes no second one
MAKING = "/making"  # behind the name of a run that is being made


def provenance(
    teacher: "Teacher", images: ImageSet, limit: int | None = None, per_class: int | None = None
) -> dict[str, Any]:
    """Describe a black box and images for a job's configuration."""
    chosen = {} if per_class is None else {"per_class": per_class}
    return {
        "teacher": teacher.spec,
        "teacher_fingerprint": teacher.fingerprint,
        "engine": teacher.engine,
        "data": images.root,
        "data_name": images.name,
        "data_fingerprint": images.fingerprint,
        "split": images.split,
        "limit": limit,
        **chosen,
    }


def run_job(
    worker: Callable[..., Worker],
    config: dict[str, Any],
    items: Iterable[dict[str, Any]],
    folder: Folder,
    *,
    what: str,
    job: str,
    shard_items: int,
    rows_per_item: int,
    items_per_image: int = 1,
    queries: str | None = None,
    reports: bool = False,
    num_workers: int | None,
    finalize: Callable[[], Found],
) -> tuple[Summary, Found]:
    """Write the worker's rows of all items into a folder, finalize, and write the manifest last; go on where a start
    stopped.

    Args:
        worker: as `run_shards` takes it.
        config: its argument; under "stored" the configuration that the folder keeps, with its schema version.
        items: all items of the work.
        folder: where the parts go.
        what: the content's name in messages, such as "scores".
        job: the job's name, shown beside the progress and kept with its rate.
        shard_items: items in a part.
        rows_per_item: rows that each item gives.
        items_per_image: as `run_shards` takes it.
        queries: likewise.
        tells: likewise.
        num_workers: workers; None takes one per GPU, else one per four cores.
        conclude: sums up the folder and tells MLflow, once all parts are there.

    Returns:
        What stands in the folder, and what `finalize` returned.

    Raises:
        ValueError: the folder holds other work.
        WorkError: every row has an error.
    """
    stored = config["stored"]
    shards = make_shards(items, shard_items)  # raises where the items do not fit together
    folder.claim(stored, what=what)
    with ray_session():
        resources = worker_resources(num_workers)
        summary = run_shards(
            worker,
            config,
            shards,
            folder,
            resources=resources,
            description=job,
            rows_per_item=rows_per_item,
            items_per_image=items_per_image,
            queries=queries,
            reports=reports,
        )
    found = finalize()
    if folder.finished() is None or summary.skipped_rows < summary.rows:
        manifest = {"schema_version": stored["schema_version"], "num_parts": len(shards)}
        folder.finish({**dataclasses.asdict(summary), **manifest})
    require_results(summary, folder, f"rows of {what}")
    return summary, found


def make_runs(folder: Folder, runs: Mapping[str, Callable[..., str | None]]) -> None:
    """Make MLflow runs, except those that the folder notes as made in this store.

    Args:
        folder: where the job's rows lie.
        runs: a run's name in the folder -> makes it and returns its id; gets the key of `Tracker`, which is noted
            before, so that a job that is killed over it leaves no second run.
    """
    made = folder.read_json(RUNS_FILE) if folder.exists(RUNS_FILE) else {}
    for name, make in runs.items():
        key = run_key(name)
        if key in made:
            continue
        tracker_key = made.setdefault(key + MAKING, uuid.uuid4().hex)
        folder.write_json(RUNS_FILE, made)
        made[key] = make(key=tracker_key)
        del made[key + MAKING]
        folder.write_json(RUNS_FILE, made)


def run_key(*names: str) -> str:
    """Name a run in this store, as `RUNS_FILE` notes it."""
    store = hashlib.sha256(tracking_uri().encode()).hexdigest()[:12]  # a URI may hold a password
    return "/".join([store, *names])
