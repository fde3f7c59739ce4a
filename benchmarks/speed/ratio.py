"""Ratios of speeds, measured side by side: interleaved rounds in one process, one figure a round.

A ratio holds where a rate does not, on a machine that others use too: each round times all works one after the other,
in turning order, and the ratio is taken inside the round. The CPU's time is kept beside the clock's for that reason.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a piece of work took."""

    wall_s: float
    """On the clock."""
    cpu_s: float
    """Of all of the process's threads."""
    items: int = 1
    """Items (maps, frames, images) that it did."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a figure for each round, and what it should be."""

    key: str
    """What `--only` calls it."""
    what: str
    """What is judged."""
    against: str
    """What it is measured against."""
    figures: Sequence[float]
    """One for each round; empty where it was not measured."""
    unit: str = "times"
    """Of the figures."""
    at_least: float | None = None
    """What the median should be at least."""
    at_most: float | None = None
    """What the median should be at most."""
    by_cpu_time: Sequence[float] = ()
    """The figures by the CPU's time; empty where other processes do the work."""
    per_s: tuple[float, float] | None = None
    """Items a second of both, medians."""
    group: str = ""
    """Of rows that are measured together."""
    note: str = ""
    """Conditions of this row, and where it falls short, why."""

    @property
    def median(self) -> float | None:
        """Return the median over the rounds."""
        return statistics.median(self.figures) if self.figures else None

    @property
    def is_reached(self) -> bool | None:
        """Tell whether the median is what it should be; None where nothing is asked or measured."""
        if self.median is None or (self.at_least is None and self.at_most is None):
            return None
        low = self.at_least is None or self.median >= self.at_least
        return low and (self.at_most is None or self.median <= self.at_most)

    def as_json(self) -> dict[str, Any]:
        """Return the figures, rounds included."""
        return {
            "group": self.group,
            "key": self.key,
            "what": self.what,
            "against": self.against,
            "unit": self.unit,
            "median": self.median,
            "rounds": list(self.figures),
            "rounds_by_cpu_time": list(self.by_cpu_time),
            "per_s": self.per_s,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "reached": self.is_reached,
            "note": self.note,
        }


def row_of(content: dict[str, Any]) -> Row:
    """Make a row of what `as_json` returned."""
    same = {name: content[name] for name in ("group", "key", "what", "against", "unit", "at_least", "at_most", "note")}
    rates = content["per_s"] and tuple(content["per_s"])
    return Row(figures=content["rounds"], by_cpu_time=content["rounds_by_cpu_time"], per_s=rates, **same)


def speed_row(work: Sequence[Times], other: Sequence[Times], **about: Any) -> Row:
    """Make the row that says how many times as fast a work is as another one, item by item."""
    by_clock, by_cpu = (
        [
            getattr(theirs, clock) / theirs.items / (getattr(ours, clock) / ours.items)
            for ours, theirs in zip(work, other, strict=True)
        ]
        for clock in ("wall_s", "cpu_s")
    )
    ours, theirs = (statistics.median(one.items / one.wall_s for one in times) for times in (work, other))
    return Row(figures=by_clock, by_cpu_time=by_cpu, per_s=(ours, theirs), **about)


def limit_note(peer: Sequence[Times], raw: Sequence[Times], what: str = "the engine alone is") -> str:
    """Say how many times as fast as a peer anything could be that asks the same engine as often."""
    ratios = [
        theirs.wall_s / theirs.items / (alone.wall_s / alone.items) for theirs, alone in zip(peer, raw, strict=True)
    ]
    return f"{what} {statistics.median(ratios):.2f} times as fast as this peer: the most there is"


def timed(work: Callable[[], object], items: int = 1) -> Times:
    """Time a piece of work."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Times(wall_s=time.perf_counter() - wall_s, cpu_s=time.process_time() - cpu_s, items=items)


def interleaved(
    works: Mapping[str, tuple[Callable[[], object], int]], *, rounds: int, warm_up: bool = True
) -> dict[str, list[Times]]:
    """Time every work once a round, in an order that turns by one each round.

    Args:
        works: name -> what to do, and how many items that is.
        rounds: of the measurement.
        warm_up: do each once before.
    """
    times: dict[str, list[Times]] = {name: [] for name in works}
    names = list(works)
    for name in names if warm_up else ():
        works[name][0]()
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            times[name].append(timed(*works[name]))
    return times
