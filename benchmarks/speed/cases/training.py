"""A training step of the student beside a plain ResNet-50's, and distillation beside an eager loop, teacher in it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.speed.ratio import Row, Times, interleaved, speed_row
from benchmarks.speed.world import World
from cluster.storage import Folder
from distill.data import ImageSet
from distill.student.model import IMAGENET_MEAN, IMAGENET_STD, ResCBAM
from distill.training.distillation import DistillationTrainer
from distill.training.recipes import RECIPES, Recipe
from distill.training.trainer import uses_bfloat16

STEP_PX, STEP_BATCH = 96, 32  # of the recipe `imagenette`


def measure(world: World) -> list[Row]:
    """Time both."""
    torch.set_num_threads(world.threads)
    return [*time_step(world), *time_distillation(world)]


def time_step(world: World) -> list[Row]:
    """Time a step of both networks in torch as the recipe trains: eager, then compiled."""
    num, px = world.number(STEP_BATCH, 4), world.number(STEP_PX, 32)
    images = torch.randn(num, 3, px, px).contiguous(memory_format=torch.channels_last)
    probs = torch.randn(num, 1000).softmax(dim=1)
    rows = []
    for compiled in (False, True) if not world.short else (False,):
        student, plain = ResCBAM(world.number(50, 18), 1000), torchvision.models.resnet50()
        works = {
            name: (make_step(model, images, probs, compiled=compiled), num)
            for name, model in (("student", student), ("plain", plain))
        }
        times = interleaved(works, rounds=world.rounds(5))
        how = f"{num} images at {px} px, {'compiled' if compiled else 'eager'}"
        rows.append(step_row(times, how, profile_note(works["student"][0])))
    return rows


def step_row(times: dict[str, list[Times]], how: str, note: str) -> Row:
    """Make the row that says how many times as long the student's step takes."""
    pairs = list(zip(times["student"], times["plain"], strict=True))
    return Row(
        key="step",
        what=f"ResCBAM-50's training step, {how}: its time",
        against="torchvision's ResNet-50, the same loss, optimiser, precision and batch",
        at_most=1.25,
        figures=[ours.wall_s / theirs.wall_s for ours, theirs in pairs],
        by_cpu_time=[ours.cpu_s / theirs.cpu_s for ours, theirs in pairs],
        note=note,
    )


def profile_note(step: Callable[[], None]) -> str:
    """Say which operations take most of a step's own CPU time."""
    with torch.autograd.profiler.profile(use_kineto=False) as profiler:
        step()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    said = [f"{event.key.removeprefix('aten::')} {event.self_cpu_time_total / whole:.0%}" for event in events[:8]]
    return f"profile of the student's step: {', '.join(said)}"


def make_step(model: nn.Module, images: Tensor, probs: Tensor, *, compiled: bool = False) -> Callable[[], None]:
    """Make one step of training on probabilities: forwards, loss, backwards, optimiser."""
    model = model.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    if compiled:
        model.compile()
    low = uses_bfloat16(RECIPES["imagenette"][1])

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = model(images)
        F.cross_entropy(logits.float(), probs).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def time_distillation(world: World) -> list[Row]:
    """Time an epoch on few images: the product with the teacher live and from its answers, and the eager loop."""
    recipe = small_recipe(world)
    train = world.images("train", world.number(96, 4))
    live, kept = (
        DistillationTrainer(replace(recipe, num_views=views), world.teacher, train, world.images("val", 2), soft)
        for views, soft in ((0, Folder(str(world.folder / "live"))), (1, Folder(str(world.folder / "kept"))))
    )
    eager = EagerLoop(world, train, recipe)
    num = recipe.batch_size * live.num_steps
    works = {"live": (partial(_epoch, live), num), "kept": (partial(_epoch, kept), num), "eager": (eager.epoch, num)}
    times = interleaved(works, rounds=world.rounds(2))
    about = f"ResCBAM-{recipe.depth} at {recipe.input_size[0]} px, batches of {recipe.batch_size}"
    row = partial(speed_row, key="distil", against="an eager float32 loop in torchvision's style, the teacher live")
    said = "the loop reads and cuts with Pillow and torchvision, and scales the teacher's crop for the student"
    return [
        row(times["live"], times["eager"], what=f"distillation, the teacher live; {about}", at_least=2.0, note=said),
        row(times["kept"], times["eager"], what="the same, from the teacher's kept answers", at_least=2.0),
    ]


def small_recipe(world: World) -> Recipe:
    """Return the recipe `imagenette`, or a tiny one, that reads images in this process."""
    recipe = replace(RECIPES["imagenette"][1], loader_workers=0, epochs=1000)
    return replace(recipe, depth=18, input_size=(32, 32), batch_size=2) if world.short else recipe


def _epoch(training: DistillationTrainer) -> None:
    for _ in training.train_epoch():
        pass


class EagerLoop:
    """Distil as a plain script does: torchvision's transforms, both networks in float32, the teacher in each step."""

    def __init__(self, world: World, images: ImageSet, recipe: Recipe) -> None:
        teacher = world.teacher
        crop = v2.Compose(
            [
                v2.RandomResizedCrop(teacher.input_size, scale=(recipe.crop_min_scale, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )
        self.loader = DataLoader(Cropped(images, crop), recipe.batch_size, shuffle=True, drop_last=True)
        self.teacher, self.mean, self.std = world.network, teacher.mean, teacher.std
        self.student = ResCBAM(recipe.depth, teacher.num_classes).train()
        self.size = recipe.input_size
        self.optimiser = torch.optim.SGD(self.student.parameters(), lr=recipe.lr, momentum=recipe.momentum)

    def epoch(self) -> None:
        """Take a step for each batch."""
        for pixels, labels in self.loader:
            with torch.no_grad():
                probs = self.teacher(v2.functional.normalize(pixels, self.mean, self.std)).softmax(dim=1)
            small = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
            logits = self.student(v2.functional.normalize(small, IMAGENET_MEAN, IMAGENET_STD))
            loss = F.kl_div(logits.log_softmax(dim=1), probs, reduction="batchmean") + F.cross_entropy(logits, labels)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()


class Cropped(Dataset):
    """Random crops and labels of images, as torchvision's own datasets give them."""

    def __init__(self, images: ImageSet, transform: Callable[[Any], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images.image_ids)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image_id, label = self.images.image_ids[number], self.images.class_ids[number]
        return self.transform(self.images.image(image_id)), int(label or 0)
