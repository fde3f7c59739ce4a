import pytest
import torch
from tiny_nets import noise, slow_cams, slow_min_max, slow_upsample, tiny_net

from explain.methods.white_box.ml_grad_cam import ml_grad_cam


@pytest.mark.parametrize("normalise", ["none", "min_max"])
@pytest.mark.parametrize(
    ("names", "layers"), [(("layer2", "layer3", "layer4"), [2, 3, 4]), (("layer4", "layer1"), [4, 1])]
)
def test_equals_a_slow_derivation_in_any_order_of_layers(names, layers, normalise):
    net, images, target = tiny_net(), noise(2), torch.tensor([3, 1])
    maps = ml_grad_cam(net, images, target, target_layers=names, normalise=normalise)
    for i in range(2):
        expected = torch.zeros(48, 80)
        for cam in slow_cams(net, images[i], int(target[i]), layers):
            expected += slow_upsample(slow_min_max(cam) if normalise == "min_max" else cam, 48, 80)
        torch.testing.assert_close(maps[i], expected, atol=1e-5, rtol=1e-5)


def test_takes_the_probability_as_class_score():
    net, images = tiny_net(), noise(1)
    saliency = ml_grad_cam(net, images, torch.tensor([2]), class_score="probability", normalise="none")[0]
    cams = slow_cams(net, images[0], 2, [2, 3, 4], probability=True)
    expected = torch.stack([slow_upsample(cam, 48, 80) for cam in cams]).sum(dim=0)
    torch.testing.assert_close(saliency, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalise", ["none", "min_max"])
def test_one_image_alone_equals_itself_in_a_batch(normalise):
    net, images, target = (
        tiny_net(),
        noise(4) * torch.tensor([1.0, 0.1, 10.0, 3.0]).view(4, 1, 1, 1),
        torch.tensor([0, 1, 2, 3]),
    )
    together = ml_grad_cam(net, images, target, normalise=normalise)
    for i in range(4):
        alone = ml_grad_cam(net, images[i : i + 1], target[i : i + 1], normalise=normalise)
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [(), ("layer2", "layer2")])
def test_refuses_no_layers_and_repeated_layers(layers):
    with pytest.raises(ValueError, match="at least one layer, each once"):
        ml_grad_cam(tiny_net(), noise(1), torch.tensor([0]), target_layers=layers)
