"""RISE against the authors' formula and scikit-image's up-sampling, and the properties that others' code lost."""

from typing import Any

import numpy as np
import pytest
import torch
from skimage.transform import resize

from explain.methods.options import RiseOptions
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rank_correlation, rise, rise_masks

FAMILIES = [(7, 0.5), (8, 0.1)]


def plain_mask(seed, number, size, num_cells, keep_probability):
    """Draw one mask as the authors' code does, from the words that Philox has for this number."""
    blocks = -(-(num_cells**2 + 2) // 4)
    stream = np.random.Philox(key=seed)
    stream.advance(number * blocks)
    uniform = (stream.random_raw(num_cells**2 + 2) >> np.uint64(11)) * 2.0**-53
    cells = [int(np.ceil(side / num_cells)) for side in size]
    up, left = (int(u * cell) for u, cell in zip(uniform[:2], cells, strict=True))
    grid = (uniform[2:] < keep_probability).astype("float32").reshape(num_cells, num_cells)
    up_size = [(num_cells + 1) * cell for cell in cells]
    mask = resize(grid, up_size, order=1, mode="reflect", anti_aliasing=False)
    return np.asarray(mask)[up : up + size[0], left : left + size[1]]


def bright_square(frames):
    """A black box of two classes: the brightness of a square, (B, 3, 24, 30) -> (B, 2)."""
    brightness = frames[:, :, 4:12, 18:26].mean(dim=(1, 2, 3)).clamp(0, 1)
    return torch.stack([1 - brightness, brightness], dim=1)


@pytest.fixture
def images():
    return torch.rand(3, 3, 24, 30, generator=torch.Generator().manual_seed(0))


TARGET = torch.tensor([1, 1, 0])
SEEDS = [11, 12, 13]


@pytest.mark.parametrize(("num_cells", "keep_probability"), [*FAMILIES, (1, 0.5)])
@pytest.mark.parametrize("size", [(24, 30), (224, 224)])
def test_masks_are_the_authors(num_cells, keep_probability, size):
    masks = rise_masks(range(3, 9), seed=5, size=size, num_cells=num_cells, keep_probability=keep_probability)
    plain = [plain_mask(5, number, size, num_cells, keep_probability) for number in range(3, 9)]
    assert np.abs(masks.numpy() - np.stack(plain)).max() < 1e-5


@pytest.mark.parametrize(("num_cells", "keep_probability"), FAMILIES)
@pytest.mark.parametrize("centred", [False, True])
def test_the_map_is_the_published_formula(images, num_cells, keep_probability, centred):
    options = {"num_cells": num_cells, "keep_probability": keep_probability}
    maps = rise(Queries(bright_square), images, TARGET, seeds=SEEDS, num_masks=150, centred=centred, **options)
    for i, image in enumerate(images):
        masks = [plain_mask(SEEDS[i], number, (24, 30), **options) for number in range(150)]
        responses = [float(bright_square((image * torch.from_numpy(m).float())[None])[0, TARGET[i]]) for m in masks]
        mean = np.mean(responses) if centred else 0
        plain = np.tensordot(np.array(responses) - mean, np.stack(masks), 1) / (150 * keep_probability)
        assert np.abs(maps[i].numpy() - plain).max() < 1e-5


def test_each_mask_has_its_own_shift():
    masks = rise_masks(range(200), seed=0, size=(24, 30), num_cells=3, keep_probability=0.5)
    kinks = (masks.diff(n=2, dim=1).abs() > 1e-4).flatten(1)  # where bilinear pieces meet moves with the shift
    assert len({tuple(kink.tolist()) for kink in kinks}) > 40  # of 80 shifts


def test_all_ones_masks_give_the_answer_itself(images, monkeypatch):
    monkeypatch.setattr(
        "explain.methods.query.rise.rise_masks", lambda numbers, *, size, **_: torch.ones(len(numbers), *size)
    )
    maps = rise(Queries(bright_square), images, TARGET, seeds=SEEDS, num_masks=10, keep_probability=0.5)
    responses = bright_square(images).gather(1, TARGET[:, None])
    assert torch.allclose(maps, (responses / 0.5)[:, :, None].expand_as(maps), atol=1e-6)


def test_an_image_alone_has_the_same_map_as_in_any_batch(images):
    together = rise(Queries(bright_square, batch_size=7), images, TARGET, seeds=SEEDS, num_masks=100)
    for i in range(3):
        queries = Queries(bright_square, batch_size=64)
        alone = rise(queries, images[i : i + 1], TARGET[i : i + 1], seeds=SEEDS[i : i + 1], num_masks=100)
        assert torch.equal(alone[0], together[i])
        assert queries.used == {0: 100}


def test_a_square_is_found(images):
    maps = rise(Queries(bright_square), images[:1], TARGET[:1], seeds=SEEDS[:1], num_masks=600, centred=True)
    inside = torch.zeros(24, 30, dtype=torch.bool)
    inside[4:12, 18:26] = True
    assert maps[0][inside].mean() > maps[0][~inside].mean() + 2 * maps[0][~inside].std()


def test_a_smaller_budget_asks_for_the_first_masks_of_a_larger_one():
    few = rise_masks(range(10), seed=4, size=(24, 30), num_cells=7, keep_probability=0.5)
    many = rise_masks(range(100), seed=4, size=(24, 30), num_cells=7, keep_probability=0.5)
    assert torch.equal(many[:10], few)


def test_known_answers_cost_no_question(images):
    first = Queries(bright_square)
    whole = rise(first, images[:1], TARGET[:1], seeds=SEEDS[:1], num_masks=130)
    asked = []

    def count(frames):
        asked.append(len(frames))
        return bright_square(frames)

    again = Queries(count, known={0: first.responses[0][:100]})
    assert torch.equal(rise(again, images[:1], TARGET[:1], seeds=SEEDS[:1], num_masks=130), whole)
    assert sum(asked) == 30
    assert again.used == {0: 130}


def test_antithetic_masks_are_complements():
    masks = rise_masks(range(8), seed=1, size=(24, 30), num_cells=7, keep_probability=0.5, antithetic=True)
    assert torch.allclose(masks[0::2] + masks[1::2], torch.ones(4, 24, 30), atol=1e-6)
    odd = rise_masks(range(3, 6), seed=1, size=(24, 30), num_cells=7, keep_probability=0.5, antithetic=True)
    assert torch.equal(odd, masks[3:6])


def test_a_settled_ranking_stops_early(images):
    queries = Queries(bright_square)
    rise(queries, images[:1], TARGET[:1], seeds=SEEDS[:1], num_masks=4000, centred=True, settled=0.8)
    assert queries.used[0] in {512, 1024, 2048}
    patient = Queries(bright_square)
    rise(patient, images[:1], TARGET[:1], seeds=SEEDS[:1], num_masks=600, centred=True)
    assert patient.used[0] == 600


def test_a_constant_black_box_gives_a_flat_centred_map(images):
    flat = rise(
        Queries(lambda frames: torch.full((len(frames), 2), 0.5)),
        images,
        TARGET,
        seeds=SEEDS,
        num_masks=50,
        centred=True,
    )
    assert flat.abs().max() < 1e-6


def test_rank_correlation_is_scipys():
    from scipy.stats import spearmanr

    a, b = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(1))
    found: Any = spearmanr(a.flatten().numpy(), b.flatten().numpy())
    assert rank_correlation(a, b) == pytest.approx(found.statistic)


@pytest.mark.parametrize(
    "options",
    [
        {"num_masks": 0},
        {"num_cells": 0},
        {"keep_probability": 0.0},
        {"keep_probability": 1.0},
        {"antithetic": True, "keep_probability": 0.1},
        {"settled": 1.5},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RiseOptions(**options)
    if "antithetic" in options:
        with pytest.raises(ValueError, match="antithetic"):
            rise(Queries(bright_square), torch.zeros(1, 3, 8, 8), torch.zeros(1), seeds=[0], **options)
