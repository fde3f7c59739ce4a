"""Hold curves of fewer points against the exact ones, and their bound against what it promises."""

import numpy as np
import pytest
import torch

from distill.perturb.curves import Perturbation, area_over, changed_fractions, pixel_steps, play
from evaluate.games.protocol import Protocol
from evaluate.games.sampling import SampledCurve, play_sampled
from evaluate.games.setup import num_frames

SIZE = (20, 30)
NUM_PIXELS = SIZE[0] * SIZE[1]


def games(num: int, step_px: int = 5) -> list[Perturbation]:
    """Make games whose frames say how many pixels have changed: from zeros to ones."""
    made = []
    for k in range(num):
        ranks = torch.randperm(NUM_PIXELS, generator=torch.Generator().manual_seed(k)).view(SIZE)
        steps, num_steps = pixel_steps(ranks, step_px)
        image = torch.zeros(3, *SIZE)
        made.append(Perturbation(start=image, finish=image + 1, steps=steps, num_steps=num_steps, target=k % 2))
    return made


def falling(frames: torch.Tensor) -> torch.Tensor:
    """Answer with a curve that is flat but for a steep fall at a third of the pixels; class 1 has what is left."""
    p = torch.sigmoid(60 * (1 / 3 - frames.mean(dim=(1, 2, 3))))
    return torch.stack([p, 1 - p], dim=1)


def fractions_of(game: Perturbation) -> np.ndarray:
    return changed_fractions(game.steps, game.num_steps)


def test_a_fifth_of_the_points_has_the_exact_area_and_asks_no_more():
    asked = []

    def score(frames: torch.Tensor) -> torch.Tensor:
        asked.append(len(frames))
        return falling(frames)

    played = games(3, step_px=7)
    exact = list(play(falling, played, batch_size=16))
    found = list(play_sampled(score, iter(played), num_points=18, batch_size=16))
    assert sum(asked) == sum(len(curve.points) for curve in found) == 3 * 18
    for game, curve, sampled in zip(played, exact, found, strict=True):
        fractions = fractions_of(game)
        whole = sampled.whole(fractions)
        np.testing.assert_allclose(whole[sampled.points], curve[sampled.points], rtol=0, atol=1e-6)
        assert {0, game.num_steps} <= set(sampled.points)
        error = abs(area_over(whole, fractions) - area_over(curve, fractions))
        assert error <= sampled.bound(fractions) + 1e-9  # the curve is monotone
        assert error < 0.002
        even = np.linspace(0, game.num_steps, 18).round().astype(int)
        plain = np.interp(fractions, fractions[even], curve[even])
        assert error < abs(area_over(plain, fractions) - area_over(curve, fractions))


def test_points_go_where_the_curve_is_steep():
    (sampled,) = play_sampled(falling, games(1), num_points=25, batch_size=8)
    near = np.abs(sampled.points / sampled.num_steps - 1 / 3) < 0.1
    assert near.sum() > 10  # a fifth of the range has far more than a fifth of 25 points


def test_all_points_are_the_exact_game_and_hide_nothing():
    (game,) = games(1, step_px=50)
    (exact,) = play(falling, [game])
    (sampled,) = play_sampled(falling, [game], num_points=1000)
    np.testing.assert_array_equal(sampled.whole(fractions_of(game)), exact)
    assert sampled.bound(fractions_of(game)) == 0


def test_the_curve_is_the_same_alone_and_among_others():
    played = games(40)  # more than are played at once
    together = list(play_sampled(falling, iter(played), num_points=20, batch_size=16))
    for k in (0, 31, 32, 39):
        (alone,) = play_sampled(falling, [played[k]], num_points=20, batch_size=16)
        np.testing.assert_array_equal(alone.points, together[k].points)
        np.testing.assert_allclose(alone.values, together[k].values, rtol=0, atol=1e-6)


def test_area_and_bound_by_hand():
    """Points 0, 1, 4 of steps that change 10, 20, 30 and 40 % of the pixels, at 0.9, 0.5 and 0.1."""
    fractions = np.array([0, 0.1, 0.3, 0.6, 1.0])
    curve = SampledCurve(4)
    curve.add(np.array([0, 4]), np.array([0.9, 0.1], np.float32))
    curve.add(np.array([1]), np.array([0.5], np.float32))
    assert area_over(curve.whole(fractions), fractions) == pytest.approx(0.1 * 0.7 + 0.9 * 0.3, abs=1e-7)
    assert curve.bound(fractions) == pytest.approx(0.9 * 0.4 / 2, abs=1e-7)  # 0 to 1 is one step: nothing is hidden
    np.testing.assert_array_equal(curve.next(5), [2])


def test_frames_are_counted_before_they_are_asked():
    assert num_frames(Protocol(points=45), (224, 224)) == 2 * 45
    assert num_frames(Protocol(points=45, least_relevant=True), (224, 224)) == 4 * 45
    assert num_frames(Protocol(points=45, patches=4), (224, 224)) == 2 * 17
