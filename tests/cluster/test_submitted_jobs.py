"""`ray job submit` as the README prints it, from a second shell: exit codes and logs come back, a stopped job resumes.

Four commands that each start Ray's tools, a head and a job: minutes, and so among the longer tests.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from project_paths import ROOT

from explain.maps import read_maps

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(1800)]

RAY = Path(sys.executable).with_name("ray")
NUM_IMAGES = 1200
PORT, AGENT_PORT = 8299, 52399  # apart from another Ray's on this machine
ADDRESS = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    (folder / "data").mkdir()
    for k in range(NUM_IMAGES):
        Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8)).save(folder / f"data/{k:04d}.png")
    return folder


@pytest.fixture(scope="module")
def shell(world: Path) -> Iterator[dict[str, str]]:
    """Make a token and start a head as the README does; give the second shell's environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"SLOW_BOX_S": "0.01", "HOME": str(world / "home"), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    environment["PATH"] = f"{RAY.parent}:{environment['PATH']}"  # the environment is active, as the README has it
    (world / "home").mkdir()
    make = f"umask 077; {RAY} get-auth-token --generate > /dev/null"
    subprocess.run(["bash", "-c", make], env=environment, check=True, capture_output=True)
    environment["RAY_AUTH_MODE"] = "token"
    options = ["--node-ip-address", "127.0.0.1", "--port", "0", "--num-cpus", "2", "--block"]
    ports = ["--dashboard-port", str(PORT), "--dashboard-agent-listen-port", str(AGENT_PORT)]
    with (world / "head.log").open("w") as log:
        start = [str(RAY), "start", "--head", *options, *ports]
        head = subprocess.Popen(start, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while ray(environment, "job", "list", "--address", ADDRESS).returncode and time.monotonic() < deadline:
            assert head.poll() is None, (world / "head.log").read_text()
            time.sleep(1)
        yield environment
    finally:
        head.terminate()
        head.wait(60)


def ray(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(RAY), *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)


def submit(shell: dict[str, str], world: Path, out: str, *words: str) -> subprocess.CompletedProcess[str]:
    uri = f'{{"env_vars": {{"MLFLOW_TRACKING_URI": "sqlite:///{world}/mlflow.db", "SLOW_BOX_S": "0.01"}}}}'
    job = ["python", "-m", "explain", "centre_gaussian", "--data", str(world / "data"), "--num-workers", "1"]
    job += ["--teacher", "python:benchmarks.reliability.slow_box:make", "--out", str(world / out)]
    client = ["job", "submit", "--address", ADDRESS, "--working-dir", ".", "--runtime-env-json", uri]
    return ray(shell, *client, *words, "--", *job)


def test_a_job_is_stopped_and_resumes_and_its_log_and_exit_code_come_back(shell: dict[str, str], world: Path) -> None:
    assert submit(shell, world, "maps", "--no-wait", "--submission-id", "first").returncode == 0
    deadline = time.monotonic() + 600
    while sum(1 for _ in world.glob("targets-*/part-*")) < 3 and time.monotonic() < deadline:
        status = ray(shell, "job", "status", "--address", ADDRESS, "first").stdout
        assert "FAILED" not in status, ray(shell, "job", "logs", "--address", ADDRESS, "first").stdout
    stopped = ray(shell, "job", "stop", "--address", ADDRESS, "first")
    assert stopped.returncode == 0, stopped.stderr
    parts = {path: path.stat().st_mtime_ns for path in world.glob("targets-*/part-*")}
    assert 3 <= len(parts) < NUM_IMAGES / 64
    assert not (world / "maps" / "_manifest.json").exists()

    again = submit(shell, world, "maps")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{NUM_IMAGES} maps and 0 images without one" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in parts} == parts  # what was done is not done again
    ids = read_maps(str(world / "maps"), ["image_id"])["image_id"].to_pylist()
    assert ids == [f"{k:04d}.png" for k in range(NUM_IMAGES)]

    (world / "data" / "one more.png").write_bytes((world / "data" / "0000.png").read_bytes())
    refused = submit(shell, world, "maps")
    assert refused.returncode == 1
    assert re.search(r"error: .* holds maps of another configuration", refused.stdout + refused.stderr)


def test_without_the_token_nothing_is_answered(shell: dict[str, str], world: Path) -> None:
    token = world / "home" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    kept = [path for path in world.rglob("*") if path.is_file() and path != token]
    assert [path for path in kept if token.read_bytes() in path.read_bytes()] == []
    stranger = {name: value for name, value in shell.items() if name != "RAY_AUTH_MODE"} | {"HOME": str(world)}
    refused = ray(stranger, "job", "list", "--address", ADDRESS)
    assert refused.returncode != 0
    assert "401" in refused.stdout + refused.stderr or "Unauthorized" in refused.stdout + refused.stderr
