"""Locations: which schemes are opened, and what a stored configuration may make a command open."""

from pathlib import Path

import pytest

from cluster.filesystems import open_filesystem
from cluster.locations import Locations, check_uri
from cluster.storage import Folder

OTHERS = [
    "reference://x::http://host/refs.json",
    "reference://",
    "simplecache::s3://bucket/x",
    "s3://bucket/x::http://host/y",
    "memory://x::reference://y",
    "az::reference://x",
    "http://host/x",
    "https://host/x",
    "ftp://host/x",
    "ssh://host/x",
    "github://a:b@/x",
    "zip://x.zip",
    "REFERENCE://x",
    "S3://bucket/x",
    "ref\nerence://x",
    " s3://bucket/x",
    "://x",
    "file://host/x",
    "mock://x",
    "viewfs://x",
    "git://.",
    "data://x",
    "dir://x",
    "/a/http://b",
]


@pytest.mark.parametrize("uri", OTHERS)
def test_other_schemes_and_chains_are_refused_before_anything_is_opened(uri: str) -> None:
    for check in (check_uri, Folder, open_filesystem, lambda it: Locations((it,)).check(it, what="student")):
        with pytest.raises(ValueError, match=r"give (a local path|file:///PATH)|URI of"):
            check(uri)


@pytest.mark.parametrize("uri", ["s3://bucket/x?role=arn", "s3://bucket/x?proxy_options=http://host"])
def test_an_option_that_pyarrow_refuses_reaches_no_other_library(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.filesystems._open_by_fsspec", None)
    with pytest.raises(ValueError, match="Unexpected query parameter"):
        open_filesystem(uri)


def test_a_local_path_may_hold_colons(tmp_path: Path) -> None:
    Folder(str(tmp_path / "a::b")).write_bytes("x", b"1")
    assert (tmp_path / "a::b" / "x").read_bytes() == b"1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Make a run with scores, maps and a student, and a folder outside of it."""
    for name in ("run/scores", "run/maps", "run/student", "elsewhere", "runner"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "run"


def test_local_folders_of_the_run_and_named_ones_are_opened(run: Path) -> None:
    user = Locations((str(run / "scores"),))
    for stored in (run / "maps", run / "student", run / "scores" / "x", run / "scores", f"file://{run}/maps"):
        assert Path(user.check(str(stored), what="student")) == Path(str(stored).removeprefix("file://"))
    assert Locations((str(run / "scores"), str(run.parent / "elsewhere"))).allows(str(run.parent / "elsewhere" / "x"))


def test_a_relative_name_is_meant_from_the_working_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    assert Locations(("run/scores",)).check("run/maps", what="maps") == str(run / "maps")
    assert not Locations(("run/scores",)).allows("elsewhere")


def test_everything_else_is_refused(run: Path) -> None:
    (run / "scores" / "link").symlink_to(run.parent / "elsewhere")
    (run / "scores" / "circle").symlink_to(run / "scores" / "circle2")
    (run / "scores" / "circle2").symlink_to(run / "scores" / "circle")
    user = Locations((str(run / "scores"),))
    for stored in (
        run.parent / "elsewhere",
        run.parent / "runner",  # begins as the run's name does
        run / "scores" / "link",
        run / "maps" / ".." / ".." / "elsewhere",
        "/etc",
        "/",
        "~",
        "s3://bucket/student",
        "s3://bucket/student?endpoint_override=http://host",
        "memory://student",
    ):
        with pytest.raises(ValueError, match=r"student .* is named by a stored configuration only"):
            user.check(str(stored), what="student")


@pytest.mark.parametrize("stored", [None, 7, "", [], {"a": 1}, ["s3://x"], "a\0b", True])
def test_what_is_no_location_is_said(stored: object) -> None:
    with pytest.raises(ValueError, match=r"student .* is not a path or URI"):
        Locations(("/a",)).check(stored, what="student")


@pytest.mark.parametrize("folder", ["home", "tmp"])
def test_a_home_folder_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Scores of a stranger that were unpacked there may not show what lies beside them."""
    place = tmp_path / folder
    place.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    user = Locations((str(place / "scores"),))
    assert not user.allows(str(place / "private"))
    assert user.allows(str(place / "scores" / "maps"))


def test_a_remote_location_is_opened_where_the_user_named_it_with_the_users_options() -> None:
    user = Locations(("s3://bucket/run/maps/?region=eu-west-1", "gs://other/run"))
    for stored in ("s3://bucket/run/maps", "s3://bucket/run/maps?region=eu-west-1"):
        assert user.check(stored, what="maps") == "s3://bucket/run/maps?region=eu-west-1"
    assert user.check("gs://other/run/maps/a", what="maps") == "gs://other/run/maps/a"
    for stored in (
        "s3://bucket/run/maps?endpoint_override=http://host",
        "s3://bucket/run/maps?region=eu-west-1&endpoint_override=http://host",
        "s3://bucket/run/maps?scheme=http",
        "gs://other/run?endpoint_override=host:1",
        "s3://bucket/run/maps/../../other",
        "s3://bucket/run/maps/%2e%2e/other",
        "s3://bucket/run/maps2",
        "s3://bucket/run",
        "s3://bucket",
        "s3://me@bucket/run/maps",
        "gs://bucket/run/maps",
        "hdfs://host/run",
    ):
        with pytest.raises(ValueError, match="named by a stored configuration only"):
            user.check(stored, what="maps")
