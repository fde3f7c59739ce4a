"""What hides parts of a view, each pixel by hand: RISE's masks, frames of the games, blurs and mixtures."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from distill.perturb.rise_masks import FAMILIES, rise_masks
from distill.training.augment import BLUR_SIGMAS, ORDER_CELLS, blend, blurred, masked, random_order

SIZE = (36, 50)
MEAN = (0.2, 0.5, 0.9)


@pytest.fixture
def view():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def plain_blend(view, other, share):
    out = np.empty(view.shape, np.uint8)
    for y, x, c in np.ndindex(view.shape):
        out[y, x, c] = round(share[y, x] * float(view[y, x, c]) + (1 - share[y, x]) * float(other[y, x, c]))
    return out


def plain_order(generator, size):
    num_cells = round(ORDER_CELLS[0] * (ORDER_CELLS[1] / ORDER_CELLS[0]) ** generator.random())
    grid = generator.random((num_cells, num_cells), dtype=np.float32)
    if generator.integers(2):
        return resize(grid, size, order=1, mode="edge", anti_aliasing=num_cells > min(size)), num_cells, True
    places = [[(2 * i + 1) * num_cells // (2 * side) for i in range(side)] for side in size]
    return grid[np.ix_(*places)], num_cells, False


def test_a_hidden_view_is_a_mask_of_rise_or_a_frame_of_a_game(view):
    """The same draws, composed pixel by pixel; every way of hiding turns up."""
    seen = set()
    color = np.broadcast_to(np.array(MEAN) * 255, view.shape)
    for seed in range(60):
        generator = np.random.default_rng(seed)
        if generator.integers(2):
            family = FAMILIES[generator.integers(2)]
            key = int(generator.integers(2**63))
            (shown,) = rise_masks(range(1), seed=key, size=SIZE, num_cells=family[0], keep_probability=family[1])
            shown, other = shown.double().numpy(), color
            seen.add(family)
        else:
            order = random_order(generator, SIZE)
            ranked, at = np.sort(order, axis=None), generator.random() * (order.size - 1)
            below, above = ranked[math.floor(at)], ranked[math.floor(at) + 1]
            shown = (order >= below + (at - math.floor(at)) * (above - below)).astype(float)
            is_blurred = bool(generator.integers(2))
            other = blurred(view, generator) if is_blurred else color
            seen.add(is_blurred)
        got = masked(view, np.random.default_rng(seed), MEAN)
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - plain_blend(view, other, shown)).max() <= 1
    assert seen == {*FAMILIES, False, True}


@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_orders_are_grids_of_patches_or_of_blobs(size):
    seen, cells = set(), []
    for seed in range(200):
        want, num_cells, is_smooth = plain_order(np.random.default_rng(seed), size)
        got = random_order(np.random.default_rng(seed), size)
        assert got.shape == size
        assert np.abs(got - want).max() < 1e-4
        seen.add(is_smooth)
        cells.append(num_cells)
    assert seen == {False, True}
    assert (min(cells), max(cells)) == ORDER_CELLS
    assert np.mean(np.array(cells) < 9) == pytest.approx(0.5, abs=0.15)  # log-uniform: as many below 9 as above


def test_any_share_of_a_frame_is_hidden(view):
    shares = [np.mean(np.any(masked(view, np.random.default_rng(seed), MEAN) != view, axis=2)) for seed in range(200)]
    assert min(shares) < 0.05
    assert max(shares) > 0.95


def test_blurs_are_gaussians_of_the_stated_widths():
    rng = np.random.default_rng(1)
    noise = gaussian_filter(rng.normal(size=(120, 160, 3)), (3, 3, 0))
    view = np.clip(128 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)
    for seed in range(6):
        sigma_px = 160 * BLUR_SIGMAS[0] * (BLUR_SIGMAS[1] / BLUR_SIGMAS[0]) ** np.random.default_rng(seed).random()
        want = gaussian_filter(view.astype(float), (sigma_px, sigma_px, 0), mode="nearest")
        got = blurred(view, np.random.default_rng(seed))
        assert np.abs(got - want).mean() < 1.5  # Pillow's is made of three boxes
        assert np.abs(got - want).mean() < 0.1 * np.abs(view - want).mean()


def test_a_blend_is_the_weighted_sum_and_its_ends_are_the_two(view):
    other = view[::-1, ::-1].copy()
    assert np.array_equal(blend(view, other, 1.0), view)
    assert np.array_equal(blend(view, other, 0.0), other)
    exact = 0.3 * view.astype(float) + 0.7 * other  # the nearest level, whichever it is half-way between two
    assert np.abs(blend(view, other, 0.3) - exact).max() < 0.5 + 1e-4
