"""An explain job on a real Ray whose actor is killed, or that Ctrl-C ends: in the end each image has one row."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import explain.job
from cluster.storage import Folder
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student
from explain.config import Job
from explain.job import explain as run
from explain.maps import read_maps
from explain.methods.registry import METHODS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:.*is deprecated:DeprecationWarning:ray\.data\.context"),
]

NUM_IMAGES = 96
COMMAND = """
import sys, explain.job
from explain.__main__ import main
explain.job.SHARD_IMAGES = 2
sys.exit(main(sys.argv[1:]))
"""
KILL_AFTER_PARTS = 2


@pytest.fixture
def world(tmp_path) -> Path:
    """Make small images and an untrained student."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(NUM_IMAGES):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"images/{i:03}.png")
    torch.manual_seed(0)
    student = Student(
        model=ResCBAM(18, 5).eval(), input_size=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2),
        teacher="onnx:nowhere.onnx", teacher_fingerprint="none",
    )  # fmt: skip
    save_student(Folder(str(tmp_path / "student")), student)
    return tmp_path


def job(world: Path, out: str) -> Job:
    options = METHODS["ml_grad_cam"].options()
    return Job(options=options, data=str(world / "images"), student=str(world / "student"), out=str(world / out))


def kill_an_actor(folder: Path, killed: list[int]) -> None:
    deadline = time.monotonic() + 200
    while not killed and time.monotonic() < deadline:
        if len(list(folder.glob("part-*.parquet"))) >= KILL_AFTER_PARTS:
            for process in psutil.Process().children(recursive=True):
                if "MapBatches" in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
        time.sleep(0.02)


def test_a_killed_actor_changes_nothing(world, monkeypatch):
    monkeypatch.setattr(explain.job, "SHARD_IMAGES", 4)
    killed: list[int] = []
    watcher = threading.Thread(target=kill_an_actor, args=(world / "killed", killed), daemon=True)
    watcher.start()
    summary = run("ml_grad_cam", job(world, "killed"))
    watcher.join()
    assert killed
    assert (summary.rows, summary.errors, summary.skipped_rows) == (NUM_IMAGES, 0, 0)
    run("ml_grad_cam", job(world, "undisturbed"))
    columns = ["image_id", "target", "saliency"]
    rows, expected = (read_maps(str(world / out), columns).to_pylist() for out in ("killed", "undisturbed"))
    assert len({row["image_id"] for row in rows}) == len(rows) == NUM_IMAGES
    assert rows == expected


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(world, monkeypatch):
    out = world / "interrupted"
    words = ["ml_grad_cam", f"--data={world}/images", f"--student={world}/student", f"--out={out}", "--num-workers=1"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not list(out.glob("part-*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the job and to all that it has started
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130, error[-3000:]
    assert error.splitlines()[-1].endswith(
        "interrupted; the same command goes on where it stopped (distill: with --resume)"
    )
    assert "Traceback" not in error
    assert not (out / "_manifest.json").exists()
    monkeypatch.setattr(explain.job, "SHARD_IMAGES", 2)
    summary = run("ml_grad_cam", job(world, "interrupted"))
    assert (summary.rows, summary.errors) == (NUM_IMAGES, 0)
    assert 0 < summary.skipped_rows < NUM_IMAGES
