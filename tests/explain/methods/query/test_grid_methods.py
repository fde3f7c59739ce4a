"""Sobol and HSIC attribution against SciPy, their formulas written out, and models whose indices are known."""

import numpy as np
import pytest
import torch
from scipy.stats import sobol_indices

from explain.methods.query.hsic import dependence, hsic
from explain.methods.query.queries import Queries
from explain.methods.query.sobol import design_of, designs, sobol, total_order

METHODS = {"sobol": (sobol, 200), "hsic": (hsic, 200)}


def polynomial(x):
    """Answer rows of cells with an interaction, a square and a cell that does nothing."""
    return 0.5 * x[:, 0] + x[:, 1] * x[:, 2] + 0.3 * x[:, 3] ** 2


def bright(rows, columns):
    """Make a black box whose first class is as probable as a window is bright."""
    return lambda frames: torch.stack([y := frames[:, :, rows, columns].mean(dim=(1, 2, 3)), 1 - y], dim=1)


def test_sobol_indices_are_scipys_up_to_the_variance():
    num_cells, masks = 5, designs(3, 64, 5).astype(np.float64)
    responses = polynomial(masks)
    parts = masks.reshape(64, 7, num_cells)
    values = {
        "f_A": responses.reshape(64, 7)[:, 0][None],
        "f_B": responses.reshape(64, 7)[:, 1][None],
        "f_AB": responses.reshape(64, 7)[:, 2:].T[:, None],
    }
    for cell in range(num_cells):  # the same crossing as SciPy expects: A, this cell from B
        crossed = parts[:, 0].copy()
        crossed[:, cell] = parts[:, 1, cell]
        assert np.array_equal(crossed, parts[:, 2 + cell])
    theirs = sobol_indices(func=values, n=64).total_order.ravel()
    both = np.var(np.concatenate([values["f_A"], values["f_B"]], axis=1))  # SciPy's variance is of A and B
    mine = total_order(responses, num_cells) * np.var(values["f_A"], ddof=1) / both
    assert np.abs(mine - theirs).max() < 1e-12
    assert mine[4] == 0


def test_sobol_indices_of_a_linear_model_are_its_squared_weights():
    weights = np.random.default_rng(0).normal(size=9)
    mine = total_order(designs(1, 1024, 9) @ weights, 9)
    assert np.abs(mine - weights**2 / (weights**2).sum()).max() < 0.01


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [(12, (2, 2)), (50, (3, 4)), (100, (4, 5)), (200, (6, 5)), (500, (11, 4)), (1000, (11, 8)), (4000, (11, 32))],
)
def test_a_budget_buys_the_finest_grid_that_leaves_four_designs(num_samples, expected):
    grid, num_designs = design_of(num_samples, 11)
    assert (grid, num_designs) == expected
    assert len(designs(0, num_designs, grid**2)) == num_designs * (grid**2 + 2) <= num_samples


def test_designs_of_a_smaller_number_are_the_first_of_a_larger_one():
    assert np.array_equal(designs(5, 3, 16), designs(5, 20, 16)[: 3 * 18])
    assert not np.array_equal(designs(5, 3, 16), designs(6, 3, 16))


def test_dependence_is_the_trace_of_centred_kernels():
    rng = np.random.default_rng(0)
    shown, responses = rng.random((40, 6)) < 0.5, rng.random(40)
    mine, centre = dependence(shown, responses), np.eye(40) - 1 / 40
    outputs = np.exp(-((responses[:, None] - responses) ** 2) / (2 * np.median(responses) ** 2))
    for cell in range(6):
        inputs = (shown[:, cell, None] == shown[:, cell]).astype(float)
        assert mine[cell] == pytest.approx(np.trace(inputs @ centre @ outputs @ centre) / 39**2, rel=1e-10)
    assert dependence(shown, np.full(40, 0.3)) == pytest.approx(np.zeros(6), abs=1e-15)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("substrate", ["mean", "blur"])
def test_the_window_that_counts_is_found(name, substrate):
    method, num_samples = METHODS[name]
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    score = bright(slice(0, 12), slice(0, 16))
    if substrate == "blur":  # of which the brightness says little: a checkerboard is lost
        image = ((torch.arange(48)[:, None] + torch.arange(64)) % 2).float().expand(1, 3, 48, 64)
        score = lambda frames: bright(slice(0, 12), slice(0, 16))((frames - 0.5).abs())  # noqa: E731
    queries = Queries(score)
    options = {"num_samples": num_samples, "substrate": substrate, "grid": 4}
    saliency = method(queries, image, torch.tensor([0]), seeds=[1], **options)[0]
    inside = saliency[:12, :16].mean()
    assert inside > 5 * saliency[24:, 32:].abs().mean()
    assert queries.used[0] <= num_samples


@pytest.mark.parametrize("name", METHODS)
def test_an_image_alone_has_the_map_that_it_has_in_a_batch(name):
    method, num_samples = METHODS[name]
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    score, target = bright(slice(8, 20), slice(8, 20)), torch.tensor([0, 0])
    both = method(Queries(score, batch_size=7), images, target, seeds=[4, 9], num_samples=num_samples)
    alone = method(Queries(score), images[1:], target[1:], seeds=[9], num_samples=num_samples)
    assert torch.equal(both[1:], alone)


def test_a_larger_budget_of_hsic_asks_the_smaller_ones_queries_first():
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    few, many = Queries(bright(slice(8, 20), slice(8, 20))), Queries(bright(slice(8, 20), slice(8, 20)))
    for queries, num_samples in ((few, 30), (many, 90)):
        hsic(queries, image, torch.tensor([0]), seeds=[2], num_samples=num_samples)
    assert torch.equal(few.responses[0], many.responses[0][:30])


@pytest.mark.parametrize(
    ("method", "options"), [(sobol, {"num_samples": 11}), (sobol, {"grid": 1}), (hsic, {"grid": 1})]
)
def test_options_out_of_range_are_refused(method, options):
    with pytest.raises(ValueError, match="is too small; give"):
        method(None, None, None, seeds=[], **options)
