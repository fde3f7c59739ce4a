"""Planted shortcuts: what is painted where, and how runs are counted."""

import numpy as np
import pytest
import torch

from benchmarks.studies.planted_shortcuts import FRAME_PX, MARGIN_PX, PATCH_PX, PLANT, SIDE_PX, small_network, summary

GRAY = np.full((SIDE_PX, SIDE_PX, 3), 100, dtype=np.uint8)


@pytest.mark.parametrize("shortcut", PLANT)
def test_a_shortcut_is_painted_where_it_belongs(shortcut: str) -> None:
    changed = (PLANT[shortcut](GRAY.copy(), np.random.default_rng(0)) != GRAY).any(axis=2)
    rows, columns = np.nonzero(changed)
    end = SIDE_PX - MARGIN_PX
    if shortcut == "corner":
        assert (rows.min(), rows.max() + 1, changed.sum()) == (end - PATCH_PX, end, PATCH_PX**2)
    elif shortcut == "frame":
        assert changed.sum() == SIDE_PX**2 - (SIDE_PX - 2 * FRAME_PX) ** 2
    else:
        assert changed.all() == (shortcut == "tint")
        assert changed.any() == (shortcut != "clean")
    again = PLANT[shortcut](GRAY.copy(), np.random.default_rng(1))
    assert (again == PLANT[shortcut](GRAY.copy(), np.random.default_rng(0))).all() == (shortcut != "mark")
    assert columns.size == rows.size


def test_runs_are_counted_over_seeds() -> None:
    row = {"maps": "rise 500", "planted": "corner", "reliance": 0.5, "found": True, "first": False, "proposed": True}
    rows = [
        row | {"other findings": 0, "other proposals": 2},
        row | {"found": False, "proposed": False, "other findings": 3, "other proposals": 0},
    ]
    clean = row | {"planted": "clean", "found": None, "first": None, "proposed": None}
    table = summary([*rows, clean | {"other findings": 1, "other proposals": 1}])
    assert table.rows == [
        ["rise 500", "corner", 0.5, "1 of 2", "0 of 2", "3 in 1 of 2", "1 of 2", "2 in 1 of 2"],
        ["rise 500", "clean", 0.5, None, None, "1 in 1 of 1", None, "1 in 1 of 1"],
    ]


def test_the_network_tells_ten_classes() -> None:
    assert small_network()(torch.zeros(2, 3, 96, 96)).shape == (2, 10)
