"""What every benchmark is measured on: one black box, the same network in plain torch, images, a place for files."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from cluster.storage import Folder
from distill.data import ImageSet, open_images
from distill.data.decode import resize
from distill.demo.rendering import CLASSES, render
from distill.student.checkpoint import load_student
from distill.student.model import ResCBAM, Student
from distill.teachers import Teacher, load_teacher
from distill.teachers.teacher_toml import Description
from distill.teachers.tools.efficientnet_lite import MEAN, SIZES_PX, STD, load_lite
from distill.teachers.tools.export import export_onnx
from distill.training.distillation import DistillationTrainer
from distill.training.recipes import RECIPES

SHORT_PX = 48
"""Height and width of everything in a short run."""


@dataclass(frozen=True, kw_only=True)
class World:
    """One run's black box, images, sizes and files."""

    folder: Path
    """Where a run keeps its files: black box, images, maps."""
    data: str | None
    """Folder of photographs with `train` and `val`; without it images are rendered."""
    student_run: str | None = None
    """RUN folder of a student of this black box, or of another one; without it one is distilled here."""
    short: bool
    """Tiny sizes, to see that everything runs; no figure of it means anything."""
    num_rounds: int
    """Rounds of each measurement; the slow ones take fewer."""
    threads: int
    """CPU threads."""
    demo_log: Path | None = None
    """What `time make demo` wrote, where it ran."""

    def number(self, full: int, short: int) -> int:
        """Choose a size by the length of the run."""
        return short if self.short else full

    def rounds(self, most: int = 5) -> int:
        """Return the rounds of a measurement."""
        return min(most, self.num_rounds)

    @cached_property
    def network(self) -> nn.Module:
        """Return the black box's network in torch: EfficientNet-Lite0 with ImageNet weights, or a tiny one."""
        if not self.short:
            return load_lite("0").eval().requires_grad_(False)
        torch.manual_seed(0)
        return tiny_network().eval().requires_grad_(False)

    @cached_property
    def spec(self) -> str:
        """Return the black box as the commands take it."""
        size = SHORT_PX if self.short else SIZES_PX["0"]
        description = Description(input_size=(size, size), mean=MEAN, std=STD, output="logits")
        return f"onnx:{export_onnx(self.network, self.folder / 'teacher', description)}"

    @cached_property
    def teacher(self) -> Teacher:
        """Return the black box in the engine that is fastest here, as every command loads it."""
        teacher = load_teacher(self.spec, num_threads=self.threads)
        teacher.caches_responses = False
        return teacher

    @cached_property
    def photographs(self) -> str:
        """Return a folder of images with `train` and `val`."""
        if self.data is not None:
            return self.data
        return str(render_images(self.folder / "images", self.number(320, 4), px=self.number(256, 64)))

    def images(self, split: str, num: int) -> ImageSet:
        """Return about `num` images of a part, spread over the classes."""
        found = open_images(self.photographs, split=split)
        every = max(1, len(found.image_ids) // num)
        return found.select(range(len(found.image_ids))[: every * num : every])

    def frames(self, num: int) -> np.ndarray:
        """Return images at the black box's input size, uint8 (num, H, W, 3)."""
        images = self.images("val", num)
        return np.stack([resize(images.image(image_id), self.teacher.input_size) for image_id in images.image_ids])

    @cached_property
    def taught(self) -> Student:
        """Return a student that has learned something: the one given, or one that is distilled here briefly."""
        if self.student_run is not None:
            return load_student(self.student_run)
        recipe = replace(RECIPES["imagenette"][1], epochs=1, warmup_epochs=0.1, loader_workers=0)
        if self.short:
            recipe = replace(recipe, depth=18, input_size=(32, 32), batch_size=4)
        train, val, run = (
            self.images("train", self.number(960, 8)),
            self.images("val", 2),
            Folder(str(self.folder / "run")),
        )
        training = DistillationTrainer(recipe, self.teacher, train, val, run.child("soft_labels"))
        for _ in training.train_epoch():
            pass
        training.store(run)
        return load_student(run.uri)

    def student(self) -> ResCBAM:
        """Make an untrained student of 50 layers and the black box's classes, channels last as a loaded one is."""
        torch.manual_seed(0)
        model = ResCBAM(self.number(50, 18), self.teacher.num_classes).eval().requires_grad_(False)
        return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def tiny_network() -> nn.Module:
    """Make a network of ten classes that computes next to nothing."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


def render_images(folder: Path, each: int, *, px: int) -> Path:
    """Render `each` images a class as JPEG into `train`, and half as many into `val`, without class folders."""
    generator = np.random.default_rng(0)
    for split, num in (("train", each), ("val", max(1, each // 2))):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for name in CLASSES:
            for k in range(num):
                scene = render(name, generator, side_px=px)
                Image.fromarray(scene.image).save(folder / split / f"{name}-{k:05d}.jpg", quality=90)
    return folder
