"""Distil on Ray Train: the loop that every worker runs, and the job that starts the workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from cluster.rates import Meter, Rate, machine
from cluster.remote_progress import RemoteProgress, remote_progress
from cluster.session import WorkerResources, ray_session, worker_resources
from cluster.storage import Folder
from cluster.tracking import Tracker, tracking_uri
from distill.images import ImageSet, open_images
from distill.recipes import Recipe, recipe_data
from distill.student import DESCRIPTION_FILE, save_student
from distill.teachers import load_teacher
from distill.training import Training, recipe_fields, recipe_from
from distill.views import taught_images

CHECKPOINTS = "checkpoints"
TRACKING = "tracking.json"  # the MLflow run that a resumed job goes on with
MAX_FAILURES = 5  # restarts of the worker group before the job gives up


def distil(
    recipe: Recipe,
    *,
    name: str,
    data: str,
    teacher: str,
    out: str,
    num_workers: int | None = None,
    resume: bool = False,
) -> dict[str, float]:
    """Distil `teacher` into a student on the images of `data`, and leave it in the folder `out`.

    Args:
        recipe: hyper-parameters.
        name: the recipe's name, for the records and for the labels that it chooses.
        data: folder or URI with training and validation images.
        teacher: the black box, KIND:WHERE.
        out: run folder: student, checkpoints, soft labels.
        num_workers: DDP workers; None takes one per GPU, or one for all cores.
        resume: go on with the work in `out`, from its last checkpoint.

    Returns:
        The last validation's figures, `val_sim1` ... among them.

    Raises:
        ValueError: images, labels, teacher and `out` do not fit together, before any work starts.
    """
    folder = Folder(out)
    if folder.exists(DESCRIPTION_FILE):
        raise ValueError(f"{out} holds a finished student; give another --out, or delete it")
    if folder.exists(CHECKPOINTS) and not resume:
        raise ValueError(f"{out} holds unfinished work; give --resume to go on with it, or another --out")
    data = recipe_data(name, data)
    train, val = open_images(data, split="train"), open_images(data, split="val")
    black_box = load_teacher(teacher)
    train.labels(black_box.num_classes)  # raises where the classes do not fit
    taught_images(len(train.image_ids), recipe)  # raises where there is no other image
    config = {
        "recipe": recipe_fields(recipe),
        "data": train.root,
        "data_fingerprint": [train.fingerprint, val.fingerprint],
        "teacher": black_box.spec,
        "teacher_fingerprint": black_box.fingerprint,
    }
    folder.claim(config, what="student")
    num_images = recipe.epochs * _num_images_per_epoch(recipe, train)
    with ray_session():
        resources = worker_resources(num_workers)
        with remote_progress(f"distill {name}", num_images) as progress:
            job = config | {"name": name, "experiment": train.name, "out": folder.uri}
            job |= {"cpus": resources.cpus, "gpus": resources.gpus}
            _trainer(job | {"tracking_uri": tracking_uri(), "progress": progress}, resources).fit()
    manifest = folder.finished()
    if manifest is None:
        raise RuntimeError(f"training ended without a student in {out}; give --resume to go on")
    return manifest["metrics"]


def _num_images_per_epoch(recipe: Recipe, train: ImageSet) -> int:
    batch_size = min(recipe.batch_size, len(train.image_ids))
    return len(train.image_ids) // batch_size * batch_size


def _trainer(job: dict[str, Any], resources: WorkerResources) -> TorchTrainer:
    per_worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    return TorchTrainer(
        train_loop_per_worker,
        train_loop_config=job,
        scaling_config=ScalingConfig(
            num_workers=resources.num_workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,  # Ray Train goes on from the last committed checkpoint of a run of the same name
            storage_path=job["out"],
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train one worker's share; rank 0 also tracks the run and stores the student."""
    recipe = recipe_from(config["recipe"])
    folder = Folder(config["out"])
    training = _build(config, recipe, folder)
    metrics: dict[str, float] = {}
    with _recorder(config, training, folder) as record:
        while training.epoch < recipe.epochs:
            for terms in training.train_epoch():
                record.step(terms)
                if training.step % recipe.checkpoint_steps == 0 and training.step < training.num_steps:
                    _report(training, terms)
            metrics = training.validate()
            record.epoch(metrics)
            _report(training, metrics)
        metrics = metrics or training.validate()  # killed between the last checkpoint and the end
        if training.rank == 0:
            save_student(folder, training.result())
            rate = _rate(config, training, record.meter)
            folder.finish({"metrics": metrics, "errors": training.errors, "rate": rate and asdict(rate)})


