"""ROAD and its infilling against a plain dense solve, pytorch-grad-cam and Quantus, and what must hold anyway."""

from typing import Any

import numpy as np
import pytest
import torch

from distill.perturb.curves import rank_pixels
from distill.perturb.imputation import around, linear_imputation
from evaluate.games.baselines import image_rng
from evaluate.metrics.road import removed_masks, road, road_frames

WEIGHTS = {1: 1 / 6, 2: 1 / 12}  # by the distance |dy| + |dx|, the diagonal at 2


def draw(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))


def scattered(height: int, width: int, share: float, seed: int = 1) -> torch.Tensor:
    removed = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    removed[0, 0] = False
    return removed


def hole(height: int, width: int, share: float) -> torch.Tensor:
    """Remove all but a strip on the left: the hardest case for a solver that looks at neighbors only."""
    return (torch.arange(width) >= width * (1 - share)).expand(height, width).clone()


def slow_infill(image: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """Write every removed pixel's equation down and solve the dense system."""
    height, width = removed.shape
    place = {tuple(p): k for k, p in enumerate(removed.nonzero().tolist())}
    left, right = np.zeros((len(place), len(place))), np.zeros((len(place), len(image)))
    for (y, x), k in place.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                other = (y + dy, x + dx)
                if (dy, dx) == (0, 0) or not (0 <= other[0] < height and 0 <= other[1] < width):
                    continue
                weight = WEIGHTS[abs(dy) + abs(dx)]
                left[k, k] += weight
                if other in place:
                    left[k, place[other]] -= weight
                else:
                    right[k] += weight * image[:, other[0], other[1]].numpy()
    found, out = np.linalg.solve(left, right), image.clone()
    for (y, x), k in place.items():
        out[:, y, x] = torch.from_numpy(found[k])
    return out


@pytest.mark.parametrize(("height", "width"), [(16, 24), (23, 17), (5, 9), (3, 2), (1, 8)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_infill_solves_the_plain_equations(height: int, width: int, share: float) -> None:
    image = draw(height, width)
    for removed in (scattered(height, width, share), hole(height, width, share)):
        found = linear_imputation(image, removed[None])[0]
        assert found.shape == image.shape
        torch.testing.assert_close(found, slow_infill(image, removed), atol=1e-3, rtol=0)
        assert torch.equal(found[:, ~removed], image[:, ~removed])


@pytest.mark.parametrize("kind", ["map", "scattered", "hole"])
def test_infill_at_full_size_leaves_no_residual(kind: str) -> None:
    image, size = draw(224, 224), (224, 224)
    ranks = rank_pixels(torch.rand(14, 14, generator=torch.Generator().manual_seed(2)), size).ranks
    masks = {"map": removed_masks(ranks, (90,))[0], "scattered": scattered(*size, 0.9), "hole": hole(*size, 0.9)}
    removed = masks[kind]
    found = linear_imputation(image, removed[None])[0].double()
    sums = around(torch.ones(1, *size, dtype=torch.float64))
    residual = (sums * found - around(found))[:, removed]
    assert residual.abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_infill_is_pytorch_grad_cams_without_noise() -> None:
    reason = "grad-cam is not installed"
    metrics = pytest.importorskip("pytorch_grad_cam.metrics.road", reason=reason, exc_type=ImportError)
    image, removed = draw(48, 64), scattered(48, 64, 0.7)
    wanted = metrics.NoisyLinearImputer(noise=0)(image, (~removed).float())
    torch.testing.assert_close(linear_imputation(image, removed[None])[0], wanted, atol=1e-3, rtol=0)


def test_infill_extends_a_plane_and_keeps_a_constant() -> None:
    """Inside the image a plane is the mean of its neighbors, so it comes back where only its border is known."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    plane = torch.stack([x / 30, y / 20, (x - y) / 30])
    removed = torch.zeros(20, 30, dtype=torch.bool)
    removed[1:-1, 1:-1] = True
    torch.testing.assert_close(linear_imputation(plane, removed[None])[0], plane, atol=1e-3, rtol=0)
    constant = torch.full((3, 20, 30), 0.7)
    torch.testing.assert_close(linear_imputation(constant, removed[None])[0], constant, atol=1e-3, rtol=0)


def test_masks_in_one_call_are_filled_as_alone() -> None:
    image = draw(30, 40)
    masks = torch.stack([scattered(30, 40, 0.3), hole(30, 40, 0.9), torch.zeros(30, 40, dtype=torch.bool)])
    together = linear_imputation(image, masks)
    for k, mask in enumerate(masks):
        torch.testing.assert_close(together[k], linear_imputation(image, mask[None])[0], atol=2e-4, rtol=0)
    assert torch.equal(together[2], image)


def test_an_image_without_any_kept_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="keep at least one pixel"):
        linear_imputation(draw(4, 4), torch.ones(1, 4, 4, dtype=torch.bool))


def test_masks_take_the_most_and_the_least_relevant() -> None:
    ranks = torch.randperm(70, generator=torch.Generator().manual_seed(0)).view(7, 10)
    masks = removed_masks(ranks, (10, 50))
    assert masks.sum(dim=(1, 2)).tolist() == [7, 35, 7, 35]
    assert sorted(ranks[masks[0]].tolist()) == list(range(7))
    assert sorted(ranks[masks[2]].tolist()) == list(range(63, 70))
    assert torch.equal(masks[1], ~masks[3])


@pytest.mark.parametrize("percentages", [(), (0,), (100,), (10, 101)])
def test_percentages_that_remove_nothing_or_everything_are_refused(percentages: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="above 0 and below 100"):
        removed_masks(torch.arange(6).view(2, 3), percentages)


def test_frames_are_the_infilled_images_and_noise_on_what_was_removed() -> None:
    image, ranks = draw(40, 56), torch.randperm(40 * 56, generator=torch.Generator().manual_seed(3)).view(40, 56)
    options: dict[str, Any] = {"percentages": (20, 80)}
    frames = road_frames(image, ranks, rng=image_rng(0, "a"), **options)
    quiet = road_frames(image, ranks, rng=image_rng(0, "a"), noise=0, **options)
    masks = removed_masks(ranks, (20, 80))
    assert frames.shape == (4, 3, 40, 56)
    for frame, plain, mask in zip(frames, quiet, masks, strict=True):
        assert torch.equal(frame[:, ~mask], image[:, ~mask])
        torch.testing.assert_close(plain, linear_imputation(image, mask[None])[0])
        assert (frame - plain)[:, mask].std() == pytest.approx(0.01, rel=0.1)
    assert torch.equal(frames, road_frames(image, ranks, rng=image_rng(0, "a"), **options))
    assert not torch.equal(frames, road_frames(image, ranks, rng=image_rng(0, "b"), **options))


def test_road_is_the_mean_of_each_direction_and_half_their_difference() -> None:
    found = road([0.1, 0.3, 0.9, 0.5])
    assert (found.morf, found.lerf) == pytest.approx((0.2, 0.7))
    assert found.gap == pytest.approx(0.25)
    assert road([0.4] * 6).gap == 0


def test_a_map_that_finds_the_square_beats_one_that_does_not() -> None:
    """The score is what is left of a bright square, which infilling cannot make up."""
    image = torch.zeros(3, 32, 48)
    image[:, 8:16, 20:32] = 3
    truth = image[0]
    gaps = {}
    for name, saliency in {"finds": truth, "misses": -truth, "constant": torch.zeros_like(truth)}.items():
        ranks = rank_pixels(saliency, (32, 48)).ranks
        frames = road_frames(image, ranks, percentages=(10, 30, 50), rng=image_rng(0, "x"))
        gaps[name] = road(frames[:, :, 8:16, 20:32].mean(dim=(1, 2, 3)).numpy() / 3).gap
    assert gaps["finds"] > 0.4
    assert gaps["misses"] < -0.4
    assert abs(gaps["constant"]) < 0.1
