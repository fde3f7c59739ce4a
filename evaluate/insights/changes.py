"""Two models on the same images: where the other one looks elsewhere although it predicts the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.format.numbers import interval_text
from evaluate.format.table import Table
from evaluate.insights.classes import MIN_IMAGES, Images
from evaluate.statistics import Interval, mean_interval

NUM_SHOWN = 24
"""Images that changed most, on the page."""


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """Change of a class's maps from one model to the other."""

    target: int
    """Class that both models predict."""
    change: Interval
    """Mean Hellinger distance of the evidence, 0 (the same) to 1 (nothing in common), with its 95 % interval."""
    num_other: int
    """Images of the class of which the other model predicts another class; they are not compared."""

    def exceeds(self, limit: float) -> bool:
        """Tell whether the mean is above a limit with confidence, of at least `MIN_IMAGES` images."""
        return self.change.num >= MIN_IMAGES and self.change.low > limit


def class_changes(images: Images) -> list[ClassChange]:
    """Compare both models class by class, the largest change first; classes without a common image come last."""
    found = []
    for target in images.classes:
        own = images.members(target)
        values = images.changes[own].astype(np.float64)
        num_other = int((images.against_targets[own] != target).sum())
        change = mean_interval(values[np.isfinite(values)])
        found.append(ClassChange(target=target, change=change, num_other=num_other))
    return sorted(found, key=lambda one: -one.change.mean if one.change.num else 1.0)


def most_changed(images: Images) -> list[int]:
    """List the images of which both models predict the same and that changed most, the most first."""
    order = np.argsort(-np.nan_to_num(images.changes, nan=-1.0), kind="stable")[:NUM_SHOWN]
    return [int(k) for k in order if np.isfinite(images.changes[k])]


def changes_table(changes: Sequence[ClassChange], names: Mapping[int, str]) -> Table:
    """Write the changes of all classes as a table."""
    return Table(
        caption="Change of the maps where both models predict the same (0 the same, 1 nothing in common)",
        headings=["class", "change", "images", "predicted otherwise"],
        rows=[[names[one.target], interval_text(one.change), one.change.num, one.num_other] for one in changes],
    )
