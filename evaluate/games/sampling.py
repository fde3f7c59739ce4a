"""Curves from fewer points: where a curve is flat it is asked rarely, and the score says by how much it may be off.

The exact game stays the rule; a curve of fewer points belongs to a protocol of its own. Two thirds of the points lie
evenly, the others come in rounds, each in the middle of wide intervals over which the curve changes much: of what was
tried on curves of EfficientNet-Lite0, which jitter by 0.015 from point to point, this came nearest to the exact areas.
Rounds of many games share their batches, as the exact games do.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import torch

from distill.perturb.curves import Perturbation, play_points

ROUNDS = 3
"""Rounds of refinement, after the even points."""
GAMES_AT_ONCE = 32
"""Games whose rounds share batches; their images are in memory, 1.2 MB each at 224 px."""


class SampledCurve:
    """What is known of one curve, at points 0 ... num_steps of which a few are played."""

    def __init__(self, num_steps: int) -> None:
        """Begin with nothing known."""
        self.num_steps = num_steps
        self.points = np.zeros(0, dtype=np.int64)
        """The points played, ascending."""
        self.values = np.zeros(0, dtype=np.float32)
        """The target's probability there."""

    def add(self, points: np.ndarray, values: np.ndarray) -> None:
        """Take what was played at new points."""
        joined = np.concatenate([self.points, points])
        order = np.argsort(joined)
        self.points, self.values = joined[order], np.concatenate([self.values, values])[order]

    def even(self, num: int) -> np.ndarray:
        """Return about `num` points, both ends among them, as even as whole steps allow."""
        return np.unique(np.linspace(0, self.num_steps, num).round().astype(np.int64))

    def next(self, num: int) -> np.ndarray:
        """Return the middles of those `num` intervals where width squared times the difference of the ends is largest.

        Intervals of one step hide nothing; equal ones go in their order.
        """
        widths = np.diff(self.points)
        hidden = np.where(widths > 1, widths**2 * (np.abs(np.diff(self.values)) + 1e-9), 0)
        chosen = np.argsort(-hidden, kind="stable")[: min(num, int((hidden > 0).sum()))]
        return np.sort(self.points[chosen] + widths[chosen] // 2)

    def whole(self, fractions: np.ndarray) -> np.ndarray:
        """Return the curve at every point, (num_steps + 1,) float32, straight lines over the pixels' share between.

        Its area by the trapezoid rule is that of the played points alone.
        """
        return np.interp(fractions, fractions[self.points], self.values).astype(np.float32)

    def bound(self, fractions: np.ndarray) -> float:
        """Return how far off the area is at most, if the exact curve stays between each interval's ends.

        `sum_i w_i |p_(i+1) - p_i| / 2` over the intervals of more than one step, w_i their share of the pixels. A curve
        that leaves an interval's ends inside of it may differ by more.
        """
        widths = np.diff(fractions[self.points])
        hides = np.diff(self.points) > 1
        return float((widths * np.abs(np.diff(self.values.astype(np.float64))))[hides].sum() / 2)


def play_sampled(
    score: Callable[[torch.Tensor], torch.Tensor],
    plays: Iterable[Perturbation],
    *,
    num_points: int,
    batch_size: int = 64,
) -> Iterator[SampledCurve]:
    """Play at most `num_points` points of each game, both ends among them; yield what was found, in the order given.

    Args:
        score: as of `play`.
        plays: likewise; read `GAMES_AT_ONCE` at a time.
        num_points: at least 3.
        batch_size: frames per forward pass.
    """
    games = iter(plays)
    while group := list(islice(games, GAMES_AT_ONCE)):
        curves = [SampledCurve(game.num_steps) for game in group]
        wanted = [curve.even(max(2, 2 * num_points // 3)) for curve in curves]
        for left in range(ROUNDS, -1, -1):
            jobs = [(game, points.tolist()) for game, points in zip(group, wanted, strict=True) if len(points)]
            found = play_points(score, jobs, batch_size=batch_size)
            for curve, points in zip(curves, wanted, strict=True):
                if len(points):
                    curve.add(points, next(found))
            if left:
                wanted = [curve.next(-(-(num_points - len(curve.points)) // left)) for curve in curves]
        yield from curves
