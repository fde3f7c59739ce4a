"""Folders: the same behavior on a local path and on another file system, and claims that refuse other work."""

import json
import pickle
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from object_store import BUCKET
from pyarrow import dataset, parquet

from cluster.storage import Folder, config_hash, same_fingerprint, split_file


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Give an empty folder on this machine's disk, one on a file system in memory, and one on an S3 server."""
    if request.param == "local":
        return Folder(str(tmp_path / "run one"))
    if request.param == "s3":
        request.getfixturevalue("store")
        return Folder(f"s3://{BUCKET}/{uuid.uuid4().hex}/run one")
    return Folder(f"memory://{uuid.uuid4().hex}/run one")


def test_files_come_back_as_written(folder: Folder) -> None:
    folder.write_bytes("part-00000.parquet", b"\x00\x01")
    folder.write_json("student.json", {"depth": 18, "mean": [0.5, None]})
    assert folder.read_bytes("part-00000.parquet") == b"\x00\x01"
    assert folder.read_json("student.json") == {"depth": 18, "mean": [0.5, None]}
    assert folder.names() == ["part-00000.parquet", "student.json"]


def test_writing_again_replaces(folder: Folder) -> None:
    folder.write_bytes("a", b"first, longer")
    folder.write_bytes("a", b"second")
    assert folder.read_bytes("a") == b"second"


def test_a_compressed_name_is_not_unpacked(folder: Folder) -> None:
    folder.write_bytes("a.gz", b"raw")
    assert folder.read_bytes("a.gz") == b"raw"


def test_a_missing_folder_is_empty(folder: Folder) -> None:
    assert folder.names() == []
    assert not folder.exists("a")
    assert folder.finished() is None
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("a")


def test_children_are_folders_of_their_own(folder: Folder) -> None:
    child = folder.child("targets")
    child.write_bytes("a", b"x")
    assert folder.exists("targets")
    assert folder.exists("targets/a")
    assert folder.names() == []
    assert (child.name, child.names()) == ("targets", ["a"])


def test_pickled_folders_read_the_same_files(folder: Folder) -> None:
    folder.write_bytes("a", b"x")  # the file system is open by now
    copy = pickle.loads(pickle.dumps(folder))  # noqa: S301 -- our own bytes
    assert copy == folder
    assert copy.read_bytes("a") == b"x"


def test_delete_takes_what_is_there_and_what_is_not(folder: Folder) -> None:
    folder.write_bytes("a", b"x")
    folder.delete("a")
    folder.delete("a")
    assert not folder.exists("a")


