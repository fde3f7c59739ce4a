"""Fidelity's parts: the frames against what RISE and the games show, the student's view against Pillow, the numbers by
hand.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from distill.perturb.curves import play
from distill.perturb.rise_masks import FAMILIES
from evaluate.games.protocol import Protocol
from evaluate.games.setup import make_plays
from evaluate.metrics.fidelity import compare, game_frames, masked_correlation, masked_frames
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rise
from explain.surrogate import student_view

SIZE = (20, 30)
IMAGE = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


class Recorder:
    """Keep the frames that a black box is shown."""

    def __init__(self) -> None:
        self.frames: list[torch.Tensor] = []

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Answer with two classes that are alike."""
        self.frames += list(frames.clone())
        return torch.full((len(frames), 2), 0.5)


def test_masked_frames_are_those_that_rise_shows():
    shown = Recorder()
    for num_cells, keep_probability in FAMILIES:
        options = {"num_masks": 70, "num_cells": num_cells, "keep_probability": keep_probability}
        rise(Queries(shown), IMAGE[None], torch.zeros(1, dtype=torch.long), seeds=[5], **options)
    found = masked_frames(IMAGE, seed=5, num=140)
    torch.testing.assert_close(found, torch.stack(shown.frames), rtol=0, atol=1e-6)
    assert not torch.equal(found, masked_frames(IMAGE, seed=6, num=140))


@pytest.mark.parametrize("num_points", [2, 8])
def test_game_frames_are_those_that_the_games_show(num_points):
    saliency = torch.rand(7, 7, generator=torch.Generator().manual_seed(1))
    protocol = Protocol(step_px=37)
    plays, _ = make_plays(IMAGE, saliency, target=0, protocol=protocol, image_id="a", mean=MEAN, std=STD)
    shown = Recorder()
    list(play(shown, plays, batch_size=5))
    games = torch.stack(shown.frames).view(2, 18, *IMAGE.shape)  # 600 pixels in steps of 37
    points = [round(17 * i / (num_points - 1)) for i in range(num_points)]
    found = game_frames(plays, num_points=num_points)
    assert torch.equal(found.view(2, num_points, *IMAGE.shape), games[:, points])
    assert torch.equal(found[0], IMAGE)
    assert torch.equal(found[-1], IMAGE)


@pytest.mark.parametrize("size", [(9, 11), (20, 30), (48, 31)])
def test_the_student_sees_the_pixels_resized_as_pillow_does(size):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    normal = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    frames = torch.from_numpy(normal.transpose(0, 3, 1, 2)).float()
    found = student_view(frames, mean=MEAN, std=STD, size=size).numpy()
    resized = [Image.fromarray(one).resize(size[::-1], Image.Resampling.BILINEAR) for one in pixels]
    wanted = np.stack([np.asarray(one) for one in resized]) / 255
    rounded = 1.01 / 255 if size != SIZE else 1e-6  # Pillow rounds after each direction
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= rounded


def test_agreement_and_divergence_by_hand():
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7]], dtype=np.float32)
    logits = np.array([[1.0, 3.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 9.0]], dtype=np.float32)
    divergences = []
    for p, o in zip(probs.tolist(), logits.tolist(), strict=True):
        q = [math.exp(x) / sum(math.exp(y) for y in o) for x in o]
        divergences.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))
    agreement, kl = compare(probs, logits)
    assert agreement == pytest.approx(2 / 3)
    assert kl == pytest.approx(sum(divergences) / 3, rel=1e-6)
    assert compare(probs, np.log(np.maximum(probs, 1e-30)) + 5) == (1, pytest.approx(0, abs=1e-6))


def test_a_student_that_is_not_finite_cannot_be_compared():
    with pytest.raises(ValueError, match="not finite"):
        compare(np.array([[0.5, 0.5]], np.float32), np.array([[np.nan, 0]], np.float32))


def test_correlation_is_within_each_family():
    """A lower level of both under the second family's masks is no agreement on which masks matter."""
    rng = np.random.default_rng(0)
    teacher = np.concatenate([0.8 + 0.1 * rng.random(400), 0.1 * rng.random(400)])
    other = np.concatenate([0.8 + 0.1 * rng.random(400), 0.1 * rng.random(400)])
    assert masked_correlation(teacher, teacher**3) == pytest.approx(1)
    assert masked_correlation(teacher, -teacher) == pytest.approx(-1)
    assert abs(masked_correlation(teacher, other)) < 0.15
    half = np.concatenate([teacher[:400], -teacher[400:]])
    assert masked_correlation(teacher, half) == pytest.approx(0)
    flat = np.concatenate([teacher[:400], np.zeros(400)])
    assert np.isnan(masked_correlation(teacher, flat))
