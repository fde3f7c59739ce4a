"""The benchmarks' ratios and table by hand, and a run of tiny sizes that has every row."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.speed.__main__ import GROUPS, Settings, run
from benchmarks.speed.cases import commands
from benchmarks.speed.ratio import Row, Times, interleaved, speed_row
from benchmarks.speed.table import markdown

KEYS = {
    "games", "rise", "lime", "mal_grad_cam", "maps", "adaptive", "step", "distil", "read", "insights", "jobs",
    "workers", "help", "demo",
}  # fmt: skip
"""Rows that the table must have."""


def times(*seconds: float, items: int = 1) -> list[Times]:
    return [Times(wall_s=s, cpu_s=2 * s, items=items) for s in seconds]


def test_a_ratio_is_taken_inside_its_round_and_by_item():
    row = speed_row(times(1, 2, 4, items=10), times(3, 2, 40, items=20), key="k", what="a", against="b", at_least=1.4)
    assert row.figures == pytest.approx([1.5, 0.5, 5.0])
    assert row.by_cpu_time == row.figures
    assert row.per_s == (5.0, pytest.approx(20 / 3))
    assert row.median == pytest.approx(1.5)
    assert row.is_reached


def test_a_goal_is_a_least_or_a_most_and_what_is_not_measured_is_neither():
    def row(figures: list[float], **goal: Any) -> Row:
        return Row(key="k", what="a", against="b", figures=figures, **goal)

    assert row([2.0], at_most=1.0).is_reached is False
    assert row([1.0], at_most=1.0).is_reached is True
    assert row([1.0]).is_reached is None
    assert row([], at_least=1.0).is_reached is None


def test_the_demos_minutes_are_told_by_what_they_went_into(tmp_path):
    lines = [
        "train the black box: 12000/12000 images, 376 images/s, took 0:00:30, loss 0.525",
        "distill demo: 5920/11840 images, 100 images/s, 0:01:00 left, epoch 2 loss 2.1",
        "distill demo: 11840/11840 images, 100 images/s, took 0:02:00, epoch 5 loss 1.991 kl 0.7476",
        "games: 768/768 rows, 41.3 rows/s, took 1:00:18, errors 0",
        "",
        "real\t63m24.500s",
        "user\t2m40.093s",
    ]
    log = tmp_path / "demo.log"
    log.write_text("\n".join(lines), encoding="utf-8")
    world = SimpleNamespace(demo_log=log, rounds=lambda _: 1)
    *_, row = commands.measure(world)  # pyright: ignore[reportArgumentType]
    assert row.figures == pytest.approx([63 + 24.5 / 60])
    assert "training 2.5 min, the other steps' work 60.3 min, starting and ending its 3 jobs 0.6 min" in row.note
    log.write_text(lines[0], encoding="utf-8")
    with pytest.raises(ValueError, match=r"no line `real 5m1\.2s`"):
        commands.measure(world)  # pyright: ignore[reportArgumentType]


def test_rounds_take_turns_after_a_call_that_warms_up():
    called: list[str] = []
    works = {name: (lambda name=name: called.append(name), 3) for name in "abc"}
    found = interleaved(works, rounds=2)
    assert "".join(called) == "abc" + "abc" + "bca"
    assert [len(found[name]) for name in "abc"] == [2, 2, 2]
    assert found["a"][0].items == 3
    called.clear()
    interleaved(works, rounds=1, warm_up=False)
    assert "".join(called) == "abc"


def test_the_table_says_what_is_missed_and_why():
    rows = [
        Row(key="k", what="fast", against="b", figures=[2.0, 3.0, 4.0], at_least=1.0),
        Row(key="k", what="slow", against="b", figures=[0.5], at_least=1.0, note="it waits"),
        Row(key="k", what="unknown", against="b", figures=[], at_least=1.0, unit="s"),
    ]
    text = markdown(rows, {"cores": 2})
    assert "1 of 2 figures" in text
    assert "| fast | b | at least 1 | 3 | 2 to 4 |" in text
    assert "| slow [2] | b | at least 1 | **0.5** |" in text
    assert "- [2] it waits" in text
    assert "not measured" in text
    assert text.rstrip().endswith("cores 2")


def test_an_unknown_group_is_refused():
    with pytest.raises(ValueError, match=r"speed is unknown; groups: games"):
        Settings(only=("speed",))


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Leave no number of threads behind."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the peers' own
def test_a_short_run_has_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_threads: None):
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "benchmarks"
    run(Settings(out=out, data=None, short=True, rounds=1, threads=2, only=GROUPS))
    content = json.loads(out.with_suffix(".json").read_text())
    rows = content["rows"]
    assert {row["key"] for row in rows} == KEYS
    assert all(row["rounds"] for row in rows if row["key"] != "demo")
    assert out.with_suffix(".md").read_text().count("\n| ") == len(rows) + 2
    assert content["machine"]["cores"] >= 1
    run(Settings(out=out, data=None, short=True, rounds=1, threads=2, only=("commands",)))
    again = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [row["what"] for row in again] == [row["what"] for row in rows], "what --only leaves out stays"
    assert all(now == before for now, before in zip(again, rows, strict=True) if now["group"] != "commands")
