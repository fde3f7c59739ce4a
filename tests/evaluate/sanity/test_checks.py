"""Redrawn students held against plain copies of their state, and similarities against slow re-derivations."""

import numpy as np
import pytest
import torch
from torch import nn

from distill.student.model import ResCBAM
from evaluate.sanity.checks import STAGES, cascade, rank_correlations, scaled, untrained
from evaluate.sanity.job import similarities

MAPS = np.random.default_rng(0).normal(size=(2, 17, 21)).astype(np.float32)


def make(seed: int) -> ResCBAM:
    torch.manual_seed(seed)
    model = ResCBAM(18, 3)
    for value in model.state_dict().values():  # no parameter or statistic as a new student has it
        if value.is_floating_point():
            value.mul_(0.9).add_(1e-4)
    return model.eval().requires_grad_(False)


def test_every_parameter_belongs_to_one_stage() -> None:
    names = [module for modules in STAGES.values() for module in modules]
    model = ResCBAM(18, 3)
    assert len(set(names)) == len(names)
    assert {name for name, child in model.named_children() if list(child.parameters())} == set(names)
    assert {name.split(".")[0] for name in model.state_dict()} == set(names)
    order = [next(iter(model.state_dict())).split(".")[0], "layer1", "layer2", "layer3", "layer4", "fc"]
    assert [modules[0] for modules in STAGES.values()][::-1] == order


def test_a_cascade_is_the_trained_state_with_more_and_more_of_the_new_one() -> None:
    model, fresh = make(0), untrained(lambda: ResCBAM(18, 3), seed=0, draw=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, redrawn = torch.randn(2, 3, 64, 32), set()
    for (stage, modules), (name, changed) in zip(STAGES.items(), list(cascade(model, fresh)), strict=True):
        assert name == stage
        redrawn |= set(modules)
        state = {
            key: (fresh if key.split(".")[0] in redrawn else model).state_dict()[key] for key in model.state_dict()
        }
        plain = ResCBAM(18, 3).eval()
        plain.load_state_dict(state)
        with torch.no_grad():
            logits = changed(images)
            torch.testing.assert_close(logits, plain(images))
        assert torch.isfinite(logits).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(model.layer4[0].convs[0].weight, fresh.layer4[0].convs[0].weight)  # pyright: ignore


def test_new_parameters_follow_from_the_seed_and_are_not_what_a_student_of_that_seed_started_from() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    given = ((0, 0), (0, 0), (0, 1), (1, 0))
    first, again, *others = (untrained(lambda: nn.Linear(4, 4), seed=s, draw=d).weight for s, d in given)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)
    torch.manual_seed(0)
    assert not torch.equal(first, nn.Linear(4, 4).weight)


def test_ranks_ignore_monotone_changes_and_absolute_ranks_the_sign() -> None:
    first, second = MAPS
    signed, absolute = rank_correlations(first, second)
    assert rank_correlations(np.exp(first), second)[0] == pytest.approx(signed)
    assert rank_correlations(-first, second) == pytest.approx((-signed, absolute))
    ranks = [np.argsort(np.argsort(np.abs(one).ravel())) for one in MAPS]  # no ties
    assert absolute == pytest.approx(np.corrcoef(ranks[0], ranks[1])[0, 1])


def test_ssim_is_wangs_formula() -> None:
    """Weighted means, variances and covariance in every whole window of 11 x 11 pixels, one by one."""
    first, second = (scaled(one) for one in MAPS)
    assert (first.min(), first.max()) == (0, 1)
    offsets = np.arange(-5, 6)
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(kernel, kernel) / kernel.sum() ** 2
    values = []
    for y in range(5, 17 - 5):
        for x in range(5, 21 - 5):
            a, b = (one[y - 5 : y + 6, x - 5 : x + 6] for one in (first, second))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            both = (weights * (a - mean_a) * (b - mean_b)).sum()
            light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            values.append(light * (2 * both + 0.03**2) / (var_a + var_b + 0.03**2))
    assert similarities(*MAPS)["ssim"] == pytest.approx(np.mean(values), abs=1e-6)


def test_a_map_is_its_own_likeness() -> None:
    assert similarities(MAPS[0], 3 * MAPS[0] + 1)["rank_correlation"] == pytest.approx(1)
    assert list(similarities(MAPS[0], MAPS[0]).values()) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("value", [0.0, 0.3, np.nan])
def test_a_map_without_an_order_is_named(value: float) -> None:
    nothing, reason = np.full((17, 21), value, np.float32), "not finite" if np.isnan(value) else "ranks no pixels"
    with pytest.raises(ValueError, match=f"compared map .*{reason}"):
        similarities(MAPS[0], nothing)
    with pytest.raises(ValueError, match=f"intact student's map .*{reason}"):
        similarities(nothing, MAPS[0])
    assert not scaled(np.nan_to_num(nothing)).any()
