import pytest
import torch
from tiny_nets import noise, tiny_net

from explain.methods.white_box.mal_grad_cam import mal_grad_cam, softmax_over_pixels
from explain.methods.white_box.matt import matt
from explain.methods.white_box.ml_grad_cam import ml_grad_cam

TARGET = torch.tensor([2, 0, 4])


def slow_softmax(raw):
    shares = [torch.exp(one.double() - one.double().max()) for one in raw]
    return torch.stack([one / one.sum() for one in shares]).float()


def test_is_the_softmax_of_the_product():
    net, images = tiny_net(), noise(3)
    raw = matt(net, images, TARGET) * ml_grad_cam(net, images, TARGET)
    maps = mal_grad_cam(net, images, TARGET, normalisation="softmax")
    torch.testing.assert_close(maps, slow_softmax(raw), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(3))
    torch.testing.assert_close(mal_grad_cam(net, images, TARGET, normalisation="none"), raw, atol=1e-5, rtol=1e-5)


def test_passes_every_option_on():
    net, images = tiny_net(), noise(3)
    attention = matt(net, images, TARGET, sign="negative", collapse="mean", normalise="min_max")
    layers = {"target_layers": ("layer1", "layer4"), "class_score": "probability"}
    cams = ml_grad_cam(net, images, TARGET, normalise="min_max", **layers)
    maps = mal_grad_cam(
        net,
        images,
        TARGET,
        **layers,
        normalise_cams="min_max",
        sign="negative",
        collapse="mean",
        normalise_attention="min_max",
        normalisation="none",
    )
    torch.testing.assert_close(maps, attention * cams, atol=1e-5, rtol=1e-5)


def test_needs_one_forward_pass():
    net = tiny_net()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    mal_grad_cam(net, noise(2), TARGET[:2])
    assert len(calls) == 1


def test_one_image_alone_equals_itself_in_a_batch():
    net, images = tiny_net(), noise(3) * torch.tensor([1.0, 5.0, 0.2]).view(3, 1, 1, 1)
    together = mal_grad_cam(net, images, TARGET, normalisation="none")
    for i in range(3):
        alone = mal_grad_cam(net, images[i : i + 1], TARGET[i : i + 1], normalisation="none")
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


def test_softmax_keeps_the_ranking_where_float32_would_not():
    raw = torch.arange(90.0).view(1, 9, 10)
    shares = softmax_over_pixels(raw)
    assert torch.equal(shares.flatten().argsort(), torch.arange(90))
    assert shares.flatten().unique().numel() == 90


def test_softmax_ties_at_zero_what_lies_far_below_and_none_does_not():
    shares = softmax_over_pixels(torch.tensor([[[0.0, -200.0], [-300.0, -400.0]]]))
    assert shares.flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("value", [0.0, -1e6])
def test_softmax_of_a_constant_map_is_uniform(value):
    shares = softmax_over_pixels(torch.full((2, 3, 5), value))
    torch.testing.assert_close(shares, torch.full((2, 3, 5), 1 / 15))
