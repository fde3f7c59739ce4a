"""Train on Ray Train: the jobs that start the workers, and the loop that every worker runs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayError
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from cluster.cli import verbose
from cluster.errors import USER_ERRORS, WorkError, one_line
from cluster.filesystems import store_errors
from cluster.planning.throughput import Meter, Rate, machine
from cluster.progress.board import Reporter, remote_progress
from cluster.session import WorkerResources, ray_session, worker_resources
from cluster.tracking.tracker import tracking_uri
from distill.config import DistillConfig, FineTuneConfig, TrainingConfig
from distill.training.checkpoints import committed_checkpoints, delete_uncommitted
from distill.training.job import CHECKPOINTS, DistillationJob, FineTuningJob, TrainingJob
from distill.training.recorder import open_recorder
from distill.training.trainer import Trainer
from distill.training.views import batches_of

MAX_FAILURES = 5  # restarts of the worker group without a new checkpoint before the job gives up
MENDABLE = (*USER_ERRORS, torch.OutOfMemoryError)
RESIZE_S = 60.0  # between looks for nodes that have joined, where the number of workers may change


def distill(config: DistillConfig, *, name: str) -> dict[str, float]:
    """Distill a black box into a student on the images of a data set, and leave it in the folder `config.out`.

    Args:
        config: images, black box, run folder, workers and recipe.
        name: the recipe's name, for the records and for the labels that it chooses.

    Returns:
        The last validation's figures, `val_sim1` ... among them.

    Raises:
        ValueError: images, labels, teacher and run folder do not fit together, before any work starts; or training
            diverged.
    """
    return _run(DistillationJob.open(config, name), config)


def finetune(config: FineTuneConfig, *, name: str) -> dict[str, float]:
    """Fine-tune a network, with a new classifier, on labels, and leave it in the folder `config.out` as a black box.

    Args:
        config: images with labels, network, run folder, workers and recipe.
        name: the recipe's name, for the records.

    Returns:
        The last validation's figures, `val_accuracy` among them.

    Raises:
        ValueError: images, labels, network and run folder do not fit together, before any work starts; or training
            diverged.
    """
    return _run(FineTuningJob.open(config, name), config)


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What a start of a job gives to every worker."""

    job: TrainingJob
    resources: WorkerResources
    tracking_uri: str
    progress: Reporter


def _run(job: TrainingJob, config: TrainingConfig) -> dict[str, float]:
    """Claim the folder, start the workers, wait for them, and return the last validation's figures."""
    job.claim()
    checkpoints = job.out.child(CHECKPOINTS)
    with ray_session():
        resources = worker_resources(config.num_workers, min_workers=config.min_workers)
        batch_size, num_steps = batches_of(len(job.train.image_ids), job.recipe, resources.num_workers)
        num_images = job.recipe.epochs * num_steps * batch_size
        with remote_progress(f"{job.stage} {job.name}", num_images) as progress:
            delete_uncommitted(checkpoints)
            start = _Start(job=job, resources=resources, tracking_uri=tracking_uri(), progress=progress)
            reported = _fit(start)
            delete_uncommitted(checkpoints)
    _check_converged(job, reported)
    manifest = job.out.finished()
    if manifest is None:
        raise RuntimeError(f"training ended without a result in {job.out.uri}; give --resume to go on")
    return manifest["metrics"]


def _check_converged(job: TrainingJob, metrics: Mapping[str, float]) -> None:
    """Refuse a training whose validation is no number any more. Raises: ValueError."""
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise ValueError(
            f"training diverged: {broken[0]} is {metrics[broken[0]]}, so no {job.result} was stored; give a lower --lr "
            f"(now {job.recipe.lr:g}), a longer --warmup-epochs or a --clip-norm, and another --out"
        )


def _make_trainer(start: _Start) -> TorchTrainer:
    out, resources = start.job.out, start.resources
    per_worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    return TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"start": start},
        scaling_config=ScalingConfig(
            **_num_workers(resources), use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,  # Ray Train goes on from the last committed checkpoint of a run of the same name
            storage_path=out.path,
            storage_filesystem=out.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            logging_config=LoggingConfig("INFO" if verbose() else "WARNING"),
        ),
    )


