"""Train the demo's black box: a small plain convolutional network, nothing like the student that will explain it."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cluster.progress.bar import Progress
from distill.data import ImageSet
from distill.data.decode import resize
from distill.teachers.teacher_toml import Description
from distill.teachers.tools.export import export_onnx

INPUT_SIZE = (96, 96)
"""Height and width in pixels; not the 128 px at which the images are stored, as with any real black box."""

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
BATCH = 64
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05


def make_network(num_classes: int) -> nn.Sequential:
    """Build the network: normalized pixels (B, 3, H, W) to logits (B, K)."""

    def step(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]

    return nn.Sequential(
        *step(3, 24, 2),
        *step(24, 48, 2),
        *step(48, 48, 1),
        *step(48, 96, 2),
        *step(96, 96, 1),
        *step(96, 128, 1),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def train_teacher(
    train: ImageSet, val: ImageSet, folder: str | os.PathLike[str], *, seed: int = 0, epochs: int = 8
) -> float:
    """Train on one split, export to `folder`/model.onnx with its teacher.toml, return the accuracy on the other.

    The weights depend on `seed`, the images and (through the order of sums) the number of threads.
    """
    num_classes = len(train.class_names)
    images, labels = _load(train)
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(seed)
        network = make_network(num_classes).to(memory_format=torch.channels_last)
    _fit(network, images, labels, torch.Generator().manual_seed(seed), epochs)
    accuracy = _accuracy(network, *_load(val))
    classes = tuple(train.class_names)
    description = Description(input_size=INPUT_SIZE, mean=MEAN, std=STD, output="logits", classes=classes)
    export_onnx(network.to(memory_format=torch.contiguous_format), folder, description)
    return accuracy


def _load(images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a split as normalized pixels (N, 3, H, W), channels last, and class numbers (N,)."""
    pixels = np.stack([resize(images.image(image_id), INPUT_SIZE) for image_id in images.image_ids])
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # (N, H, W, 3) -> (N, 3, H, W)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (scaled - mean) / std, torch.tensor(images.labels(len(images.class_names)))


def _fit(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator, epochs: int
) -> None:
    steps = epochs * math.ceil(len(images) / BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    network.train()
    with Progress("train the black box", epochs * len(images)) as progress:
        for _ in range(epochs):
            for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
                logits = network(_turn(images[chosen], generator))
                loss = F.cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.advance(len(chosen), loss=loss.item())


def _turn(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip and turn a whole batch at random: what is in it stays what it is."""
    flip_y, flip_x, swap = (bool(torch.randint(2, (), generator=generator)) for _ in range(3))
    if swap:
        batch = batch.transpose(2, 3)
    batch = batch.flip([axis for axis, flip in ((2, flip_y), (3, flip_x)) if flip])
    return batch.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    right = sum(
        int((network(batch).argmax(1) == truth).sum())
        for batch, truth in zip(images.split(256), labels.split(256), strict=True)
    )
    return right / len(labels)
