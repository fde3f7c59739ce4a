"""Maps, and the rows of all metrics of them."""

from types import SimpleNamespace
from typing import Any

import pytest
from measured_maps import (
    METHODS,
    count_queries,
    items_of,
    make_student,
    work_of,
    write_images,
    write_maps,
)

from evaluate.metrics.job import MetricsWorker
from evaluate.metrics.settings import METRICS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("measures")
    data, run = write_images(root / "photos"), root / "run"
    student = make_student(run)
    maps = [write_maps(data, root / name, name, student, run) for name in METHODS]
    return SimpleNamespace(root=root, data=data, run=str(run), maps=maps)


@pytest.fixture(scope="module")
def table(place: SimpleNamespace) -> Any:
    worker = MetricsWorker(work_of(place, METRICS))
    place.asked = count_queries(worker)
    return worker(items_of(place)).to_pandas()
