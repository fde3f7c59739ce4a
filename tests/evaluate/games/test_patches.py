"""Patches and the reversed order, against a slow loop over patches and pixels; and the figures made from the curves."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill.perturb.curves import (
    Perturbation,
    area,
    area_over,
    changed_fractions,
    patch_steps,
    pixel_steps,
    play,
    rank_patches,
    rank_pixels,
    tie_hash,
)
from evaluate.games.derived import normalised_area, relevance_gain
from evaluate.games.protocol import Game

SIZES = [(24, 36), (25, 38), (30, 17)]  # height, width: the first divides by 4, the others do not
PATCHES = 4


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 6)]
    net = nn.Sequential(*layers).eval().requires_grad_(False)
    layers[-1].weight.mul_(6)  # far from a uniform answer, so that curves move
    return net


def make_image(size: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(seed))


def make_map(size: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(100 + seed))


def patch_means(saliency: torch.Tensor) -> np.ndarray:
    """Average a map of full size over each window as adaptive average pooling does, one window at a time."""
    height, width = saliency.shape
    means = np.zeros((PATCHES, PATCHES))
    for i in range(PATCHES):
        for j in range(PATCHES):
            top, bottom = math.floor(i * height / PATCHES), math.ceil((i + 1) * height / PATCHES)
            left, right = math.floor(j * width / PATCHES), math.ceil((j + 1) * width / PATCHES)
            means[i, j] = saliency[top:bottom, left:right].double().mean()
    return means


def patch_of(y: int, x: int, size: tuple[int, int]) -> int:
    """Find the patch of a pixel: the last one that starts at or before it."""
    i = max(k for k in range(PATCHES) if k * size[0] // PATCHES <= y)
    j = max(k for k in range(PATCHES) if k * size[1] // PATCHES <= x)
    return i * PATCHES + j


def slow_curve(model, start, finish, order, *, target: int) -> tuple[list[float], list[float]]:
    """Change one patch after another, pixel by pixel; return the scores and the shares of pixels changed."""
    frame, size = start.clone(), (start.shape[1], start.shape[2])
    scores, shares, changed = [], [], 0
    for patch in [None, *order]:
        for y in range(size[0]):
            for x in range(size[1]):
                if patch is not None and patch_of(y, x, size) == patch:
                    frame[:, y, x] = finish[:, y, x]
                    changed += 1
        scores.append(float(torch.softmax(model(frame[None]), dim=1)[0, target]))
        shares.append(changed / (size[0] * size[1]))
    return scores, shares


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_patches_match_a_slow_loop(model, size, least):
    image, saliency = make_image(size, 1), make_map(size, 1)
    best_first = np.argsort(-patch_means(saliency).flatten()).tolist()
    order = rank_patches(saliency, size, patches=PATCHES)
    steps, num_steps = patch_steps((order.reversed() if least else order).ranks, size)
    game = Perturbation(start=image, finish=torch.zeros_like(image), steps=steps, num_steps=num_steps, target=2)
    (curve,) = play(lambda x: torch.softmax(model(x), dim=1), [game])
    fractions = changed_fractions(steps, num_steps)
    expected, shares = slow_curve(model, game.start, game.finish, best_first[::-1] if least else best_first, target=2)
    assert len(curve) == PATCHES**2 + 1
    np.testing.assert_allclose(curve, expected, atol=1e-5)
    np.testing.assert_allclose(fractions, shares)
    by_hand = sum((shares[k + 1] - shares[k]) * (expected[k] + expected[k + 1]) / 2 for k in range(PATCHES**2))
    assert area_over(curve, fractions) == pytest.approx(by_hand, abs=1e-5)
    assert np.ptp(expected) > 0.02  # the curve moves, or nothing is tested


def test_14_patches_make_197_points():
    steps, num_steps = patch_steps(rank_patches(torch.rand(7, 7), (224, 224), patches=14).ranks, (224, 224))
    assert num_steps == 196
    assert torch.equal(steps.flatten().bincount(), torch.full((196,), 256))


def test_means_are_those_of_adaptive_pooling():
    saliency = make_map((30, 17), 3)
    pooled = F.adaptive_avg_pool2d(saliency[None].double(), PATCHES)[0].numpy()
    np.testing.assert_allclose(patch_means(saliency), pooled)


@pytest.mark.parametrize("size", [*SIZES, (31, 33)])
def test_patches_share_the_image_out(size):
    steps, num_steps = patch_steps(torch.arange(PATCHES**2).view(PATCHES, PATCHES), size)
    for patch in range(num_steps):
        rows, columns = torch.nonzero(steps == patch, as_tuple=True)
        height, width = len(rows.unique()), len(columns.unique())
        assert len(rows) == height * width  # a full rectangle
        assert height in (size[0] // PATCHES, -(-size[0] // PATCHES))  # differs by a row at most
        assert width in (size[1] // PATCHES, -(-size[1] // PATCHES))


@pytest.mark.parametrize("size", SIZES)
def test_constant_curve_has_its_own_area_over_uneven_patches(size):
    order = rank_patches(make_map(size, 4), size, patches=PATCHES)
    for found in (order, order.reversed()):
        fractions = changed_fractions(*patch_steps(found.ranks, size))
        assert area_over(np.full(PATCHES**2 + 1, 0.7), fractions) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize("step_px", [1, 7, 36, 100, 863, 864, 5000])
def test_fractions_of_pixels_give_the_same_area_as_counting(step_px):
    ranks = rank_pixels(make_map((24, 36), 0), (24, 36)).ranks
    steps, num_steps = pixel_steps(ranks, step_px)
    curve = np.random.default_rng(step_px).random(num_steps + 1)
    assert area_over(curve, changed_fractions(steps, num_steps)) == area(curve, step_px=step_px, num_pixels=864)


def test_a_constant_map_orders_patches_by_hash():
    order = rank_patches(torch.full((5, 5), 0.1234567), (25, 38), patches=PATCHES)
    assert order.tied_share == 1
    hashes = tie_hash(np.arange(PATCHES**2), 0)
    assert torch.argsort(order.ranks.flatten()).tolist() == sorted(range(PATCHES**2), key=lambda i: hashes[i])
    assert torch.equal(order.ranks.flatten().sort().values, torch.arange(PATCHES**2))


def test_a_planted_patch_comes_first_and_last():
    saliency = torch.zeros(25, 38)
    saliency[7:12, 20:28] = 1  # inside the patch in row 1, column 2
    order = rank_patches(saliency, (25, 38), patches=PATCHES)
    assert order.ranks[1, 2] == 0
    assert order.reversed().ranks[1, 2] == PATCHES**2 - 1


def test_a_map_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        rank_patches(torch.full((4, 4), torch.nan), (25, 38), patches=PATCHES)


def test_reversed_order_keeps_a_shorter_last_step():
    order = rank_pixels(torch.zeros(3, 3), (24, 36))  # all tied: the ties turn round too
    assert torch.equal(order.reversed().ranks, 863 - order.ranks)
    assert order.reversed().tied_share == 1
    steps, num_steps = pixel_steps(order.reversed().ranks, 100)
    assert torch.equal(steps.flatten().bincount(), torch.tensor([100] * 8 + [64]))
    last = torch.nonzero(steps.flatten() == num_steps - 1)[:, 0]
    assert set(last.tolist()) == set(torch.argsort(order.ranks.flatten())[:64].tolist())


def test_normalised_area_is_that_of_the_normalised_curve():
    rng = np.random.default_rng(0)
    curves = rng.random((5, 12))
    fractions = np.concatenate([[0], np.sort(rng.random(10)), [1]])
    areas = np.array([area_over(curve, fractions) for curve in curves])
    plain = [area_over((curve - curve[0]) / (curve[-1] - curve[0]), fractions) for curve in curves]
    assert normalised_area(areas, curves[:, 0], curves[:, -1], min_span=0) == pytest.approx(plain)


def test_flat_curves_have_no_normalised_area():
    start, end = np.array([0.2, 0.2, 0.2, 0.9, np.nan]), np.array([0.2, 0.24, 0.7, 0.4, np.nan])
    found = normalised_area(np.array([0.2, 0.3, 0.45, 0.65, np.nan]), start, end)
    assert np.isnan(found).tolist() == [True, True, False, False, True]
    assert found[2:4] == pytest.approx([0.5, 0.5])  # straight lines, up and down


def test_gain_by_hand_and_of_a_missing_score():
    most, least = np.array([0.2, 0.5, np.nan]), np.array([0.7, 0.4, 0.1])
    assert relevance_gain("deletion", most, least)[:2] == pytest.approx([0.5, -0.1])
    assert relevance_gain("insertion", least, most)[:2] == pytest.approx([0.5, -0.1])
    assert np.isnan(relevance_gain("deletion", most, least)[2])


def test_both_games_have_the_same_gain_with_one_substrate(model):
    """Insertion of the most relevant first is deletion of the least relevant first, read backwards."""
    size = (25, 38)
    image, other, saliency = make_image(size, 1), make_image(size, 2), make_map(size, 1)
    order = rank_patches(saliency, size, patches=PATCHES)
    areas = {}
    ways: list[tuple[Game, torch.Tensor, torch.Tensor]] = [("deletion", image, other), ("insertion", other, image)]
    for game, start, finish in ways:
        for name, found in (("most", order), ("least", order.reversed())):
            steps, num_steps = patch_steps(found.ranks, size)
            one = Perturbation(start=start, finish=finish, steps=steps, num_steps=num_steps, target=0)
            (curve,) = play(lambda x: torch.softmax(model(x), dim=1), [one])
            areas[game, name] = area_over(curve, changed_fractions(steps, num_steps))
    gains = [float(relevance_gain(g, areas[g, "most"], areas[g, "least"])) for g, *_ in ways]
    assert gains[0] == pytest.approx(gains[1], abs=1e-6)
    assert abs(gains[0]) > 1e-3
