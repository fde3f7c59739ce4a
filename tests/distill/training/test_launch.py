"""Distill on a real Ray: what a job leaves, and that nothing is lost when a worker or the driver is killed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
import torch
from object_store import BUCKET
from PIL import Image
from project_paths import ROOT
from small_disk import remount, small_disk

from cluster.errors import WorkError
from cluster.planning.throughput import rate_from
from cluster.storage import Folder
from distill.config import DistillConfig
from distill.student.checkpoint import load_student, save_student
from distill.student.model import ResCBAM, Student
from distill.teachers.teacher_toml import Description
from distill.teachers.tools.export import export_onnx
from distill.training.launch import distill
from distill.training.recipes import Recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's and MLflow's own, at their start and end
]

RECIPE = Recipe(
    depth=18, input_size=(32, 32), epochs=4, batch_size=8, lr=0.01, precision="float32", num_views=2,
    loader_workers=0, checkpoint_steps=1, log_steps=1,
    masked_share=0.3, blurred_share=0.2, mixup=0.5, label_weight=0.5,
)  # fmt: skip
NUM_STEPS = 4 * 3
SNAPSHOT = "checkpoints/checkpoint_manager_snapshot.json"  # Ray Train's, written when a checkpoint is committed


class BlackBox(torch.nn.Module):
    """Look at the mean color of an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) * 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Make 30 tiny images of 3 classes, one of them broken, a black box, and a student of 5 classes to start from."""
    folder = tmp_path_factory.mktemp("world")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for c in range(3):
            (folder / "data" / split / f"class{c}").mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 130, (40, 50, 3))
                pixels[..., c] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"data/{split}/class{c}/{i}.png")
    (folder / "data/train/class1/3.png").write_bytes(b"broken")
    gray = (0.5, 0.5, 0.5)
    described = Description(input_size=(24, 40), mean=gray, std=gray, output="logits")
    export_onnx(BlackBox(), str(folder / "teacher"), described)
    torch.manual_seed(0)
    start = Student(
        model=ResCBAM(18, 5), input_size=(64, 64), mean=gray, std=gray, teacher="onnx:a", teacher_fingerprint="a"
    )
    save_student(Folder(str(folder / "start")), start)
    return folder


@pytest.fixture(scope="module")
def undisturbed(world):
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{world}/mlflow.db"
    metrics = run(world, "undisturbed", num_workers=2)
    yield world / "undisturbed", metrics
    del os.environ["MLFLOW_TRACKING_URI"]


def run(world, name, recipe=RECIPE, **options):
    teacher = f"onnx:{world}/teacher/model.onnx"
    places: dict[str, Any] = {"data": str(world / "data"), "out": str(world / name), "init": str(world / "start")}
    return distill(DistillConfig(recipe=recipe, teacher=teacher, **(places | options)), name="folder")


def test_the_job_leaves_a_student_its_curves_and_its_errors(world, undisturbed):
    folder, metrics = undisturbed
    student = load_student(str(folder))
    assert (student.num_classes, student.input_size, student.depth) == (3, (32, 32), 18)
    manifest = Folder(str(folder)).finished()
    assert manifest is not None
    assert manifest["metrics"] == metrics
    assert {"val_sim1", "val_sim2", "val_sim3", "val_kl", "val_accuracy"} == set(metrics)
    assert "train/class1/3.png" in manifest["errors"]  # and the images that it was to be mixed into
    assert all(error.startswith("train/class1/3.png: ") for error in manifest["errors"].values())
    rate = rate_from(manifest["rate"])
    assert (rate.kind, rate.items, rate.num_workers) == ("training", (NUM_STEPS - 1) * 8, 2)  # all but the first step
    assert rate.settings == {"depth": 18, "input_size": [32, 32], "compile": False}
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    (tracked,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(tracked.info.run_id, "train_loss")
    assert [m.step for m in losses] == list(range(1, NUM_STEPS + 1))
    assert losses[-1].value < losses[0].value
    for name in ("train_kl", "train_ce", "train_lr", "train_images_per_s"):
        assert len(client.get_metric_history(tracked.info.run_id, name)) == NUM_STEPS
    assert len(client.get_metric_history(tracked.info.run_id, "val_sim1")) == RECIPE.epochs
    assert len(list(folder.glob("checkpoints/checkpoint_2*"))) <= 2


def test_a_killed_worker_changes_nothing(world, undisturbed):
    killed = threading.Event()
    threading.Thread(target=kill_a_worker, args=(world / "killed", killed), daemon=True).start()
    run(world, "killed", num_workers=2)
    assert killed.is_set()
    assert same_student(world / "killed", undisturbed[0])


def kill_a_worker(folder, killed):
    """SIGKILL one of this process's training workers after the third checkpoint was begun."""
    kill_a_worker_when(lambda: len(list(folder.glob("checkpoints/checkpoint_2*"))) >= 2, killed)


