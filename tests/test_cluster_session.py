"""Division of machines among workers, one Ray for several commands; the session is held by the tests of `shards`."""

import os
import subprocess
import sys

import pytest

from cluster.session import WorkerResources, divide

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
