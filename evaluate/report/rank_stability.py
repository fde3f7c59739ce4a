"""Rank stability as text: tables for the console, Markdown and CSV."""

import csv
import io
import math
from collections.abc import Sequence

from evaluate.analysis.rank_stability import Stability, Standing, compare
from evaluate.format.markdown import table_stem, write_tables
from evaluate.format.numbers import interval_text
from evaluate.format.text_tables import Grid, console_grids, markdown_grids
from evaluate.games.protocol import RankedBy


def write_stability(scores: Sequence[str], *, measure: RankedBy = "gap", tables: str | None = None) -> str:
    """Compare protocols and write the tables where asked for.

    Args:
        scores: folders of `python -m evaluate games` of the same maps, one per protocol, two or more.
        measure: what the methods are ranked by.
        tables: file name ending in .md or .csv; both are written beside each other.

    Returns:
        The tables for the console.

    Raises:
        ValueError: the scores differ in more than their protocol, or the file name has another ending.
    """
    stem = None if tables is None else table_stem(tables)
    found = compare(scores, measure=measure)
    if stem is not None:
        write_tables(stem, markdown(found), comma_separated(found))
    return console_text(found)


def sentences(found: Stability) -> list[str]:
    """Say which method is first under how many protocols, and how far the protocols agree."""
    first = found.methods[0]
    times = sum(found.standings[first, protocol].rank == 1 for protocol in found.protocols)
    pairs = len(found.protocols) * (len(found.protocols) - 1) // 2
    return [
        f"{first} has the best mean rank; it is first under {times} of {len(found.protocols)} protocols.",
        f"Mean Kendall's tau over {pairs} pairs of protocols: {_number(found.mean_tau, '+.3f')}.",
    ]


def grids(found: Stability) -> list[Grid]:
    """Lay out the three tables: means with ranks, tau between protocols, and win rates between methods."""
    better = "lower" if found.measure == "deletion" else "higher"
    numbers = [f"P{k + 1}" for k in range(len(found.protocols))]
    short = dict(zip(found.protocols, numbers, strict=True))
    return [
        (
            f"{found.measure}, {better} is better: mean with 95 % bootstrap interval over images, and rank",
            ["method", *(f"{short[protocol]} {protocol}" for protocol in found.protocols)],
            [[m, *(_standing(found.standings[m, protocol]) for protocol in found.protocols)] for m in found.methods],
        ),
        (
            "Kendall's tau between the protocols' orders of methods",
            ["protocol", *numbers],
            [
                [f"{short[protocol]} {protocol}", *(_number(tau, "+.3f") for tau in row)]
                for protocol, row in zip(found.protocols, found.taus, strict=True)
            ],
        ),
        (
            "Win rate: share of images x protocols on which the row's method beats the column's, ties half",
            ["method", "all others", *found.methods],
            [
                [method, *(_number(share, ".1%") for share in (overall, *row))]
                for method, overall, row in zip(found.methods, found.overall, found.wins, strict=True)
            ],
        ),
    ]


def _standing(standing: Standing) -> str:
    return "-" if math.isnan(standing.rank) else f"{interval_text(standing.value)} #{standing.rank:g}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def console_text(found: Stability) -> str:
    """Write the tables and sentences for a console."""
    return console_grids(f"{found.title}.", grids(found), sentences(found))


def markdown(found: Stability) -> str:
    """Write the tables and sentences as Markdown."""
    return markdown_grids(f"{found.title}.", grids(found), sentences(found))


def comma_separated(found: Stability) -> str:
    """Write every number as one row of a CSV, with full precision; `kind` tells which table it is from."""
    rows: list[list[object]] = [
        [found.measure, method, protocol, s.value.mean, s.value.low, s.value.high, s.value.num, s.rank]
        for (method, protocol), s in sorted(
            found.standings.items(), key=lambda item: [found.protocols.index(item[0][1]), item[1].rank]
        )
    ]
    pairs = [("kendall_tau", found.protocols, found.taus), ("win_rate", found.methods, found.wins)]
    rows += [
        [kind, first, second, values[i, j], "", "", "", ""]
        for kind, names, values in pairs
        for i, first in enumerate(names)
        for j, second in enumerate(names)
        if i != j
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["kind", "first", "second", "value", "low", "high", "num_images", "rank"])
    writer.writerows([["" if v != v else f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows])  # noqa: PLR0124
    return buffer.getvalue()
