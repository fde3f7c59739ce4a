"""Numbers as text: p values, and means with their intervals."""

from typing import Literal

from evaluate.statistics import Interval


def p_value(value: float) -> str:
    """Write a p value: three digits, or `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval_text(interval: Interval, *, sign: Literal["", "+"] = "") -> str:
    """Write a mean with its interval, `0.1234 [0.1200, 0.1270]`; a dash without any value.

    Args:
        interval: the mean.
        sign: "+" marks what is above zero too, as a difference needs it.
    """
    if interval.num == 0:
        return "-"
    mean, low, high = (f"{value:{sign}.4f}" for value in (interval.mean, interval.low, interval.high))
    return mean if interval.num == 1 else f"{mean} [{low}, {high}]"
