"""Rank stability: whether the order of methods holds when the baseline or the step changes.

Numbers of two protocols are never averaged or subtracted. Each protocol ranks the methods by itself; only ranks, and
wins on one image under one protocol, are put together.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from evaluate.analysis.comparison import interval
from evaluate.config import StabilityConfig
from evaluate.format.numbers import interval_text
from evaluate.format.safe_text import readable
from evaluate.format.table import Table, console_page, markdown_page, table_place, write_pages
from evaluate.games.protocol import RankedBy
from evaluate.games.reader import Results, load_results
from evaluate.statistics import Interval, kendall, win_rate

# What the score folders must have in common: the key in `_config.json`, and what it is called in the error.
MUST_AGREE = {"teacher_fingerprint": "teachers", "data_fingerprint": "data sets", "split": "splits", "limit": "limits"}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One method under one protocol."""

    value: Interval
    """Mean of the measure over images."""
    rank: float
    """1 is best; equal means share their average rank; NaN without any value."""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Methods under several protocols."""

    measure: RankedBy
    """What they are ranked by."""
    title: str
    """Images, data set and black box."""
    protocols: tuple[str, ...]
    """Name and hash of each protocol, in the order given."""
    methods: tuple[str, ...]
    """Labels of the methods, best mean rank first."""
    standings: Mapping[tuple[str, str], Standing]
    """By (method, protocol)."""
    taus: np.ndarray
    """Kendall's tau between the protocols' orders of methods, (P, P); NaN where it is not defined."""
    wins: np.ndarray
    """Share of images x protocols on which the row's method is better than the column's, ties half, (M, M); NaN on the
    diagonal."""

    @property
    def mean_tau(self) -> float:
        """Return the mean tau over all pairs of protocols; NaN where one is not defined."""
        return float(self.taus[np.triu_indices(len(self.protocols), 1)].mean())

    @property
    def overall(self) -> np.ndarray:
        """Return each method's mean win rate over the others, (M,); NaN for a method alone."""
        others = ~np.eye(len(self.methods), dtype=bool)
        return np.array([row[own].mean() if own.any() else np.nan for row, own in zip(self.wins, others, strict=True)])


def write_stability(config: StabilityConfig) -> str:
    """Compare protocols, write the tables where asked for, and return them for the console.

    Raises:
        ValueError: the scores differ in more than their protocol, or the file name has another ending.
    """
    place = None if config.table is None else table_place(config.table)
    stability = compare(config.scores, measure=config.measure)
    page = f"{stability.title}.", tables(stability), sentences(stability)
    if place is not None:
        write_pages(place, markdown_page(*page), numbers(stability))
    return console_page(*page)


def compare(scores: Sequence[str], *, measure: RankedBy = "gap") -> Stability:
    """Rank the methods under each protocol, and compare the orders.

    Args:
        scores: folders of `python -m evaluate games` of the same maps, one per protocol, two or more.
        measure: what the methods are ranked by.

    Raises:
        ValueError: the scores differ in more than their protocol, or lack the measure.
    """
    parts = [load_results([uri]) for uri in dict.fromkeys(scores)]
    _check_alike(parts)
    values = {_name(part): _values(part, measure) for part in parts}
    labels = sorted({label for columns in values.values() for label in columns})
    standings = {key: s for name, columns in values.items() for key, s in _standings(name, columns, measure).items()}
    unordered = np.array([[standings[label, name].rank for label in labels] for name in values])
    # A method without a score anywhere comes last.
    place = np.nan_to_num(unordered, nan=len(labels)).mean(axis=0)
    order = sorted(range(len(labels)), key=lambda i: (place[i], labels[i]))
    methods, ranks = [labels[i] for i in order], unordered[:, order]
    config = parts[0].config
    return Stability(
        measure=measure,
        title=f"{parts[0].num_images} images of {config.get('data_name') or readable(config['data'])}, scored on "
        f"{readable(config['teacher'])} ({config['teacher_fingerprint']})",
        protocols=tuple(values),
        methods=tuple(methods),
        standings=standings,
        taus=_taus(ranks),
        wins=_wins(values, methods, sign=_sign(measure)),
    )


def _check_alike(parts: Sequence[Results]) -> None:
    if len(parts) < 2:
        raise ValueError(f"{len(parts)} folder of scores given; give two or more, one per protocol")
    seen: dict[str, str] = {}
    for part in parts:
        uri, name = part.uris[0], part.config["protocol_hash"]
        if name in seen:
            raise ValueError(f"{seen[name]} and {uri} were made under the same protocol ({name}); give one of them")
        seen[name] = uri
        for key, what in MUST_AGREE.items():
            _check_same(what, parts[0], part, *(str(p.config.get(key)) for p in (parts[0], part)))
        _check_same("maps", parts[0], part, *(_maps(p) for p in (parts[0], part)))
        _check_same("extent", parts[0], part, *(_extent(p) for p in (parts[0], part)))


def _check_same(what: str, first: Results, other: Results, wanted: str, got: str) -> None:
    if got != wanted:
        raise ValueError(
            f"the scores must differ in their protocol only, but {first.uris[0]} ({wanted}) and {other.uris[0]} "
            f"({got}) are of different {what}; play the same maps under each protocol"
        )


def _maps(part: Results) -> str:
    return ", ".join(sorted(f"{entry['method']} {entry['config_hash']}" for entry in part.config["maps"]))


