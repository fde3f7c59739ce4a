"""KernelSHAP against Shapley's own formula, games whose values are known, and the shap package."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch

from distill.perturb.superpixels import compose, hidden, superpixels
from explain.methods.query.kernel_shap import coalitions, kernel_shap, shapley_values
from explain.methods.query.queries import Queries


def exact_shapley(value, num):
    """Add up every coalition's marginal contributions, as Shapley's formula says."""
    found = np.zeros(num)
    for i in range(num):
        others = [j for j in range(num) if j != i]
        for size in range(num):
            weight = math.factorial(size) * math.factorial(num - size - 1) / math.factorial(num)
            for chosen in itertools.combinations(others, size):
                found[i] += weight * (value({*chosen, i}) - value(set(chosen)))
    return found


def together(seed, num):
    """Make a sum of unanimity games, and its values: what the whole of a group is worth is shared among it alike."""
    rng = np.random.default_rng(seed)
    groups = [rng.choice(num, size=rng.integers(1, 7), replace=False) for _ in range(5 * num)]
    worths, values = rng.normal(size=len(groups)), np.zeros(num)
    for worth, group in zip(worths, groups, strict=True):
        values[group] += worth / len(group)
    return lambda z: sum(worth * z[:, group].all(axis=1) for worth, group in zip(worths, groups, strict=True)), values


def any_of(seed, num):
    """Make 1 - prod (1 - p_i), which saturates, and its values: p_i times the integral of prod (1 - t p_j), j != i."""
    p = np.random.default_rng(seed).random(num) ** 3 / 2
    at, weights = np.polynomial.legendre.leggauss(num)  # exact for a polynomial of this degree
    rest = [np.prod(1 - (at[:, None] + 1) / 2 * np.delete(p, i), axis=1) for i in range(num)]
    return lambda z: 1 - np.prod(1 - z * p, axis=1), p * (np.array(rest) @ weights) / 2


def peer(value, seed, num_samples, num):
    """Ask the package for the values; two of the questions are its first two."""
    with warnings.catch_warnings():  # its plots' import uses what matplotlib is about to drop
        warnings.simplefilter("ignore")
        import shap
    np.random.seed(seed)  # noqa: NPY002 - the package draws from the global state
    explainer = shap.KernelExplainer(lambda z: value(np.asarray(z) > 0.5), np.zeros((1, num)))
    return np.asarray(explainer.shap_values(np.ones((1, num)), nsamples=num_samples - 2, silent=True, l1_reg=0))[0]


@pytest.mark.parametrize("num", [2, 3, 4, 5, 6])
def test_values_are_shapleys_where_all_coalitions_are_asked(num):
    rng = np.random.default_rng(num)
    table = {chosen: rng.random() for size in range(num + 1) for chosen in itertools.combinations(range(num), size)}
    value = lambda chosen: table[tuple(sorted(chosen))]  # noqa: E731
    samples = coalitions(0, 2**num, num).numpy()
    mine = shapley_values(samples, np.array([value(np.flatnonzero(shown).tolist()) for shown in samples]))
    assert np.abs(mine - exact_shapley(value, num)).max() < 1e-12


@pytest.mark.parametrize("game", [together, any_of])
def test_the_games_values_are_shapleys(game):
    value, values = game(1, 7)
    exact = exact_shapley(lambda chosen: float(value(np.isin(np.arange(7), list(chosen))[None])[0]), 7)
    assert np.abs(values - exact).max() < 1e-12


@pytest.mark.parametrize("game", [together, any_of])
@pytest.mark.parametrize(("num", "num_samples"), [(12, 60), (12, 600), (40, 100), (40, 300), (40, 1000)])
def test_values_are_nearer_than_the_packages_at_equal_cost(game, num, num_samples):
    """Its mean squared error was 1.1 (together, 40, 1000) to 20 (any_of, 12, 600) times as large on these seeds."""
    errors = []
    for seed in range(8):
        value, values = game(seed, num)
        samples = coalitions(seed, num_samples, num).numpy()
        found = shapley_values(samples, value(samples)), peer(value, seed, num_samples, num)
        assert found[0].sum() == pytest.approx(values.sum(), abs=1e-12)
        errors.append([np.mean((one - values) ** 2) for one in found])
    mine, theirs = np.mean(errors, axis=0)
    assert mine < theirs


def test_maps_are_the_packages_where_all_coalitions_are_asked():
    image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    segments = superpixels(image, num_segments=10)
    num, other = int(segments.max()) + 1, hidden(image, segments, "segment_mean")
    share = torch.randn(2, 32, 48, generator=torch.Generator().manual_seed(1)) / 10
    score = lambda frames: torch.einsum("bchw,khw->bk", frames**2, share).softmax(dim=1)  # noqa: E731
    value = lambda z: score(compose(image, other, segments, torch.from_numpy(z)))[:, 1].double().numpy()  # noqa: E731

    queries = Queries(score)
    saliency = kernel_shap(queries, image[None], torch.tensor([1]), seeds=[3], num_segments=10, num_samples=5000)[0]
    mine = np.array([float(saliency[segments == number][0]) for number in range(num)])
    assert queries.used == {0: 2**num}
    assert np.abs(mine - peer(value, 0, 2**num, num)).max() < 1e-5
    assert mine.sum() == pytest.approx(float(queries.responses[0][1] - queries.responses[0][0]), abs=1e-6)


@pytest.mark.parametrize("num", [1, 2, 3, 6, 7, 40, 100])
@pytest.mark.parametrize("num_samples", [2, 3, 50, 301])
def test_no_coalition_is_asked_twice(num, num_samples):
    drawn = coalitions(2, num_samples, num)
    assert len(drawn.unique(dim=0)) == len(drawn) == min(num_samples, 2**num)


@pytest.mark.parametrize("num", [6, 7, 40])
def test_coalitions_are_none_all_and_pairs_of_complements(num):
    drawn = coalitions(0, 64, num)
    assert drawn[:2].sum(dim=1).tolist() == [0, num]
    assert torch.equal(drawn[2::2], ~drawn[3::2])


def test_fewer_coalitions_are_the_first_of_more():
    for num_samples in range(2, 40):
        assert torch.equal(coalitions(4, num_samples, 9), coalitions(4, 600, 9)[:num_samples])


def test_sizes_get_their_share_and_small_ones_are_asked_whole():
    counts = np.bincount(coalitions(1, 3002, 40).sum(dim=1), minlength=41)[1:40]
    sizes = np.arange(1, 40)
    assert np.array_equal(counts, counts[::-1])
    assert counts[0] == 40
    share = 1 / np.sqrt(sizes * (40 - sizes))[1:-1]
    assert np.abs(counts[1:-1] - 2920 * share / share.sum()).max() <= 2


def test_superpixels_of_a_size_are_shown_equally_often():
    drawn = coalitions(1, 1002, 40).numpy()
    for size in range(1, 20):
        times = drawn[drawn.sum(axis=1) == size].sum(axis=0)
        assert times.max() - times.min() <= 2  # 1, and another where a hand that came up again was passed over


def test_values_stay_at_equal_shares_without_coalitions_to_tell():
    assert shapley_values(coalitions(0, 2, 4).numpy(), np.array([1.0, 3.0])).tolist() == [0.5] * 4
    few = coalitions(0, 40, 40).numpy()
    value, values = any_of(0, 40)
    assert np.abs(shapley_values(few, value(few))).max() < 1  # in units of probability, as the game is
    assert shapley_values(few, value(few)).sum() == pytest.approx(values.sum(), abs=1e-12)
