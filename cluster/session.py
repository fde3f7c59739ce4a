"""Attach to a Ray cluster or start Ray on this machine, and divide what is there among workers."""

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from cluster.cli import verbose
from cluster.errors import one_line
from cluster.private_folder import private_folder

ADDRESS = "RAY_ADDRESS"
ADDRESS_HINT = f"give the HOST:PORT of its head, or unset {ADDRESS} to start Ray on this machine"
CONNECT_S = 10.0
TEMP_VARIABLES = ("RAY_TMPDIR", "TMPDIR")
# A socket's path has at most 107 bytes; Ray's is 79 longer than this:
# /mgc-XXXXXXXX/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store
MAX_TEMP_BYTES = 28
CORES_PER_WORKER = 4  # convolutions gain little from more threads in one worker
# Ray warns about its own defaults otherwise, and prints a training worker's lines twice; the user's own settings win.
ENV = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # unused here; it logs a warning about its arguments
}
# Queries a dashboard, which a local Ray does not have, and logs an error every second.
CLEANER = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
# A Ray that starts here asks everybody for a token; this logger announces that in a warning.
ANNOUNCER = "ray._private.authentication.authentication_token_setup"
# Whether Ray prefers the machine's own address to loopback; meant for other systems, read when Ray is imported.
SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
WATCH_S = 2.0  # from one look at the Ray that has started here to the next
OWN_TOKEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # where users name their own, which is theirs to guard


@dataclass(frozen=True, kw_only=True)
class WorkerResources:
    """Say how many workers run, and what each of them has."""

    num_workers: int
    """Workers that run at once."""
    cpus: int
    """Cores of one worker, which are also its torch threads."""
    gpus: int
    """GPUs of one worker: 0 or 1."""
    min_workers: int | None = None
    """Fewest workers with which work goes on, where their number may change; None where it may not."""


@contextmanager
def ray_session(num_shards: int | None = None) -> Iterator[None]:
    """Run the block with Ray: the one already connected, the cluster of RAY_ADDRESS, or a new one here.

    A job of a single shard, on a machine without a GPU and without a Ray that was there before, runs in this process:
    one actor would do its work, and Ray takes longer to start than that work takes.

    `ray job submit` sets RAY_ADDRESS, and so does `run_with_ray`. A Ray of this machine has no dashboard, listens on
    loopback alone, asks for the token that its owner's home folder keeps, and is shut down afterwards; one that was
    there before is left as it was.

    Args:
        num_shards: Shards that `run_shards` will be given, whose actors call `prepare_worker` themselves; None where
            Ray is needed for something else, and calls it in all that it starts. None of the idle processes that Ray
            keeps ready can be taken then, and the work starts seconds later.
    """
    for name, value in ENV.items():
        os.environ.setdefault(name, value)
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    on_cluster = os.environ.get(ADDRESS, "local") not in ("", "local")
    alone = num_shards is not None and num_shards <= 1 and not on_cluster and not _has_gpu()
    if has_ray() or alone:
        yield
        return
    options: Any = {"logging_level": logging.INFO if verbose() else logging.WARNING}
    if num_shards is None:
        options["runtime_env"] = {"worker_process_setup_hook": prepare_worker}
    with _attached(options) if on_cluster else _started(options):
        yield


def _has_gpu() -> bool:
    from cluster.device import own_device

    return own_device() == "cuda"


