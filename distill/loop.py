"""Distil on Ray Train: the loop that every worker runs, and the job that starts the workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from cluster.remote_progress import RemoteProgress, remote_progress
from cluster.session import WorkerResources, ray_session, worker_resources
from cluster.storage import Folder
from cluster.tracking import Tracker, tracking_uri
from distill.images import ImageSet, open_images
from distill.recipes import Recipe
from distill.student import DESCRIPTION_FILE, load_student, save_student, take_weights
from distill.teachers import load_teacher
from distill.training import Training, recipe_fields, recipe_from

CHECKPOINTS = "checkpoints"
RECORDED = ("data", "teacher", "teacher_fingerprint", "init")  # beside the recipe, as MLflow's parameters
TRACKING = "tracking.json"  # the MLflow run that a resumed job goes on with
MAX_FAILURES = 5  # restarts of the worker group before the job gives up


def distil(
    recipe: Recipe,
    *,
    name: str,
    data: str,
    teacher: str,
    out: str,
    init: str | None = None,
    num_workers: int | None = None,
    resume: bool = False,
) -> dict[str, float]:
    """Distil `teacher` into a student on the images of `data`, and leave it in the folder `out`.

    Args:
        recipe: hyper-parameters.
        name: the recipe's name, for the records.
        data: folder or URI with training and validation images.
        teacher: the black box, KIND:WHERE.
        out: run folder: student, checkpoints, soft labels.
        init: run folder of a student to start from; None starts from weights drawn by the recipe's seed.
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
    train, val = open_images(data, split="train"), open_images(data, split="val")
    black_box = load_teacher(teacher)
    train.labels(black_box.num_classes)  # raises where the classes do not fit
    config = {
        "recipe": recipe_fields(recipe),
        "data": train.root,
        "data_fingerprint": [train.fingerprint, val.fingerprint],
        "teacher": black_box.spec,
        "teacher_fingerprint": black_box.fingerprint,
    } | _started_from(init, recipe)
    folder.claim(config, what="student")
    num_images = recipe.epochs * _num_images_per_epoch(recipe, train)
    with ray_session():
        resources = worker_resources(num_workers)
        with remote_progress(f"distill {name}", num_images) as progress:
            job = config | {"name": name, "experiment": train.name, "out": folder.uri, "cpus": resources.cpus}
            job["init_run"] = Folder(init).uri if init else None
            _trainer(job | {"tracking_uri": tracking_uri(), "progress": progress}, resources).fit()
    manifest = folder.finished()
    if manifest is None:
        raise RuntimeError(f"training ended without a student in {out}; give --resume to go on")
    return manifest["metrics"]


def _started_from(init: str | None, recipe: Recipe) -> dict[str, str]:
    """Name the student that training starts from, for the configuration; nothing where there is none."""
    if init is None:
        return {}
    student = load_student(init)
    if student.depth != recipe.depth:
        raise ValueError(
            f"the student in {init} has {student.depth} layers, the recipe's {recipe.depth}; "
            f"give --depth {student.depth}, or a student of that depth (--init)"
        )
    return {"init": student.fingerprint}


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
            folder.finish({"metrics": metrics, "errors": training.errors})


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
    elif config["init_run"]:
        take_weights(training.student, load_student(config["init_run"]).model)
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

    def step(self, terms: dict[str, float]) -> None:
        """Count a step; every `log_steps` of them log the mean of their loss terms."""
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
        params={name: config[name] for name in RECORDED if name in config} | config["recipe"],
        tags={"stage": "distill"},
        uri=config["tracking_uri"],
        spill=local / "mlflow-unsent.jsonl" if local else None,
        run_id=folder.read_json(TRACKING)["run_id"] if folder.exists(TRACKING) else None,
    )
    with tracker:
        folder.write_json(TRACKING, {"run_id": tracker.run_id})
        yield _Recorder(training, tracker, config["progress"])
