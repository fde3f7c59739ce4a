"""Tiny networks with the student's layout, on which the methods' formulas can be done by hand."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Gate(nn.Module):
    """Stand in for CBAM: multiply by a gate in (0, 2), so that F_o - F_i has both signs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.conv(x)) * x


class Block(nn.Module):
    """Halve the size, attend, and let an in-place ReLU follow."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1)
        self.cbam = Gate(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.cbam(self.conv(x))


class TinyNet(nn.Module):
    """Four layers of one block; what follows a layer overwrites the layer's output in place."""

    def __init__(self, num_classes: int = 5, *, overwrites: bool = True) -> None:
        super().__init__()
        self.overwrites = overwrites
        widths = [3, 4, 6, 8, 10]
        for i in range(4):
            self.add_module(f"layer{i + 1}", nn.Sequential(Block(widths[i], widths[i + 1])))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images)[-1].mean(dim=(2, 3)))

    def features(self, images: Tensor, kept: list[Tensor] | None = None) -> list[Tensor]:
        """Return what follows each layer; with `kept`, also the layers' outputs, never overwritten."""
        after, x = [], images
        for i in range(4):
            x = self.get_submodule(f"layer{i + 1}")(x)
            if kept is not None:
                kept.append(x)
            overwrites = self.overwrites and kept is None
            x = x.mul_(1.5).sub_(0.1).relu_() if overwrites else F.relu(x * 1.5 - 0.1)
            after.append(x)
        return after


def tiny_net(seed: int = 0, num_classes: int = 5) -> TinyNet:
    """Make a net in eval mode whose parameters ask for no gradient, as a loaded student's."""
    torch.manual_seed(seed)
    net = TinyNet(num_classes).eval().requires_grad_(False)
    net.fc.weight.mul_(100)  # so that a map's values are far above the tolerance of a comparison
    return net


def noise(batch: int, height: int = 48, width: int = 80, seed: int = 1) -> Tensor:
    """Draw images that are not square."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def slow_upsample(map_: Tensor, height: int, width: int) -> Tensor:
    """Interpolate one (h, w) map bilinearly, a pixel at a time, between pixel centers."""
    values, (rows, columns) = map_.tolist(), map_.shape
    out = [[0.0] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            v = max((y + 0.5) * rows / height - 0.5, 0.0)
            u = max((x + 0.5) * columns / width - 0.5, 0.0)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = (1 - (u - left)) * values[top][left] + (u - left) * values[top][right]
            lower = (1 - (u - left)) * values[bottom][left] + (u - left) * values[bottom][right]
            out[y][x] = (1 - (v - top)) * upper + (v - top) * lower
    return torch.tensor(out)


def slow_min_max(map_: Tensor) -> Tensor:
    """Scale one map to [0, 1]; zeros if it is constant."""
    low, high = float(map_.min()), float(map_.max())
    return (map_ - low) / (high - low) if high > low else torch.zeros_like(map_)


def slow_cams(
    net: TinyNet, image: Tensor, target: int, layers: list[int], *, probability: bool = False
) -> list[Tensor]:
    """Do Grad-CAM of one image (3, H, W) with retained gradients and loops; `layers` count from 1."""
    twin = TinyNet(net.fc.out_features, overwrites=False)
    twin.load_state_dict(net.state_dict())
    kept: list[Tensor] = []
    last = twin.eval().features(image[None], kept)[-1]
    for activation in kept:
        activation.retain_grad()
    logits = twin.fc(last.mean(dim=(2, 3)))
    scores = torch.softmax(logits, dim=1) if probability else logits
    scores[0, target].backward()
    cams = []
    for layer in layers:
        activation = kept[layer - 1]
        assert activation.grad is not None
        cam = torch.zeros(activation.shape[2:])
        for k in range(activation.shape[1]):
            cam += activation.grad[0, k].mean() * activation[0, k].detach()
        cams.append(cam.clamp(min=0))
    return cams
