"""The black box's own engine without anything of ours around it: what no benchmark can be faster than."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.world import World
from distill.teachers.engines.backends import EngineChoice, Run, open_engine
from distill.teachers.engines.onnx_description import read_onnx_description
from distill.teachers.engines.selection import choose_engine
from distill.teachers.teacher_toml import require_files


class Engines:
    """The black box's own engine, opened at any batch size, without anything of ours around it."""

    def __init__(self, world: World) -> None:
        self.path = Path(world.spec.removeprefix("onnx:"))
        self.description, _ = read_onnx_description(self.path, require_files(self.path))
        self.threads = world.threads
        self.choice: EngineChoice = choose_engine(self.path, self.description, world.teacher.fingerprint, device="cpu")
        self.run = self.open(self.choice.batch_size)
        self.frames = np.random.default_rng(0).normal(size=(self.choice.batch_size, 3, *self.description.input_size))
        self.frames = self.frames.astype(np.float32)

    def open(self, batch_size: int) -> Run:
        """Open it for batches of one size."""
        choice = replace(self.choice, batch_size=batch_size)
        return open_engine(self.path, self.description.input_size, choice, num_threads=self.threads, device="cpu")

    def alone(self, num: int) -> None:
        """Compute `num` frames, the last batch whole."""
        for _ in range(-(-num // len(self.frames))):
            self.run(self.frames)

    def module(self, batch_size: int) -> nn.Module:
        """Return the engine as a torch network for batches of at most one size."""
        return InEngine(self.open(batch_size), batch_size).eval()


class InEngine(nn.Module):
    """An engine's call as a torch network; a shorter batch is padded."""

    def __init__(self, run: Run, batch_size: int) -> None:
        super().__init__()
        self.run, self.batch_size = run, batch_size

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) for normalised images (B, 3, H, W)."""
        padded = np.zeros((self.batch_size, *images.shape[1:]), np.float32)
        padded[: len(images)] = images.numpy()
        return torch.from_numpy(self.run(padded)[: len(images)])