def has_ray() -> bool:
    """Tell whether this process is connected to a Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@contextmanager
def _attached(options: dict[str, Any]) -> Iterator[None]:
    """Use the cluster of RAY_ADDRESS. Raises: ValueError where there is none."""
    import ray

    address = os.environ[ADDRESS]
    check_address(address)
    guard_token(make=False)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"no Ray cluster answers at {ADDRESS}={address}: {one_line(error)}; {ADDRESS_HINT}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _started(options: dict[str, Any]) -> Iterator[None]:
    """Start Ray on this machine, for the block alone."""
    import ray

    logging.getLogger(ANNOUNCER).setLevel(logging.ERROR)
    guard_token()
    # Ray lets everybody write to its own folder, job working directories included; nobody reaches it in a private one.
    with private_folder(ray_parent()) as folder, loopback():
        ray.init(address="local", include_dashboard=False, _temp_dir=str(folder / "r"), **options)
        try:
            with _watch_ray(ray.get_runtime_context().gcs_address):
                yield
        finally:
            ray.shutdown()


def ray_parent() -> str:
    """Return the folder in which Ray's private folder is made, where Ray itself would make its own.

    Raises:
        ValueError: its name is too long for the sockets in it.
    """
    name = next((name for name in TEMP_VARIABLES if os.environ.get(name)), None)
    parent = os.environ[name] if name else "/tmp"  # noqa: S108 - Ray's own choice; the folder inside is private
    if (length := len(os.fsencode(os.path.abspath(parent)))) > MAX_TEMP_BYTES:
        raise ValueError(
            f"{name} is {length} bytes long, too long for the names of Ray's sockets in it; give a folder of at most "
            f"{MAX_TEMP_BYTES} bytes, such as {name}=/tmp"
        )
    return parent


def check_address(address: str) -> None:
    """Refuse an address where no Ray cluster can be; `auto` too, which takes anybody's Ray on this machine.

    Raises:
        ValueError: it is no HOST:PORT, or nobody listens there.
    """
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{ADDRESS}={address} is no HOST:PORT of a Ray cluster; {ADDRESS_HINT}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster answers at {ADDRESS}={address} ({error}); {ADDRESS_HINT}") from error


@contextmanager
def _watch_ray(gcs_address: str) -> Iterator[None]:
    """End this process, and all that it has started, where its Ray takes no more connections within the block.

    Ray sees to that itself where one of its processes dies, but not where both its head (GCS) and its raylet are told
    to end at once, as by a machine that shuts down: they wait for each other then, and the job for both, for ever.
    """
    host, port = gcs_address.rsplit(":", 1)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            if not _listens(host, int(port)) and not over.is_set():
                print("\nerror: the Ray of this job has ended; give the command again, it goes on", file=sys.stderr)
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                os._exit(1)

    threading.Thread(target=watch, name="watch-ray", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _listens(host: str, port: int) -> bool:
    """Return False where nobody listens there; one that is too busy to answer does."""
    try:
        socket.create_connection((host, port), timeout=WATCH_S).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        pass
    return True


def run_with_ray(command: Sequence[str]) -> int:
    """Run a command with one Ray for all jobs that it starts, and return its exit status.

    Raises:
        ValueError: There is no such command.
    """
    if not command or shutil.which(command[0]) is None:
        raise ValueError(f"no command {' '.join(command[:1])!r}; give one that runs, after --")
    if os.environ.get(ADDRESS, "local") not in ("", "local"):
        return subprocess.run(command, check=False).returncode
    with ray_session():
        return subprocess.run(command, check=False, env=os.environ | client_environment()).returncode


def client_environment() -> dict[str, str]:
    """Return what another process on this machine needs in its environment to use the Ray that this one started."""
    import ray

    # It asks for its token, which clients send in this mode only, and knows them by their address, which is loopback.
    return {ADDRESS: ray.get_runtime_context().gcs_address, "RAY_AUTH_MODE": "token", SEVERAL_MACHINES: "0"}


def guard_token(*, make: bool = True) -> None:
    """See to it that the token in the home folder is there and that its owner alone can read it.

    Ray would make it readable by everybody, and make it twice where two jobs start at once.

    Args:
        make: Whether to make one where there is none; a cluster that is running has its own.
    """
    if any(os.environ.get(name) for name in OWN_TOKEN):
        return
    path = Path.home() / ".ray" / "auth_token"
    if not path.exists() and not make:
        return
    try:
        if not path.exists():
            _make_token(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise ValueError(
            f"cannot keep Ray's token in {path}: {error}; set HOME, or RAY_AUTH_TOKEN_PATH, to where you may write"
        ) from error


def _make_token(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    aside.touch(mode=0o600, exist_ok=False)
    aside.write_text(secrets.token_hex(32), encoding="ascii")
    with suppress(FileExistsError):
        os.link(aside, path)  # a rename would overwrite the token of a job that was quicker
    aside.unlink()


@contextmanager
def loopback() -> Iterator[None]:
    """Let a Ray that starts in the block listen on loopback alone, though it is imported already."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def prepare_worker() -> None:
    """Name to a worker the Ray that it is of, and silence the errors about a missing dashboard.

    What looks for a Ray from inside of a worker takes the newest on the machine else, and Ray Train's own watch over
    its controller would take a controller for dead that another job's Ray does not know.
    """
    import ray

    os.environ[ADDRESS] = ray.get_runtime_context().gcs_address
    logging.getLogger(CLEANER).setLevel(logging.CRITICAL)
    if not verbose():  # Ray Train names this one by its file, so that its own level of logging does not reach it
        reports = Path(ray.__file__).parent / "train/v2/_internal/execution/context.py"
        logging.getLogger(str(reports)).setLevel(logging.WARNING)


