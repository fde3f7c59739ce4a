"""Maps from few questions: the regression against its dense formulas, the frames, and priors that help or mislead."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill.perturb.superpixels import superpixels
from explain.methods.options import GpRegressionOptions
from explain.methods.query.gaussian_process import LENGTHS, MIX, NOISES, STRENGTHS, Cells, Prior, regress
from explain.methods.query.gp_regression import EDGE_SIGMA, Views, gp_regression, gp_regression_with_std
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rise

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


def dense(cells, length):
    """Write C down, cell by cell, as its definition says."""
    at = [(row, column) for row in range(cells.grid[0]) for column in range(cells.grid[1])]
    found = np.zeros((len(at), len(at)))
    for i, one in enumerate(at):
        for j, other in enumerate(at):
            distance = np.hypot(one[0] - other[0], one[1] - other[1]) / max(cells.grid)
            shared = np.mean([scale[:, i] @ scale[:, j] for scale in cells.members])
            found[i, j] = np.exp(-(distance**2) / (2 * length**2)) + MIX * shared
    return found


def dense_at_pixels(cells, length):
    """Write C' down, pixel by cell: a cell of 2 x 2 pixels has its center between them."""
    height, width = cells.segments[0].shape
    found = np.zeros((height * width, cells.grid[0] * cells.grid[1]))
    for i, (row, column) in enumerate(np.ndindex(height, width)):
        for j, other in enumerate(np.ndindex(*cells.grid)):
            distance = np.hypot(row / 2 - 0.25 - other[0], column / 2 - 0.25 - other[1]) / max(cells.grid)
            pairs = zip(cells.members, cells.segments, strict=True)
            shared = np.mean([scale[segments[row, column], j] for scale, segments in pairs])
            found[i, j] = np.exp(-(distance**2) / (2 * length**2)) + MIX * shared
    return found


@pytest.fixture
def problem():
    return problem_of(24)


def problem_of(num):
    """Make masks of a grid of 5 x 7 cells, answers with a signal and noise, and effects, one of them without a frame; a
    map of 10 x 14 pixels."""
    rng = np.random.default_rng(0)
    members = [np.eye(num)[rng.integers(0, num, 35)].T for num in (3, 6)]
    segments = [np.kron(scale.argmax(axis=0).reshape(5, 7), np.ones((2, 2), int)) for scale in members]
    cells = Cells(grid=(5, 7), members=members, segments=segments)
    masks = rng.random((num, 35)).round()
    effects = np.stack([np.ones(num), masks.mean(axis=1), np.zeros(num)], axis=1)
    truth = np.linalg.cholesky(dense(cells, LENGTHS[2])) @ rng.normal(size=35)
    return cells, masks, masks @ truth + 3 * rng.normal(size=num) + 40, effects


def textbook(cells, masks, responses, effects):
    """Search all choices by N x N inverses: generalised least squares for b, and its restricted likelihood."""
    H, best = effects[:, :2], None
    Q = np.linalg.qr(H, mode="complete")[0][:, 2:]
    for length in LENGTHS:
        across = dense_at_pixels(cells, length) @ masks.T
        G = masks @ dense(cells, length) @ masks.T
        for ratio in NOISES:
            V = G + ratio * np.trace(Q.T @ G @ Q) / Q.shape[1] * np.eye(len(G))
            inverse = np.linalg.inv(V)
            b = np.linalg.solve(H.T @ inverse @ H, H.T @ inverse @ responses)
            left = responses - H @ b
            signal = left @ inverse @ left / (len(G) - 2)
            logs = np.linalg.slogdet(V)[1] + np.linalg.slogdet(H.T @ inverse @ H)[1] - np.linalg.slogdet(H.T @ H)[1]
            likelihood = -(logs + (len(G) - 2) * np.log(signal)) / 2
            if best is None or likelihood > best[0]:
                P = inverse - inverse @ H @ np.linalg.solve(H.T @ inverse @ H, H.T @ inverse)
                variance = 1 + MIX - np.diag(across @ P @ across.T)
                best = likelihood, across @ inverse @ left, np.sqrt(signal * variance)
    assert best is not None
    return best


