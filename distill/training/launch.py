"""Train on Ray Train: the loop that every worker runs, and the jobs that start the workers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from cluster.device import own_device
from cluster.errors import WorkError
from cluster.filesystems import store_errors
from cluster.planning.throughput import Meter, Rate, machine
from cluster.progress.board import Reporter, remote_progress
from cluster.session import WorkerResources, ray_session, worker_resources
from cluster.storage import Folder
from cluster.tracking.tracker import TRACKING, Tracker, tracking_uri
from distill.data import ImageSet, open_images
from distill.student.checkpoint import load_student
from distill.student.model import take_weights
from distill.teachers import load_teacher
from distill.teachers.teacher_toml import MULTI_LABEL
from distill.teachers.tools.export import require_exporter
from distill.training.backbones import load_network
from distill.training.checkpoints import committed_checkpoints, delete_uncommitted
from distill.training.distillation import DistillationTrainer
from distill.training.finetuning import FineTuningTrainer, check_labels
from distill.training.recipes import Recipe, TrainingRecipe, recipe_data
from distill.training.trainer import Trainer
from distill.training.views import batches_of, teacher_permutation

CHECKPOINTS = "checkpoints"
MAX_FAILURES = 5  # restarts of the worker group without a new checkpoint before the job gives up
RESIZE_S = 60.0  # between looks for nodes that have joined, where the number of workers may change
RESULTS = {"distill": "student", "finetune": "black box"}  # stage -> what it leaves


def distill(
    recipe: Recipe,
    *,
    name: str,
    data: str,
    teacher: str,
    out: str,
    init: str | None = None,
    num_workers: int | None = None,
    min_workers: int | None = None,
    resume: bool = False,
) -> dict[str, float]:
    """Distill `teacher` into a student on the images of `data`, and leave it in the folder `out`.

    Args:
        recipe: hyper-parameters.
        name: the recipe's name, for the records and for the labels that it chooses.
        data: folder or URI with training and validation images.
        teacher: the black box, KIND:WHERE.
        out: run folder: student, checkpoints, soft labels.
        init: run folder of a student to start from; None starts from weights drawn by the recipe's seed.
        num_workers: DDP workers; None takes one per GPU, else one for every four cores.
        min_workers: fewest to go on with where nodes go away; `num_workers` are the most then, when nodes join.
        resume: go on with the work in `out`, from its last checkpoint.

    Returns:
        The last validation's figures, `val_sim1` ... among them.

    Raises:
        ValueError: images, labels, teacher and `out` do not fit together, before any work starts.
    """
    folder = _open_out(out, "distill", resume=resume)
    data = recipe_data(name, data)
    train, val = open_images(data, split="train"), open_images(data, split="val")
    black_box = load_teacher(teacher)
    if black_box.output in MULTI_LABEL and black_box.num_outputs > 1:
        raise ValueError(
            f"teacher {black_box.spec} gives an image several labels (output = {black_box.output!r}): a student learns "
            "probabilities that sum to 1. Explain it without a student, by a query-based method"
        )
    for images in (train, val):  # raises where the classes do not fit
        print(images.describe(black_box.num_classes, black_box.class_names), file=sys.stderr)
    teacher_permutation(len(train.image_ids), recipe)  # raises where there is no other image
    source = {"teacher": black_box.spec, "teacher_fingerprint": black_box.fingerprint, **_started_from(init, recipe)}
    job = {"stage": "distill", "name": name, "source": source, "build": _build_distillation}
    job["init_run"] = Folder(init).uri if init else None
    return _run(job, recipe, train, val, folder, num_workers=num_workers, min_workers=min_workers)


def finetune(
    recipe: TrainingRecipe,
    *,
    name: str,
    data: str,
    network: str,
    out: str,
    num_workers: int | None = None,
    min_workers: int | None = None,
    resume: bool = False,
) -> dict[str, float]:
    """Fine-tune `network`, with a new classifier, on the labels of `data`, and leave it in `out` as a black box.

    Args:
        recipe: hyper-parameters.
        name: the recipe's name, for the records.
        data: folder or URI with training and validation images that have labels.
        network: what to start from, KIND:WHERE, as `load_network` takes it.
        out: run folder: `model.onnx` and `model.pt2` with their `teacher.toml`, checkpoints.
        num_workers: DDP workers; None takes one per GPU, else one for every four cores.
        min_workers: fewest to go on with where nodes go away; `num_workers` are the most then, when nodes join.
        resume: go on with the work in `out`, from its last checkpoint.

    Returns:
        The last validation's figures, `val_accuracy` among them.

    Raises:
        ValueError: images, labels, network and `out` do not fit together, before any work starts.
    """
    folder = _open_out(out, "finetune", resume=resume)
    data = recipe_data(name, data)
    train, val = open_images(data, split="train"), open_images(data, split="val")
    check_labels(train, val)
    require_exporter()
    start = load_network(network, len(train.class_names), seed=recipe.seed, input_size=recipe.input_size)
    source = {"network": network, "network_fingerprint": start.fingerprint}
    job = {"stage": "finetune", "name": name, "source": source, "build": _build_fine_tuning}
    return _run(job, recipe, train, val, folder, num_workers=num_workers, min_workers=min_workers)


def _open_out(out: str, stage: str, *, resume: bool) -> Folder:
    folder = Folder(out)
    if folder.finished() is not None:
        raise ValueError(f"{out} holds a finished {RESULTS[stage]}; give another --out")
    if folder.exists(CHECKPOINTS) and not resume:
        raise ValueError(f"{out} holds unfinished work; give --resume to go on with it, or another --out")
    return folder


def _run(
    job: dict[str, Any],
    recipe: TrainingRecipe,
    train: ImageSet,
    val: ImageSet,
    folder: Folder,
    *,
    num_workers: int | None,
    min_workers: int | None,
) -> dict[str, float]:
    """Claim the folder, start the workers, wait for them, and return the last validation's figures."""
    fingerprints = [train.fingerprint, val.fingerprint]
    config = {"recipe": recipe.fields(), "data": train.root, "data_fingerprint": fingerprints, **job["source"]}
    folder.claim(config, what=RESULTS[job["stage"]])
    with ray_session():
        resources = worker_resources(num_workers, min_workers=min_workers)
        batch_size, num_steps = batches_of(len(train.image_ids), recipe, resources.num_workers)
        num_images = recipe.epochs * num_steps * batch_size
        with remote_progress(f"{job['stage']} {job['name']}", num_images) as progress:
            job = job | config | {"experiment": train.name, "out": folder.uri}
            job |= {"cpus": resources.cpus, "gpus": resources.gpus}
            delete_uncommitted(folder.child(CHECKPOINTS))
            _fit(job | {"tracking_uri": tracking_uri(), "progress": progress}, resources)
            delete_uncommitted(folder.child(CHECKPOINTS))
    manifest = folder.finished()
    if manifest is None:
        raise RuntimeError(f"training ended without a result in {folder.uri}; give --resume to go on")
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


