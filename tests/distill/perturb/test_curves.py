"""Hold the games against a slow, plain re-derivation of RISE's metric, and against the bugs others had."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill.perturb.curves import Perturbation, area, compose, pixel_steps, play, rank_pixels, tie_hash
from evaluate.games.baselines import blur, mean_color

SIZE = (24, 36)  # height, width: not square, so that a swap shows
STEP = SIZE[1]
COLOURS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "rng": np.random.default_rng(0)}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 6)]
    net = nn.Sequential(*layers).eval().requires_grad_(False)
    layers[-1].weight.mul_(6)  # far from a uniform answer, so that curves move
    return net


def probabilities(model: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    return torch.softmax(model(frames), dim=1)


def make_image(seed: int) -> torch.Tensor:
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed))


def make_map(seed: int) -> torch.Tensor:
    return torch.rand(*SIZE, generator=torch.Generator().manual_seed(100 + seed))


def make_play(image: torch.Tensor, saliency: torch.Tensor, game: str, target: int, step_px: int = STEP) -> Perturbation:
    steps, num_steps = pixel_steps(rank_pixels(saliency, SIZE).ranks, step_px)
    if game == "deletion":
        start, finish = image, mean_color(image, **COLOURS)
    else:
        start, finish = blur(image, **COLOURS), image
    return Perturbation(start=start, finish=finish, steps=steps, num_steps=num_steps, target=target)


def published_curve(model, image, saliency, *, game: str, target: int, step_px: int) -> np.ndarray:
    """Play one game as RISE's authors publish it: one frame at a time, pixels set step by step."""
    height, width = saliency.shape
    num_pixels = height * width
    num_steps = (num_pixels + step_px - 1) // step_px
    substrate = torch.zeros_like(image) if game == "deletion" else plain_blur(image)
    frame, finish = (image.clone(), substrate) if game == "deletion" else (substrate.clone(), image)
    order = np.flip(np.argsort(saliency.numpy().reshape(-1)))
    scores = []
    for i in range(num_steps + 1):
        scores.append(float(torch.softmax(model(frame[None]), dim=1)[0, target]))
        for index in order[step_px * i : step_px * (i + 1)]:
            y, x = divmod(int(index), width)
            for color in range(3):
                frame[color, y, x] = finish[color, y, x]
    return np.array(scores)


def plain_blur(image: torch.Tensor) -> torch.Tensor:
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = np.zeros((3, 3, 11, 11))
    for color in range(3):
        kernel[color, color] = gaussian_filter(impulse, 5)
    return F.conv2d(image[None], torch.from_numpy(kernel.astype("float32")), padding=5)[0]


def published_auc(curve: np.ndarray) -> float:
    return (curve.sum() - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1)


@pytest.mark.parametrize("game", ["deletion", "insertion"])
def test_matches_the_published_metric(model, game):
    for seed in range(3):
        image, saliency = make_image(seed), make_map(seed)
        expected = published_curve(model, image, saliency, game=game, target=seed, step_px=STEP)
        (curve,) = play(lambda x: probabilities(model, x), [make_play(image, saliency, game, seed)])
        assert len(curve) == SIZE[0] + 1 == len(expected)  # both ends included
        np.testing.assert_allclose(curve, expected, atol=1e-5)
        assert np.ptp(expected) > 0.03  # the curve moves, or nothing is tested
        ours = area(curve, step_px=STEP, num_pixels=SIZE[0] * SIZE[1])
        assert ours == pytest.approx(published_auc(expected), abs=1e-4)


def test_frames_made_from_the_one_before_are_those_compared_and_selected():
    game = make_play(make_image(0), make_map(1), "insertion", 0, step_px=50)
    for points in (range(game.num_steps + 1), [0, 2, 2, 7, game.num_steps], [5]):
        frames = torch.full((len(points), 3, *SIZE), 9.0)
        compose(game, points, out=frames)
        for frame, k in zip(frames, points, strict=True):
            assert torch.equal(frame, torch.where(game.steps < k, game.finish, game.start))


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_a_game_that_goes_on_in_the_next_batch_shows_the_same_frames(batch_size):
    games = [
        make_play(make_image(i), make_map(i), game, 0, step_px=100) for i, game in ((0, "insertion"), (1, "deletion"))
    ]
    shown = []
    list(play(lambda x: shown.append(x.clone()) or torch.ones(len(x), 1), games, batch_size=batch_size))
    expected = [
        torch.where(game.steps < k, game.finish, game.start) for game in games for k in range(game.num_steps + 1)
    ]
    assert torch.equal(torch.cat(shown), torch.stack(expected))


