"""The report's one table: methods by measures with intervals and cost, each number tested against one method's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from evaluate.analysis.columns import Column
from evaluate.games.reader import Results
from evaluate.scored_method import ScoredMethod
from evaluate.statistics import Interval, holm, mean_interval, wilcoxon, win_rate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LEVEL = 0.05  # of the Holm-adjusted p value

Verdict = Literal["better", "worse", "unclear"]
Tables = Mapping[str, pd.DataFrame]
"""By column name: images x methods' labels, NaN where an image has no value."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method against the main one in one column, paired on the images that both have."""

    difference: Interval
    """The method minus the main one."""
    win_rate: float
    """Share of the images on which the method is better, ties half."""
    p_value: float
    """Wilcoxon's signed rank test, two-sided."""
    p_holm: float
    """Adjusted over all comparisons of the table."""
    higher_is_better: bool
    """Which way is better."""

    @property
    def verdict(self) -> Verdict:
        """Say better or worse only where the interval leaves zero out and the adjusted p is below 0.05."""
        low, high = self.difference.low, self.difference.high
        if not (low > 0 or high < 0) or not self.p_holm < LEVEL:
            return "unclear"
        return "better" if (low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One method in the table."""

    scored: ScoredMethod
    """The method."""
    values: Mapping[str, Interval]
    """By column name; without the columns that were not measured for it."""
    against: Mapping[str, Comparison]
    """By column name; empty for the main one itself, and where that was not scored."""
    num_flat: int
    """Images with a score whose insertion curve ends too near its start for normalized insertion."""
    tied_share: float
    """Mean share of pixels whose map value another pixel has too."""
    teacher_queries: float
    """Mean of the method's own queries to the black box, per map."""
    student_passes: float
    """Mean passes of the student per map."""
    seconds: float
    """Mean seconds per map."""
    num_errors: int
    """Images without a score in a game."""

    @property
    def deletion(self) -> Interval:
        """Return the deletion AUC."""
        return self.values["deletion"]

    @property
    def insertion(self) -> Interval:
        """Return the insertion AUC."""
        return self.values["insertion"]

    @property
    def gap(self) -> Interval:
        """Return the insertion minus the deletion AUC."""
        return self.values["gap"]


def interval(values: "ArrayLike") -> Interval:
    """Compute a mean with its interval over the finite values."""
    found = np.asarray(values, dtype=np.float64)
    return mean_interval(found[np.isfinite(found)])


def method_rows(results: Results, columns: Sequence[Column], tables: Tables) -> list[MethodRow]:
    """Make the table, best method first: by insertion minus deletion AUC.

    Args:
        results: The scores.
        columns: What the table shows; the games' own are among them.
        tables: Each column's values.
    """
    by_name = results.rows.groupby("name", observed=True)
    against = comparisons(results, columns, tables)
    rows = [
        _method_row(scored, by_name.get_group(scored.label), columns, tables, against.get(scored.label, {}))
        for scored in results.methods
    ]
    return sorted(rows, key=lambda row: (np.isnan(row.gap.mean), -row.gap.mean, row.scored.label))


def _method_row(
    scored: ScoredMethod, rows: Any, columns: Sequence[Column], tables: Tables, against: Mapping[str, Comparison]
) -> MethodRow:
    values = {
        column.name: interval(tables[column.name][scored.label])
        for column in columns
        if scored.label in tables[column.name]
    }
    # Cost and ties belong to the map, which every game repeats: each image counts once.
    maps = rows.drop_duplicates("image_id")
    return MethodRow(
        scored=scored,
        values=values,
        against=against,
        num_flat=values["insertion"].num - values["insertion_normalised"].num,
        tied_share=float(maps["tied_share"].mean()),
        teacher_queries=float(maps["map_teacher_queries"].mean()),
        student_passes=float(maps["map_student_passes"].mean()),
        seconds=float(maps["map_seconds"].mean()),
        num_errors=rows.loc[rows["error"].notna(), "image_id"].nunique(),
    )


def comparisons(results: Results, columns: Sequence[Column], tables: Tables) -> dict[str, dict[str, Comparison]]:
    """Compare each method with the main one, by label and column; empty where that was not scored."""
    main = results.main
    if main is None:
        return {}
    places = [
        (column, scored.label, pair)
        for scored in results.methods
        for column in columns
        if scored is not main
        and column.is_compared
        and (pair := paired(tables[column.name], scored.label, main.label))[0].size
    ]
    p_values = [wilcoxon(*pair) for _, _, pair in places]
    found: dict[str, dict[str, Comparison]] = {}
    for (column, label, (own, mains)), p, q in zip(places, p_values, holm(p_values), strict=True):
        sign = 1 if column.higher_is_better else -1
        found.setdefault(label, {})[column.name] = Comparison(
            difference=interval(own - mains),
            win_rate=win_rate(sign * own, sign * mains),
            p_value=p,
            p_holm=q,
            higher_is_better=sign == 1,
        )
    return found


def paired(table: pd.DataFrame, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Return two methods' values on the images that both have; none where a method is not in the table."""
    if not {first, second} <= set(table.columns):
        return np.zeros(0), np.zeros(0)
    a, b = table[first].to_numpy(), table[second].to_numpy()
    both = np.isfinite(a) & np.isfinite(b)
    return a[both], b[both]


def lead(results: Results, game: str, first: str, second: str) -> Interval:
    """Compute by how much `first` leads `second` in a game: positive is better in both games."""
    a, b = paired(results.auc(game), first, second)
    return interval(a - b if game == "insertion" else b - a)
