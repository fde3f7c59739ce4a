"""MASK: its objective by hand, what it must find, and that an image's mask is its own."""

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import nn

from explain.methods.options import MaskOptions
from explain.methods.white_box.mask import mask, perturbed, unevenness


class Square(nn.Module):
    """Two classes: how bright a square of a 32 x 48 image is."""

    def forward(self, images):
        bright = images[:, :, 8:20, 20:36].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(bright), 6 * bright - 3], dim=1)


@pytest.fixture
def images():
    made = 0.05 * torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    made[:, :, 8:20, 20:36] += 1
    return made


TARGET = torch.tensor([1, 1])


@pytest.mark.parametrize("perturbation", ["constant", "noise", "blur"])
def test_the_square_is_found(images, perturbation):
    found = mask(
        Square().eval(),
        images,
        TARGET,
        seeds=[1, 2],
        perturbation=perturbation,
        num_iterations=120,
        mask_size=12,
        l1=0.3,
    )
    inside = torch.zeros(32, 48, dtype=torch.bool)
    inside[8:20, 20:36] = True
    assert (found[:, inside].mean(dim=1) > 3 * found[:, ~inside].mean(dim=1)).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.shape == (2, 32, 48)


def test_the_objective_falls(images):
    net = Square().eval()

    def objective(saliency):
        shown = 1 - saliency[:, None]
        probs = net(shown * images).softmax(dim=1)[:, 1]
        return float((probs + 0.3 * saliency.mean(dim=(1, 2))).mean())

    found = mask(net, images, TARGET, seeds=[1, 2], perturbation="constant", l1=0.3, num_iterations=100, mask_size=12)
    assert objective(found) < objective(torch.zeros_like(found)) - 0.3


def test_one_step_follows_the_written_gradient(images):
    """After one step of Adam every cell has moved by the learning rate against its gradient's sign, down from one."""
    net, cells = Square().eval(), torch.ones(2, 8, 8, requires_grad=True)
    shown = F.interpolate(cells[:, None], size=(32, 48), mode="bilinear", align_corners=False)
    value = net(shown * images).softmax(dim=1)[:, 1].sum() + 0.01 * (1 - cells).mean(dim=(1, 2)).sum()
    (gradient,) = torch.autograd.grad(value, cells)
    cells = (1 - 0.1 * gradient.sign()).clamp(0, 1)
    plain = F.interpolate(1 - cells[:, None], size=(32, 48), mode="bilinear", align_corners=False)[:, 0]
    options = {"num_iterations": 1, "mask_size": 8, "jitter": 0.0}
    found = mask(net, images, TARGET, seeds=[1, 2], perturbation="constant", **options)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)


def test_unevenness_is_the_total_variation_by_hand():
    cells = torch.tensor([[[0.0, 0.5], [1.0, 1.0]]])
    assert unevenness(cells, 3.0).item() == pytest.approx((1 + 0.125) / 2 + (0.125 + 0) / 2)


def test_blur_is_scipys_away_from_the_borders():
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain = gaussian_filter(images[0, 1].numpy(), 10 / 224 * 64, truncate=8)
    found = perturbed(images, "blur", [])[0, 1]
    torch.testing.assert_close(found[24:40, 24:40], torch.from_numpy(plain)[24:40, 24:40], atol=1e-4, rtol=1e-3)


def test_one_image_alone_equals_itself_in_a_batch(images):
    net = Square().eval()
    together = mask(net, images, TARGET, seeds=[1, 2], num_iterations=20, perturbation="noise")
    alone = mask(net, images[1:], TARGET[1:], seeds=[2], num_iterations=20, perturbation="noise")
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"num_iterations": 0}, {"mask_size": 1}, {"l1": -1.0}, {"beta": 0.5}, {"jitter": 0.5}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskOptions(**wrong)
