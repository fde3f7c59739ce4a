"""Jobs on one machine: two at once do not disturb each other, and the memory of one stays flat."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from project_paths import HELPERS, ROOT

from benchmarks.reliability.memory import measure
from explain.maps import read_maps

NUM_IMAGES = 150
pytestmark = pytest.mark.slow


def explain(data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "explain", "random", "--data", str(data), "--out", str(out)]
    command += ["--teacher", "python:tiny_teacher:bright", "--num-workers", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HELPERS)])
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)


def test_two_jobs_at_once_leave_what_each_leaves_alone(tmp_path: Path) -> None:
    """They share the folder of the black box's answers, and a token where the machine has none yet."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for k in range(NUM_IMAGES):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f"data/{k:03d}.png")
    with ThreadPoolExecutor(2) as pool:
        jobs = list(pool.map(lambda name: explain(tmp_path / "data", tmp_path / "both" / name), ("one", "two")))
    jobs.append(explain(tmp_path / "data", tmp_path / "alone" / "three"))
    assert [job.returncode for job in jobs] == [0, 0, 0], [job.stderr[-2000:] for job in jobs]
    for job in jobs:  # the images, a line a stage (more where it takes long), the result: nothing of Ray's own
        lines = [line for line in job.stderr.splitlines() if not re.match(r"(targets|random): \d+/150 rows", line)]
        assert lines == ["150 images, no classes, no splits"]
        assert [line.split(" --")[0] for line in job.stdout.splitlines()][1:] == [
            "next: python -m explain show",
            "next: python -m evaluate games",
        ]
    places = ("both/one", "both/two", "alone/three")
    one, two, three = (read_maps(str(tmp_path / place)).drop_columns(["seconds"]) for place in places)
    assert one.num_rows == NUM_IMAGES
    assert one["error"].null_count == NUM_IMAGES
    assert one.equals(two)
    assert one.equals(three)
    (targets,) = (tmp_path / "both").glob("targets-*")
    ids = pq.read_table(targets)["image_id"].to_pylist()
    assert sorted(ids) == [f"{k:03d}.png" for k in range(NUM_IMAGES)]
    assert not list((tmp_path / "both").rglob("*.aside"))


@pytest.mark.parametrize(
    ("num_images", "warm_up"),
    [(2000, 0.5), pytest.param(10_000, 0.2, marks=[pytest.mark.slow, pytest.mark.chaos])],
)
def test_memory_stays_flat(num_images: int, warm_up: float) -> None:
    found, _ = measure(num_images, warm_up=warm_up)
    assert {kind: one.share < 0.05 for kind, one in found.items()} == {"driver": True, "worker": True}, found
