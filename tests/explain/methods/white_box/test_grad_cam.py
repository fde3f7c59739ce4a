import captum.attr
import pytest
import torch
import torch.nn.functional as F
from tiny_nets import noise, slow_cams, slow_upsample, tiny_net
from torch import nn

from explain.methods.white_box.grad_cam import grad_cam


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
@pytest.mark.parametrize("class_score", ["logit", "probability"])
def test_equals_a_slow_derivation_behind_in_place_operations(layer, class_score):
    net, images, target = tiny_net(), noise(3), torch.tensor([0, 3, 4])
    maps = grad_cam(net, images, target, target_layer=f"layer{layer}", class_score=class_score)
    for i in range(3):
        cams = slow_cams(net, images[i], int(target[i]), [layer], probability=class_score == "probability")
        torch.testing.assert_close(maps[i], slow_upsample(cams[0], 48, 80), atol=1e-5, rtol=1e-5)
    assert maps.max() > 1e-3


def test_equals_captum():
    net, images, target = tiny_net(), noise(4), torch.tensor([1, 2, 0, 4])
    net.overwrites = False  # captum keeps what the next operation overwrites
    maps = grad_cam(net, images, target, target_layer="layer3")
    other = captum.attr.LayerGradCam(net, net.get_submodule("layer3"))
    cams = other.attribute(images.requires_grad_(), target=target, relu_attributions=True)
    assert isinstance(cams, torch.Tensor)
    expected = F.interpolate(cams.detach(), size=(48, 80), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-5)


def test_one_image_alone_equals_itself_in_a_batch():
    net, images, target = tiny_net(), noise(5), torch.tensor([4, 3, 2, 1, 0])
    together = grad_cam(net, images, target)
    for i in range(5):
        torch.testing.assert_close(grad_cam(net, images[i : i + 1], target[i : i + 1])[0], together[i])


def test_leaves_the_model_as_it_was():
    net, images = tiny_net(), noise(2)
    before = net(images)
    grad_cam(net, images, torch.tensor([0, 1]))
    torch.testing.assert_close(net(images), before, atol=0, rtol=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in net.parameters())


def test_takes_a_trainable_model_without_touching_its_gradients():
    net, images, target = tiny_net(), noise(2), torch.tensor([0, 1])
    expected = grad_cam(net, images, target, target_layer="layer2")
    net.requires_grad_(True)
    torch.testing.assert_close(grad_cam(net, images, target, target_layer="layer2"), expected)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_backward_stops_at_the_layer():
    net = tiny_net()
    seen = []
    for i in range(4):
        block = net.get_submodule(f"layer{i + 1}.0")
        block.register_forward_hook(lambda *call, layer=i + 1: seen.append((layer, call[-1].requires_grad)))
    grad_cam(net, noise(1), torch.tensor([0]), target_layer="layer2")
    assert seen == [(1, False), (2, False), (3, True), (4, True)]


class SquareNet(nn.Module):
    """Class 1 is how much brightness there is, class 0 how little."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.AvgPool2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = F.relu(self.layer4(images)).mean(dim=(1, 2, 3))
        return torch.stack([-bright, bright], dim=1)


def test_finds_a_planted_square():
    images = torch.full((1, 3, 40, 64), -1.0)
    images[:, :, 24:32, 40:52] = 1.0
    saliency = grad_cam(SquareNet().eval(), images, torch.tensor([1]))[0]
    inside = saliency[24:32, 40:52]
    assert inside.sum() > 0.6 * saliency.sum()
    assert (saliency.argmax() // 64).item() in range(24, 32)
    assert (saliency.argmax() % 64).item() in range(40, 52)
    assert saliency[:20].max() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"target_layer": "layer5"}, "'layer5' is not in the model; layers: layer1, layer2, layer3, layer4"),
        ({"target_layer": ""}, "is not in the model"),
        ({"target_layer": "fc"}, "feature maps"),
        ({"target": torch.tensor([5])}, r"classes: 0\.\.4"),
        ({"target": torch.tensor([-1])}, r"classes: 0\.\.4"),
    ],
)
def test_says_what_is_wrong(call, message):
    arguments = {"target": torch.tensor([0]), **call}
    with pytest.raises(ValueError, match=message):
        grad_cam(tiny_net(), noise(1), **arguments)


def test_refuses_a_model_in_training_mode():
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        grad_cam(tiny_net().train(), noise(1), torch.tensor([0]))
