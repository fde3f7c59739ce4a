"""CAM, Grad-CAM, Grad-CAM++, LayerCAM and Score-CAM against the grad-cam package before its scaling; integrated
gradients against Captum; edges by hand."""

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam as peers
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.ndimage import gaussian_filter, sobel
from tiny_nets import noise, tiny_net
from torchvision.models import resnet18

from explain.methods.control.edges import edges
from explain.methods.white_box.cam import cam
from explain.methods.white_box.grad_cam import grad_cam
from explain.methods.white_box.grad_cam_pp import grad_cam_pp
from explain.methods.white_box.integrated_gradients import integrated_gradients
from explain.methods.white_box.layer_cam import layer_cam
from explain.methods.white_box.score_cam import score_cam

TARGET = torch.tensor([3, 0])
CAMS = {"grad_cam": grad_cam, "grad_cam_pp": grad_cam_pp, "layer_cam": layer_cam}
PEERS = {"grad_cam": peers.GradCAM, "grad_cam_pp": peers.GradCAMPlusPlus, "layer_cam": peers.LayerCAM}


def network():
    """A torchvision ResNet of five classes whose batch norms have seen something, so that its maps are alive."""
    torch.manual_seed(0)
    net = resnet18(num_classes=5)
    with torch.no_grad():
        net.train()(noise(8, 64, 96))
        net.fc.weight.mul_(20)
    return net.eval().requires_grad_(False)


def peer_maps(name, net, images, layer):
    """Return the package's maps at the layer's own size, before ReLU and scaling."""
    peer = PEERS[name](model=net, target_layers=[net.get_submodule(layer)])
    targets = [ClassifierOutputTarget(int(t)) for t in TARGET]
    peer(input_tensor=images.clone().requires_grad_(), targets=targets)
    (activation,), (gradient,) = (
        [t.detach().numpy() for t in kept]
        for kept in (peer.activations_and_grads.activations, peer.activations_and_grads.gradients)
    )
    maps = peer.get_cam_image(images, net.get_submodule(layer), targets, activation, gradient, False)
    peer.activations_and_grads.release()
    return torch.from_numpy(np.asarray(maps)).float()


def enlarge(maps, size=(64, 96)):
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize("layer", ["layer2", "layer4"])
@pytest.mark.parametrize("name", CAMS)
def test_equals_the_grad_cam_package(name, layer):
    net, images = network(), noise(2, 64, 96)
    maps = CAMS[name](net, images, TARGET, target_layer=layer)
    torch.testing.assert_close(maps, enlarge(F.relu(peer_maps(name, net, images, layer))), atol=1e-5, rtol=1e-4)
    assert maps.max() > 1e-3


def test_cam_is_grad_cam_of_the_last_layer_up_to_the_number_of_places():
    net, images = network(), noise(2, 64, 96)
    places = 2 * 3
    small = cam(net, images, TARGET)[:, 16::32, 16::32]  # where up-sampling lies between four places it mixes signs
    assert small.min() < 0 < small.max()
    with torch.no_grad():
        activation = torch.nn.Sequential(*list(net.children())[:-2])(images)  # up to layer4
    signed = torch.einsum("bkhw,bk->bhw", activation, net.fc.weight[TARGET])
    torch.testing.assert_close(cam(net, images, TARGET), enlarge(signed), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(grad_cam(net, images, TARGET) * places, enlarge(F.relu(signed)), atol=1e-4, rtol=1e-4)


def test_cam_refuses_what_it_cannot_weigh():
    net, images = network(), noise(2, 64, 96)
    with pytest.raises(ValueError, match="128 channels, but classifier 'fc' weighs 512"):
        cam(net, images, TARGET, target_layer="layer2")
    with pytest.raises(ValueError, match="classifier 'layer1' is Sequential"):
        cam(net, images, TARGET, classifier="layer1")


def test_score_cam_equals_the_grad_cam_package(monkeypatch):
    """The package up-samples with corners aligned; the authors' code, and ours, between pixel centers."""
    net, images = tiny_net(), noise(2, 64, 96)
    net.overwrites = False
    between = lambda size: lambda maps: F.interpolate(maps, size=size, mode="bilinear", align_corners=False)  # noqa: E731
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", between)
    peer = peers.ScoreCAM(model=net, target_layers=[net.get_submodule("layer3")])
    targets = [ClassifierOutputTarget(int(t)) for t in TARGET]
    with torch.no_grad():
        kept: list[torch.Tensor] = []
        net.features(images, kept)
    weights = peer.get_cam_weights(images, net.layer3, targets, kept[2].numpy(), None)
    peer.activations_and_grads.release()
    plain = F.relu((torch.from_numpy(np.asarray(weights))[:, :, None, None] * kept[2]).sum(dim=1))
    maps = score_cam(net, images, TARGET, target_layer="layer3")
    torch.testing.assert_close(maps, enlarge(plain), atol=1e-5, rtol=1e-4)
    assert maps.max() > 1e-3


@pytest.mark.parametrize("class_score", ["logit", "probability"])
def test_integrated_gradients_equal_captum(class_score):
    net, images = tiny_net(), noise(2, 32, 48)
    net.overwrites = False
    score = net if class_score == "logit" else (lambda x: net(x).softmax(dim=1))
    peer = captum.attr.IntegratedGradients(score).attribute(images, target=TARGET, n_steps=20)
    maps = integrated_gradients(net, images, TARGET, num_steps=20, class_score=class_score)
    torch.testing.assert_close(maps, peer.sum(dim=1).float(), atol=1e-5, rtol=1e-4)


def test_integrated_gradients_add_up_to_the_score():
    net, images = tiny_net(), noise(2, 32, 48)
    with torch.no_grad():
        change = (net(images) - net(torch.zeros_like(images))).gather(1, TARGET[:, None])[:, 0]
    maps = integrated_gradients(net, images, TARGET, num_steps=200)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), change, atol=0.02 * float(change.abs().max()), rtol=0.02)


@pytest.mark.parametrize("method", [cam, grad_cam_pp, layer_cam, score_cam, integrated_gradients, edges])
def test_one_image_alone_equals_itself_in_a_batch(method):
    net, images, target = tiny_net(), noise(4), torch.tensor([4, 3, 2, 1])
    together = method(net, images, target)
    for i in range(4):
        torch.testing.assert_close(method(net, images[i : i + 1], target[i : i + 1])[0], together[i])
    assert all(parameter.grad is None for parameter in net.parameters())


def test_edges_are_scipys():
    images = noise(2, 40, 60)
    gray = images.mean(dim=1).numpy()
    for i in range(2):
        length = np.hypot(sobel(gray[i], axis=0, mode="nearest"), sobel(gray[i], axis=1, mode="nearest"))
        plain = torch.from_numpy(length)
        torch.testing.assert_close(edges(None, images, TARGET, sigma=0.0)[i], plain, atol=1e-4, rtol=1e-4)
        blurred = torch.from_numpy(gaussian_filter(length, 1.2, truncate=4 / 1.2))[8:-8, 8:-8]
        torch.testing.assert_close(edges(None, images, TARGET)[i][8:-8, 8:-8], blurred, atol=2e-3, rtol=1e-2)
    assert edges(None, torch.ones(1, 3, 9, 12), TARGET).abs().max() == 0


def test_edges_find_the_border_of_a_square():
    image = torch.zeros(1, 3, 40, 60)
    image[:, :, 10:30, 20:40] = 1
    found = edges(None, image, TARGET)[0]
    assert found[10, 25] > 10 * found[20, 30] + 1e-6
