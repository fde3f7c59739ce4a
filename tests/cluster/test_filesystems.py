"""Disks and stores that fail: what is waited for, what is said, and that nothing half-written is left."""

import threading
import time
from pathlib import Path

import pytest
from object_store import BUCKET, ObjectStore
from small_disk import remount, small_disk

from cluster import filesystems
from cluster.errors import WorkError
from cluster.storage import Folder

AGAIN = "give the same command again"


@pytest.fixture
def folder(store: ObjectStore, tmp_path: Path) -> Folder:
    folder = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    folder.write_bytes("a", b"old")
    return folder


def test_a_store_that_fails_for_a_while_is_waited_for(store: ObjectStore, folder: Folder) -> None:
    store.tell(fail=True)
    threading.Timer(2, store.tell).start()
    started_s = time.monotonic()
    folder.write_bytes("a", b"new")
    assert time.monotonic() - started_s >= 2
    assert store.counts()[1] > 1
    assert folder.read_bytes("a") == b"new"


def test_a_store_is_given_longer_to_answer_than_pyarrow_gives_it(store: ObjectStore, folder: Folder) -> None:
    store.tell(delay_s=4)  # pyarrow's own limit is 3 s
    before = store.counts()[0]
    folder.write_bytes("b", b"x")
    assert store.counts()[0] == before + 1  # one put, and not asked twice


def test_a_store_that_stays_away_is_an_error_that_says_what_to_do(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "S3_ATTEMPTS", 2)
    folder = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    folder.claim({"a": 1}, what="maps")
    store.tell(fail=True)
    for doing, work in (
        ("write a in s3://", lambda: folder.write_bytes("a", b"x")),
        ("read a in s3://", lambda: folder.read_bytes("a")),
        ("list s3://", folder.names),
        ("look for _config.json in s3://", lambda: folder.claim({"a": 1}, what="maps")),
    ):
        with pytest.raises(WorkError, match=f"cannot {doing}.*HTTP status 500.*{AGAIN}"):
            work()
    store.tell()
    assert folder.names() == ["_config.json"]
    folder.write_bytes("a", b"x")
    assert folder.read_bytes("a") == b"x"


def test_a_bucket_that_is_missing_is_said_at_once(store: ObjectStore) -> None:
    before = store.counts()[0]
    with pytest.raises(WorkError, match=r"cannot write a in s3://elsewhere/run: .*NO_SUCH_BUCKET"):
        Folder("s3://elsewhere/run").write_bytes("a", b"x")
    assert store.counts()[0] == before + 1


def test_a_full_disk_keeps_what_was_there_and_nothing_half_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        folder = Folder(str(disk))
        folder.write_bytes("a", b"1" * 500_000)
        for name in ("a", "b"):
            with pytest.raises(WorkError, match=rf"cannot write {name} in {disk}: .*No space left on device.*{AGAIN}"):
                folder.write_bytes(name, b"2" * 800_000)
        assert [path.name for path in disk.iterdir()] == ["a"]
        assert folder.read_bytes("a") == b"1" * 500_000
        remount(disk, "size=4m")
        folder.write_bytes("b", b"2" * 800_000)
        assert folder.names() == ["a", "b"]


def test_a_read_only_disk_is_refused_at_the_claim(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        remount(disk, "ro")
        with pytest.raises(
            WorkError, match=rf"cannot write _config.json in {disk}/maps: .*Read-only file system.*{AGAIN}"
        ):
            Folder(str(disk / "maps")).claim({"a": 1}, what="maps")
