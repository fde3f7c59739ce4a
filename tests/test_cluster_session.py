"""Division of machines among workers; the session itself is held by the tests of `shards`."""

import pytest

from cluster.session import WorkerResources, divide


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
