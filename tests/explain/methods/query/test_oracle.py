"""The oracle's search against all orders of a small grid, and against the games themselves."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from distill.perturb.blur import rise_blur
from distill.perturb.curves import Perturbation, area_over, changed_fractions, patch_steps, play, rank_patches
from distill.perturb.patches import patch_numbers
from evaluate.games.baselines import BASELINES
from explain.methods.options import OracleOptions
from explain.methods.query.oracle import oracle
from explain.methods.query.queries import Queries

TARGET = torch.tensor([1, 0])
SEEDS = [5, 6]


def classifier_like(seed, num):
    """Make the probability of each set of hidden patches: a logistic of their weights and those of all pairs."""
    rng = np.random.default_rng(seed)
    hidden = (np.arange(2**num)[:, None] >> np.arange(num)) & 1  # patch i is bit i
    score = 2 * hidden @ rng.normal(size=num) + np.einsum(
        "ni,ij,nj->n", hidden, rng.normal(size=(num, num)) / 2, hidden
    )
    return 1 / (1 + np.exp(score - 1))


def reads(table, grid):
    """Make the black box that looks up in `table` which patches of a white image are hidden, (B, 3, 12, 18)."""

    def score(frames):
        shown = frames[:, 0, :: 12 // grid, :: 18 // grid].flatten(1) > 0.5
        probs = torch.from_numpy(table)[(~shown).long() @ 2 ** torch.arange(grid**2)].float()
        return torch.stack([1 - probs, probs], dim=1)

    return score


@pytest.mark.parametrize("grid", [2, 3])
def test_no_other_order_is_better_by_much(grid):
    """All orders are tried: mostly the best is found, else 2 % at most of the way to it from their mean is left."""
    left = []
    orders = np.array(list(itertools.permutations(range(grid**2))))
    for seed in range(6):
        table = classifier_like(seed, grid**2)
        sums = table[np.cumsum(1 << orders, axis=1)].sum(axis=1)
        queries = Queries(reads(table, grid))
        saliency = oracle(queries, torch.ones(1, 3, 12, 18), TARGET[:1], seeds=[seed], grid=grid, num_queries=300)[0]
        found = saliency[:: 12 // grid, :: 18 // grid].flatten().argsort(descending=True).numpy()
        left.append((table[np.cumsum(1 << found)].sum() - sums.min()) / (sums.mean() - sums.min()))
        assert queries.used[0] <= min(300, 2**grid**2)
    assert max(left) < 0.02
    assert sum(one < 1e-9 for one in left) >= 4


def black_box(frames):
    """Two classes: how bright and even a square is, (B, 3, 32, 48) -> (B, 2)."""
    square = frames[:, :, 8:16, 24:36]
    score = torch.sigmoid(3 * square.mean(dim=(1, 2, 3)) - 2 * frames[:, :, :4].mean(dim=(1, 2, 3)) ** 2 - 2)
    return torch.stack([1 - score, score], dim=1)


@pytest.fixture
def images():
    made = 0.1 * torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    made[:, :, 8:16, 24:36] += 1.5
    return made


@pytest.mark.parametrize("game", ["deletion", "insertion"])
def test_the_square_is_changed_first(images, game):
    options: dict[str, Any] = {"grid": 4, "num_queries": 400, "game": game}
    saliency = oracle(Queries(black_box), images[:1], TARGET[:1], seeds=SEEDS[:1], **options)[0]
    assert saliency[8:16, 24:36].min() == 1  # one patch of the grid
    assert saliency.unique().tolist() == pytest.approx([i / 15 for i in range(16)])


@pytest.mark.parametrize("game", ["deletion", "insertion"])
def test_the_game_has_the_curve_that_was_searched_for(images, game):
    """The game is `evaluate`'s own, in whole patches; its area is beyond every one of a hundred random orders'."""
    options: dict[str, Any] = {"grid": 4, "num_queries": 600, "game": game}
    queries = Queries(black_box)
    saliency = oracle(queries, images[:1], TARGET[:1], seeds=SEEDS[:1], **options)[0]
    substrate = BASELINES["mean" if game == "deletion" else "blur"](images[0], mean=(), std=(), rng=None)
    start, finish = (images[0], substrate) if game == "deletion" else (substrate, images[0])
    maps = [saliency, *torch.rand(100, 4, 4, generator=torch.Generator().manual_seed(1))]
    steps = [patch_steps(rank_patches(map_, (32, 48), patches=4).ranks, (32, 48)) for map_ in maps]
    plays = [Perturbation(start=start, finish=finish, steps=s, num_steps=num, target=1) for s, num in steps]
    curves = list(play(black_box, plays))
    mine, *others = [area_over(curve, changed_fractions(s, num)) for curve, (s, num) in zip(curves, steps, strict=True)]
    assert set(curves[0].tolist()) <= set(queries.responses[0].tolist())
    assert mine < min(others) if game == "deletion" else mine > max(others)


def test_an_image_alone_has_the_same_map_as_in_any_batch(images):
    together = oracle(Queries(black_box, batch_size=7), images, TARGET, seeds=SEEDS, grid=5, num_queries=200)
    for i in range(2):
        queries = Queries(black_box)
        alone = oracle(queries, images[i : i + 1], TARGET[i : i + 1], seeds=SEEDS[i : i + 1], grid=5, num_queries=200)
        assert torch.equal(alone[0], together[i])
        assert 25 < queries.used[0] <= 200


def test_a_smaller_budget_asks_the_first_questions_of_a_larger_one_and_known_answers_cost_none(images):
    many = Queries(black_box)
    whole = oracle(many, images[:1], TARGET[:1], seeds=SEEDS[:1], grid=5, num_queries=400)
    for budget in (26, 60, *range(150, 230, 3), 300):  # the greedy walk ends between 150 and 230
        few = Queries(black_box)
        part = oracle(few, images[:1], TARGET[:1], seeds=SEEDS[:1], grid=5, num_queries=budget)
        used = few.used[0]
        assert used <= budget
        assert torch.equal(few.responses[0], many.responses[0][:used])
        asked = []
        again = Queries(lambda frames: asked.append(len(frames)) or black_box(frames), known={0: few.responses[0]})  # noqa: B023
        assert torch.equal(oracle(again, images[:1], TARGET[:1], seeds=SEEDS[:1], grid=5, num_queries=400), whole)
        assert sum(asked) == many.used[0] - used
        assert part.unique().numel() == 25


def test_no_question_is_asked_twice(images):
    shown = []
    queries = Queries(lambda frames: shown.append(frames) or black_box(frames))
    oracle(queries, images[:1], TARGET[:1], seeds=SEEDS[:1], grid=3, num_queries=300)
    assert len(torch.cat(shown).flatten(1).unique(dim=0)) == queries.used[0]


def test_patches_and_blur_are_the_games(images):
    numbers = patch_numbers((32, 48), (5, 7))
    assert numbers[:, 0].bincount()[::7].tolist() == [6, 6, 7, 6, 7]  # 32 rows in 5
    assert numbers.unique().tolist() == list(range(35))
    assert torch.equal(rise_blur(images[0]), BASELINES["blur"](images[0], mean=(), std=(), rng=None))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 3)])
def test_small_images_have_a_patch_for_each_pixel_at_most(shape):
    saliency = oracle(
        Queries(lambda frames: torch.full((len(frames), 2), 0.5)), torch.ones(1, 3, *shape), TARGET[:1], seeds=[0]
    )
    assert saliency.shape == (1, *shape)
    assert torch.isfinite(saliency).all()


@pytest.mark.parametrize("wrong", [{"grid": 0}, {"num_queries": 196}, {"grid": 70}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OracleOptions(**wrong)
