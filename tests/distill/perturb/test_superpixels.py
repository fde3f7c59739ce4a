"""Superpixels, LIME against the lime package, and what LIME and KernelSHAP have in common."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from lime.lime_base import LimeBase
from scipy.stats import spearmanr

from distill.perturb.superpixels import compose, hidden, paint, superpixels
from explain.methods.options import LimeOptions
from explain.methods.query.kernel_shap import kernel_shap
from explain.methods.query.lime import lime, local_weights, presence
from explain.methods.query.queries import Queries

TARGET = torch.tensor([1, 0])
SEEDS = [5, 6]


def black_box(frames):
    """Two classes: how bright and even a square is, not linear in its parts, (B, 3, 32, 48) -> (B, 2)."""
    square = frames[:, :, 8:20, 20:36]
    score = torch.sigmoid(3 * square.mean(dim=(1, 2, 3)) - 2 * frames[:, :, :4].mean(dim=(1, 2, 3)) ** 2)
    return torch.stack([1 - score, score], dim=1)


@pytest.fixture
def images():
    made = 0.1 * torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    made[:, :, 8:20, 20:36] += 1.5
    made[:, :, 20:, :16] -= 1
    return made


def test_superpixels_are_numbered_without_gaps_and_the_same_each_time(images):
    segments = superpixels(images[0], num_segments=12)
    assert segments.shape == (32, 48)
    assert segments.unique().tolist() == list(range(int(segments.max()) + 1))
    assert torch.equal(segments, superpixels(images[0] * 3 - 1, num_segments=12))  # whatever the normalization
    inside = segments[10:18, 22:34].unique()
    assert not set(inside.tolist()) & set(segments[25:, 2:14].flatten().tolist())


def test_hidden_superpixels_have_their_mean_color(images):
    segments = superpixels(images[0], num_segments=12)
    other = hidden(images[0], segments, "segment_mean")
    for number in range(int(segments.max()) + 1):
        there = segments == number
        assert torch.allclose(other[:, there], images[0][:, there].mean(dim=1, keepdim=True), atol=1e-5)
    assert hidden(images[0], segments, "mean").abs().max() == 0
    assert hidden(torch.ones(3, 9, 12), segments, "blur").sub(1).abs().max() < 1e-5


def test_frames_show_what_is_present(images):
    segments = superpixels(images[0], num_segments=12)
    shown = presence(0, 3, int(segments.max()) + 1)
    frames = compose(images[0], torch.zeros_like(images[0]), segments, shown)
    assert torch.equal(frames[0], images[0])
    for frame, present in zip(frames, shown, strict=True):
        assert torch.equal(frame.abs().sum(dim=0) > 0, present[segments])


def test_lime_weights_are_the_packages_on_the_same_samples():
    rng = np.random.default_rng(0)
    samples = presence(3, 300, 20).numpy()
    answers = 1 / (1 + np.exp(-(samples @ rng.normal(size=20)))) + 0.01 * rng.normal(size=300)
    distances = 1 - samples @ np.ones(20) / (np.sqrt(samples.sum(axis=1)) * math.sqrt(20))
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)
    peer: Any = base.explain_instance_with_data(
        samples.astype(float), np.stack([answers, 1 - answers], axis=1), distances, 0, 20, feature_selection="none"
    )[1]
    mine = local_weights(samples, answers, kernel_width=0.25)
    assert np.abs(mine - [weight for _, weight in sorted(peer)]).max() < 1e-6


def test_lime_ranks_superpixels_as_the_package_does(images):
    """The package draws 1,000 samples of its own; every superpixel matters to this black box, each differently."""
    from lime.lime_image import LimeImageExplainer

    segments = superpixels(images[0], num_segments=12)

    share = torch.randn(32, 48, generator=torch.Generator().manual_seed(2)) / 100

    def score(frames):
        probs = torch.sigmoid((frames.mean(dim=1) ** 2 * share).sum(dim=(1, 2)))
        return torch.stack([1 - probs, probs], dim=1)

    def ask(pixels):
        return score(torch.from_numpy(np.asarray(pixels)).float().permute(0, 3, 1, 2)).numpy()

    explainer: Any = LimeImageExplainer(feature_selection="none", random_state=0)
    peer = explainer.explain_instance(
        images[0].permute(1, 2, 0).double().numpy(),
        ask,
        labels=(1,),
        top_labels=None,
        num_samples=1000,
        hide_color=0.0,
        segmentation_fn=lambda _: segments.numpy(),
    )
    theirs = np.array([weight for _, weight in sorted(peer.local_exp[1])])
    saliency = lime(Queries(score), images[:1], TARGET[:1], seeds=SEEDS[:1], num_segments=12, substrate="mean")[0]
    mine = np.array([float(saliency[segments == number][0]) for number in range(len(theirs))])
    rank: Any = spearmanr(mine, theirs)
    assert rank.statistic > 0.9
    assert np.corrcoef(mine, theirs)[0, 1] > 0.98


def test_fewer_samples_are_the_first_of_more():
    assert torch.equal(presence(4, 11, 7), presence(4, 50, 7)[:11])


@pytest.mark.parametrize("method", [lime, kernel_shap])
def test_an_image_alone_has_the_same_map_as_in_any_batch(images, method):
    together = method(Queries(black_box, batch_size=7), images, TARGET, seeds=SEEDS, num_samples=90)
    for i in range(2):
        queries = Queries(black_box)
        alone = method(queries, images[i : i + 1], TARGET[i : i + 1], seeds=SEEDS[i : i + 1], num_samples=90)
        assert torch.allclose(alone[0], together[i], atol=1e-6)
        assert queries.used == {0: 90}


@pytest.mark.parametrize("method", [lime, kernel_shap])
def test_the_square_is_found(images, method):
    saliency = method(Queries(black_box), images[:1], TARGET[:1], seeds=SEEDS[:1], num_samples=400)[0]
    inside = torch.zeros(32, 48, dtype=torch.bool)
    inside[8:20, 20:36] = True
    assert saliency[inside].mean() > saliency[~inside].mean() + saliency[~inside].std()


@pytest.mark.parametrize("method", [lime, kernel_shap])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (20, 20)])
def test_one_superpixel_gives_a_constant_map(method, shape):
    image = torch.full((1, 3, *shape), 0.3)
    score = lambda frames: torch.full((len(frames), 2), 0.5)  # noqa: E731
    saliency = method(Queries(score), image, TARGET[:1], seeds=[0], num_samples=20)
    assert saliency.shape == (1, *shape)
    assert saliency.unique().numel() == 1


def test_paint_gives_each_pixel_its_weight():
    segments = torch.tensor([[0, 1], [2, 1]])
    assert paint(torch.tensor([1.0, 2.0, 3.0]), segments).tolist() == [[1, 2], [3, 2]]


def test_options_out_of_range_are_refused():
    wrongs: list[dict[str, Any]] = [
        {"num_samples": 1},
        {"num_segments": 0},
        {"compactness": 0.0},
        {"kernel_width": 0.0},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LimeOptions(**wrong)