def _trainer(job: dict[str, Any], resources: WorkerResources) -> TorchTrainer:
    out = Folder(job["out"])
    per_worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    return TorchTrainer(
        train_loop_per_worker,
        train_loop_config=job,
        scaling_config=ScalingConfig(
            **_num_workers(resources), use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,  # Ray Train goes on from the last committed checkpoint of a run of the same name
            storage_path=out.path,
            storage_filesystem=out.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def _num_workers(resources: WorkerResources) -> dict[str, Any]:
    if resources.min_workers is None:
        return {"num_workers": resources.num_workers}
    workers = (resources.min_workers, resources.num_workers)
    return {"num_workers": workers, "elastic_resize_monitor_interval_s": RESIZE_S}


def _fit(job: dict[str, Any], resources: WorkerResources) -> None:
    """Wait for the workers; as long as there are new checkpoints, nodes and workers may be lost again and again.

    Raises:
        WorkError: that is what the workers failed with, `MAX_FAILURES` restarts later.
        WorkerGroupError: they failed otherwise, as often, without a new checkpoint.
    """
    checkpoints = Folder(job["out"]).child(CHECKPOINTS)
    while True:
        before = committed_checkpoints(checkpoints)
        try:
            _trainer(job, resources).fit()
            return
        except WorkerGroupError as error:
            failures = [getattr(failure, "_base_exc", failure) for failure in error.worker_failures.values()]
            told = [failure for failure in failures if isinstance(failure, WorkError)]
            if told:
                raise WorkError(f"training was started {MAX_FAILURES + 1} times: {told[0]}") from error
            if committed_checkpoints(checkpoints) == before:
                raise


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train one worker's share; rank 0 also tracks the run and stores the result."""
    folder = Folder(config["out"])
    training = _restored(config["build"](config))
    recipe = training.recipe
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
            training.store(folder)
            rate = _rate(config, training, record.meter)
            folder.finish({"metrics": metrics, "errors": training.errors, "rate": rate and asdict(rate)})


def _rate(config: dict[str, Any], training: Trainer, meter: Meter) -> Rate | None:
    """Say how fast this start trained, validation and checkpoints included; None where it took a single step."""
    items, seconds = meter.measured()
    if not items:
        return None
    recipe = config["recipe"]
    return Rate(
        job=f"{config['stage']} {config['name']}",
        kind="training",
        items=items,
        worker_seconds=seconds * training.num_workers,
        num_workers=training.num_workers,
        cpus=config["cpus"],
        gpus=config["gpus"],
        machine=machine(),
        settings={name: recipe[name] for name in ("depth", "input_size", "compile") if name in recipe},
    )


def _build_distillation(config: dict[str, Any]) -> Trainer:
    device = own_device()
    teacher = load_teacher(
        config["teacher"],
        num_threads=config["cpus"],
        device=device,
        expected_fingerprint=config["teacher_fingerprint"],
    )
    train, val = (open_images(config["data"], split=split) for split in ("train", "val"))
    soft_labels = Folder(config["out"]).child("soft_labels")
    training = DistillationTrainer(Recipe.from_fields(config["recipe"]), teacher, train, val, soft_labels)
    if config["init_run"] and ray.train.get_checkpoint() is None:
        take_weights(training.student, load_student(config["init_run"]).model)
    return training


def _build_fine_tuning(config: dict[str, Any]) -> Trainer:
    recipe = TrainingRecipe.from_fields(config["recipe"])
    train, val = (open_images(config["data"], split=split) for split in ("train", "val"))
    num_classes = len(train.class_names)
    network = load_network(config["network"], num_classes, seed=recipe.seed, input_size=recipe.input_size)
    return FineTuningTrainer(recipe, network, train, val)


def _restored(training: Trainer) -> Trainer:
    """Go back to the last checkpoint, where there is one."""
    assert training.num_workers == ray.train.get_context().get_world_size(), "accelerate sees another process group"
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with store_errors(f"read {checkpoint.path}"), checkpoint.as_directory() as path:
            training.restore(Path(path))
    return training


def _report(training: Trainer, metrics: dict[str, float]) -> None:
    """Hand a checkpoint to Ray Train; a barrier, so every worker takes part."""
    with tempfile.TemporaryDirectory() as path:
        if training.rank == 0:
            training.save(Path(path))
        checkpoint = ray.train.Checkpoint.from_directory(path) if training.rank == 0 else None
        with store_errors("write a checkpoint"):
            ray.train.report(metrics, checkpoint=checkpoint)


class _Recorder:
    """Tell people and MLflow how training goes; does nothing on ranks above 0."""

    def __init__(self, training: Trainer, tracker: Tracker | None, progress: Reporter) -> None:
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
        shown: dict[str, Any] = {name: terms[name] for name in self.training.shown}
        self.progress(done, epoch=self.training.epoch + 1, **shown)
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
def _recorder(config: dict[str, Any], training: Trainer, folder: Folder) -> Iterator[_Recorder]:
    """Open the MLflow run, or go on with the one that an earlier start of this job has opened."""
    if training.rank > 0:
        yield _Recorder(training, None, config["progress"])
        return
    local = folder.local_path()
    tracker = Tracker(
        config["experiment"],
        f"{config['stage']} {config['name']}",
        params={"data": config["data"]} | config["source"] | config["recipe"],
        tags={"stage": config["stage"]},
        uri=config["tracking_uri"],
        spill=local / "mlflow-unsent.jsonl" if local else None,
        run_id=folder.read_json(TRACKING)["run_id"] if folder.exists(TRACKING) else None,
    )
    with tracker:
        folder.write_json(TRACKING, {"run_id": tracker.run_id})
        yield _Recorder(training, tracker, config["progress"])
        config["progress"].flush()
