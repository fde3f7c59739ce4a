"""Classes of a data set compared by their maps: where the evidence lies, against all other classes."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import stats

from evaluate.insights.evidence import GRID, PLACES, column_of, distances
from evaluate.statistics import Interval, holm, mean_interval

OUTSIDE = "outside"
MIN_IMAGES = 10
"""Fewest images of a class, or of a cluster, of which anything is said."""
ALPHA = 0.05


class Images:
    """Rows of the first job as arrays; images with an error are left out, and counted."""

    def __init__(self, table: pa.Table) -> None:
        """Read the columns of a table that `read_images` returned."""
        import pyarrow.compute as pc

        self.num_errors = table.num_rows - table["error"].null_count
        self.errors = table.filter(pc.is_valid(table["error"]))["error"].to_pylist()  # pyright: ignore
        kept = table.filter(pc.is_null(table["error"]))  # pyright: ignore[reportAttributeAccessIssue]
        self.image_ids: list[str] = kept["image_id"].to_pylist()
        self.targets = kept["target"].to_numpy()
        self.evidence = _grids(kept["evidence"])
        self.has_inside = np.asarray(pc.is_valid(kept["inside"]))  # pyright: ignore[reportAttributeAccessIssue]
        self.inside = _grids(kept["inside"].drop_null())  # of the images that `has_inside` marks, in order
        self.facts = {
            name: kept[name].to_numpy() for name in (*map(column_of, PLACES), OUTSIDE, "size", "row", "column")
        }
        self.color, self.image_color = (
            kept[name].combine_chunks().flatten().to_numpy().reshape(-1, 3) for name in ("color", "image_color")
        )
        self.against_targets, self.changes = (kept[name].to_numpy() for name in ("against_target", "change"))

    @property
    def classes(self) -> list[int]:
        """List the classes explained, ascending."""
        return np.unique(self.targets).tolist()

    def members(self, target: int) -> np.ndarray:
        """Return the places of a class's images in the arrays, ascending."""
        return np.flatnonzero(self.targets == target)

    def place_of(self, image_id: str) -> int:
        """Return the place of an image in the arrays."""
        return self._places[image_id]

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {image_id: place for place, image_id in enumerate(self.image_ids)}

    def inside_of(self, number: int) -> np.ndarray:
        """Return the share of each cell of an image that is its object, (GRID, GRID)."""
        assert self.has_inside[number]
        return self.inside[int(self.has_inside[:number].sum())]


def _grids(column: pa.ChunkedArray) -> np.ndarray:
    return column.combine_chunks().flatten().to_numpy().reshape(-1, GRID, GRID)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One number of a class's images compared with those of all other classes."""

    target: int
    """Class."""
    name: str
    """A name in `PLACES`, or "outside"."""
    share: Interval
    """Mean share of the evidence, with its 95 % interval."""
    others: float
    """Mean share in the images of all other classes; NaN without any."""
    p_value: float
    """Two-sided p of the rank sum test, Holm-adjusted over all classes and names."""


def contrasts(images: Images) -> list[Contrast]:
    """Compare each class of at least `MIN_IMAGES` images with all others, place by place; one correction over all."""
    found: list[tuple[int, str, Interval, float, float]] = []
    for name in (*PLACES, OUTSIDE):
        ranks = Ranks(images.facts[column_of(name)].astype(np.float64))
        for target in np.unique(images.targets[ranks.known]):
            own = images.targets == target
            values = ranks.of(own)
            if len(values) >= MIN_IMAGES:
                found.append((int(target), name, mean_interval(values), ranks.mean(~own), ranks.p_value(own)))
    adjusted = holm([p for *_, p in found])
    return [
        Contrast(target=target, name=name, share=share, others=others, p_value=p)
        for (target, name, share, others, _), p in zip(found, adjusted, strict=True)
    ]


class Ranks:
    """Ranks of values, from which the rank sum test of any part against the rest follows at once.

    Values that are not finite take no part. A part is bool (N,), over all values.
    """

    def __init__(self, values: np.ndarray) -> None:
        """Rank the values (N,), ties with their mean rank."""
        self.known = np.isfinite(values)
        self.values = values[self.known]
        self.ranks = stats.rankdata(self.values)
        _, counts = np.unique(self.values, return_counts=True)
        num = len(self.values)
        # Mann and Whitney's variance with ties, over the sizes of both parts: (N + 1 - sum(t^3 - t) / (N (N - 1))) / 12
        self.unit = (num + 1 - (counts**3.0 - counts).sum() / max(num * (num - 1), 1)) / 12

    def of(self, own: np.ndarray) -> np.ndarray:
        """Return the values of a part."""
        return self.values[own[self.known]]

    def mean(self, own: np.ndarray) -> float:
        """Return the mean value of a part; NaN where it is empty."""
        values = self.of(own)
        return float(values.mean()) if len(values) else float("nan")

    def z(self, own: np.ndarray) -> float:
        """Return the normal score of a part against the rest; above 0 where its values are higher."""
        own = own[self.known]
        first, second = int(own.sum()), int((~own).sum())
        variance = first * second * self.unit
        if variance <= 0:
            return 0.0
        return float((self.ranks[own].sum() - first * (len(own) + 1) / 2) / np.sqrt(variance))

    def p_value(self, own: np.ndarray) -> float:
        """Return the two-sided p of `z`."""
        return float(2 * stats.norm.sf(abs(self.z(own))))


def spread(evidence: np.ndarray) -> float:
    """Compute the spread of a class's maps (N, GRID, GRID): their mean Hellinger distance to the mean map."""
    return float(distances(evidence, evidence.mean(axis=0)).mean())


def class_rows(images: Images, compared: Sequence[Contrast], names: Mapping[int, str]) -> list[dict[str, object]]:
    """Make a row for each class: counts, mean map, spread, and its contrasts; nulls where it has too few images."""
    rows = []
    for target in images.classes:
        own = images.evidence[images.members(target)]
        row: dict[str, object] = {"target": target, "name": names[target], "num_images": len(own)}
        row |= {"mean_map": own.mean(axis=0).ravel().tolist(), "spread": spread(own)}
        for one in compared:
            if one.target == target:
                key = column_of(one.name)
                row |= {key: one.share.mean, f"{key}_low": one.share.low, f"{key}_high": one.share.high}
                row |= {f"{key}_others": one.others, f"{key}_p_holm": one.p_value}
        rows.append(row)
    keys = dict.fromkeys(key for row in rows for key in row)  # the first class may be a small one
    return [{key: row.get(key) for key in keys} for row in rows]
