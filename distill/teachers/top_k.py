"""Probabilities from black boxes that tell less: a class alone, or the k most probable ones.

A class alone becomes a one-hot row. Of k classes the probabilities stay as they were returned, since they are what is
scored; what is left of 1 is spread evenly over the classes that were not named, each of which is then at most as
probable as the least of those that were.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-3  # of sums and orders, for probabilities that were rounded to three places or stored in float16


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Turn class indices (B,) into rows (B, K), float32: 1 for the class, 0 for the others.

    Raises:
        ValueError: an index is no class.
    """
    _check_classes(labels, num_classes)
    rows = np.zeros((len(labels), num_classes), dtype=np.float32)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def fill_remaining(probs: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Turn the k highest probabilities (B, k) of classes (B, k) into rows (B, K), float32.

    Raises:
        ValueError: an index is no class or named twice, or the probabilities cannot be the k highest of a row.
    """
    _check_classes(classes, num_classes)
    num_named = probs.shape[1]
    if any(len(set(row)) < num_named for row in classes.tolist()):
        raise ValueError("it names a class twice in one answer")
    exact = probs.astype(np.float64)
    left, num_others = 1 - exact.sum(axis=1), num_classes - num_named
    others = np.clip(left, 0, None) / max(num_others, 1)
    if not np.isfinite(exact).all() or (left < -TOLERANCE).any() or (others > exact.min(axis=1) + TOLERANCE).any():
        raise ValueError(
            f"its {num_named} probabilities cannot be the highest of {num_classes}: they sum to "
            f"{exact.sum(axis=1).max():.6g} at most, and the least is {exact.min():.6g}"
        )
    rows = np.repeat(others[:, None], num_classes, axis=1)
    np.put_along_axis(rows, classes, exact, axis=1)
    return rows.astype(np.float32)


def _check_classes(classes: np.ndarray, num_classes: int) -> None:
    wrong = classes[(classes < 0) | (classes >= num_classes)]
    if wrong.size:
        raise ValueError(f"it names class {int(wrong[0])}; classes: 0 to {num_classes - 1}")
