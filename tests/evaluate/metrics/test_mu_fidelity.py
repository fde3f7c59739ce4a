"""Mu-fidelity: subsets and sums done pixel by pixel, Pearson's by SciPy, the whole against Quantus."""

import numpy as np
import pytest
import torch
from scipy import stats

from evaluate.games.baselines import image_rng
from evaluate.metrics.mu_fidelity import draw_subsets, mu_fidelity, subset_frames, subset_sums

SIZE = (22, 37)


def draw(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed))


def test_subsets_have_their_size_and_follow_from_the_image() -> None:
    subsets = draw_subsets(image_rng(0, "a"))
    assert subsets.shape == (128, 14, 14)
    assert set(subsets.sum(axis=(1, 2))) == {39}  # 20 % of 196
    assert np.array_equal(subsets, draw_subsets(image_rng(0, "a")))
    assert not np.array_equal(subsets, draw_subsets(image_rng(0, "b")))
    assert not np.array_equal(subsets, draw_subsets(image_rng(1, "a")))
    often = draw_subsets(image_rng(0, "c"), grid=3, share=1 / 3, num=9000).mean(axis=0)
    assert often == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_subset_is_never_empty_or_everything(share: float) -> None:
    sizes = draw_subsets(image_rng(0, "a"), grid=3, share=share, num=4).sum(axis=(1, 2))
    assert set(sizes) <= {1, 8}


@pytest.mark.parametrize("change", [{"grid": 1}, {"share": 0.0}, {"share": 1.0}, {"num": 1}])
def test_settings_without_subsets_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="give grid >= 2"):
        draw_subsets(image_rng(0, "a"), **change)


def test_frames_and_sums_are_those_of_a_plain_loop() -> None:
    image, baseline = draw(), torch.zeros(3, *SIZE)
    subsets = draw_subsets(image_rng(0, "a"), grid=5, num=6)
    saliency = torch.randn(SIZE, generator=torch.Generator().manual_seed(4))
    frames, sums = subset_frames(image, subsets, baseline=baseline), subset_sums(saliency, subsets, SIZE)
    for subset, frame, total in zip(subsets, frames, sums, strict=True):
        plain, plain_sum = image.clone(), 0.0
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                if subset[int(y * 5 / SIZE[0]), int(x * 5 / SIZE[1])]:
                    plain[:, y, x] = 0
                    plain_sum += float(saliency[y, x])
        assert torch.equal(frame, plain)
        assert total == pytest.approx(plain_sum, abs=1e-4)


def test_a_small_map_is_scaled_up_before_it_is_summed() -> None:
    saliency = torch.rand(7, 7, generator=torch.Generator().manual_seed(4))
    full = torch.nn.functional.interpolate(saliency[None, None], SIZE, mode="bilinear")[0, 0]
    subsets = draw_subsets(image_rng(0, "a"), grid=5, num=6)
    assert subset_sums(saliency, subsets, SIZE) == pytest.approx(subset_sums(full, subsets, SIZE), rel=1e-5)


def test_the_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    sums, drops = rng.normal(size=50), rng.normal(size=50)
    wanted = stats.pearsonr(sums, drops)
    assert mu_fidelity(sums, drops) == pytest.approx(float(wanted[0]))  # pyright: ignore[reportArgumentType]
    assert mu_fidelity(3 * sums + 2, sums) == pytest.approx(1)
    assert mu_fidelity(-sums, sums) == pytest.approx(-1)


@pytest.mark.parametrize("constant", [np.zeros(8), np.full(8, 0.3), 0.1 + 1e-16 * np.arange(8)])
def test_a_constant_side_has_no_correlation(constant: np.ndarray) -> None:
    other = np.random.default_rng(0).normal(size=8)
    assert np.isnan(mu_fidelity(constant, other))
    assert np.isnan(mu_fidelity(other, constant))


def test_a_constant_map_has_none_although_its_sums_round() -> None:
    subsets = draw_subsets(image_rng(0, "a"), grid=11)  # cells of one size
    sums = subset_sums(torch.full(SIZE, 0.1), subsets, (22, 33))
    assert np.isnan(mu_fidelity(sums, np.random.default_rng(0).normal(size=128)))


def test_a_linear_black_box_is_explained_by_its_weights() -> None:
    image, weights = draw(), torch.rand(SIZE, generator=torch.Generator().manual_seed(5))
    subsets = draw_subsets(image_rng(0, "a"), grid=5)
    frames = subset_frames(image, subsets, baseline=torch.zeros_like(image))
    drops = ((image - frames).sum(dim=1) * weights).sum(dim=(1, 2)).numpy()
    truth = image.sum(dim=0) * weights
    assert mu_fidelity(subset_sums(truth, subsets, SIZE), drops) == pytest.approx(1, abs=1e-6)
    assert mu_fidelity(subset_sums(-truth, subsets, SIZE), drops) == pytest.approx(-1, abs=1e-6)


class Net(torch.nn.Module):
    """Two classes by a fixed picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.linspace(-1, 1, 196).view(1, 1, 14, 14)
        score = torch.tanh((x * weights).sum(dim=(1, 2, 3)) / 5)
        return torch.stack([score, -score], dim=1)


@pytest.mark.filterwarnings("ignore")
def test_it_is_quantus_faithfulness_correlation_on_grey_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantus draws single values, so of a colored pixel mostly one color goes; on one channel both draw pixels."""
    quantus = pytest.importorskip("quantus", reason="quantus is not installed", exc_type=ImportError)
    image = torch.randn(1, 14, 14, generator=torch.Generator().manual_seed(6))
    saliency = torch.randn(14, 14, generator=torch.Generator().manual_seed(7))
    subsets = draw_subsets(image_rng(0, "a"), num=16)
    indices = iter([np.flatnonzero(subset) for subset in subsets])
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=16, subset_size=39, perturb_baseline=0.0, abs=False, normalise=False, disable_warnings=True
    )
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(indices))
    x, y, a = image[None].numpy(), np.array([0]), saliency[None, None].numpy()
    wanted = metric(model=Net().eval(), x_batch=x, y_batch=y, a_batch=a, softmax=True, channel_first=True)
    frames = subset_frames(image, subsets, baseline=torch.zeros_like(image))
    probs = torch.softmax(Net()(torch.cat([image[None], frames])), dim=1)[:, 0].numpy()
    found = mu_fidelity(subset_sums(saliency, subsets, (14, 14)), probs[0] - probs[1:])
    assert found == pytest.approx(float(wanted[0]), abs=1e-5)