def _rate(config: dict[str, Any], training: Training, meter: Meter) -> Rate | None:
    """Say how fast this start trained, validation and checkpoints included; None where it took a single step."""
    items, seconds = meter.measured()
    if not items:
        return None
    return Rate(
        job=f"distill {config['name']}",
        kind="training",
        items=items,
        worker_seconds=seconds * training.num_workers,
        num_workers=training.num_workers,
        cpus=config["cpus"],
        gpus=config["gpus"],
        machine=machine(),
        settings={name: config["recipe"][name] for name in ("depth", "input_size", "compile")},
    )


def _build(config: dict[str, Any], recipe: Recipe, folder: Folder) -> Training:
    teacher = load_teacher(config["teacher"], num_threads=config["cpus"])
    train: ImageSet = open_images(config["data"], split="train")
    val: ImageSet = open_images(config["data"], split="val")
    training = Training(recipe, teacher, train, val, folder.child("soft_labels"))
    assert training.num_workers == ray.train.get_context().get_world_size(), "accelerate sees another process group"
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as path:
            training.restore(Path(path))
    return training


def _report(training: Training, metrics: dict[str, float]) -> None:
    """Hand a checkpoint to Ray Train; a barrier, so every worker takes part."""
    with tempfile.TemporaryDirectory() as path:
        if training.rank == 0:
            training.save(Path(path))
        checkpoint = ray.train.Checkpoint.from_directory(path) if training.rank == 0 else None
        ray.train.report(metrics, checkpoint=checkpoint)


class _Recorder:
    """Tell people and MLflow how training goes; does nothing on ranks above 0."""

    def __init__(self, training: Training, tracker: Tracker | None, progress: RemoteProgress) -> None:
        self.training, self.tracker, self.progress = training, tracker, progress
        self.since_log: list[dict[str, float]] = []
        self.meter = Meter()

    def step(self, terms: dict[str, float]) -> None:
        """Count a step; every `log_steps` of them log the mean of their loss terms."""
        self.meter.count(int(terms["num_images"]))
        if self.tracker is None:
            return
        self.since_log.append(terms)
        done = self.training.global_step * self.training.images_per_step
        self.progress.show(done, epoch=self.training.epoch + 1, loss=terms["loss"], kl=terms["kl"])
        if len(self.since_log) == self.training.recipe.log_steps:
            means = {name: sum(t[name] for t in self.since_log) / len(self.since_log) for name in terms}
            seconds = sum(t["num_images"] / t["images_per_s"] for t in self.since_log)
            means["images_per_s"] = sum(t["num_images"] for t in self.since_log) / seconds
            means.pop("num_images")
            self.tracker.log({f"train_{name}": value for name, value in means.items()}, self.training.global_step)
            self.since_log.clear()

    def epoch(self, metrics: dict[str, float]) -> None:
        """Log a validation."""
        if self.tracker is None:
            return
        self.tracker.log(metrics, self.training.global_step)
        shown = ", ".join(f"{name.removeprefix('val_')} {value:.4f}" for name, value in metrics.items())
        print(f"epoch {self.training.epoch}/{self.training.recipe.epochs}: {shown}", flush=True)


@contextmanager
def _recorder(config: dict[str, Any], training: Training, folder: Folder) -> Iterator[_Recorder]:
    """Open the MLflow run, or go on with the one that an earlier start of this job has opened."""
    if training.rank > 0:
        yield _Recorder(training, None, config["progress"])
        return
    local = folder.local_path()
    tracker = Tracker(
        config["experiment"],
        f"distill {config['name']}",
        params={name: config[name] for name in ("data", "teacher", "teacher_fingerprint")} | config["recipe"],
        tags={"stage": "distill"},
        uri=config["tracking_uri"],
        spill=local / "mlflow-unsent.jsonl" if local else None,
        run_id=folder.read_json(TRACKING)["run_id"] if folder.exists(TRACKING) else None,
    )
    with tracker:
        folder.write_json(TRACKING, {"run_id": tracker.run_id})
        yield _Recorder(training, tracker, config["progress"])
