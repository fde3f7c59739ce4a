"""Worlds of made-up scores and their reports, made once."""

import pytest
from fake_scores import World, make_world, write_metrics
from report_pages import LIMIT, FakeTracker, report_of

from evaluate.games.protocol import Protocol
from evaluate.report.html import render
from evaluate.report.report_data import ReportData


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), num_errors=2)


@pytest.fixture(scope="session")
def found(world: World) -> ReportData:
    return report_of(world.scores)


@pytest.fixture(scope="session")
def page(found: ReportData) -> str:
    return render(found, photographs=True, num_gallery=5)


@pytest.fixture(scope="session")
def measured(world: World) -> str:
    return write_metrics(world, world.run.parent / "measures", limit=LIMIT)


@pytest.fixture(scope="session")
def full(world: World, measured: str) -> ReportData:
    return report_of(world.scores, measures=(measured,))


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, ReportData]:
    protocol = Protocol(patches=14, least_relevant=True)
    world = make_world(tmp_path_factory.mktemp("four"), num_images=10, num_errors=1, protocol=protocol)
    return world, report_of(world.scores)


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> list[FakeTracker]:
    FakeTracker.made = []
    monkeypatch.setattr("cluster.tracking.tracker.Tracker", FakeTracker)
    return FakeTracker.made
