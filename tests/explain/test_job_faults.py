"""What an explain job on a real Ray does when disk, data, store or black box fail in its middle, and its rerun then.

Each time the same end: every image has one row, and the maps are those of an undisturbed job.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from object_store import BUCKET, ObjectStore
from PIL import Image
from project_paths import HELPERS
from remote_teacher import ADDRESS, Server
from small_disk import remount, small_disk

import explain.job
from cluster.session import ray_session
from cluster.storage import Folder
from explain.__main__ import main
from explain.maps import read_maps

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:.*is deprecated:DeprecationWarning:ray\.data\.context"),
]

NUM_IMAGES, SHARD = 32, 2
CALLS_AT_LOAD = 3  # of a black box in each process: one image, and a batch in two orders
AFTER_PARTS = 2  # the fault comes when so many are there
TEACHER = "python:remote_teacher:make"
COLUMNS = ["image_id", "target", "target_prob", "method", "saliency", "error"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run what the black box asks; before Ray, whose actors inherit its address and where its code is."""
    with pytest.MonkeyPatch.context() as patch:
        running = Server()
        patch.setenv(ADDRESS, running.address)
        patch.setenv("PYTHONPATH", str(HELPERS), prepend=os.pathsep)
        yield running
        running.stop()


@pytest.fixture(scope="module", autouse=True)
def ray(running_store: ObjectStore, server: Server) -> Iterator[None]:
    with ray_session():
        yield


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain.job, "SHARD_IMAGES", SHARD)
    monkeypatch.setattr(explain.job, "QUERY_SHARD_IMAGES", SHARD)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make small images in ten class folders, as many as the black box has classes."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        folder = root / f"class{i % 10}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return root


def job(data: object, out: object, *words: str, method: str = "random") -> int:
    """Run the command, which has one worker so that the fault finds it at work."""
    return main([method, "--data", str(data), "--out", str(out), "--num-workers", "1", *words])


@contextmanager
def in_the_middle(out: object, fault: Callable[[], None]) -> Iterator[None]:
    """Let the fault happen when the first parts are there."""
    happened = threading.Event()

    def watch() -> None:
        folder, deadline = Folder(str(out)), time.monotonic() + 120
        while sum(name.startswith("part-") for name in folder.names()) < AFTER_PARTS:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        fault()
        happened.set()

    threading.Thread(target=watch, daemon=True).start()
    yield
    assert happened.wait(5)


def rows(out: object) -> list[dict]:
    found = sorted(read_maps(str(out), COLUMNS).to_pylist(), key=lambda row: row["image_id"])
    assert len({row["image_id"] for row in found}) == len(found) == NUM_IMAGES
    return found