def test_a_stopped_write_leaves_the_old_file_and_can_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("a", b"old")

    def put_half(self: Folder, path: str, data: bytes) -> None:
        Path(path).write_bytes(data[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "_put", put_half)
    with pytest.raises(KeyboardInterrupt):
        folder.write_bytes("a", b"new")
    assert folder.read_bytes("a") == b"old"
    assert folder.names() == ["a"]
    assert len(list(tmp_path.iterdir())) == 2
    folder.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_part_that_another_job_sweeps_away_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs may share a folder, and each sweeps it when it ends."""
    folder, put, written = Folder(str(tmp_path)), Folder._put, []

    def put_and_be_swept(self: Folder, path: str, data: bytes) -> None:
        put(self, path, data)
        written.append(path)
        if len(written) == 1:
            Folder(str(tmp_path)).sweep()

    monkeypatch.setattr(Folder, "_put", put_and_be_swept)
    folder.write_bytes("part-00000.parquet", b"whole")
    assert len(written) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"part-00000.parquet": b"whole"}


def test_same_config_claims_again_whatever_the_order_and_the_kind_of_sequence(folder: Folder) -> None:
    folder.claim({"method": "matt", "sizes": (1, 2)}, what="maps")
    folder.claim({"sizes": [1, 2], "method": "matt"}, what="maps")
    assert folder.config() == {"method": "matt", "sizes": [1, 2]}


def test_another_config_is_refused_with_every_difference_named(folder: Folder) -> None:
    folder.claim({"method": "matt", "split": "val", "seed": 0}, what="maps")
    with pytest.raises(ValueError, match="maps of another configuration") as refusal:
        folder.claim({"method": "matt", "split": "train", "limit": 5}, what="maps")
    message = str(refusal.value)
    assert folder.uri in message
    assert 'split: got "train", stored "val"' in message
    assert "limit: got 5, stored nothing" in message
    assert "seed: got nothing, stored 0" in message
    assert "--out" in message
    assert "method" not in message
    assert folder.config()["split"] == "val"


def test_unclaimed_parts_are_refused(folder: Folder) -> None:
    folder.write_bytes("part-00000.parquet", b"x")
    with pytest.raises(ValueError, match="no _config"):
        folder.claim({}, what="scores")


def test_config_of_an_unclaimed_folder_is_an_error(folder: Folder) -> None:
    with pytest.raises(ValueError, match="has no _config"):
        folder.config()


def test_finish_is_seen(folder: Folder) -> None:
    folder.finish({"rows": 3})
    assert folder.finished() == {"rows": 3}


def test_dataset_readers_see_the_parts_alone(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.claim({"a": 1}, what="maps")
    parquet.write_table(pa.table({"x": [1, 2]}), tmp_path / "part-00000.parquet")
    (tmp_path / ".part-00001.parquet.0.aside").write_bytes(b"half")
    folder.finish({"rows": 2})
    assert dataset.dataset(tmp_path).to_table()["x"].to_pylist() == [1, 2]


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder("maps/").uri == str(tmp_path / "maps")
    assert Folder(f"file://{tmp_path}/maps").local_path() == tmp_path / "maps"
    assert Folder("s3://bucket/maps").local_path() is None


@pytest.mark.parametrize(
    ("file", "folder", "name"),
    [
        ("/a/b.html", "/a", "b.html"),
        ("/b.html", "/", "b.html"),
        ("s3://bucket/a/b.html", "s3://bucket/a", "b.html"),
        ("s3://bucket/a/b/?region=eu-west-1&scheme=http", "s3://bucket/a?region=eu-west-1&scheme=http", "b"),
    ],
)
def test_a_file_is_split_into_folder_and_name(file: str, folder: str, name: str) -> None:
    assert split_file(file) == (Folder(folder), name)
    assert Folder(file).beside("c") == Folder(folder).child("c")


def test_files_are_copied_to_this_machine_where_they_lie_elsewhere(folder: Folder) -> None:
    folder.write_bytes("a", b"x")
    folder.write_bytes("b", b"y")
    with folder.on_this_machine(["a"]) as here:
        assert (here / "a").read_bytes() == b"x"
        assert folder.local_path() in (None, here)
    assert here.exists() == (folder.local_path() is not None)
    with pytest.raises(FileNotFoundError), folder.on_this_machine(["c"]) as here:
        (here / "c").read_bytes()


def test_a_query_stays_at_the_end_of_a_child_uri() -> None:
    child = Folder("s3://bucket/run?region=eu-west-1").child("targets")
    assert child.uri == "s3://bucket/run/targets?region=eu-west-1"
    assert child.name == "targets"


@pytest.mark.parametrize("uri", ["", "nosuchscheme://a/b"])
def test_a_uri_that_nothing_opens_is_an_error(uri: str) -> None:
    with pytest.raises(ValueError, match="s3://"):
        Folder(uri).names()


def test_hash_follows_the_values_alone() -> None:
    first = config_hash({"a": 1, "b": {"c": [1, 2]}})
    assert first == config_hash({"b": {"c": (1, 2)}, "a": 1})
    assert first != config_hash({"a": 1, "b": {"c": [2, 1]}})
    assert len(first) == 12
    assert int(first, 16) >= 0


def test_stored_config_is_plain_json(tmp_path: Path) -> None:
    Folder(str(tmp_path)).claim({"a": 1}, what="maps")
    assert json.loads((tmp_path / "_config.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("uri", ["s3://me:secret@bucket/run", "hdfs://me:secret@host:9000/run"])
def test_a_password_in_a_name_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ValueError, match=r"holds a password.*give it in the environment") as refused:
        Folder(uri)
    assert "secret" not in str(refused.value)
    assert Folder("hdfs://me@host:9000/run").uri == "hdfs://me@host:9000/run"


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", "{", ""])
def test_a_configuration_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "_config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"{tmp_path}/_config\.json (is not JSON|holds no configuration)"):
        Folder(str(tmp_path)).config()


def test_a_fingerprint_of_version_0_1_is_the_start_of_todays() -> None:
    full = "0123456789ab" + 52 * "0"
    assert same_fingerprint(full[:12], full)
    assert same_fingerprint(full, full[:12])
    assert same_fingerprint(full, full)
    assert same_fingerprint(None, None)
    for other in (None, "", full[:11], full[:13], full[:12] + 52 * "1", "x" + full[1:12]):
        assert not same_fingerprint(other, full), other
