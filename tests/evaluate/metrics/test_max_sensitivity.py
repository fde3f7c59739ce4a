"""Max-sensitivity against a plain loop and against Captum on the same changed images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluate.games.baselines import image_rng
from evaluate.metrics.max_sensitivity import max_sensitivity, perturbed

IMAGE = np.random.default_rng(0).random((9, 13, 3), dtype=np.float32)


def edges(frames: np.ndarray) -> np.ndarray:
    """Explain by something that is not linear: the squared difference to the pixel beside, of each color."""
    return (np.diff(frames, axis=2) ** 2).sum(axis=3)


def test_changed_images_stay_in_the_ball_and_follow_from_the_image() -> None:
    found = perturbed(IMAGE, radius=0.02, num=40, rng=image_rng(0, "a"))
    moves = found - IMAGE
    assert found.shape == (40, 9, 13, 3)
    assert found.dtype == np.float32
    assert 0.0199 < np.abs(moves).max() <= 0.0200001
    assert moves.std() == pytest.approx(0.02 / 3**0.5, rel=0.02)
    assert np.array_equal(found, perturbed(IMAGE, radius=0.02, num=40, rng=image_rng(0, "a")))
    assert not np.array_equal(found, perturbed(IMAGE, radius=0.02, num=40, rng=image_rng(0, "b")))


def test_it_is_the_largest_of_a_plain_loop() -> None:
    others = perturbed(IMAGE, radius=0.05, num=7, rng=image_rng(0, "a"))
    here = edges(IMAGE[None])[0]
    distances = [float(((edges(other[None])[0] - here) ** 2).sum() ** 0.5) for other in others]
    wanted = max(distances) / float((here**2).sum() ** 0.5)
    found = max_sensitivity(edges, IMAGE, radius=0.05, num=7, rng=image_rng(0, "a"))
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_it_is_captums() -> None:
    metrics = pytest.importorskip("captum.metrics", reason="captum is not installed", exc_type=ImportError)
    others = torch.from_numpy(perturbed(IMAGE, radius=0.02, num=10, rng=image_rng(0, "a")))
    wanted = metrics.sensitivity_max(
        lambda x: (torch.from_numpy(edges((x[0] if isinstance(x, tuple) else x).numpy())),),
        torch.from_numpy(IMAGE)[None],
        perturb_func=lambda x, _: others,
        n_perturb_samples=10,
    )
    found = max_sensitivity(edges, IMAGE, rng=image_rng(0, "a"))
    assert found == pytest.approx(float(wanted), rel=1e-4)


def test_a_map_that_stays_and_one_that_jumps() -> None:
    def same(frames: np.ndarray) -> np.ndarray:
        return np.ones(frames.shape[:3])

    def jumps(frames: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(frames)) == 4, 3.0, 1.0)[:, None, None] * same(frames)

    assert max_sensitivity(same, IMAGE, rng=image_rng(0, "a")) == 0
    assert max_sensitivity(jumps, IMAGE, rng=image_rng(0, "a")) == pytest.approx(2)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_map_without_a_size_has_none(value: float) -> None:
    found = max_sensitivity(lambda frames: np.full(frames.shape[:3], value), IMAGE, rng=image_rng(0, "a"))
    assert np.isnan(found)


@pytest.mark.parametrize("change", [SimpleNamespace(radius=0.0, num=3), SimpleNamespace(radius=0.1, num=0)])
def test_settings_that_change_nothing_are_refused(change: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="radius above 0"):
        perturbed(IMAGE, rng=image_rng(0, "a"), **vars(change))
