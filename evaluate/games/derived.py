"""Figures of one map that follow from its stored curves and areas; nothing is asked of the black box again.

An area is linear in its curve and a constant curve c has area c, so start, end and area are enough.
"""

import numpy as np

from evaluate.games.protocol import HIGHER_IS_BETTER, Game

# Of the target's probability: where a whole insertion moves it by less, the quotient is mostly rounding and noise.
MIN_SPAN = 0.05


def normalised_area(area: np.ndarray, start: np.ndarray, end: np.ndarray, *, min_span: float = MIN_SPAN) -> np.ndarray:
    """Compute the area under (curve - start) / (end - start), which is (area - start) / (end - start).

    A curve that goes straight from its start to its end has 0.5, whatever the two are.

    Args:
        area: areas under the raw curves, (N,).
        start: their first points, (N,).
        end: their last points, (N,).
        min_span: smallest |end - start| for which the figure is defined.

    Returns:
        (N,) float64; NaN where |end - start| is below `min_span` or a number is missing.
    """
    area, start, end = (np.asarray(values, dtype=np.float64) for values in (area, start, end))
    span = end - start
    defined = np.abs(span) >= min_span  # False for NaN
    return np.where(defined, (area - start) / np.where(defined, span, 1), np.nan)


def relevance_gain(game: Game, most: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Compute the symmetric relevance gain of maps in a game (Blücher et al. 2024): higher is better.

    The paper removes pixels: SRG = area(least relevant removed first) - area(most relevant removed first). Deletion
    is that. What insertion adds last is what removal takes first, so there the two change places:
    SRG = area(most relevant inserted first) - area(least relevant inserted first). With one baseline for both games
    the two gains are equal. A random order has 0 on average.

    Args:
        game: "deletion" or "insertion".
        most: areas with the most relevant first, (N,).
        least: areas of the same maps with the least relevant first, (N,).

    Returns:
        (N,) float64; NaN where one of the two is missing.
    """
    most, least = np.asarray(most, dtype=np.float64), np.asarray(least, dtype=np.float64)
    return most - least if HIGHER_IS_BETTER[game] else least - most
