"""Share of map mass inside a mask, against a plain re-derivation."""

import numpy as np
import pytest

from evaluate.metrics.pointing import mass_inside, pointing_game, resize_mask


def plain_share(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Add up pixel by pixel, looking each pixel's center up in the mask."""
    height, width = saliency.shape
    inside = total = 0.0
    for y in range(height):
        for x in range(width):
            mass = float(saliency[y, x]) - float(saliency.min())
            total += mass
            if mask[int((y + 0.5) * mask.shape[0] / height), int((x + 0.5) * mask.shape[1] / width)]:
                inside += mass
    return inside / total


@pytest.mark.parametrize("mask_shape", [(7, 11), (14, 22), (5, 4), (100, 30)])
def test_share_equals_the_plain_sum(mask_shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    saliency, mask = rng.normal(size=(7, 11)).astype(np.float32), rng.random(mask_shape) < 0.4
    assert mass_inside(saliency, mask) == pytest.approx(plain_share(saliency, mask), abs=1e-9)


def test_ends_of_the_range_on_an_image_that_is_not_square() -> None:
    mask = np.zeros((4, 10), dtype=bool)
    mask[1:3, 6:9] = True
    assert mass_inside(mask.astype(np.float32), mask) == 1
    assert mass_inside((~mask).astype(np.float32), mask) == 0
    assert mass_inside(mask.astype(np.float32), np.zeros_like(mask)) == 0


def test_floor_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    saliency, mask = rng.random((6, 9)), rng.random((6, 9)) < 0.3
    plain = mass_inside(saliency, mask)
    assert mass_inside(saliency * 40 - 7, mask) == pytest.approx(plain)
    assert mass_inside(saliency / 1e4 + 1 / 54, mask) == pytest.approx(plain)


def test_a_constant_map_points_nowhere() -> None:
    mask = np.eye(5, dtype=bool)
    assert np.isnan(mass_inside(np.zeros((5, 5)), mask))
    assert np.isnan(mass_inside(np.full((5, 5), 0.3), mask))


def test_the_map_is_left_as_it_was() -> None:
    saliency = np.array([[1.0, 2.0], [3.0, 4.0]])
    mass_inside(saliency, np.eye(2, dtype=bool))
    assert saliency.min() == 1


@pytest.mark.parametrize(
    ("saliency", "message"),
    [(np.array([[0, np.nan]]), "not finite"), (np.zeros(4), "height, width"), (np.zeros((0, 3)), "height, width")],
)
def test_what_is_no_map_is_refused(saliency: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mass_inside(saliency, np.ones((2, 2), dtype=bool))


def test_masks_keep_their_orientation_when_they_are_resized() -> None:
    mask = np.zeros((40, 20), dtype=bool)
    mask[:10, :] = True
    small = resize_mask(mask, (8, 6))
    assert small.shape == (8, 6)
    assert small[:2].all()
    assert not small[2:].any()


def planted(y: int, x: int) -> np.ndarray:
    saliency = np.random.default_rng(0).random((40, 60))
    saliency[y, x] = 2
    return saliency


def test_the_pointing_game_hits_inside_and_up_to_the_tolerance() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:10, 20:25] = True
    assert pointing_game(planted(7, 22), mask, tolerance_px=0) == 1
    assert pointing_game(planted(10, 22), mask, tolerance_px=0) == 0
    assert pointing_game(planted(24, 22), mask) == 1  # 15 pixels below the last row
    assert pointing_game(planted(25, 22), mask) == 0
    assert pointing_game(planted(18, 36), mask) == 1  # 9 below and 12 beside: 15
    assert pointing_game(planted(19, 36), mask) == 0
    assert pointing_game(planted(22, 7), mask) == 0  # rows are not columns


def test_tied_maxima_count_by_their_share() -> None:
    saliency = np.zeros((10, 12))
    saliency[2, 2] = saliency[2, 3] = saliency[9, 11] = 1
    mask = np.zeros((10, 12), dtype=bool)
    mask[:4, :4] = True
    assert pointing_game(saliency, mask, tolerance_px=0) == pytest.approx(2 / 3)


def test_a_constant_map_or_an_empty_object_has_no_pointing_game() -> None:
    assert np.isnan(pointing_game(np.ones((4, 4)), np.eye(4, dtype=bool)))
    assert np.isnan(pointing_game(np.eye(4), np.zeros((4, 4), dtype=bool)))


def test_the_pointing_game_is_a_plain_search() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        saliency, mask = rng.random((9, 14)), rng.random((9, 14)) < 0.05
        mask[0, 0] = True
        y, x = np.unravel_index(saliency.argmax(), saliency.shape)
        near = min((y - i) ** 2 + (x - j) ** 2 for i, j in np.argwhere(mask)) ** 0.5
        assert pointing_game(saliency, mask, tolerance_px=2.5) == float(near <= 2.5)


@pytest.mark.parametrize(("saliency", "message"), [(np.array([[0, np.inf]]), "not finite"), (np.zeros(4), "height")])
def test_the_pointing_game_refuses_what_is_no_map(saliency: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pointing_game(saliency, np.ones((2, 2), dtype=bool))