def test_224_pixels_make_225_points():
    steps, num_steps = pixel_steps(rank_pixels(torch.rand(7, 7), (224, 224)).ranks, 224)
    assert num_steps == 224
    assert torch.equal(steps.flatten().bincount(), torch.full((224,), 224))


@pytest.mark.parametrize("step_px", [1, 7, 36, 100, 863, 864, 5000])
def test_constant_curve_has_its_own_area(step_px):
    constant = torch.tensor([[0.3, 0.7]])
    game = make_play(make_image(0), make_map(0), "deletion", 1, step_px)
    (curve,) = play(lambda x: constant.expand(len(x), 2), [game], batch_size=50)
    assert len(curve) == -(-864 // step_px) + 1
    assert area(curve, step_px=step_px, num_pixels=864) == pytest.approx(0.7, abs=1e-7)


def test_area_uses_the_true_width_of_a_shorter_last_step():
    curve = np.array([1.0, 0.5, 0.25, 0.0], dtype=np.float32)  # at 0, 4, 8 and 10 of 10 pixels
    assert area(curve, step_px=4, num_pixels=10) == pytest.approx(0.75 * 0.4 + 0.375 * 0.4 + 0.125 * 0.2)


def test_frames_change_exactly_the_first_pixels_in_every_color():
    image, saliency = make_image(1), make_map(1)
    game = make_play(image, saliency, "deletion", 0, step_px=100)
    frames = torch.empty(game.num_steps + 1, 3, *SIZE)
    compose(game, range(game.num_steps + 1), out=frames)
    order = torch.argsort(saliency.flatten(), descending=True)
    for k, frame in enumerate(frames):
        expected = image.clone().view(3, -1)
        expected[:, order[: k * 100]] = 0
        assert torch.equal(frame.view(3, -1), expected)
    assert torch.equal(frames[0], image)
    assert torch.equal(frames[-1], torch.zeros_like(image))


def test_inputs_stay_as_they_were(model):
    image, saliency = make_image(2), make_map(2)
    kept = image.clone(), saliency.clone()
    games = [make_play(image, saliency, game, 0) for game in ("deletion", "insertion")]
    list(play(lambda x: probabilities(model, x), games))
    assert torch.equal(image, kept[0])
    assert torch.equal(saliency, kept[1])


@pytest.mark.parametrize("batch_size", [1, 7, 25, 64, 500])
def test_score_does_not_depend_on_the_batch(model, batch_size):
    pairs = [(seed, game) for seed in range(4) for game in ("deletion", "insertion")]
    games = [make_play(make_image(seed), make_map(seed), game, seed) for seed, game in pairs]
    sizes = []

    def score(frames: torch.Tensor) -> torch.Tensor:
        sizes.append(len(frames))
        return probabilities(model, frames)

    together = list(play(score, games, batch_size=batch_size))
    assert set(sizes[:-1]) <= {batch_size}  # one stream: only the last batch may be smaller
    assert sum(sizes) == 8 * 25
    for game, curve in zip(games, together, strict=True):
        (alone,) = play(lambda x: probabilities(model, x), [game], batch_size=25)
        np.testing.assert_allclose(curve, alone, atol=1e-6)


def test_games_of_different_lengths_share_a_stream(model):
    games = [make_play(make_image(k), make_map(k), "deletion", k, step) for k, step in enumerate((864, 10, 36, 500))]
    curves = list(play(lambda x: probabilities(model, x), games, batch_size=16))
    assert [len(curve) for curve in curves] == [2, 88, 25, 3]
    for k, (curve, step) in enumerate(zip(curves, (864, 10, 36, 500), strict=True)):
        expected = published_curve(model, make_image(k), make_map(k), game="deletion", target=k, step_px=step)
        np.testing.assert_allclose(curve, expected, atol=1e-5)


def test_no_games_need_no_teacher():
    assert list(play(lambda x: pytest.fail("asked"), [])) == []


def test_images_are_read_as_they_are_needed(model):
    read = []

    def plays():
        for k in range(10):
            read.append(k)
            yield make_play(make_image(k), make_map(k), "deletion", 0)

    curves = play(lambda x: probabilities(model, x), plays(), batch_size=25)
    next(curves)
    assert read == [0]


def test_ranks_follow_the_values_after_bilinear_up_sampling():
    small = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    order = rank_pixels(small, SIZE)
    values = F.interpolate(small[None, None].double(), SIZE, mode="bilinear", align_corners=False).float()
    by_rank = values.flatten()[torch.argsort(order.ranks.flatten())]
    assert (by_rank[1:] <= by_rank[:-1]).all()
    assert order.ranks.shape == SIZE
    assert torch.equal(order.ranks.flatten().sort().values, torch.arange(864))


def test_inverted_map_gives_the_inverted_order():
    saliency = make_map(5)
    assert torch.equal(rank_pixels(-saliency, SIZE).ranks, 863 - rank_pixels(saliency, SIZE).ranks)


def test_tie_hash_is_murmur3s_finaliser():
    def fmix32(h: int) -> int:
        h = (h ^ (h >> 16)) * 0x85EBCA6B % 2**32
        h = (h ^ (h >> 13)) * 0xC2B2AE35 % 2**32
        return h ^ (h >> 16)

    assert fmix32(1) == 0x514E28B7  # published value
    for seed in (0, 1, 7, 2**40):
        expected = [fmix32((i + seed * 0x9E3779B9) % 2**32) for i in range(1000)]
        assert tie_hash(np.arange(1000), seed).tolist() == expected


def test_ties_are_ordered_by_hash_and_reported():
    saliency = torch.zeros(*SIZE)  # a ReLU plateau with one bright corner
    saliency[:2, :3] = torch.arange(6).view(2, 3) + 1.0
    order = rank_pixels(saliency, SIZE)
    assert order.tied_share == pytest.approx(858 / 864)
    hashes = tie_hash(np.arange(864), 0)
    values = saliency.flatten().numpy()
    expected = sorted(range(864), key=lambda i: (-values[i], hashes[i]))
    assert torch.argsort(order.ranks.flatten()).tolist() == expected
    assert rank_pixels(make_map(0), SIZE).tied_share == 0


def test_a_plateau_is_not_deleted_in_one_step_nor_from_one_side():
    steps, num_steps = pixel_steps(rank_pixels(torch.zeros(3, 3), SIZE).ranks, STEP)
    assert torch.equal(steps.flatten().bincount(), torch.full((num_steps,), STEP))
    first_half = (steps < num_steps // 2).float()
    assert 0.4 < first_half[: SIZE[0] // 2].mean() < 0.6
    assert 0.4 < first_half[:, : SIZE[1] // 2].mean() < 0.6


def test_a_constant_map_is_a_defined_order():
    order = rank_pixels(torch.full((4, 4), 0.1234567), SIZE)  # equal after up-sampling too
    assert order.tied_share == 1
    assert torch.equal(order.ranks, rank_pixels(torch.zeros(9, 2), SIZE).ranks)
    assert not torch.equal(order.ranks, rank_pixels(torch.zeros(4, 4), SIZE, seed=1).ranks)


def global_state() -> str:
    return repr((np.random.get_state(), torch.get_rng_state().tolist()))  # noqa: NPY002 - must stay


def test_ranking_leaves_the_global_random_state_alone():
    before = global_state()
    rank_pixels(torch.zeros(4, 4), SIZE, seed=5)
    assert global_state() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_refused(value):
    saliency = make_map(0)
    saliency[3, 4] = value
    with pytest.raises(ValueError, match="holds 1 values that are not finite"):
        rank_pixels(saliency, SIZE)


def test_order_does_not_depend_on_the_scale_of_other_maps():
    saliency = make_map(7)
    assert torch.equal(rank_pixels(saliency * 1e-3, SIZE).ranks, rank_pixels(saliency, SIZE).ranks)


def test_very_many_steps_fit_their_type():
    ranks = torch.arange(200 * 200).view(200, 200)
    steps, num_steps = pixel_steps(ranks, 1)
    assert num_steps == 40_000
    assert torch.equal(steps.long(), ranks)


def test_a_planted_square_wins_both_games():
    """A teacher that looks at one square only: its true map beats the inverted one in both games."""
    image = torch.ones(3, *SIZE)
    planted = torch.zeros(*SIZE)
    planted[4:12, 20:30] = 1

    def score(frames: torch.Tensor) -> torch.Tensor:
        seen = (frames * planted).sum((1, 2, 3)) / (3 * planted.sum())
        return torch.stack([seen, 1 - seen], dim=1)

    areas = {}
    for name, saliency in (("true", planted), ("inverted", -planted)):
        games = [make_play(image, saliency, "deletion", 0)]
        games.append(
            Perturbation(start=torch.zeros_like(image), finish=image, steps=games[0].steps, num_steps=24, target=0)
        )
        areas[name] = [area(curve, step_px=STEP, num_pixels=864) for curve in play(score, games)]
    assert areas["true"][0] < 0.1
    assert areas["inverted"][0] > 0.9
    assert areas["true"][1] > 0.9
    assert areas["inverted"][1] < 0.1
