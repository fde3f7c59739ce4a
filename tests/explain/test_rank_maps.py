"""Hold small maps against a plain reduction, and the order that they keep against the whole map's."""

import numpy as np
import pytest
import torch

from distill.perturb.curves import rank_pixels
from explain.rank_maps import compact


def smooth_map(seed: int, size: tuple[int, int] = (60, 90)) -> np.ndarray:
    grid = torch.rand(1, 1, 6, 9, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(grid, size=size, mode="bilinear")[0, 0].numpy()


def plain_up(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate between the cells' centers, beyond them as at the outermost."""
    for axis, length in enumerate(size):
        num = grid.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * num / length - 0.5, 0, num - 1)
        low = np.minimum(at.astype(int), max(num - 2, 0))
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, num - 1)
        grid = np.take(grid, low, axis) * (1 - share) + np.take(grid, high, axis) * share
    return grid


def test_the_grid_is_fitted_to_the_places():
    saliency = np.random.default_rng(0).integers(0, 9, (4, 6)).astype(np.float32)  # with ties
    below = (saliency.ravel()[:, None] > saliency.ravel()).sum(axis=1)
    equal = (saliency.ravel()[:, None] == saliency.ravel()).sum(axis=1)
    place = ((below + equal / 2) / saliency.size).reshape(saliency.shape)  # half of the equals count as below
    expected = np.zeros((2, 2))
    for _ in range(5):
        rest = place - plain_up(expected, (4, 6))
        expected = (expected + rest.reshape(2, 2, 2, 3).mean(axis=(1, 3))).clip(place.min(), place.max())
    found = compact(saliency, 2)
    assert (found.shape, found.dtype) == ((2, 2), np.float16)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_only_the_order_counts():
    saliency = smooth_map(0)
    peaked = np.exp(60 * saliency.astype(np.float64))  # as a spatial softmax makes it
    np.testing.assert_allclose(compact(peaked, 12), compact(saliency, 12), atol=1e-3)


def test_a_shorter_side_stays_and_a_constant_map_is_one_half():
    assert compact(np.full((5, 40), 3.0, np.float32), 8).shape == (5, 8)
    np.testing.assert_allclose(compact(np.full((5, 40), 3.0, np.float32), 8), 0.5, atol=1e-3)


def test_a_plateau_stays_one():
    """What a ReLU leaves at zero is tied in the whole map, and the games take it in no order of places."""
    saliency = np.maximum(smooth_map(3) - 0.6, 0)
    size = (saliency.shape[0], saliency.shape[1])
    small = torch.from_numpy(compact(saliency, 28).astype(np.float32))
    whole, again = (rank_pixels(one, size) for one in (torch.from_numpy(saliency), small))
    assert whole.tied_share > 0.5
    assert again.tied_share > 0.6 * whole.tied_share


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_up_sampled_as_the_games_do_it_has_the_maps_order(seed):
    saliency = smooth_map(seed)
    size = (saliency.shape[0], saliency.shape[1])
    small = torch.from_numpy(compact(saliency, 28).astype(np.float32))
    whole, again = (rank_pixels(one, size).ranks.numpy().ravel() for one in (torch.from_numpy(saliency), small))
    assert np.corrcoef(whole, again)[0, 1] > 0.999  # of ranks: Spearman's