def kill_a_worker_when(ready, killed):
    deadline = time.monotonic() + 300
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]
    os.kill(workers[-1].pid, signal.SIGKILL)
    killed.set()


def test_a_killed_driver_is_resumed_exactly(world, undisturbed):
    teacher = f"onnx:{world}/teacher/model.onnx"
    options = [f"--data={world}/data", f"--teacher={teacher}", f"--out={world}/resumed", "--num-workers=2"]
    options += [f"--init={world}/start"]
    for name, value in vars(RECIPE).items():
        if value != getattr(Recipe(batch_size=128, lr=0.05, schedule="cosine", epochs=50, warmup_epochs=2), name):
            options += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    options += ["--warmup-epochs", "0.0"]
    command = [sys.executable, "-m", "distill", "folder", *options]
    first = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while len(list((world / "resumed").glob("checkpoints/checkpoint_2*"))) < 2 and time.monotonic() < deadline:
            assert first.poll() is None, "the job ended before it could be killed"
            time.sleep(0.05)
        tree = psutil.Process(first.pid).children(recursive=True)
    finally:
        for process in [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]:
            process.kill()
        first.wait()
    assert tree
    assert not (world / "resumed" / "student.json").exists()
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = subprocess.run([*command, "--resume"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not re.search("\x1b|Ray|Train|ray|[Cc]heckpoint", resumed.stderr.replace(str(world), "")), resumed.stderr
    assert resumed.stdout.startswith(f"student in {world}/resumed: ")
    assert resumed.stdout.splitlines()[1].startswith("next: python -m explain mal_grad_cam --data ")
    assert len(list((world / "resumed").glob("checkpoints/checkpoint_2*"))) <= 2
    assert same_student(world / "resumed", undisturbed[0])


@pytest.mark.chaos
def test_a_killed_worker_on_an_object_store_changes_nothing(world, undisturbed, store):
    place, killed = Folder(f"s3://{BUCKET}/{world.name}"), threading.Event()
    for path in (world / "data").rglob("*.png"):
        place.write_bytes(path.relative_to(world).as_posix(), path.read_bytes())
    out = place.child("student")
    threading.Thread(target=kill_a_worker_when, args=(lambda: out.exists(SNAPSHOT), killed), daemon=True).start()
    recipe = replace(RECIPE, checkpoint_steps=100)  # at the ends of epochs alone: each is 90 MB
    options = {"data": place.child("data").uri, "out": out.uri, "num_workers": 2}
    run(world, "", recipe, **options)
    assert killed.is_set()
    assert same_student(out.uri, undisturbed[0])
    with pytest.raises(ValueError, match="finished student"):
        run(world, "", recipe, **options)


@pytest.mark.chaos
def test_a_full_disk_is_said_and_training_goes_on_when_there_is_room(world, undisturbed, tmp_path):
    with small_disk(tmp_path / "disk", 220 * 1024) as disk:  # room for two checkpoints
        with pytest.raises(WorkError, match=r"started 6 times: cannot write .*No space left on device"):
            run(world, "", out=str(disk / "student"), num_workers=2)
        assert Folder(str(disk / "student")).finished() is None
        remount(disk, "size=1g")
        run(world, "", out=str(disk / "student"), num_workers=2, resume=True)
        assert same_student(disk / "student", undisturbed[0])


def same_student(folder, other):
    """Compare stored weights: bitwise but for the reductions between two workers, whose order is not fixed."""
    ours, theirs = (load_student(str(f)).model.state_dict() for f in (folder, other))
    return all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5) for name in ours)


def test_work_that_does_not_fit_is_refused_before_it_starts(world, undisturbed, tmp_path):
    with pytest.raises(ValueError, match="finished student"):
        run(world, "undisturbed")
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/b").mkdir()
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name)
    with pytest.raises(ValueError, match="3"):  # two class folders, a black box of three classes
        run(world, "out", data=str(tmp_path / "data"), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="have 18 layers, the recipe's student 50; give --depth 18"):
        run(world, "deeper", replace(RECIPE, depth=50))
    with pytest.raises(FileNotFoundError, match="holds no student"):
        run(world, "deeper", init=str(world / "data"))
    assert not (world / "deeper").exists()
    (world / "claimed" / "checkpoints").mkdir(parents=True)
    Folder(str(world / "claimed")).claim({"recipe": "another"}, what="student")
    with pytest.raises(ValueError, match="recipe"):
        run(world, "claimed", replace(RECIPE, seed=1), resume=True)
    assert Folder(str(undisturbed[0])).config()["init"] == load_student(str(world / "start")).fingerprint
    (undisturbed[0] / "_manifest.json").rename(undisturbed[0] / "aside.json")
    with pytest.raises(ValueError, match="init: got nothing, stored"):
        run(world, "undisturbed", init=None, resume=True)
    (undisturbed[0] / "aside.json").rename(undisturbed[0] / "_manifest.json")
