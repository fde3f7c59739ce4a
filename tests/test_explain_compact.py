"""Hold small maps against a plain reduction, and the order that they keep against the whole map's."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from evaluate.games import rank_pixels
from explain.compact import compact


def smooth_map(seed: int, size: tuple[int, int] = (60, 90)) -> np.ndarray:
    grid = torch.rand(1, 1, 6, 9, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(grid, size=size, mode="bilinear")[0, 0].numpy()


def test_a_cell_is_the_mean_place_of_its_pixels():
    saliency = np.array([[5.0, 1.0, 1.0], [9.0, 1.0, 7.0], [2.0, 3.0, 4.0], [6.0, 8.0, 0.0]], np.float32)
    below = (saliency.ravel()[:, None] > saliency.ravel()).sum(axis=1)
    equal = (saliency.ravel()[:, None] == saliency.ravel()).sum(axis=1)
    place = ((below + equal / 2) / saliency.size).reshape(saliency.shape)  # half of the equals count as below
    found = compact(saliency, 2)
    assert found.dtype == np.float16
    expected = [[place[:2, :2].mean(), place[:2, 1:].mean()], [place[2:, :2].mean(), place[2:, 1:].mean()]]
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_only_the_order_counts():
    saliency = smooth_map(0)
    peaked = np.exp(60 * saliency.astype(np.float64))  # as a spatial softmax makes it
    np.testing.assert_array_equal(compact(peaked, 12), compact(saliency, 12))


def test_a_shorter_side_stays_and_a_constant_map_is_one_half():
    assert compact(np.full((5, 40), 3.0, np.float32), 8).shape == (5, 8)
    np.testing.assert_array_equal(compact(np.full((5, 40), 3.0, np.float32), 8), np.float16(0.5))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_up_sampled_as_the_games_do_it_has_the_maps_order(seed):
    saliency = smooth_map(seed)
    size = (saliency.shape[0], saliency.shape[1])
    small = torch.from_numpy(compact(saliency, 28).astype(np.float32))
    whole, again = (rank_pixels(one, size).ranks.numpy().ravel() for one in (torch.from_numpy(saliency), small))
    assert spearmanr(whole, again)[0] > 0.999
