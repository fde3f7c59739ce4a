"""The report's tables: one row per method with intervals and cost, and paired differences to MAL-Grad-CAM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evaluate.protocol import GAMES, HIGHER_IS_BETTER, MEASURES
from evaluate.results import Results
from evaluate.scored import Scored
from evaluate.statistics import Interval, holm, mean_interval, wilcoxon, win_rate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MAX_DRAWS = 50_000_000  # bootstrap draws of one interval: about a second
LEVEL = 0.05  # of the Holm-adjusted p value

Verdict = Literal["better", "worse", "unclear"]


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One method in the table of methods."""

    scored: Scored
    """The method."""
    deletion: Interval
    """Deletion AUC, lower is better."""
    insertion: Interval
    """Insertion AUC, higher is better."""
    gap: Interval
    """Insertion minus deletion AUC of each image."""
    insertion_normalised: Interval
    """Insertion AUC between each curve's own start and end, over the images where that is defined."""
    num_flat: int
    """Images with a score whose insertion curve ends too near its start for that."""
    deletion_gain: Interval | None
    """Symmetric relevance gain in deletion, higher is better; None where it was not played least relevant first."""
    insertion_gain: Interval | None
    """Symmetric relevance gain in insertion, higher is better; None as above."""
    tied_share: float
    """Mean share of pixels whose map value another pixel has too."""
    teacher_queries: float
    """Mean of the method's own queries to the black box, per map."""
    student_passes: float
    """Mean passes of the student per map."""
    seconds: float
    """Mean seconds per map."""
    mass: Interval | None
    """Share of map mass inside the object mask; None where the data set has no masks."""
    num_constant: int
    """Maps that point nowhere and so have no share of mass."""
    num_errors: int
    """Images without a score in a game."""


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """MAL-Grad-CAM against one other method in one game, paired on the images that both have."""

    scored: Scored
    """The other method."""
    game: str
    """insertion or deletion."""
    difference: Interval
    """MAL-Grad-CAM minus the other."""
    p_value: float
    """Wilcoxon's signed rank test, two-sided."""
    p_holm: float
    """Adjusted over the whole table."""
    win_rate: float
    """Share of the images on which MAL-Grad-CAM is better, ties half."""

    @property
    def verdict(self) -> Verdict:
        """Say better or worse only where the interval leaves zero out and the adjusted p is below 0.05."""
        low, high = self.difference.low, self.difference.high
        if not (low > 0 or high < 0) or not self.p_holm < LEVEL:
            return "unclear"
        return "better" if (low > 0) == (self.game == "insertion") else "worse"


def interval(values: "ArrayLike") -> Interval:
    """Compute a mean with its interval over the finite values, with fewer resamples where there are many images."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return mean_interval(finite, num_resamples=int(np.clip(MAX_DRAWS // max(finite.size, 1), 1000, 10_000)))


def method_rows(results: Results, shares: Mapping[str, Mapping[str, float]]) -> list[MethodRow]:
    """Make the table of methods, best first: by insertion minus deletion AUC.

    Args:
        results: The scores.
        shares: Share of mass inside the mask, by label and image_id; without a label for methods without.
    """
    by_name = results.rows.groupby("name")
    figures = {name: results.measure(name) for name in MEASURES}
    rows = [
        _method_row(scored, by_name.get_group(scored.label), figures, shares.get(scored.label))
        for scored in results.methods
    ]
    return sorted(rows, key=lambda row: (np.isnan(row.gap.mean), -row.gap.mean, row.scored.label))


def _method_row(scored: Scored, rows: Any, figures: Mapping[str, Any], shares: Mapping[str, float] | None) -> MethodRow:
    found: dict[str, Any] = {
        name: None if table is None else interval(table[scored.label]) for name, table in figures.items()
    }
    # Cost and ties belong to the map, which every game repeats: each image counts once.
    maps = rows.drop_duplicates("image_id")
    mass = None if not shares else np.array(list(shares.values()))
    return MethodRow(
        scored=scored,
        **found,
        num_flat=found["insertion"].num - found["insertion_normalised"].num,
        tied_share=float(maps["tied_share"].mean()),
        teacher_queries=float(maps["map_teacher_queries"].mean()),
        student_passes=float(maps["map_student_passes"].mean()),
        seconds=float(maps["map_seconds"].mean()),
        mass=None if mass is None else interval(mass),
        num_constant=0 if mass is None else int(np.isnan(mass).sum()),
        num_errors=len(set(rows.loc[rows["error"].notna(), "image_id"])),
    )


def pair_rows(results: Results) -> list[PairRow]:
    """Compare MAL-Grad-CAM with every other method in both games; empty where it was not scored."""
    main = results.main
    if main is None:
        return []
    found = []
    for scored in results.methods:
        for game in GAMES:
            first, second = _pairs(results, game, main.label, scored.label)
            if scored is not main and first.size:
                sign = 1 if HIGHER_IS_BETTER[game] else -1
                wins = win_rate(sign * first, sign * second)
                found.append((scored, game, interval(first - second), wins, wilcoxon(first, second)))
    adjusted = holm([p for *_, p in found])
    return [
        PairRow(scored=scored, game=game, difference=difference, win_rate=wins, p_value=p, p_holm=q)
        for (scored, game, difference, wins, p), q in zip(found, adjusted, strict=True)
    ]


def lead(results: Results, game: str, first: str, second: str) -> Interval:
    """Compute by how much `first` leads `second` in a game: positive is better in both games."""
    a, b = _pairs(results, game, first, second)
    return interval(a - b if game == "insertion" else b - a)


def _pairs(results: Results, game: str, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    table = results.auc(game)
    a, b = table[first].to_numpy(), table[second].to_numpy()
    both = np.isfinite(a) & np.isfinite(b)
    return a[both], b[both]
