"""HiResCAM: its formula by hand, the grad-cam package, CAM at the last layer, a square that is planted."""

from typing import Any

import pytest
import pytorch_grad_cam as peers
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from tiny_nets import TinyNet, noise, slow_upsample, tiny_net
from torch import nn
from torchvision.models import resnet18

from explain.methods.white_box.cam import cam
from explain.methods.white_box.hires_cam import hires_cam

TARGET = torch.tensor([3, 0, 4])


@pytest.mark.parametrize("class_score", ["logit", "probability"])
def test_equals_the_formula_done_by_hand(class_score):
    net, images = tiny_net(), noise(1)
    twin = TinyNet(5, overwrites=False)
    twin.load_state_dict(net.state_dict())
    kept: list[torch.Tensor] = []
    last = twin.eval().features(images, kept)[-1]
    kept[2].retain_grad()
    logits = twin.fc(last.mean(dim=(2, 3)))
    (logits if class_score == "logit" else logits.softmax(dim=1))[0, 3].backward()
    activation, gradient = kept[2][0].detach(), kept[2].grad
    assert gradient is not None
    plain = torch.zeros(activation.shape[1:])
    for y in range(plain.shape[0]):
        for x in range(plain.shape[1]):
            plain[y, x] = sum(float(gradient[0, k, y, x] * activation[k, y, x]) for k in range(len(activation)))
    found = hires_cam(net, images, TARGET[:1], class_score=class_score)[0]
    torch.testing.assert_close(found, slow_upsample(plain, *found.shape), atol=1e-6, rtol=1e-4)
    assert found.min() < 0 < found.max()


@pytest.mark.parametrize("layer", ["layer2", "layer4"])
def test_equals_the_grad_cam_package_before_its_relu(layer):
    net, images = tiny_net(), noise(3)
    net.overwrites = False
    module = net.get_submodule(layer)
    peer = peers.HiResCAM(model=net, target_layers=[module])
    targets: Any = [ClassifierOutputTarget(int(t)) for t in TARGET]
    peer(input_tensor=images.clone().requires_grad_(), targets=targets)
    kept = peer.activations_and_grads
    (activation,), (gradient,) = ([t.detach().numpy() for t in some] for some in (kept.activations, kept.gradients))
    maps = torch.from_numpy(peer.get_cam_image(images, module, targets, activation, gradient, False)).float()
    kept.release()
    enlarged = F.interpolate(maps[:, None], size=(48, 80), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(hires_cam(net, images, TARGET, target_layer=layer), enlarged, atol=1e-5, rtol=1e-4)
    assert enlarged.abs().max() > 1e-3


def test_is_cam_at_the_last_layer():
    torch.manual_seed(0)
    net = resnet18(num_classes=5).eval().requires_grad_(False)
    images, places = noise(3, 64, 96), 2 * 3
    found = hires_cam(net, images, TARGET, target_layer="layer4")
    torch.testing.assert_close(found * places, cam(net, images, TARGET), atol=1e-5, rtol=1e-4)
    assert found.min() < 0 < found.max()


def test_one_image_alone_equals_itself_in_a_batch():
    net, images = tiny_net(), noise(3)
    together = hires_cam(net, images, TARGET)
    for i in range(3):
        torch.testing.assert_close(hires_cam(net, images[i : i + 1], TARGET[i : i + 1])[0], together[i])


def test_a_planted_square_is_found_and_adds_up_to_the_logit():
    conv, linear = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Linear(4, 5)
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.abs())
    images = torch.zeros(1, 3, 24, 40)
    images[:, :, 6:14, 20:30] = 1
    found = hires_cam(net.eval(), images, TARGET[:1], target_layer="1")[0]
    assert found[6:14, 20:30].min() > 0
    assert found[:4].abs().max() == found[:, :18].abs().max() == 0
    torch.testing.assert_close(found.sum(), (net(images) - linear.bias)[0, 3].detach())
