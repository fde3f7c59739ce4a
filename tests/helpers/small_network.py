"""Networks to fine-tune in tests, as `python:small_network:tiny` names them."""

import torch
from torch import Tensor, nn


class Tiny(nn.Sequential):
    """Three convolutions, dropout, and a classifier of seven classes; a normalization of its own."""

    mean = (0.4, 0.5, 0.6)
    std = (0.3, 0.25, 0.2)

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for channels_in, channels in ((3, 16), (16, 32), (32, 48)):
            layers += [nn.Conv2d(channels_in, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 7))


class Twisted(nn.Module):
    """Its last linear layer is not the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier, self.embed = nn.Linear(5, 7), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x.mean(dim=(2, 3))))


def tiny() -> Tiny:
    """Return a network as fine-tuning wants it, with some layers frozen."""
    network = Tiny()
    network[0].requires_grad_(False)
    return network


def without_linear() -> nn.Module:
    """Return a network that ends in a convolution."""
    return nn.Sequential(nn.Conv2d(3, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def twisted() -> nn.Module:
    """Return a network whose classifier is not its last linear layer: replacing that one breaks it."""
    return Twisted()


def tensor() -> Tensor:
    """Return what is no network."""
    return torch.zeros(3)
