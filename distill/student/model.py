"""The student: a ResNet with CBAM in every residual block ("ResCBAM").

Left out: storage (`checkpoint`), training (`distill.training`) and saliency (`explain`), which reads the blocks through
forward hooks. Nothing here works in place on a tensor that such a hook sees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from distill.student.pooling import pool_channels, pool_pixels

if TYPE_CHECKING:
    pass

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class ChannelAttention(nn.Module):
    """Compute CBAM's channel gate `Mc(F) = sigmoid(MLP(avg(F)) + MLP(max(F)))` (Woo et al. 2018, eq. 2)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // reduction), nn.ReLU(), nn.Linear(channels // reduction, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the gate in (0, 1), shape (B, C, 1, 1), for activations (B, C, H, W)."""
        return self.gate(x.mean(dim=(2, 3)), x.amax(dim=(2, 3)))

    def gate(self, mean: Tensor, top: Tensor) -> Tensor:
        """Return the gate for both pools, (B, C) each."""
        pooled = torch.stack([mean, top])  # (2, B, C)
        return torch.sigmoid(self.mlp(pooled).sum(dim=0))[:, :, None, None]


class SpatialAttention(nn.Module):
    """Compute CBAM's spatial gate `Ms(F) = sigmoid(BN(conv7x7([mean_c(F); max_c(F)])))` (Woo et al. 2018, eq. 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gate in (0, 1), shape (B, 1, H, W), for activations (B, C, H, W)."""
        return self.gate(x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True))

    def gate(self, mean: Tensor, top: Tensor) -> Tensor:
        """Return the gate for both pools, (B, 1, H, W) each."""
        pooled = torch.cat([mean, top], dim=1)  # (B, 2, H, W)
        return torch.sigmoid(self.bn(self.conv(pooled)))


class CBAM(nn.Module):
    """Refine activations with `F' = Mc(F_i) * F_i`, `F_o = Ms(F') * F'` (the paper's eq. 7)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, reduction)
        self.spatial = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self._train(x)  # the compiler fuses the pools itself
        gated = self.channel(x) * x
        return self.spatial(gated) * gated

    def _train(self, x: Tensor) -> Tensor:
        """Compute the same with pools whose backward pass is cheap."""
        mean, top, x = pool_pixels(x)
        mean, top, gated = pool_channels(self.channel.gate(mean, top) * x)
        return self.spatial.gate(mean, top) * gated


class Block(nn.Module):
    """Apply a residual block with CBAM between its last batch norm and the residual addition.

    `bottleneck` blocks are 1x1, 3x3 (strided), 1x1 with four times the width out (ResNet-50), the others two 3x3.
    """

    def __init__(self, channels_in: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        self.channels_out = width * 4 if bottleneck else width
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        channels = (channels_in, width, width, self.channels_out) if bottleneck else (channels_in, width, width)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        self.convs = nn.ModuleList(_conv(*spec) for spec in zip(channels, channels[1:], kernels, strides, strict=False))
        self.bns = nn.ModuleList(nn.BatchNorm2d(c) for c in channels[1:])
        self.cbam = CBAM(self.channels_out)
        self.shortcut = nn.Identity()
        if stride != 1 or channels_in != self.channels_out:
            conv = _conv(channels_in, self.channels_out, 1, stride)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(self.channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        out = x
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            out = bn(conv(out if i == 0 else torch.relu(out)))
        return torch.relu(self.cbam(out) + self.shortcut(x))


class ResCBAM(nn.Module):
    """Classify images with a ResNet of 18 or 50 layers that has CBAM in all its residual blocks.

    With 50 layers and 1000 classes it has 28,089,624 parameters, as the CBAM paper's ResNet-50 (28.09 M).
    Blocks sit in `layer1` ... `layer4`, each block's attention in `.cbam`.
    """

    def __init__(self, depth: int = 50, num_classes: int = 1000) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth {depth} is not a ResCBAM; allowed: {', '.join(map(str, sorted(BLOCKS)))}")
        self.depth, self.num_classes = depth, num_classes
        bottleneck = depth >= 50
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = 64
        for i, num_blocks in enumerate(BLOCKS[depth]):
            blocks = []
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(channels, 64 * 2**i, stride, bottleneck=bottleneck))
                channels = blocks[-1].channels_out
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        """Draw weights as the published CBAM code does: He (fan out), and spatial gates that start at one half."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, SpatialAttention):
                nn.init.zeros_(module.bn.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) for normalized images (B, 3, H, W)."""
        x = self.pool(torch.relu(self.bn1(self.conv1(images))))
        for i in range(4):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.fc(x.mean(dim=(2, 3)))


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student:
    """A trained student and what is needed to use it."""

    model: ResCBAM
    """In evaluation mode, no parameter requires a gradient."""
    input_size: tuple[int, int]
    """Height and width in pixels; independent of the teacher's."""
    mean: tuple[float, float, float]
    """Subtracted from pixels in [0, 1], per channel."""
    std: tuple[float, float, float]
    """Divides after the mean is subtracted."""
    teacher: str
    """The black box that it was distilled from, as KIND:WHERE."""
    teacher_fingerprint: str
    """The fingerprint of that black box."""
    class_names: tuple[str, ...] | None = None
    """Names of the teacher's classes, where known."""
    shuffled: bool = False
    """Whether each training image was taught the answer to another one: then no map of it explains the teacher."""
    fingerprint: str = ""
    """SHA-256 of the stored weights, in hex; empty before it is stored."""

    @property
    def num_classes(self) -> int:
        """Number of the teacher's classes."""
        return self.model.num_classes

    @property
    def depth(self) -> int:
        """Number of layers: 18 or 50."""
        return self.model.depth

    @property
    def device(self) -> str:
        """Return where the model is: cpu or cuda."""
        return self.model.fc.weight.device.type

    def normalize(self, images: np.ndarray | Tensor) -> Tensor:
        """Turn uint8 images (B, H, W, 3) into the model's float32 input (B, 3, H, W), on the model's device."""
        return normalize(torch.as_tensor(images).to(self.model.fc.weight.device), self.mean, self.std)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn uint8 images (B, H, W, 3) into `(x / 255 - mean) / std`, float32 (B, 3, H, W), channels last in memory."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    return (images.float() * scale - shift).permute(0, 3, 1, 2)
