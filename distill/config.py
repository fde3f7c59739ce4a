"""The options of a training: what a command takes, and a job is started with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from distill.training.recipes import Recipe, TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Images, run folder and workers of a training."""

    data: str
    """Folder or URI with the images: class folders with or without train/ and val/, or a data set's official layout."""
    out: str
    """Run folder for the result and its checkpoints; a path or URI."""
    num_workers: int | None = None
    """Training workers; one per GPU by default, else one for every four cores."""
    min_workers: int | None = None
    """Go on with so few where nodes go away, with up to --num-workers where they join; by default all are needed."""
    resume: bool = False
    """Go on with the work in --out from its last checkpoint."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """Distill a black box into a white-box student."""

    teacher: str
    """The black box, KIND:WHERE: onnx:model.onnx, torch:model.pt2, torchvision:resnet50, python:module:factory."""
    init: str | None = None
    """Weights to start from, of the same depth: a student's run folder, torchvision:resnet50[/WEIGHTS], or a file of a
    ResNet's tensors under torchvision's names (.safetensors, .pt, .pth). With other classes all but the classifier."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(TrainingConfig):
    """Fine-tune a network on a data set's labels and export it as a black box: model.onnx, model.pt2, teacher.toml."""

    network: str
    """What to start from, KIND:WHERE: torchvision:resnet50, lite:efficientnet-lite0, python:module:factory."""
    recipe: Annotated[TrainingRecipe, tyro.conf.arg(name="")]
