"""Maps to play."""

from types import SimpleNamespace

import pytest
from played_maps import write_images, write_maps


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("games")
    data = write_images(root / "photos")
    maps = [write_maps(data, root / name, name) for name in ("first", "second_one")]
    return SimpleNamespace(root=root, data=data, maps=maps, uri=f"sqlite:///{root}/mlflow.db")
