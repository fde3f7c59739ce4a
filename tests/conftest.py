"""What all files of tests share: one S3 server, whose start takes seconds, and nothing of each other's trainings."""

import sys
from collections.abc import Iterator

import pytest
from object_store import ObjectStore, object_store


@pytest.fixture(scope="module", autouse=True)
def own_choices() -> None:
    """Let a file choose what is kept for a whole process: accelerate's precision (its first), MLflow's store."""
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(True)
    if mlflow := sys.modules.get("mlflow"):
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def running_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Run the server; from here on the environment names it, for this process and those it starts."""
    with object_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def store(running_store: ObjectStore) -> Iterator[ObjectStore]:
    """Give the server, well again after the test."""
    yield running_store
    running_store.tell()
