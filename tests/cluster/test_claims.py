"""Claims of a folder by jobs that start at once, and configurations that are none."""

import json
import multiprocessing
import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from object_store import BUCKET

from cluster.errors import WorkError
from cluster.storage import Folder, check_fields

JOBS = 12


@pytest.fixture(params=["local", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Give a function that names a new folder: on this machine's disk, and on an S3 server."""
    if request.param == "local":
        return lambda: str(tmp_path / uuid.uuid4().hex)
    request.getfixturevalue("store")
    return lambda: f"s3://{BUCKET}/{uuid.uuid4().hex}/run"


def claim(uri: str, config: dict[str, Any]) -> bool:
    """Claim a folder as a job does; tell whether it succeeded."""
    try:
        Folder(uri).claim(config, what="maps")
    except ValueError as error:
        if "another configuration" in str(error) or "another job" in str(error):
            return False
        raise
    return True


def claim_at(moment_s: float, uri: str, job: int) -> bool:
    time.sleep(max(0.0, moment_s - time.time()))
    return claim(uri, {"job": job})


def test_of_jobs_with_different_options_at_most_one_gets_the_folder(make: Callable[[], str]) -> None:
    for _ in range(5):
        uri = make()
        with ThreadPoolExecutor(JOBS) as pool:
            claimed = pool.map(claim, [uri] * JOBS, [{"job": job} for job in range(JOBS)])
            won = [job for job, success in enumerate(claimed) if success]
        assert len(won) <= 1
        if won:
            assert Folder(uri).config() == {"job": won[0]}
        else:
            assert claim(uri, {"job": 0})  # they gave way to one another, and left nothing behind
        assert Folder(uri).names() == ["_config.json"]


def test_on_this_machine_one_of_several_processes_gets_the_folder(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(claim_at, [0.0] * 4, [str(tmp_path / "first")] * 4, range(4)))  # all of them are up
        for number in range(10):
            uri, moment_s = str(tmp_path / str(number)), time.time() + 0.05
            won = list(pool.map(claim_at, [moment_s] * 4, [uri] * 4, range(4)))
            assert won.count(True) == 1
            assert Folder(uri).config() == {"job": won.index(True)}
            assert [path.name for path in Path(uri).iterdir()] == ["_config.json"]


def test_jobs_with_the_same_options_share_the_folder(make: Callable[[], str]) -> None:
    uri = make()
    with ThreadPoolExecutor(JOBS) as pool:
        assert all(pool.map(lambda _: claim(uri, {"job": 1}), range(JOBS)))


def test_a_slow_job_does_not_write_over_a_quicker_one(make: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The quicker one claims just after the slower one has seen that nobody has."""
    uri, create = make(), Folder._create_config

    def create_late(self: Folder, wanted: dict[str, Any], what: str) -> None:
        monkeypatch.setattr(Folder, "_create_config", create)
        assert claim(uri, {"job": "quick"})
        create(self, wanted, what)

    monkeypatch.setattr(Folder, "_create_config", create_late)
    assert not claim(uri, {"job": "slow"})
    assert Folder(uri).config() == {"job": "quick"}


def test_a_killed_job_blocks_a_store_for_minutes_only(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}/run"
    Folder(uri).write_bytes(".claim-" + "0" * 64 + "-killed", b"claim")
    assert not claim(uri, {"job": 1})
    monkeypatch.setattr("cluster.storage.CLAIM_S", -60.0)
    assert claim(uri, {"job": 1})


def test_a_disk_without_links_is_claimed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert claim(str(tmp_path), {"job": 1})
    assert not claim(str(tmp_path), {"job": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["_config.json"]


def test_stray_files_block_no_claim_and_are_no_parts(tmp_path: Path) -> None:
    for name in ("report.html", "Thumbs.db", ".DS_Store", "desktop.ini", "notes.parquet", "part-00000.parquet.bak"):
        (tmp_path / name).write_bytes(b"x")
    assert Folder(str(tmp_path)).parts() == []
    assert claim(str(tmp_path), {"job": 1})
    (tmp_path / "part-00000.parquet").write_bytes(b"x")
    (tmp_path / "part-00001.parquet").mkdir()
    assert Folder(str(tmp_path)).parts() == ["part-00000.parquet"]


MALFORMED = [
    b"", b"{", b"[]", b"null", b"7", b'"text"', b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000,
    b'{"maps": 1, "teacher": "x", "limit": null}', b'{"maps": [], "teacher": ["x"], "limit": null}',
    b'{"maps": [], "teacher": "x", "limit": true}', b'{"maps": [], "teacher": "x"}',
    b'{"maps": {"a": 1}, "teacher": "x", "limit": 3}',
]  # fmt: skip


@pytest.mark.parametrize("data", MALFORMED)
def test_a_malformed_configuration_is_one_error_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "_config.json").write_bytes(data)
    required = {"maps": list, "teacher": str, "limit": (int, NoneType)}
    with pytest.raises(ValueError, match=rf"{tmp_path}/_config\.json (is not JSON|holds no configuration|has )"):
        Folder(str(tmp_path)).config(required)


def test_required_fields_may_be_of_several_types(tmp_path: Path) -> None:
    check_fields({"a": None, "b": 2.0, "c": True}, {"a": (str, NoneType), "b": (int, float), "c": bool}, where="x")
    with pytest.raises(ValueError, match=r"^x has a 7; allowed: str or null$"):
        check_fields({"a": 7}, {"a": (str, NoneType)}, where="x")


def test_pipes_huge_files_and_folders_are_not_read(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(ValueError, match="pipe is no regular file"):
        folder.read_bytes("pipe")
    with pytest.raises(ValueError, match=r"huge\.json has 8589934592 bytes; at most"):
        folder.read_json("huge.json")
    with pytest.raises(ValueError, match=r"huge\.json has 8589934592 bytes; at most"):
        folder.read_bytes("huge.json")  # such as the weights of a student
    (tmp_path / "_config.json").mkdir()
    with pytest.raises((ValueError, WorkError), match="regular file"):
        folder.config()


@pytest.mark.parametrize("data", [b"[]", b"7", b"{", b""])
def test_a_manifest_that_is_none_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "_manifest.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"_manifest\.json (is not JSON|holds no manifest)"):
        Folder(str(tmp_path)).finished()


def test_what_is_stored_is_json_for_people(tmp_path: Path) -> None:
    assert claim(str(tmp_path), {"b": (1, 2), "a": None})
    assert json.loads((tmp_path / "_config.json").read_text()) == {"a": None, "b": [1, 2]}