@pytest.mark.parametrize("num", [24, 90])
def test_the_posterior_is_the_textbooks(num):
    """Of fewer answers than cells, and of more."""
    problem = problem_of(num)
    likelihood, mean, std = textbook(*problem)
    found = regress(*problem)
    assert found.likelihood == pytest.approx(likelihood, rel=1e-9)
    assert np.abs(found.mean - mean).max() < 1e-7 * np.abs(mean).max()
    assert np.abs(found.std - std).max() < 1e-6 * std.max()
    assert found.prior_share == 0


def with_prior(problem, prior):
    """Search all choices by N x N inverses: answers y with mean A k p and covariance A^2 V, A on a fine grid."""
    cells, masks, responses, effects = problem
    Q = np.linalg.qr(effects[:, :2], mode="complete")[0][:, 2:]
    y, p, best = Q.T @ responses, Q.T @ prior.responses, None
    for length in LENGTHS:
        cross = dense_at_pixels(cells, length) @ masks.T @ Q
        G = Q.T @ masks @ dense(cells, length) @ masks.T @ Q
        for ratio in NOISES:
            V = G + ratio * np.trace(G) / len(y) * np.eye(len(y))
            inverse, logdet = np.linalg.inv(V), np.linalg.slogdet(V)[1]
            for strength in STRENGTHS:
                k = strength * np.sqrt(np.trace(G) / (p @ p))
                A = np.exp(np.linspace(-3, 5, 8000))
                left = y[:, None] / A - k * p[:, None]
                fits = (left * (inverse @ left)).sum(axis=0)
                likelihoods = -(2 * len(y) * np.log(A) + logdet + fits - len(y)) / 2
                top = int(likelihoods.argmax())
                if best is None or likelihoods[top] > best[0]:
                    best = likelihoods[top], A[top] * k * prior.map + cross @ inverse @ (y - A[top] * k * p)
    assert best is not None
    return best


@pytest.mark.parametrize("num", [24, 90])
def test_with_a_prior_the_posterior_is_the_textbooks(num):
    problem = problem_of(num)
    cells, masks, responses, effects = problem
    rng = np.random.default_rng(1)
    coarse = rng.normal(size=(5, 7))
    start = np.kron(coarse, np.ones((2, 2))).ravel()
    prior_responses = masks @ coarse.ravel() + rng.normal(size=num)
    told = (cells, masks, responses + 8 * prior_responses, effects)
    found = regress(*told, prior=Prior(responses=prior_responses, map=start, belief=1 - 1e-12))
    likelihood, mean = with_prior(told, Prior(responses=prior_responses, map=start, belief=1.0))
    assert found.likelihood == pytest.approx(likelihood, abs=1e-3)
    assert found.prior_share == pytest.approx(1)
    assert np.abs(found.mean - mean).max() < 0.03 * np.abs(mean).max()
    gone, truth = regress(*told), regress(*problem).mean + 8 * start
    assert np.corrcoef(found.mean, truth)[0, 1] > np.corrcoef(gone.mean, truth)[0, 1]


def test_what_is_believed_beforehand_weighs_the_prior_against_none(problem):
    prior_responses, start = problem[1] @ np.linspace(-1, 1, 35), np.linspace(-1, 1, 140)
    shares, ends = [], []
    for belief in (0.2, 0.5, 0.8):
        found = regress(*problem, prior=Prior(responses=prior_responses, map=start, belief=belief))
        shares.append(np.log(found.prior_share / (1 - found.prior_share)) - np.log(belief / (1 - belief)))
        ends.append(found)
    assert np.ptp(shares) < 1e-6
    alone, whole = (
        regress(*problem),
        regress(*problem, prior=Prior(responses=prior_responses, map=start, belief=1 - 1e-15)),
    )
    for found in ends:
        mixed = found.prior_share * whole.mean + (1 - found.prior_share) * alone.mean
        assert np.allclose(found.mean, mixed, atol=1e-6 * np.abs(mixed).max())
        assert (found.std**2 >= np.minimum(alone.std, whole.std) ** 2 - 1e-9).all()


