"""Progress and metrics of a training, for the terminal and MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.planning.throughput import Meter
from cluster.progress.board import Reporter
from cluster.tracking.tracker import TRACKING, Tracker
from distill.training.job import TrainingJob
from distill.training.trainer import Trainer


class Recorder:
    """Tells people and MLflow how training goes; on ranks above 0 it only counts."""

    def __init__(self, trainer: Trainer, tracker: Tracker | None, progress: Reporter) -> None:
        """Start counting; without a tracker nothing is sent to MLflow."""
        self.trainer, self.tracker, self.progress = trainer, tracker, progress
        self.since_log: list[dict[str, float]] = []
        self.validated: dict[str, float] = {}
        self.meter = Meter()

    def step(self, terms: dict[str, float]) -> None:
        """Count a step; every `log_steps` of them log the mean of their loss terms."""
        self.meter.count(int(terms["num_images"]))
        if self.tracker is None:
            return
        self.since_log.append(terms)
        done = self.trainer.global_step * self.trainer.images_per_step
        shown: dict[str, Any] = {name: terms[name] for name in self.trainer.shown} | self.validated
        self.progress(done, epoch=self.trainer.epoch + 1, **shown)
        if len(self.since_log) == self.trainer.recipe.log_steps:
            means = {name: sum(t[name] for t in self.since_log) / len(self.since_log) for name in terms}
            seconds = sum(t["num_images"] / t["images_per_s"] for t in self.since_log)
            means["images_per_s"] = sum(t["num_images"] for t in self.since_log) / seconds
            means.pop("num_images")
            self.tracker.log({f"train_{name}": value for name, value in means.items()}, self.trainer.global_step)
            self.since_log.clear()

    def epoch(self, metrics: dict[str, float]) -> None:
        """Log a validation, and show its main scores beside the progress of the next epoch."""
        if self.tracker is None:
            return
        self.tracker.log(metrics, self.trainer.global_step)
        self.validated = {name: metrics[name] for name in ("val_accuracy", "val_sim1") if name in metrics}


@contextmanager
def open_recorder(job: TrainingJob, trainer: Trainer, *, tracking_uri: str, progress: Reporter) -> Iterator[Recorder]:
    """Open the MLflow run, or go on with the one that an earlier start of this job has opened."""
    if trainer.rank > 0:
        yield Recorder(trainer, None, progress)
        return
    local = job.out.local_path()
    tracker = Tracker(
        job.train.name,
        f"{job.stage} {job.name}",
        params={"data": job.train.root} | job.source | job.recipe.fields(),
        tags={"stage": job.stage},
        uri=tracking_uri,
        spill=local / "mlflow-unsent.jsonl" if local else None,
        run_id=job.out.read_json(TRACKING)["run_id"] if job.out.exists(TRACKING) else None,
    )
    with tracker:
        job.out.write_json(TRACKING, {"run_id": tracker.run_id})
        yield Recorder(trainer, tracker, progress)
        progress.flush()