def _num_workers(resources: WorkerResources) -> dict[str, Any]:
    if resources.min_workers is None:
        return {"num_workers": resources.num_workers}
    workers = (resources.min_workers, resources.num_workers)
    return {"num_workers": workers, "elastic_resize_monitor_interval_s": RESIZE_S}


def _fit(start: _Start) -> Mapping[str, float]:
    """Wait for the workers; as long as there are new checkpoints, nodes and workers may be lost again and again.

    Returns:
        What the workers reported last.

    Raises:
        WorkError: the workers failed with what the user can mend, `MAX_FAILURES` restarts later, or were lost as often
            without a new checkpoint.
        WorkerGroupError: they failed otherwise, as often, without a new checkpoint.
    """
    checkpoints = start.job.out.child(CHECKPOINTS)
    while True:
        before = committed_checkpoints(checkpoints)
        try:
            return _make_trainer(start).fit().metrics or {}
        except WorkerGroupError as error:
            failures = [getattr(failure, "_base_exc", failure) for failure in error.worker_failures.values()]
            stuck = committed_checkpoints(checkpoints) == before
            shown = (*MENDABLE, RayError) if stuck else MENDABLE
            readable = [failure for failure in failures if isinstance(failure, shown)]
            if readable:
                raise WorkError(f"training was started {MAX_FAILURES + 1} times: {one_line(readable[0])}") from error
            if stuck:
                raise


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train one worker's share; rank 0 also tracks the run and stores the result."""
    start: _Start = config["start"]
    job, recipe = start.job, start.job.recipe
    trainer = _restored(job.build(num_threads=start.resources.cpus, restored=bool(ray.train.get_checkpoint())))
    metrics: dict[str, float] = {}
    with open_recorder(job, trainer, tracking_uri=start.tracking_uri, progress=start.progress) as record:
        while trainer.epoch < recipe.epochs:
            for terms in trainer.train_epoch():
                record.step(terms)
                if trainer.step % recipe.checkpoint_steps == 0 and trainer.step < trainer.num_steps:
                    _report(trainer, terms)
            metrics = trainer.validate()
            record.epoch(metrics)
            if not all(map(math.isfinite, metrics.values())):  # the same on all workers
                ray.train.report(metrics)
                return
            _report(trainer, metrics)
        metrics = metrics or trainer.validate()  # killed between the last checkpoint and the end
        errors = trainer.all_errors()
        if trainer.rank == 0:
            trainer.store(job.out)
            rate = _rate(start, trainer, record.meter)
            job.out.finish({"metrics": metrics, "errors": errors, "rate": rate and asdict(rate)})


def _rate(start: _Start, trainer: Trainer, meter: Meter) -> Rate | None:
    """Say how fast this start trained, validation and checkpoints included; None where it took a single step."""
    items, seconds = meter.measured()
    if not items:
        return None
    fields = start.job.recipe.fields()
    return Rate(
        job=f"{start.job.stage} {start.job.name}",
        kind="training",
        items=items,
        worker_seconds=seconds * trainer.num_workers,
        num_workers=trainer.num_workers,
        cpus=start.resources.cpus,
        gpus=start.resources.gpus,
        machine=machine(),
        settings={name: fields[name] for name in ("depth", "input_size", "compile") if name in fields},
    )


def _restored(trainer: Trainer) -> Trainer:
    """Go back to the last checkpoint, where there is one."""
    assert trainer.num_workers == ray.train.get_context().get_world_size(), "accelerate sees another process group"
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with store_errors(f"read {checkpoint.path}"), checkpoint.as_directory() as path:
            trainer.restore(Path(path))
    return trainer


def _report(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Hand a checkpoint to Ray Train; a barrier, so every worker takes part."""
    errors = trainer.all_errors()
    with tempfile.TemporaryDirectory() as path:
        if trainer.rank == 0:
            trainer.save(Path(path), errors)
        checkpoint = ray.train.Checkpoint.from_directory(path) if trainer.rank == 0 else None
        with store_errors("write a checkpoint"):
            ray.train.report(metrics, checkpoint=checkpoint)
