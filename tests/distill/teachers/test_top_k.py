"""Scores from responses that tell less: a class alone, or the k most probable ones."""

from __future__ import annotations

import numpy as np
import pytest

from distill.teachers.top_k import fill_remaining, one_hot


def test_top_k_keeps_what_was_told_and_spreads_the_rest_evenly() -> None:
    probs, classes = np.array([[0.5, 0.3], [0.25, 0.25]]), np.array([[4, 0], [1, 3]])
    found = fill_remaining(probs, classes, 5)
    np.testing.assert_allclose(found[0], [0.3, 0.2 / 3, 0.2 / 3, 0.2 / 3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(found[1], [0.5 / 3, 0.25, 0.5 / 3, 0.25, 0.5 / 3], rtol=1e-6)
    np.testing.assert_array_equal(
        fill_remaining(np.array([[0.6, 0.4]]), np.array([[1, 0]]), 2), np.array([[0.4, 0.6]], np.float32)
    )


@pytest.mark.parametrize(
    ("probs", "classes", "complaint"),
    [
        ([0.5, 0.3], [0, 5], "class 5; classes: 0 to 4"),
        ([0.5, 0.3], [0, -1], "class -1"),
        ([0.5, 0.3], [1, 1], "a class twice"),
        ([0.7, 0.5], [0, 1], "cannot be the highest of 5: they sum to 1.2"),
        ([0.5, 0.01], [0, 1], "the least is 0.01"),
        ([0.5, float("nan")], [0, 1], "cannot be"),
    ],
)
def test_what_cannot_be_the_highest_is_refused(probs: list[float], classes: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        fill_remaining(np.array([probs]), np.array([classes]), 5)
    with pytest.raises(ValueError, match="classes: 0 to 4"):
        one_hot(np.array([5]), 5)