def test_a_prior_that_says_nothing_is_left_out_to_the_bit_and_one_that_says_the_opposite_nearly(problem):
    alone = regress(*problem).mean
    for nothing in (np.ones(24), np.zeros(24)):
        assert np.array_equal(regress(*problem, prior=Prior(responses=nothing, map=alone, belief=0.5)).mean, alone)
    opposite = regress(*problem, prior=Prior(responses=-problem[2], map=-alone, belief=0.5))
    assert opposite.prior_share < 0.2
    assert np.corrcoef(opposite.mean, alone)[0, 1] > 0.95


def views_of(image, seed=3, **changed):
    return Views.of(image, GpRegressionOptions(**{"num_segments": (4, 12), **changed}), seed=seed)


def test_a_pair_shows_and_hides_the_same_superpixels_and_sizes_are_alike(images):
    views = views_of(images[0])
    masks = views.masks(range(400))
    assert torch.allclose(masks[0::2] + masks[1::2], torch.ones(()), atol=1e-6)
    assert torch.equal(views.masks(range(7, 30)), masks[7:30])
    coarse, fine = masks[0::4].mean(dim=(1, 2)), masks[2::4].mean(dim=(1, 2))
    for shares in (coarse, fine):
        assert shares.min() < 0.3
        assert shares.max() > 0.7
    segments = superpixels(images[0], num_segments=12)
    hard = torch.stack([F.interpolate(masks[2][None, None], size=(32, 48))[0, 0] > 0.5])[0]
    shown = torch.tensor([hard[segments == number].float().mean() for number in range(int(segments.max()) + 1)])
    assert ((shown > 0.75) | (shown < 0.25)).all()
    assert EDGE_SIGMA * 48 < 1  # so that the edges above are those of the superpixels


