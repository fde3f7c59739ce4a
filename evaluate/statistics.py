"""Uncertainty of the games: bootstrap intervals over images, paired comparisons, and Holm over a table.

Images are the unit of resampling everywhere. Intervals are bias-corrected and accelerated (BCa; Efron 1987),
because deletion AUCs are skewed; two methods are compared on the images that both have.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CHUNK_DRAWS = 4_000_000  # indices drawn at once: 32 MB
PRODUCT_DRAWS = 250_000  # counts multiplied at once: 2 MB, which stay in a core's cache
MAX_DRAWS = 50_000_000  # of one interval by default: 10,000 resamples of up to 5,000 images, 1,000 of 50,000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over images with its interval."""

    mean: float
    """Mean of the values; NaN without any."""
    low: float
    """Lower end; NaN with fewer than two values."""
    high: float
    """Upper end; NaN with fewer than two values."""
    num: int
    """Number of values."""

    def __neg__(self) -> "Interval":
        """Return the interval of the values with their signs changed."""
        return Interval(mean=-self.mean, low=-self.high, high=-self.low, num=self.num)


def mean_interval(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, num_resamples: int | None = None, seed: int = 0
) -> Interval:
    """Compute the mean with its BCa bootstrap interval.

    Args:
        values: one finite number per image, (N,). Equal values give an interval of no width.
        level: coverage in (0, 1).
        num_resamples: bootstrap resamples; by default 10,000, and fewer where there are more than 5,000 images.
        seed: the same values and seed give the same interval.

    Raises:
        ValueError: a value is not finite; leave images with errors out first.
    """
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} of {x.size} values are not finite; leave them out first")
    if x.size < 2 or np.ptp(x) == 0:
        mean = float(x[0]) if x.size else float("nan")
        end = mean if x.size >= 2 else float("nan")
        return Interval(mean=mean, low=end, high=end, num=x.size)
    means = _resampled_means(x, num_resamples or int(np.clip(MAX_DRAWS // x.size, 1000, 10_000)), seed)
    low, high = np.quantile(means, _bca_levels(x, means, level))
    return Interval(mean=float(x.mean()), low=float(low), high=float(high), num=x.size)


def paired_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, seed: int = 0
) -> Interval:
    """Compute mean(first - second) with its interval; both are (N,), of the same images in the same order.

    Raises:
        ValueError: the lengths differ, or a value is not finite.
    """
    return mean_interval(_differences(first, second), seed=seed)


def wilcoxon(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Compute the two-sided p value of Wilcoxon's signed rank test; 1 where no pair differs.

    Raises:
        ValueError: the lengths differ.
    """
    differences = _differences(first, second)
    if not np.any(differences):
        return 1.0
    found: Any = stats.wilcoxon(differences, method="auto")
    return float(found.pvalue)


def win_rate(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Compute the share of pairs in which `first` is higher, ties half; NaN without pairs.

    Raises:
        ValueError: the lengths differ.
    """
    differences = _differences(first, second)
    return float(np.mean((np.sign(differences) + 1) / 2)) if differences.size else float("nan")


def kendall(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Compute Kendall's tau-b between two lists of the same things: 1 for the same order, -1 for the reverse.

    Returns:
        -1 to 1; NaN with fewer than two things, or where one list holds a single value throughout.

    Raises:
        ValueError: the lengths differ.
    """
    return _rank_correlation(stats.kendalltau, first, second)


def spearman(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Compute Spearman's rank correlation, ties with their mean rank; returns and raises as `kendall`."""
    return _rank_correlation(stats.spearmanr, first, second)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for one table (Holm 1979), in the order given.

    Sorted ascending, p_(i) becomes max over j <= i of min(1, (m - j + 1) p_(j)).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(p.size, 0, -1)))
    return adjusted.tolist()


def _rank_correlation(
    correlate: Callable[..., Any], first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
) -> float:
    if not _differences(first, second).size or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(correlate(first, second).statistic)


def _differences(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> np.ndarray:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"pairs need two equally long lists, got {a.shape} and {b.shape}; join on image_id first")
    return a - b


def _resampled_means(x: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    counts = _resample_counts(x.size, num_resamples, seed)
    rows = max(1, PRODUCT_DRAWS // x.size)
    return np.concatenate([counts[i : i + rows].astype(np.float64) @ x for i in range(0, num_resamples, rows)]) / x.size


@functools.lru_cache(maxsize=4)  # a table's columns mostly have the same images
def _resample_counts(num: int, num_resamples: int, seed: int) -> np.ndarray:
    """Draw how often each of `num` values comes in each resample, uint8 (num_resamples, num)."""
    rng, counts = np.random.default_rng(seed), np.empty((num_resamples, num), dtype=np.uint8)
    rows = max(1, CHUNK_DRAWS // num)
    for i in range(0, num_resamples, rows):
        part = counts[i : i + rows]
        drawn = rng.integers(0, num, part.shape) + num * np.arange(len(part))[:, None]
        part[:] = np.bincount(drawn.ravel(), minlength=part.size).reshape(part.shape)
    return counts


def _bca_levels(x: np.ndarray, means: np.ndarray, level: float) -> np.ndarray:
    """Compute the quantile levels: bias z0 from the resamples, acceleration from the mean's jackknife."""
    below = ((means < x.mean()).mean() + (means <= x.mean()).mean()) / 2  # ties count half, as SciPy does
    z0 = stats.norm.ppf(np.clip(below, 1 / (means.size + 1), 1 - 1 / (means.size + 1)))
    centred = x - x.mean()
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    z = z0 + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    return stats.norm.cdf(z0 + z / (1 - acceleration * z))
