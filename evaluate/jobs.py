"""What the Ray Data jobs of this package share: provenance, and the run up to the manifest."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cluster.device import own_device
from cluster.parquet import read_computed_by
from cluster.session import ray_session, worker_resources
from cluster.sharded_job import RowCounts, Summary, Worker, make_shards, require_results, run_shards
from cluster.storage import Folder
from distill.data import ImageSet
from distill.data.versions import update_versions
from distill.teachers import load_teacher
from evaluate.config import OutputConfig, TeacherConfig

if TYPE_CHECKING:
    from distill.teachers import Teacher

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Job(Generic[S]):
    """A job that is checked and ready to run: everything is opened, and nothing has been written."""

    name: str
    """Name shown beside the progress, and kept with the rate."""
    rows: str
    """Name of the rows in messages, such as "scores"."""
    worker: Callable[..., Worker]
    """Class of the workers; `worker(work)` turns a shard's items into a table of rows."""
    work: Any
    """Argument of every worker; pickles. Its `stored` is the configuration that the folder keeps."""
    images: ImageSet
    """Images that the items are of: rows of those that have changed are computed again."""
    items: Iterable[dict[str, Any]]
    """All items of the work."""
    shard_items: int
    """Number of items in a part."""
    counts: RowCounts = dataclasses.field(default_factory=RowCounts)
    """How the worker's rows are counted."""
    reports: bool = False
    """Whether the worker takes a progress callback, for shards that take long."""
    finalize: Callable[[Folder], list[S]]
    """Sums up the folder and makes MLflow runs, once all parts are there."""


@dataclass(frozen=True, kw_only=True)
class JobResult(Generic[S]):
    """Result of a job."""

    counts: Summary
    """Rows and errors in the folder."""
    summaries: list[S]
    """What `finalize` returned."""


def provenance(teacher: "Teacher", images: ImageSet, config: TeacherConfig) -> dict[str, Any]:
    """Describe a black box and images, as a job's stored configuration holds them."""
    chosen = {} if config.per_class is None else {"per_class": config.per_class}
    return {
        "teacher": teacher.spec,
        "teacher_fingerprint": teacher.fingerprint,
        "engine": teacher.engine,
        "data": images.root,
        "data_name": images.name,
        "data_fingerprint": images.fingerprint,
        "split": images.split,
        "limit": config.limit,
        **chosen,
    }


def load_worker_teacher(stored: Mapping[str, Any]) -> "Teacher":
    """Load a job's black box on this worker's cores or GPU. Raises: WorkError where it is another one by now."""
    import torch

    return load_teacher(
        stored["teacher"],
        num_threads=torch.get_num_threads(),
        device=own_device(),
        expected_fingerprint=stored["teacher_fingerprint"],
    )


def computed_by(teacher: "Teacher") -> dict[str, str]:
    """Say what computes a worker's rows: engine with precision, and device; stored in its parts."""
    return {"engine": teacher.engine, "device": own_device()}


def run_job(job: Job[S], config: OutputConfig) -> JobResult[S]:
    """Write the worker's rows of all items, finalize, and write the manifest last; go on where a start stopped.

    Raises:
        ValueError: the folder holds other work.
        WorkError: every row has an error.
    """
    stored, folder = job.work.stored, Folder(config.out)
    shards = make_shards(job.items, job.shard_items)  # raises where the items do not fit together
    folder.claim(stored, what=job.rows)
    if changed := update_versions(folder, job.images, whole_parts=True):
        print(f"{len(changed)} images have changed since; their rows are computed again", file=sys.stderr)
    with ray_session(len(shards)):
        counts = run_shards(
            job.worker,
            job.work,
            shards,
            folder,
            resources=worker_resources(config.num_workers),
            description=job.name,
            counts=job.counts,
            reports=job.reports,
        )
    summaries = job.finalize(folder)
    if folder.finished() is None or counts.skipped_rows < counts.rows:
        manifest = {"schema_version": stored["schema_version"], "num_parts": len(shards)}
        folder.finish({**dataclasses.asdict(counts), **manifest, **read_computed_by(folder)})
    require_results(counts, folder, f"rows of {job.rows}")
    return JobResult(counts=counts, summaries=summaries)
