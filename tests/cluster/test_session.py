"""Division of machines among workers, one Ray for several commands; the session is held by the tests of `shards`."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster.session import (
    MAX_TEMP_BYTES,
    WorkerResources,
    check_address,
    divide,
    divide_some,
    guard_token,
    ray_parent,
    ray_session,
)

# Two jobs, each its own process: where each finds Ray, and what the first has left there.
JOBS = """
import subprocess, sys
job = "import ray; ray.init(logging_level='warning'); print(ray.get_runtime_context().gcs_address, {0})"
kept = "ray.util.list_named_actors(all_namespaces=True)"
make = "ray.remote(type('Kept', (), {})).options(name='kept', lifetime='detached', namespace='n').remote()"
for what in (make + " and 'made'", kept):
    print(subprocess.run([sys.executable, "-c", job.format(what)], capture_output=True, text=True, check=True).stdout)
sys.exit(7)
"""


# A job with a worker of its own: every socket that its Ray listens on, how the token is kept, and where the worker
# would look for a Ray (the newest on the machine otherwise, which may be another job's).
SOCKETS = """
import json, os, pathlib
import psutil
from cluster.session import ray_session
with ray_session():
    import ray
    known = ray.get(ray.remote(lambda: os.environ["RAY_ADDRESS"]).remote())
    assert known == ray.get_runtime_context().gcs_address, known
    own = [psutil.Process(), *psutil.Process().children(recursive=True)]
    session = pathlib.Path(ray._private.worker._global_node.get_session_dir_path())
    assert session.parent.parent.stat().st_mode & 0o777 == 0o700, session
    found = [c.laddr.ip for p in own for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    token = pathlib.Path.home() / ".ray" / "auth_token"
    print(json.dumps([found, oct(token.stat().st_mode), token.read_text()]))
assert not session.parent.parent.exists(), session
"""

# A job that waits for its worker, whose Ray is told to end, and a command beside it.
ENDED = """
import subprocess, time
import psutil
from cluster.session import ray_session
with ray_session():
    import ray
    waiting = ray.remote(lambda: time.sleep(600)).remote()
    beside = subprocess.Popen(["sleep", "600"])
    own = [process for process in psutil.Process().children() if process.name() in ("raylet", "gcs_server")]
    assert len(own) == 2, own
    for process in own:
        process.terminate()
    print(beside.pid, flush=True)
    try:
        ray.get(waiting)
    except ray.exceptions.RayError:  # where Ray sees its own end, before it is looked at from here
        time.sleep(600)
"""


def resources(num_workers: int, cpus: int, gpus: int = 0) -> WorkerResources:
    return WorkerResources(num_workers=num_workers, cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    ("machines", "num_workers", "expected"),
    [
        ([(2, 0)], None, resources(1, 2)),
        ([(1, 0)], None, resources(1, 1)),
        ([(16, 0)], None, resources(4, 4)),
        ([(2, 0)], 2, resources(2, 1)),
        ([(7, 0)], 2, resources(2, 3)),
        ([(16, 4)], None, resources(4, 4, 1)),
        ([(16, 4)], 2, resources(2, 8, 1)),
        # More GPUs than cores: a worker needs a core.
        ([(2, 8)], None, resources(2, 1, 1)),
        # A worker does not span machines: 6 cores in all, but at most 3 together.
        ([(3, 0), (3, 0)], None, resources(2, 3)),
        ([(3, 0), (3, 0)], 1, resources(1, 3)),
        ([(3, 0), (3, 0)], 3, resources(3, 1)),
        # A head without cores takes no work, and a machine without GPUs none beside those that have some.
        ([(0, 0), (8, 0)], None, resources(2, 4)),
        ([(64, 0), (8, 2)], None, resources(2, 4, 1)),
    ],
)
def test_machines_are_divided(
    machines: list[tuple[int, int]], num_workers: int | None, expected: WorkerResources
) -> None:
    assert divide(machines, num_workers) == expected


@pytest.mark.parametrize(
    ("machines", "num_workers", "message"),
    [
        ([(2, 0)], 0, "--num-workers 0 does not fit.* 1 to 2"),
        ([(2, 0)], 3, "--num-workers 3 does not fit.* cores allow 1 to 2"),
        ([(16, 2)], 3, "GPUs allow 1 to 2"),
        ([(0, 0)], None, "no cores that a worker could use"),
    ],
)
def test_what_does_not_fit_is_said(machines: list[tuple[int, int]], num_workers: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        divide(machines, num_workers)


def some(num_workers: int, cpus: int, gpus: int, min_workers: int) -> WorkerResources:
    return WorkerResources(num_workers=num_workers, cpus=cpus, gpus=gpus, min_workers=min_workers)


@pytest.mark.parametrize(
    ("machines", "min_workers", "num_workers", "expected"),
    [
        ([(1, 0), (1, 0)], 1, 2, some(2, 1, 0, 1)),
        ([(1, 0)], 1, 2, some(2, 1, 0, 1)),  # the second one's node is still to come
        ([(16, 4), (16, 4)], 2, None, some(8, 4, 1, 2)),
        ([(16, 0)], 6, None, some(6, 2, 0, 6)),  # more than one for every four cores
    ],
)
def test_machines_are_divided_among_workers_that_come_and_go(
    machines: list[tuple[int, int]], min_workers: int, num_workers: int | None, expected: WorkerResources
) -> None:
    assert divide_some(machines, min_workers, num_workers) == expected


@pytest.mark.parametrize(
    ("machines", "min_workers", "num_workers", "message"),
    [
        ([(1, 0)], 2, 2, "--min-workers 2 does not fit.* cores allow 1 to 1"),
        ([(4, 0)], 3, 2, "--min-workers 3 is more than --num-workers 2"),
        ([(4, 0)], 0, 2, "--min-workers 0 does not fit"),
        ([(0, 0)], 1, 2, "no cores that a worker could use"),
    ],
)
def test_fewest_workers_that_do_not_fit_are_said(
    machines: list[tuple[int, int]], min_workers: int, num_workers: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        divide_some(machines, min_workers, num_workers)


@pytest.mark.slow
def test_one_ray_serves_all_jobs_of_a_command() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    command = [sys.executable, "-m", "cluster", "run", "--", sys.executable, "-c", JOBS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    (first, made), (second, *kept) = (line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
    assert done.returncode == 7, done.stderr
    assert first == second
    assert made == "made"
    assert "'kept'" in kept[0]


@pytest.mark.parametrize("command", [[], ["no-such-command"]])
def test_a_command_that_is_none_is_refused_before_ray_starts(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "run", "--", *command], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "give one that runs" in done.stderr


def test_a_ray_of_this_machine_listens_on_loopback_and_its_token_is_the_owners(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray" / "auth_token"
    token.write_text("5" * 64)
    token.chmod(0o644)  # as Ray leaves it
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", SOCKETS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    listening, mode, kept = json.loads(done.stdout.splitlines()[-1])
    assert len(listening) > 5  # the driver, its worker, the raylet and its agents, the GCS
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert (mode, kept) == ("0o100600", "5" * 64)
    assert "5" * 64 not in done.stdout.replace(kept, "", 1) + done.stderr


@pytest.mark.slow
def test_a_job_ends_with_its_ray_and_leaves_nothing_behind() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", ENDED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: the Ray of this job has ended; give the command again, it goes on"
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(10)


def test_a_token_is_made_once_whoever_else_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    path = tmp_path / ".ray" / "auth_token"

    def made(_: int) -> str:
        guard_token()
        return path.read_text()

    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(made, range(16)))
    assert len(tokens) == 1
    assert len(tokens.pop()) == 64
    assert [(file.name, file.stat().st_mode & 0o777) for file in path.parent.iterdir()] == [("auth_token", 0o600)]
    assert path.parent.stat().st_mode & 0o077 == 0


def test_beside_a_running_cluster_a_token_is_closed_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    guard_token(make=False)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("7" * 64)
    path.chmod(0o644)
    guard_token(make=False)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("7" * 64, 0o600)


def test_a_token_that_the_user_names_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "own")
    guard_token()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:10001", "127.0.0.1", "127.0.0.1:0", ":6379", "h:99999"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"is no HOST:PORT of a Ray cluster; give .* or unset RAY_ADDRESS"):
        check_address(address)


def test_an_address_where_nobody_listens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for dead in (address, "no-such-host.invalid:6379"):
        monkeypatch.setenv("RAY_ADDRESS", dead)
        with pytest.raises(ValueError, match=f"no Ray cluster answers at RAY_ADDRESS={dead} "), ray_session():
            pass


def test_a_folder_of_temporary_files_with_a_long_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/" + "x" * (MAX_TEMP_BYTES - 1))
    longest = "mgc-XXXXXXXX/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
    assert len(f"{ray_parent()}/{longest}") == 107
    monkeypatch.setenv("TMPDIR", "/" + "x" * 64)
    with pytest.raises(ValueError, match=r"^TMPDIR is 65 bytes long, .* at most 28 bytes"):
        ray_parent()


def test_a_home_that_cannot_be_written_is_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": "/proc"}
    command = [sys.executable, "-m", "cluster", "run", "--", "true"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr
