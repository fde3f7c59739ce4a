"""Checkpoints that no training will go on from are deleted, and none that is listed."""

import json
from pathlib import Path

import pytest

from cluster.storage import Folder
from distill.checkpoints import SNAPSHOT, sweep


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "state.pt").write_bytes(b"weights")


def listed(*names: str) -> str:
    results = [{"version": 0, "checkpoint_dir_name": name, "metrics": {}} for name in names]
    return json.dumps({"checkpoint_results": results, "latest_checkpoint_result": results[-1]})


def test_what_is_not_listed_is_deleted(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint_2026-01-01_00-00-01.5", "checkpoint_2026-01-01_00-00-01.55", "other")
    (tmp_path / SNAPSHOT).write_text(listed("checkpoint_2026-01-01_00-00-01.5"))
    assert sweep(Folder(str(tmp_path))) == ["checkpoint_2026-01-01_00-00-01.55"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [SNAPSHOT, "checkpoint_2026-01-01_00-00-01.5", "other"]
    assert sweep(Folder(str(tmp_path))) == []


def test_without_a_list_none_was_ever_whole(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint_1", "checkpoint_2")
    assert sweep(Folder(str(tmp_path))) == ["checkpoint_1", "checkpoint_2"]
    assert list(tmp_path.iterdir()) == []
    assert sweep(Folder(str(tmp_path / "nowhere"))) == []


def test_with_a_broken_list_nothing_is_deleted(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint_1")
    (tmp_path / SNAPSHOT).write_text("{half")
    with pytest.raises(ValueError, match="is not JSON"):
        sweep(Folder(str(tmp_path)))
    assert (tmp_path / "checkpoint_1" / "state.pt").exists()
