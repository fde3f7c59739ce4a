"""Choice of the best method for a number of queries, `python -m explain auto`. Imports no torch.

Which is best was measured: results/imagenette.
"""

from dataclasses import dataclass, replace
from typing import Any

from cluster.storage import Folder
from explain.config import Job
from explain.methods.options import GpRegressionOptions
from explain.methods.registry import METHODS

SUMMARY = "Best method for a number of queries to the black box, down to none."
MIN_QUERIES = 8
"""Least number of queries of `gp_regression`."""


@dataclass(frozen=True, kw_only=True)
class AutoOptions:
    """Options of `python -m explain auto`."""

    queries: int | None = None
    """Queries to the black box per image: 0, or 8 and more. Default: 200 with --teacher, 0 without."""

    def __post_init__(self) -> None:
        if self.queries is not None and self.queries != 0 and self.queries < MIN_QUERIES:
            raise ValueError(f"queries {self.queries} is too small; give 0, or {MIN_QUERIES} or more, such as 200")


def resolve(job: Job[AutoOptions]) -> tuple[str, Job[Any]]:
    """Choose the method: without queries the student's read-out, with queries `gp_regression` with it as its prior.

    For a student without a read-out it is `mal_grad_cam`, and the regression without a prior.

    Returns:
        The method's name and its job.

    Raises:
        ValueError: For queries without a black box, or no queries without a student.
    """
    queries = job.options.queries
    if queries is None:
        queries = GpRegressionOptions.num_samples if job.teacher is not None else 0
    if queries and job.teacher is None:
        raise ValueError(f"--queries {queries} are sent to the black box; give --teacher KIND:WHERE, or --queries 0")
    if not queries and job.student is None:
        raise ValueError("without queries a map comes from a student; give --student RUN, or --queries 200")
    reads = job.student is not None and Folder(job.student).exists("readout.safetensors")
    if not queries:
        name = "readout" if reads else "mal_grad_cam"
        return name, replace(job, options=METHODS[name].options())
    options = GpRegressionOptions(num_samples=queries, prior="readout" if reads else "none")
    return "gp_regression", replace(job, options=options)
