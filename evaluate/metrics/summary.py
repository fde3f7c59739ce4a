"""Summary of one method's metrics: means with intervals for the report's table; and its MLflow run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import pandas as pd

from cluster.storage import Folder
from cluster.tracking.tracker import Tracker
from distill.data import ImageSet
from evaluate.metrics.schema import read_metrics
from evaluate.metrics.settings import mlflow_name, settings_hash
from evaluate.runs import INTERVAL, finite, interval_row, main_last, make_runs, method_run
from evaluate.scored_method import label_methods
from evaluate.statistics import Interval, mean_interval
from evaluate.stored import metrics_config

COLUMNS = ["image_id", "config_hash", "measure", "protocol_hash", "value", "teacher_queries", "seconds"]


@dataclass(frozen=True, kw_only=True)
class MetricSummary:
    """One metric of one method over all images that have a value."""

    label: str
    """The method's name in tables, as `label_methods` gives it."""
    method: str
    """Its registered name."""
    config_hash: str
    """Hash of the maps' configuration."""
    metric: str
    """The row's name, a key of `evaluate.metrics.settings.HIGHER_IS_BETTER`."""
    protocol_hash: str
    """Hash of the measure's settings."""
    values: pd.Series = field(compare=False, repr=False)
    """The values of the images that have one, by image_id."""
    num_errors: int
    """Images without a value."""
    teacher_queries: float
    """Mean per map, shared ones divided; NaN without a value."""
    seconds: float
    """Mean per map, shared work divided; NaN without a value."""
    maps: str
    """Folder of the maps."""

    @cached_property
    def value(self) -> Interval:
        """Return the mean value with its 95 % bootstrap interval over images."""
        return mean_interval(self.values.to_numpy())


def summarize_metrics(folders: Sequence[str]) -> list[MetricSummary]:
    """Sum up metrics folders: one entry per method and metric, methods in the folders' order.

    Raises:
        ValueError: a folder holds no metrics, they are of different black boxes, a metric has different settings or
            images in two of them, or a method's measure stands in two of them.
        FileNotFoundError: a folder is missing.
    """
    opened = [Folder(uri) for uri in folders]
    configs = [metrics_config(folder) for folder in opened]
    _check_same(opened, configs)
    named = {scored.config_hash: scored for scored in label_methods([e for c in configs for e in c["maps"]])}
    found: dict[tuple[str, str], MetricSummary] = {}
    for folder in opened:
        frame: Any = read_metrics(folder, COLUMNS).to_pandas()
        if strangers := sorted(set(frame["config_hash"].unique()) - set(named)):
            raise ValueError(
                f"{folder.uri} has metrics of maps that its configuration does not name, first {strangers[0]}; measure "
                "again into another --out"
            )
        for (config_hash, metric), rows in frame.groupby(["config_hash", "measure"], sort=False, observed=True):
            if (config_hash, metric) in found:
                raise ValueError(
                    f"{metric} of {named[config_hash].label} stands in {folder.uri} and in an earlier folder; "
                    "give one of them"
                )
            found[config_hash, metric] = _metric_summary(named[config_hash], metric, rows)
    return list(found.values())


def _check_same(folders: Sequence[Folder], configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two black boxes, and two settings or sets of images of one metric; measures differ in their images."""
    first: dict[str, tuple[str, str]] = {}
    for folder, config in zip(folders, configs, strict=True):
        images = f"images {config['data_fingerprint']}"
        marks = {name: f"settings {settings_hash(fields)}, {images}" for name, fields in config["measures"].items()}
        for what, mark in {"the black box": str(config["teacher_fingerprint"]), **marks}.items():
            uri, other = first.setdefault(what, (folder.uri, mark))
            if mark != other:
                raise ValueError(
                    f"{uri} ({what}: {other}) and {folder.uri} ({mark}) cannot stand in one table; read them apart, or "
                    "measure again into another --out"
                )


def _metric_summary(scored: Any, metric: str, rows: Any) -> MetricSummary:
    valued = rows[rows["value"].notna()]
    costs = {name: float(valued[name].astype("float64").mean()) for name in ("teacher_queries", "seconds")}
    return MetricSummary(
        label=scored.label,
        method=scored.method,
        config_hash=scored.config_hash,
        metric=metric,
        protocol_hash=rows["protocol_hash"].iloc[0],
        values=pd.Series(valued["value"].to_numpy(), index=pd.Index(valued["image_id"].astype(object))),
        num_errors=len(rows) - len(valued),
        maps=scored.maps,
        **costs,
    )


def track_metrics(
    folder: Folder, images: ImageSet, summaries: Sequence[MetricSummary], stored: Mapping[str, Any]
) -> None:
    """Add to the run of each method's games, or make one, unless the metrics folder notes that this store has it.

    Args:
        folder: the metrics folder.
        images: the data set.
        summaries: of all methods.
        stored: the folder's configuration.
    """
    runs = {}
    for entry in main_last(stored["maps"], lambda entry: entry["method"]):
        own = [one for one in summaries if one.config_hash == entry["config_hash"]]
        runs[entry["config_hash"]] = partial(_track, images.name, entry, own, stored, folder.uri)
    make_runs(folder, runs)


def mlflow_metrics(summaries: Sequence[MetricSummary]) -> dict[str, float]:
    """List one method's means by their MLflow names; what is not a number is left out."""
    return finite({mlflow_name(one.metric): one.value.mean for one in summaries})


def _track(
    experiment: str,
    entry: Mapping[str, Any],
    summaries: Sequence[MetricSummary],
    stored: Mapping[str, Any],
    uri: str,
    *,
    key: str,
) -> Tracker:
    params = {f"protocol_hash.{one.metric}": one.protocol_hash for one in summaries}
    tags = {"stage": "measures", "measures": uri}
    columns = [*INTERVAL, "num_errors", "seconds", "teacher_queries"]
    rows = [
        [*interval_row(one.metric, one.value), one.num_errors, one.seconds, one.teacher_queries] for one in summaries
    ]
    with method_run(experiment, entry, stored, params=params, tags=tags, key=key) as tracker:
        tracker.log(mlflow_metrics(summaries))
        tracker.table("metrics", columns, rows)
    return tracker
