"""What a report says first, where methods were asked at several numbers of queries."""

from types import SimpleNamespace
from typing import Any

import pytest
from fake_scores import method_row

from evaluate.analysis import conclusions
from evaluate.analysis.comparison import MethodRow
from evaluate.scored_method import ScoredMethod
from evaluate.statistics import Interval

NO_MAIN: Any = SimpleNamespace(main=None)


def row(label: str, queries: float, deletion: float, insertion: float, **options: object) -> MethodRow:
    values = {"deletion": deletion, "insertion": insertion, "gap": insertion - deletion}
    scored = ScoredMethod(label=label, method=label[0], config_hash="0", maps="maps", config={"options": options})
    return method_row(
        scored, {game: Interval(mean=value, low=value, high=value, num=9) for game, value in values.items()}, queries
    )


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say what is said of rows, each of which is ahead of the next by as much."""
    monkeypatch.setattr(conclusions, "lead", lambda *_: Interval(mean=0.1, low=0.05, high=0.15, num=9))
    return lambda *rows: conclusions.sentences(NO_MAIN, rows)[:-1]


def test_the_best_is_held_against_another_method_and_not_against_itself_with_fewer_queries(said: Any) -> None:
    rows = [row("a 9", 9, 0.1, 0.9), row("a 5", 5, 0.2, 0.8), row("b 9", 9, 0.3, 0.7)]
    assert [line.split(" ahead of ")[1][:3] for line in said(*rows)] == ["b 9", "b 9"]
    assert ["ahead of a 5" in line for line in said(*rows[:2])] == [True, True]
    other = row("a 9, another student", 9, 0.15, 0.85)
    assert ["ahead of a 9, another student" in line for line in said(*rows, other)] == [True, True]


def test_who_is_first_at_each_number_of_queries_that_several_were_given(said: Any) -> None:
    rows = [
        row("a", 50, 0.3, 0.5),
        row("b", 50, 0.2, 0.4),
        row("a", 1000, 0.1, 0.6),
        row("b", 1000, 0.2, 0.6),
        row("a", 2000, 0.1, 0.9),
        row("c", 0, 0.0, 1.0),
    ]
    assert said(*rows)[2:] == [
        "The lowest deletion AUC at the same number of queries: b at 50; a at 1,000.",
        "The highest insertion AUC at the same number of queries: a at 50 and 1,000.",
    ]
    assert not said(*rows[:2], rows[-1])[2:]  # one budget is what the table of methods tells
    assert not said(*rows[::2], *rows[::2])[2:]  # one method, of two students


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give advice on rows whose leads, insertion minus deletion AUC, are as certain as is said."""

    def advise(low: float, *rows: MethodRow) -> list[str]:
        monkeypatch.setattr(conclusions, "_ahead", lambda *_: Interval(mean=low + 0.1, low=low, high=1, num=9))
        return conclusions.advice(NO_MAIN, rows)

    return advise


def control(insertion: float) -> MethodRow:
    values = {"deletion": 0.3, "insertion": insertion, "gap": insertion - 0.3}
    scored = ScoredMethod(label="random", method="random", config_hash="0", maps="maps", config={"explains": "nothing"})
    return method_row(scored, {game: Interval(mean=v, low=v, high=v, num=9) for game, v in values.items()}, 0)


def test_advice_names_the_best_map_and_the_best_without_queries(gaps: Any) -> None:
    rows = [row("a", 1000, 0.1, 0.9), row("b", 0, 0.2, 0.8), control(0.5)]
    best, free, few = gaps(0.05, *rows)
    assert best.startswith("Use a: of 2 maps it has the best scores, and it takes 1,000 queries of the black box")
    assert "It is clearly ahead of the second, b" in best
    assert best.endswith("It clearly beats the control Random, which looks at no model.")
    assert free.startswith("Without a query per map, use b. It clearly beats the control Random")
    assert few == "Only 9 images were scored: read all this as a hint."


def test_advice_does_not_claim_what_the_interval_leaves_open(gaps: Any) -> None:
    best, _ = gaps(-0.05, row("b", 0, 0.2, 0.8), row("c", 0, 0.2, 0.7), control(0.5))
    assert "That it is ahead of the second, c, is not certain" in best
    assert "Take care: it is not clearly better than the control Random" in best
    assert gaps(0.05, control(0.5)) == ["No map of a method has a score, so there is none to recommend."]
    assert "No control was scored" in gaps(0.05, row("b", 0, 0.2, 0.8))[0]
