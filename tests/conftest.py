"""One S3 server for all tests that need it: starting it takes seconds."""

from collections.abc import Iterator

import pytest
from object_store import ObjectStore, object_store


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
