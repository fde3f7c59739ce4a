"""Baselines: RISE's kernel, the colors in normalized space, and noise that belongs to the image."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from distill.perturb.blur import blur_weights
from evaluate.games.baselines import BASELINES, image_rng

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def make(name: Any, image: torch.Tensor, image_id: str = "a.png") -> torch.Tensor:
    return BASELINES[name](image, mean=MEAN, std=STD, rng=image_rng(0, image_id))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(3, 18, 31, generator=torch.Generator().manual_seed(1))


def test_kernel_is_scipys_filtered_impulse():
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    expected = gaussian_filter(impulse, 5)
    np.testing.assert_allclose(np.outer(blur_weights(11, 5.0), blur_weights(11, 5.0)), expected, atol=1e-8)
    assert expected.min() == pytest.approx(0.0077, abs=5e-5)  # nearly a box
    assert expected.max() == pytest.approx(0.0088, abs=5e-5)


def test_blur_is_a_plain_weighted_sum_with_zeros_outside(image):
    blurred = make("blur", image)
    kernel = np.outer(blur_weights(11, 5.0), blur_weights(11, 5.0))
    for y, x in [(0, 0), (9, 15), (17, 30), (2, 28)]:
        total = np.zeros(3)
        for dy in range(-5, 6):
            for dx in range(-5, 6):
                if 0 <= y + dy < 18 and 0 <= x + dx < 31:
                    total += image[:, y + dy, x + dx].numpy() * kernel[dy + 5, dx + 5]
        np.testing.assert_allclose(blurred[:, y, x], total, atol=1e-5)


def test_mean_is_zero_and_black_is_black_in_pixels(image):
    assert torch.equal(make("mean", image), torch.zeros_like(image))
    pixels = make("black", image) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    torch.testing.assert_close(pixels, torch.zeros_like(image))


def test_noise_covers_the_pixel_range_and_belongs_to_the_image(image):
    noise = make("noise", image)
    levels = (noise * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert levels.min() < 10
    assert levels.max() > 245
    assert torch.equal(noise, make("noise", image))
    assert not torch.equal(noise, make("noise", image, "b.png"))


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_baselines_are_new_memory_of_the_same_kind(image, name):
    kept = image.clone()
    baseline = make(name, image)
    assert (baseline.shape, baseline.dtype) == (image.shape, image.dtype)
    baseline.add_(1)
    assert torch.equal(image, kept)