@pytest.fixture(scope="module")
def undisturbed(data: Path, ray: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    out = tmp_path_factory.mktemp("undisturbed") / "maps"
    assert job(data, out) == 0
    return rows(out)


def unfinished(out: object, capsys: pytest.CaptureFixture, *said: str) -> None:
    """Check that the job has stopped in its middle, and that its last word is what was wrong, in one line."""
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")][-1]
    assert all(part in error for part in said), error
    parts = [name for name in Folder(str(out)).names() if name.startswith("part-")]
    assert AFTER_PARTS <= len(parts) < NUM_IMAGES // SHARD
    assert Folder(str(out)).finished() is None


def test_a_full_disk(data: Path, undisturbed: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with small_disk(tmp_path / "disk", 2048) as disk:
        assert job(data, disk / "maps") == 2
        unfinished(
            disk / "maps", capsys, "cannot write part-", "No space left on device", "give the same command again"
        )
        remount(disk, "size=64m")
        assert job(data, disk / "maps") == 0
        assert rows(disk / "maps") == undisturbed


def test_a_disk_that_becomes_read_only(
    data: Path, undisturbed: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 65536) as disk:
        with in_the_middle(disk / "maps", lambda: _remount_when_possible(disk, "ro")):
            assert job(data, disk / "maps") == 2
        unfinished(disk / "maps", capsys, "cannot write part-", "Read-only file system", "give the same command again")
        remount(disk, "rw")
        assert job(data, disk / "maps") == 0
        assert rows(disk / "maps") == undisturbed


def _remount_when_possible(disk: Path, options: str) -> None:
    """Try until no file of the disk is open for writing."""
    for _ in range(1000):
        with suppress(subprocess.CalledProcessError):
            return remount(disk, options)
    raise AssertionError("the disk was never idle")


@pytest.mark.parametrize("gone", ["moved", "emptied"])
def test_a_data_set_that_vanishes(
    data: Path, undisturbed: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture, gone: str
) -> None:
    own, aside, out = tmp_path / "photos", tmp_path / "aside", tmp_path / "maps"
    shutil.copytree(data, own)

    def vanish() -> None:
        own.rename(aside)
        if gone == "emptied":  # as where a disk is not mounted any more
            own.mkdir()

    with in_the_middle(out, vanish):
        assert job(own, out) == 2
    unfinished(out, capsys, "of the data set", "is gone, or empty", "give the same command again")
    if gone == "emptied":
        own.rmdir()
    aside.rename(own)
    assert job(own, out) == 0
    assert rows(out) == undisturbed


@pytest.fixture
def stored(store: ObjectStore, data: Path, tmp_path: Path) -> Folder:
    """Give a folder of the store that holds the images as `photos`."""
    place = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    for path in data.rglob("*.png"):
        place.write_bytes(f"photos/{path.relative_to(data).as_posix()}", path.read_bytes())
    return place


def test_a_store_that_fails_for_a_while(
    store: ObjectStore, stored: Folder, undisturbed: list[dict], capsys: pytest.CaptureFixture
) -> None:
    own, out = stored.child("photos").uri, stored.child("maps").uri

    def fail() -> None:
        store.tell(fail=True)
        threading.Timer(3, store.tell).start()

    with in_the_middle(out, fail):
        assert job(own, out) == 0  # it waits, and goes on
    assert store.counts()[1] > 0
    assert rows(out) == undisturbed
    before = Folder(out).names()
    assert job(own, out) == 0
    assert Folder(out).names() == before
    assert job(own, out, "--seed", "1") == 2
    assert "of another configuration (seed: got 1, stored 0)" in capsys.readouterr().err


@pytest.mark.chaos
def test_a_store_that_stays_away(
    store: ObjectStore, stored: Folder, undisturbed: list[dict], capsys: pytest.CaptureFixture
) -> None:
    own, out = stored.child("photos").uri, stored.child("maps").uri
    with in_the_middle(out, lambda: store.tell(fail=True)):
        assert job(own, out) == 2
    store.tell()
    unfinished(out, capsys, "HTTP status 500", "give the same command again")
    assert job(own, out) == 0
    assert rows(out) == undisturbed


RISE = ("--teacher", TEACHER, "--num-masks", "16")


def test_a_black_box_that_is_stopped_and_started_again(
    server: Server, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    calm, short, out = (tmp_path / name / "maps" for name in ("calm", "short", "long"))
    assert job(data, calm, *RISE, method="rise") == 0
    expected = rows(calm)

    def stop_for_a_while() -> None:
        server.stop()
        threading.Timer(2, server.start).start()

    with in_the_middle(short, stop_for_a_while):
        assert job(data, short, *RISE, method="rise") == 0  # it waits, and goes on
    assert rows(short) == expected

    with in_the_middle(out, server.stop):
        assert job(data, out, *RISE, method="rise") == 2
    unfinished(out, capsys, "teacher 'python:remote_teacher:make' gave no reply", "refused")
    server.start()
    before = server.num_answers
    assert job(data, out, *RISE, method="rise") == 0
    assert rows(out) == expected
    missing = NUM_IMAGES - AFTER_PARTS * SHARD
    assert server.num_answers - before <= 2 * CALLS_AT_LOAD + missing  # neither targets nor parts anew