def worker_resources(num_workers: int | None = None, *, min_workers: int | None = None) -> WorkerResources:
    """Look at the cluster and divide it: a worker for each GPU, else one for every four cores of a machine.

    Args:
        num_workers: So many workers instead, with as many cores each as the machines allow.
        min_workers: Fewest workers to go on with; then `num_workers` are the most, some of them on nodes to come.

    Raises:
        ValueError: `num_workers`, or `min_workers` where it is given, is below 1, or more than there are GPUs (else
            cores); or `min_workers` is more than `num_workers`.
    """
    import ray
    from ray._private.utils import get_num_cpus

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] if has_ray() else [{"CPU": get_num_cpus()}]
    machines = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    return divide(machines, num_workers) if min_workers is None else divide_some(machines, min_workers, num_workers)


def divide(
    machines: Sequence[tuple[int, int]], num_workers: int | None, *, asked: str = "--num-workers"
) -> WorkerResources:
    """Divide machines, each (cores, GPUs), among workers; a worker does not span machines.

    Raises:
        ValueError: As `worker_resources`.
    """
    gpus = sum(gpus for _, gpus in machines)
    most = _num_fitting(machines, 1, bool(gpus))
    kind = "GPUs" if gpus else "cores"
    if most < 1:
        raise ValueError(
            f"the Ray cluster has no {kind} that a worker could use; start a node with --num-cpus 1 or more"
        )
    if num_workers is None:
        num_workers = most if gpus else sum(max(1, cores // CORES_PER_WORKER) for cores, _ in machines if cores)
    if not 1 <= num_workers <= most:
        raise ValueError(f"{asked} {num_workers} does not fit: this cluster's {kind} allow 1 to {most}")
    cpus = max(cores for cores, _ in machines)
    while _num_fitting(machines, cpus, bool(gpus)) < num_workers:
        cpus -= 1
    return WorkerResources(num_workers=num_workers, cpus=cpus, gpus=int(bool(gpus)))


def divide_some(machines: Sequence[tuple[int, int]], min_workers: int, num_workers: int | None) -> WorkerResources:
    """Divide machines among at least `min_workers`, as `divide` does among those of `num_workers` that fit now.

    Raises:
        ValueError: As `worker_resources`.
    """
    if num_workers is not None and min_workers > num_workers:
        raise ValueError(f"--min-workers {min_workers} is more than --num-workers {num_workers}; give at most as many")
    fewest = divide(machines, min_workers, asked="--min-workers")
    if num_workers is None:
        now = divide(machines, None)
        now = fewest if now.num_workers < min_workers else now
        return replace(now, min_workers=min_workers)
    fitting = _num_fitting(machines, 1, bool(fewest.gpus))
    return replace(divide(machines, min(num_workers, fitting)), num_workers=num_workers, min_workers=min_workers)


def _num_fitting(machines: Sequence[tuple[int, int]], cpus: int, on_gpus: bool) -> int:
    return sum(min(cores // cpus, gpus) if on_gpus else cores // cpus for cores, gpus in machines)