def test_frames_are_the_image_over_each_substrate_in_turn(images):
    views, shown = views_of(images[0]), []
    views.query(Queries(lambda frames: shown.append(frames) or black_box(frames)), 0, 16, 1)
    masks = views.masks(range(16))
    for number, frame in enumerate(torch.cat(shown)):
        other = views.others[number // 4 % 2]
        assert torch.allclose(frame, images[0] * masks[number] + other * (1 - masks[number]), atol=1e-6)
    assert views.others[1].abs().max() == 0
    assert (views.others[0] - images[0]).abs().max() > 0


def test_cells_hold_the_shares_of_superpixels_and_of_masks(images):
    views = views_of(F.interpolate(images, size=(56, 28))[0])
    assert views.grid == (28, 14)
    assert views.map_size == (56, 28)
    for scale, segments in zip(views.cells.members, views.scales, strict=True):
        there = segments.reshape(28, 2, 14, 2)
        for number in (0, len(scale) - 1):
            share = (there == number).float().mean(dim=(1, 3)).flatten().numpy()
            assert np.abs(scale[number] - share).max() < 1e-6
    evidence = views.query(Queries(black_box), 0, 10, 0)
    shares = views.masks(range(10)).mean(dim=(1, 2)).numpy()
    blurred = np.array([1] * 4 + [0] * 4 + [1] * 2)
    for degree in range(3):
        expected = np.stack([blurred, 1 - blurred], axis=1) * shares[:, None] ** degree
        assert np.abs(evidence.effects[:, 2 * degree : 2 * degree + 2] - expected).max() < 1e-6


def test_the_map_has_the_pixels_at_which_superpixels_are_cut_and_their_soft_edges(images):
    views = views_of(F.interpolate(images, size=(224, 448))[0])
    assert views.map_size == (56, 112)
    small = F.interpolate(views.image[None], size=(56, 112), mode="area")[0]
    for segments, num in zip(views.cells.segments, (4, 12), strict=True):
        assert np.array_equal(segments, superpixels(small, num_segments=num).numpy())
    shown = (views.cells.segments[1] == 3).astype(float)
    mask = views.masks(range(3))[2]  # edges as soft as those of masks, which are made at the image's own size
    soft = F.interpolate(views.map_of(shown.ravel())[None, None], size=(224, 448), mode="bilinear")[0, 0]
    assert ((mask > 0.01) & (mask < 0.99)).any()
    assert soft.diff(dim=1).abs().max() < 1.5 * mask.diff(dim=1).abs().max()


def test_the_map_is_of_probabilities_and_of_log_odds_alike(images):
    options: dict[str, Any] = {"num_segments": (4, 12), "num_samples": 40}
    found, std = gp_regression_with_std(Queries(black_box), images[:1], TARGET[:1], seeds=SEEDS[:1], **options)
    views = views_of(images[0], seed=SEEDS[0])
    evidence = views.query(Queries(black_box), 0, 40, 1)
    p = evidence.responses
    maps = [
        regress(views.cells, evidence.masks, responses, evidence.effects)
        for responses in (p, np.log(p + 0.01) - np.log(1.01 - p))
    ]
    scale = maps[0].mean.std() / maps[1].mean.std()
    for mine, name in ((found, "mean"), (std, "std")):
        expected = (getattr(maps[0], name) + scale * getattr(maps[1], name)) / 2
        assert torch.allclose(mine[0], views.map_of(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (20, 20)])
def test_an_even_image_gives_a_constant_map(shape):
    queries = Queries(lambda frames: torch.full((len(frames), 2), 0.5))
    saliency = gp_regression(queries, torch.full((1, 3, *shape), 0.3), TARGET[:1], seeds=[0], num_samples=20)
    assert saliency.shape == (1, *shape)
    assert saliency.unique().numel() == 1


def test_an_image_alone_has_the_same_map_as_in_any_batch(images):
    together = gp_regression(Queries(black_box, batch_size=7), images, TARGET, seeds=SEEDS, num_samples=90)
    for i in range(2):
        queries = Queries(black_box)
        alone = gp_regression(queries, images[i : i + 1], TARGET[i : i + 1], seeds=SEEDS[i : i + 1], num_samples=90)
        assert torch.allclose(alone[0], together[i], atol=1e-5 * float(together[i].abs().max()))
        assert queries.used == {0: 90}


def test_the_first_answers_of_a_larger_budget_are_a_smaller_ones(images):
    many, few = Queries(black_box), Queries(black_box)
    gp_regression(many, images[:1], TARGET[:1], seeds=SEEDS[:1], num_samples=70)
    part = gp_regression(few, images[:1], TARGET[:1], seeds=SEEDS[:1], num_samples=30)
    known = Queries(lambda _: pytest.fail("all is known"), known={0: many.responses[0]})
    again = gp_regression(known, images[:1], TARGET[:1], seeds=SEEDS[:1], num_samples=30)
    assert torch.allclose(many.responses[0][:30], few.responses[0], atol=1e-6)
    assert torch.allclose(part, again, atol=1e-5 * float(part.abs().max()))
    assert known.used == {0: 30}


def agreement(saliency):
    inside = torch.zeros(32, 48)
    inside[8:20, 20:36] = 1
    full = F.interpolate(saliency[None, None], size=(32, 48), mode="bilinear")[0, 0]  # as the games up-sample it
    return float(torch.corrcoef(torch.stack([full.flatten(), inside.flatten()]))[0, 1])


# Of 48 answers' log-odds the likelihood takes the shortest distances, which this square is larger than.
@pytest.mark.parametrize(("num_samples", "least"), [(48, 0.4), (96, 0.6)])
def test_the_square_is_found_from_few_questions_better_than_rise_finds_it_from_ten_times_as_many(
    images, num_samples, least
):
    options: dict[str, Any] = {"images": images[:1], "target": TARGET[:1], "seeds": SEEDS[:1]}
    few = gp_regression(Queries(black_box), num_samples=num_samples, **options)[0]
    many = rise(Queries(black_box), num_masks=10 * num_samples, **options)[0]
    assert agreement(few) > least
    assert agreement(few) > agreement(many)


def test_a_student_that_agrees_helps_and_a_random_one_never_harms(images):
    options: dict[str, Any] = {"seeds": SEEDS[:1], "num_samples": 24, "prior_samples": 200}
    alone = gp_regression(Queries(black_box), images[:1], TARGET[:1], **options)[0]

    def with_student(student):
        asked = Queries(student)
        found = gp_regression(Queries(black_box), images[:1], TARGET[:1], student=asked, prior="student", **options)[0]
        assert asked.used == {0: 200}
        return found

    def good(frames):
        return black_box(0.9 * frames + 0.05)

    assert agreement(with_student(good)) > agreement(alone)
    differences = []
    for seed in range(10):
        weights = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed)) / 10
        unfaithful = lambda frames: torch.einsum("bchw,kchw->bk", frames, weights).softmax(dim=1)  # noqa: B023, E731
        differences.append(agreement(with_student(unfaithful)) - agreement(alone))
    assert np.mean(differences) > -0.02
    assert min(differences) > -0.1


