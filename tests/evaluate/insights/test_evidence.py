"""Evidence of maps: re-derived slowly, its properties, and places and colors in words."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from evaluate.insights.evidence import (
    COLORS,
    GRID,
    PLACES,
    color_text,
    core,
    distances,
    evidence,
    image_facts,
    place_text,
)
from explain.rank_maps import compact


def some_map(seed: int = 0, side: int = 2 * GRID) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)


def certain(weights: np.ndarray | None) -> np.ndarray:
    assert weights is not None
    return weights


def slow_evidence(saliency: np.ndarray) -> np.ndarray:
    cells = [[saliency[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(GRID)] for y in range(GRID)]
    ordered = sorted(np.ravel(cells))
    place = 0.8 * (len(ordered) - 1)
    below = ordered[int(place)]
    quantile = below + (ordered[int(place) + 1] - below) * (place - int(place))
    excess = [[max(cell - quantile, 0) for cell in row] for row in cells]
    return np.array(excess) / np.sum(excess)


def test_evidence_is_the_excess_over_the_background():
    assert np.allclose(certain(evidence(some_map())), slow_evidence(some_map().astype(np.float64)), atol=1e-7)


def test_evidence_does_not_depend_on_the_scale_of_a_map():
    first, second = certain(evidence(some_map())), certain(evidence(7 * some_map() - 3))
    assert np.allclose(first, second, atol=1e-6)
    assert np.allclose(first, certain(evidence((some_map() * 1e-14).astype(np.float32))), atol=1e-6)  # as gradients are
    assert first.sum() == pytest.approx(1)


@pytest.mark.parametrize("side", [7, 14, 20, 224])
def test_a_planted_square_holds_the_evidence_at_every_size_of_map(side):
    saliency = 0.01 * some_map(1, side)
    saliency[: side // 7, : side // 7] += 5
    weights = certain(evidence(saliency))
    assert weights[:2, :2].sum() > 0.9


def test_rank_maps_have_their_evidence_in_the_same_place():
    saliency = some_map(2, 112) * 0.1
    saliency[80:100, 10:30] += 2
    assert certain(evidence(compact(saliency, 28)))[10:13, 1:4].sum() > 0.4


def test_a_constant_map_has_no_evidence_and_a_single_cell_has_all_of_it():
    assert evidence(np.full((GRID, GRID), 0.3, dtype=np.float32)) is None
    assert evidence(np.zeros((5, 9), dtype=np.float32)) is None
    one = np.zeros((GRID, GRID), dtype=np.float32)
    one[3, 5] = 2
    assert certain(evidence(one))[3, 5] == 1
    hole = -one  # every cell but one has the same value: above the minimum, not above the quantile
    assert certain(evidence(hole))[3, 5] == 0


def test_a_core_is_the_smallest_set_with_its_share():
    weights = np.zeros((GRID, GRID))
    weights[0, :4] = (0.4, 0.3, 0.2, 0.1)
    assert core(weights, 0.4).sum() == 1
    assert core(weights, 0.5).sum() == 2
    assert core(weights, 0.95).sum() == 4


def test_distances_are_hellinger_distances():
    first, second = certain(evidence(some_map(3))), certain(evidence(some_map(4)))
    slow = np.sqrt(1 - sum(np.sqrt(p * q) for p, q in zip(first.flat, second.flat, strict=True)))
    assert distances(first, second) == pytest.approx(slow)
    assert distances(first, first) == 0
    apart = [np.eye(1, GRID * GRID, k).reshape(GRID, GRID) for k in (0, 9)]
    assert distances(apart[0], apart[1]) == pytest.approx(1)
    assert jensenshannon(first.ravel(), second.ravel()) <= slow * np.sqrt(2 * np.log(2)) + 1e-9  # a known bound


def test_facts_of_an_image():
    weights = np.zeros((GRID, GRID))
    weights[0, 0] = weights[GRID - 1, GRID - 1] = 0.5
    frame = np.full((GRID, GRID, 3), 10, dtype=np.uint8)
    frame[0, 0], inside = (210, 10, 10), np.zeros((GRID, GRID))
    inside[0, 0] = 1
    facts = image_facts(weights, frame, inside)
    assert facts["border"] == 1
    assert (facts["upper_left_corner"], facts["lower_right_corner"], facts["lower_left_corner"]) == (0.5, 0.5, 0)
    assert facts["outside"] == 0.5
    assert facts["color"] == [110, 10, 10]
    assert (facts["row"], facts["column"]) == (0.5, 0.5)
    assert facts["size"] == 1 / GRID**2
    assert image_facts(weights, frame, None)["outside"] is None


@pytest.mark.parametrize("name", PLACES)
def test_places_have_names(name):
    assert place_text(PLACES[name]) == name


def test_other_regions_have_names():
    region = np.zeros((GRID, GRID), dtype=bool)
    region[6:8, 6:8] = True
    assert place_text(region) == "center"
    assert place_text(np.roll(region, -6, axis=0)) == "upper part"
    assert place_text(np.roll(region, 5, axis=1)) == "right part"
    assert [color_text(np.array(levels)) for levels in COLORS.values()] == list(COLORS)
