"""Summary of one method's sanity checks: mean similarities with intervals; and its MLflow run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cluster.storage import Folder
from cluster.tracking.tracker import Tracker
from evaluate.runs import INTERVAL, finite, inputs_of, interval_row, main_last, make_runs
from evaluate.sanity.schema import read_sanity
from evaluate.statistics import Interval, mean_interval

SIMILARITIES = ("rank_correlation", "rank_correlation_absolute", "ssim")
GROUP = "sanity/"  # of MLflow's charts


@dataclass(frozen=True, kw_only=True)
class CheckSummary:
    """One check of one method, at one stage, over all images that have a value."""

    method: str
    """The method's name."""
    check: str
    """randomised, wrong_class or other_student."""
    stage: str | None
    """Of `randomised`: the stage that was redrawn last."""
    similarities: dict[str, Interval]
    """Name, one of SIMILARITIES -> mean with its 95 % bootstrap interval over images."""
    num_errors: int
    """Images without a value."""

    @property
    def name(self) -> str:
        """Return check and stage in one word."""
        return self.check if self.stage is None else f"{self.check}_{self.stage}"


def summarize_checks(folder: Folder) -> list[CheckSummary]:
    """Sum up a folder of checks: methods, checks and stages in the order of its rows.

    Raises:
        ValueError: the folder holds no checks.
    """
    groups = read_sanity(folder).to_pandas().groupby(["method", "check", "stage"], sort=False, dropna=False)
    return [
        _check_summary(method, check, stage if isinstance(stage, str) else None, rows)
        for (method, check, stage), rows in groups
    ]


def _check_summary(method: str, check: str, stage: str | None, rows: Any) -> CheckSummary:
    valued = rows[rows["error"].isna()]
    return CheckSummary(
        method=method,
        check=check,
        stage=stage,
        similarities={name: mean_interval(valued[name].to_numpy()) for name in SIMILARITIES},
        num_errors=len(rows) - len(valued),
    )


def mlflow_metrics(summaries: Sequence[CheckSummary]) -> dict[str, float]:
    """List one method's means by their MLflow names; what is not a number is left out."""
    return finite({f"{GROUP}{one.name}_{name}": i.mean for one in summaries for name, i in one.similarities.items()})


def track_checks(folder: Folder, experiment: str, summaries: Sequence[CheckSummary], stored: Mapping[str, Any]) -> None:
    """Make one MLflow run per method, unless the folder notes that this store has it already.

    Args:
        folder: the checks' folder.
        experiment: the data set's name.
        checked: their results.
        stored: the folder's configuration.
    """
    runs = {}
    for method in main_last(stored["methods"], str):
        own = [one for one in summaries if one.method == method]
        runs[method] = partial(_track, experiment, method, own, stored, folder.uri)
    make_runs(folder, runs)


def _track(
    experiment: str, method: str, summaries: Sequence[CheckSummary], stored: Mapping[str, Any], uri: str, *, key: str
) -> Tracker:
    options = {f"option.{name}": value for name, value in stored["methods"][method].items()}
    params = {"method": method, **options, **{name: value for name, value in stored.items() if name != "methods"}}
    tags = {"stage": "sanity", "method": method, "protocol_hash": stored["protocol_hash"], "sanity": uri}
    rows = [
        [*interval_row(f"{one.name}_{name}", value), one.num_errors]
        for one in summaries
        for name, value in one.similarities.items()
    ]
    with Tracker(experiment, method, params=params, tags=tags, key=key) as tracker:
        tracker.inputs(inputs_of(stored))
        tracker.log(mlflow_metrics(summaries))
        for name in SIMILARITIES:
            fall = [one.similarities[name].mean for one in summaries if one.check == "randomised"]
            if np.isfinite(fall).all():
                tracker.curve(f"{GROUP}randomised_{name}", [1.0, *fall])  # the intact student's map is its own likeness
        tracker.table("sanity", [*INTERVAL, "num_errors"], rows)
    return tracker
