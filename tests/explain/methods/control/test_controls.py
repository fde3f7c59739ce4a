import math

import pytest
import torch

from explain.methods.control.centre_gaussian import centre_gaussian
from explain.methods.control.random import random
from explain.seeds import image_seed


def test_random_depends_on_the_seed_alone():
    images = torch.zeros(3, 3, 6, 9)
    maps = random(None, images, torch.zeros(3), seeds=[11, 12, 11])
    assert torch.equal(maps[0], maps[2])
    assert not torch.equal(maps[0], maps[1])
    assert torch.equal(random(None, images[:1], torch.ones(1), seeds=[12])[0], maps[1])


def test_random_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    random(None, torch.zeros(1, 3, 4, 4), torch.zeros(1), seeds=[5])
    assert torch.equal(torch.rand(2), expected)


def test_random_is_uniform():
    values = random(None, torch.zeros(1, 3, 200, 100), torch.zeros(1), seeds=[1]).flatten()
    counts = torch.histc(values, bins=10, min=0, max=1) / values.numel()
    assert values.min() >= 0
    assert values.max() < 1
    assert (counts - 0.1).abs().max() < 0.01


def test_image_seed_tells_seed_image_and_method_apart():
    seeds = {
        image_seed(seed, image_id, method)
        for seed in (0, 1)
        for image_id in ("a.png", "b.png")
        for method in ("random", "rise")
    }
    assert len(seeds) == 8
    assert image_seed(0, "a.png", "random") == image_seed(0, "a.png", "random")
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_random_wants_a_seed_for_each_image():
    with pytest.raises(ValueError, match="1 seeds for 2 images"):
        random(None, torch.zeros(2, 3, 4, 4), torch.zeros(2), seeds=[1])


def test_centre_gaussian_is_the_formula():
    maps = centre_gaussian(None, torch.zeros(2, 3, 7, 12), torch.zeros(2), sigma=0.3)
    assert maps.shape == (2, 7, 12)
    assert maps.dtype == torch.float32
    for y in range(7):
        for x in range(12):
            expected = math.exp(-(((y - 3) / (0.3 * 7)) ** 2 + ((x - 5.5) / (0.3 * 12)) ** 2) / 2)
            assert math.isclose(float(maps[1, y, x]), expected, rel_tol=1e-6)


def test_centre_gaussian_is_symmetric_and_highest_in_the_middle():
    map_ = centre_gaussian(None, torch.zeros(1, 3, 9, 15), torch.zeros(1))[0]
    assert torch.equal(map_, map_.flip(0))
    assert torch.equal(map_, map_.flip(1))
    assert map_.argmax() == 4 * 15 + 7


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_centre_gaussian_refuses_a_width_that_is_none(sigma):
    with pytest.raises(ValueError, match="not positive"):
        centre_gaussian(None, torch.zeros(1, 3, 4, 4), torch.zeros(1), sigma=sigma)
