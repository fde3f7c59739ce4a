"""Checkpoints that no training will go on from are deleted, and none that is listed."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import WorkerGroupError

from cluster.errors import WorkError
from cluster.storage import Folder
from distill.training import launch as loop
from distill.training.checkpoints import SNAPSHOT, delete_uncommitted


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "state.pt").write_bytes(b"weights")


def listed(*names: str) -> str:
    return json.dumps({"checkpoint_results": [{"checkpoint_dir_name": name, "metrics": {}} for name in names]})


def test_what_is_not_listed_is_deleted(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint_2026-01-01_00-00-01.5", "checkpoint_2026-01-01_00-00-01.55", "other")
    (tmp_path / SNAPSHOT).write_text(listed("checkpoint_2026-01-01_00-00-01.5"))
    assert delete_uncommitted(Folder(str(tmp_path))) == ["checkpoint_2026-01-01_00-00-01.55"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_2026-01-01_00-00-01.5", SNAPSHOT, "other"]
    assert delete_uncommitted(Folder(str(tmp_path))) == []


def test_without_a_list_none_was_ever_whole(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint_1", "checkpoint_2")
    assert delete_uncommitted(Folder(str(tmp_path))) == ["checkpoint_1", "checkpoint_2"]
    assert list(tmp_path.iterdir()) == []
    assert delete_uncommitted(Folder(str(tmp_path / "nowhere"))) == []


def test_with_a_broken_list_nothing_is_deleted(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint_1")
    (tmp_path / SNAPSHOT).write_text("{half")
    with pytest.raises(ValueError, match="is not JSON"):
        delete_uncommitted(Folder(str(tmp_path)))
    assert (tmp_path / "checkpoint_1" / "state.pt").exists()


def fails(monkeypatch: pytest.MonkeyPatch, fit: Callable[[int], None]) -> list[int]:
    """Let training do this instead, start by start; return the list of starts."""
    starts: list[int] = []

    def start() -> SimpleNamespace:
        starts.append(len(starts))
        fit(starts[-1])
        return SimpleNamespace(metrics={})

    monkeypatch.setattr(loop, "_make_trainer", lambda *_: SimpleNamespace(fit=start))
    return starts


def test_nodes_may_be_lost_as_long_as_there_are_new_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / loop.CHECKPOINTS).mkdir()

    def lose(number: int) -> None:
        if number < 7:
            (tmp_path / loop.CHECKPOINTS / SNAPSHOT).write_text(listed(f"checkpoint_{min(number, 5)}"))
            raise WorkerGroupError("nodes are gone", {0: RuntimeError("killed")})

    starts = fails(monkeypatch, lose)
    start: Any = SimpleNamespace(job=SimpleNamespace(out=Folder(str(tmp_path))))
    with pytest.raises(WorkerGroupError):
        loop._fit(start)
    assert len(starts) == 7  # the seventh brought nothing new
    loop._fit(start)
    assert len(starts) == 8


def test_what_the_user_must_see_to_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise WorkerGroupError("it failed", {0: WorkError("No space left on device")})

    starts = fails(monkeypatch, full)
    start: Any = SimpleNamespace(job=SimpleNamespace(out=Folder(str(tmp_path))))
    with pytest.raises(WorkError, match=r"started 6 times: No space left"):
        loop._fit(start)
    assert len(starts) == 1


def test_a_training_that_diverged_names_what_to_change() -> None:
    job: Any = SimpleNamespace(result="student", recipe=SimpleNamespace(lr=3.0))
    loop._check_converged(job, {"val_kl": 1.0})
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"diverged: val_kl is (nan|inf), so no student .* --lr \(now 3\)"):
            loop._check_converged(job, {"val_sim1": 0.5, "val_kl": value})