def _extent(part: Results) -> str:
    return f"{part.num_images} images, {len(part.methods)} methods"


def _name(part: Results) -> str:
    return f"{part.config['protocol']['name']} {part.config['protocol_hash']}"


def _values(part: Results, measure: RankedBy) -> dict[str, np.ndarray]:
    """Return each method's values, one per image in the order of the image_ids."""
    table = part.measure(measure)
    if table is None:
        raise ValueError(
            f"{measure} needs scores with the order reversed too, and {part.uris[0]} has none; play its maps again "
            "with --least-relevant into another --out, or give another --measure"
        )
    return {str(label): table[label].to_numpy(dtype=np.float64) for label in table.columns}


def _sign(measure: RankedBy) -> int:
    return -1 if measure == "deletion" else 1


def _standings(name: str, columns: Mapping[str, np.ndarray], measure: RankedBy) -> dict[tuple[str, str], Standing]:
    found = {label: interval(values) for label, values in columns.items()}
    means = np.array([value.mean for value in found.values()])
    ranks = stats.rankdata(-_sign(measure) * means, nan_policy="omit")
    return {
        (label, name): Standing(value=value, rank=float(rank))
        for (label, value), rank in zip(found.items(), ranks, strict=True)
    }


def _taus(ranks: np.ndarray) -> np.ndarray:
    """Compare each two protocols' ranks, (P, M), on the methods that both could rank."""
    taus = np.eye(len(ranks))
    for i, j in itertools.combinations(range(len(ranks)), 2):
        both = np.isfinite(ranks[i]) & np.isfinite(ranks[j])
        taus[i, j] = taus[j, i] = kendall(ranks[i][both], ranks[j][both])
    return taus


def _wins(values: Mapping[str, Mapping[str, np.ndarray]], methods: Sequence[str], *, sign: int) -> np.ndarray:
    # (images x protocols, M): a pair of methods is compared row by row, so always within one protocol
    stacked = sign * np.concatenate([np.stack([columns[m] for m in methods], axis=1) for columns in values.values()])
    wins = np.full((len(methods), len(methods)), np.nan)
    for i, j in itertools.permutations(range(len(methods)), 2):
        both = np.isfinite(stacked[:, i]) & np.isfinite(stacked[:, j])
        wins[i, j] = win_rate(stacked[both, i], stacked[both, j])
    return wins


def sentences(stability: Stability) -> list[str]:
    """Say which method is first under how many protocols, and how far the protocols agree."""
    first = stability.methods[0]
    times = sum(stability.standings[first, protocol].rank == 1 for protocol in stability.protocols)
    pairs = len(stability.protocols) * (len(stability.protocols) - 1) // 2
    return [
        f"{first} has the best mean rank; it is first under {times} of {len(stability.protocols)} protocols.",
        f"Mean Kendall's tau over {pairs} pairs of protocols: {_number(stability.mean_tau, '+.3f')}.",
    ]


def tables(stability: Stability) -> list[Table]:
    """Lay out three tables: means with ranks, tau between protocols, and win rates between methods."""
    better = "lower" if stability.measure == "deletion" else "higher"
    methods, protocols = stability.methods, stability.protocols
    short = {protocol: f"P{k + 1}" for k, protocol in enumerate(protocols)}
    return [
        Table(
            caption=f"{stability.measure}, {better} is better: mean with 95 % bootstrap interval over images, and rank",
            headings=["method", *(f"{short[protocol]} {protocol}" for protocol in protocols)],
            rows=[[m, *(_standing(stability.standings[m, protocol]) for protocol in protocols)] for m in methods],
        ),
        Table(
            caption="Kendall's tau between the protocols' orders of methods",
            headings=["protocol", *short.values()],
            rows=[
                [f"{short[protocol]} {protocol}", *(_number(tau, "+.3f") for tau in row)]
                for protocol, row in zip(protocols, stability.taus, strict=True)
            ],
        ),
        Table(
            caption="Win rate: share of images x protocols on which the row's method beats the column's, ties half",
            headings=["method", "all others", *methods],
            rows=[
                [method, *(_number(share, ".1%") for share in (overall, *row))]
                for method, overall, row in zip(methods, stability.overall, stability.wins, strict=True)
            ],
        ),
    ]


def _standing(standing: Standing) -> str:
    return "-" if math.isnan(standing.rank) else f"{interval_text(standing.value)} #{standing.rank:g}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def numbers(stability: Stability) -> Table:
    """List every number as one row; `kind` tells which table it is from."""
    order = sorted(stability.standings.items(), key=lambda item: [stability.protocols.index(item[0][1]), item[1].rank])
    rows: list[list[object]] = [
        [stability.measure, method, protocol, s.value.mean, s.value.low, s.value.high, s.value.num, s.rank]
        for (method, protocol), s in order
    ]
    pairs = [
        ("kendall_tau", stability.protocols, stability.taus),
        ("win_rate", stability.methods, stability.wins),
    ]
    rows += [
        [kind, first, second, float(values[i, j]), None, None, None, None]
        for kind, names, values in pairs
        for i, first in enumerate(names)
        for j, second in enumerate(names)
        if i != j
    ]
    return Table(headings=["kind", "first", "second", "value", "low", "high", "num_images", "rank"], rows=rows)