def test_a_read_out_that_agrees_helps_and_one_that_says_the_opposite_never_harms(images):
    options: dict[str, Any] = {"seeds": SEEDS[:1], "num_samples": 24}
    alone = gp_regression(Queries(black_box), images[:1], TARGET[:1], **options)[0]

    def started(start):
        return gp_regression(Queries(black_box), images[:1], TARGET[:1], start=start, prior="readout", **options)[0]

    inside = torch.zeros(1, 32, 48)
    inside[0, 8:20, 20:36] = 1
    assert agreement(started(inside)) > agreement(alone) + 0.1
    assert agreement(started(-inside)) > agreement(alone) - 0.02
    assert torch.equal(started(torch.zeros(1, 5, 5)), alone)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_samples": 7},
        {"prior_samples": 7},
        {"num_segments": ()},
        {"num_segments": (1, 50)},
        {"compactness": 0.0},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GpRegressionOptions(**wrong)


def test_more_questions_leave_less_doubt_and_the_map_is_the_same_with_it(images):
    options: dict[str, Any] = {"seeds": SEEDS, "num_samples": 40}
    maps, few = gp_regression_with_std(Queries(black_box), images, TARGET, **options)
    assert torch.equal(maps, gp_regression(Queries(black_box), images, TARGET, **options))
    options["num_samples"] = 400
    _, many = gp_regression_with_std(Queries(black_box), images, TARGET, **options)
    assert few.shape == maps.shape
    assert bool((few > 0).all())
    assert bool((many.mean(dim=(1, 2)) < few.mean(dim=(1, 2))).all())


def test_a_settled_ranking_asks_no_more_and_is_the_map_of_what_was_asked(images):
    options: dict[str, Any] = {"seeds": SEEDS[:1]}
    queries = Queries(black_box, batch_size=8)
    found = gp_regression(queries, images[:1], TARGET[:1], num_samples=1000, settled=0.8, **options)
    used = queries.used[0]
    assert used in (64, 128, 256, 512)
    assert len(queries.responses[0]) == used, "nothing is asked beyond"
    same = gp_regression(Queries(black_box), images[:1], TARGET[:1], num_samples=used, **options)
    assert torch.equal(found, same)
    never = Queries(black_box)
    gp_regression(never, images[:1], TARGET[:1], num_samples=100, settled=1.0, **options)
    assert never.used[0] == 100
