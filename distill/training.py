"""The state and the steps of one distillation, as every worker holds them: no Ray, no MLflow."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from cluster.storage import Folder
from distill.changes import ChangedViews
from distill.images import ImageSet
from distill.losses import distillation_loss, kl_divergence, mixed_labels
from distill.recipes import Recipe, lr_at
from distill.similarity import sim_n
from distill.soft_labels import SoftLabels, soft_labels_folder
from distill.student import ResCBAM, Student, normalise
from distill.teachers import Teacher
from distill.views import TrainingOrder, Views, collate, validation_order

STATE_FILE = "state.pt"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIM_NS = (1, 2, 3, 4, 5)
# Came after runs were stored: at their defaults they are not recorded, so that older work can be resumed.
LATER_FIELDS = ("masked_share", "blurred_share", "mixup", "label_weight")


class Training:
    """One worker's share of a distillation: student, optimiser, place in the schedule."""

    def __init__(self, recipe: Recipe, teacher: Teacher, train: ImageSet, val: ImageSet, soft_labels: Folder) -> None:
        """Build everything at step 0; every worker draws the same weights from the recipe's seed."""
        self.recipe, self.teacher = recipe, teacher
        # Without cpu=True accelerate takes no notice of a process group on cores; one worker needs none.
        on_cores = not torch.cuda.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.accelerator = Accelerator(mixed_precision="bf16" if uses_bfloat16(recipe) else "no", cpu=on_cores)
        self.rank, self.num_workers = self.accelerator.process_index, self.accelerator.num_processes
        labels = train.labels(teacher.num_classes)
        self.train_views = ChangedViews(train, labels, recipe, teacher.input_size, teacher.mean)
        self.val_views = Views(val, val.labels(teacher.num_classes), recipe, teacher.input_size)
        self.soft_labels = soft_labels_folder(soft_labels, teacher.fingerprint, recipe)
        torch.manual_seed(recipe.seed)
        self.student = ResCBAM(recipe.depth, teacher.num_classes).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        optimiser = torch.optim.SGD(
            self.student.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        if recipe.compile:
            self.student.compile()
        self.model, self.optimiser = self.accelerator.prepare(self.student, optimiser)
        self.epoch, self.step = 0, 0  # the next step to take
        self.errors: dict[str, str] = {}

    @cached_property
    def num_steps(self) -> int:
        """Steps in one epoch."""
        return len(self._order(0))

    @cached_property
    def images_per_step(self) -> int:
        """Images in one step, over all workers."""
        return self._order(0).batches[0].size

    @property
    def global_step(self) -> int:
        """Steps taken since the start of training."""
        return self.epoch * self.num_steps + self.step

    def _order(self, first_step: int) -> TrainingOrder:
        return TrainingOrder(
            len(self.train_views.images.image_ids),
            self.recipe,
            self.epoch,
            first_step=first_step,
            rank=self.rank,
            num_workers=self.num_workers,
        )

    def _loader(self, views: Views, batches: TrainingOrder | list) -> DataLoader:
        workers = self.recipe.loader_workers
        return DataLoader(
            views,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=4 if workers else None,
        )

    def train_epoch(self) -> Iterator[dict[str, float]]:
        """Take the rest of the epoch's steps; after each, yield its loss terms, learning rate and images/s."""
        self.model.train()
        order = self._order(self.step)
        soft = SoftLabels(self.soft_labels if self.recipe.num_views else None, order.view)
        started_s = time.perf_counter()
        for batch in self._loader(self.train_views, order):
            terms = self._take_step(batch, soft)
            self.step += 1
            seconds, started_s = time.perf_counter() - started_s, time.perf_counter()
            num_images = len(batch["label"]) * self.num_workers
            yield terms | {"images_per_s": num_images / seconds, "num_images": num_images}
        soft.keep()
        self.epoch, self.step = self.epoch + 1, 0

    def _take_step(self, batch: dict, soft: SoftLabels) -> dict[str, float]:
        lr = lr_at(self.recipe, self.epoch + self.step / self.num_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        valid, probs = self._teach(batch, soft)
        logits = self.model(self._pixels(batch))
        labels = self._training_labels(batch)[valid]
        terms = distillation_loss(probs, logits[valid], labels, label_weight=self.recipe.label_weight)
        self.accelerator.backward(terms["loss"])
        if self.recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {name: float(term.detach()) for name, term in terms.items()} | {"lr": lr}

    def _training_labels(self, batch: dict) -> torch.Tensor:
        """Return the labels (B,), or (B, K) where the recipe mixes images."""
        device = self.accelerator.device
        labels, others = (torch.as_tensor(batch[name], device=device) for name in ("label", "other_label"))
        share = torch.as_tensor(batch["share"], dtype=torch.float32, device=device)
        return mixed_labels(labels, others, share, self.teacher.num_classes) if self.recipe.mixup else labels

    def _pixels(self, batch: dict) -> torch.Tensor:
        images = torch.as_tensor(batch["student"]).to(self.accelerator.device, non_blocking=True)
        return normalise(images, IMAGENET_MEAN, IMAGENET_STD)

    def _teach(self, batch: dict, soft: SoftLabels) -> tuple[list[int], torch.Tensor]:
        """Return which rows of the batch hold an image, and the teacher's probabilities for those."""
        valid = [i for i, error in enumerate(batch["error"]) if error is None]
        self.errors.update((batch["image_id"][i], error) for i, error in enumerate(batch["error"]) if error is not None)
        if not valid:
            return valid, torch.zeros(0, self.teacher.num_classes, device=self.accelerator.device)
        ids = [batch["image_id"][i] for i in valid]
        probs = soft.probabilities(ids, batch["teacher"][valid], self.teacher.probabilities)
        return valid, torch.as_tensor(probs, device=self.accelerator.device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Compare student and teacher on all validation images: Sim1..Sim5, KL and accuracy, over all workers."""
        self.model.eval()
        soft = SoftLabels(self.soft_labels, -1)
        num_classes = self.teacher.num_classes
        ns = [n for n in SIM_NS if n <= num_classes]
        names = ["num_images", "kl", "accuracy", *(f"sim{n}" for n in ns)]
        totals = torch.zeros(len(names), dtype=torch.float64)
        batches = validation_order(len(self.val_views.images.image_ids), 64, self.rank, self.num_workers)
        for batch in self._loader(self.val_views, batches):
            valid, probs = self._teach(batch, soft)
            if not valid:
                continue
            logits = self.student(self._pixels(batch))[valid].float()
            labels = torch.as_tensor(batch["label"], device=logits.device)[valid]
            hits = [(logits.argmax(dim=1) == labels).sum(), *(sim_n(probs, logits, n).sum() for n in ns)]
            values = [len(valid), kl_divergence(probs, logits) * len(valid), *hits]
            totals += torch.tensor([float(v) for v in values], dtype=torch.float64)
        soft.keep()
        reduced: Any = self.accelerator.reduce(totals.float().to(self.accelerator.device), reduction="sum")
        totals = reduced.cpu()
        means = totals / totals[0].clamp(min=1)
        return {f"val_{name}": float(means[i]) for i, name in enumerate(names) if i > 0}

    def save(self, folder: Path) -> None:
        """Write the state from which training goes on exactly where it is now."""
        state = {"student": self.student.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(state | {"epoch": self.epoch, "step": self.step}, folder / STATE_FILE)

    def restore(self, folder: Path) -> None:
        """Go back to a saved state; only tensors and plain values are read, nothing is unpickled."""
        state = torch.load(folder / STATE_FILE, map_location=self.accelerator.device, weights_only=True)
        self.student.load_state_dict(state["student"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step = state["epoch"], state["step"]

    def result(self) -> Student:
        """Return the student as it is now."""
        return Student(
            model=self.student,
            input_size=self.recipe.input_size,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            teacher=self.teacher.spec,
            teacher_fingerprint=self.teacher.fingerprint,
            class_names=self.teacher.class_names,
        )


def uses_bfloat16(recipe: Recipe) -> bool:
    """Tell whether a recipe trains in bfloat16 on this machine."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    if platform.machine() != "x86_64":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def recipe_from(fields: dict) -> Recipe:
    """Make a recipe of what `dataclasses.asdict` and JSON made of one."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    return Recipe(**values)


def recipe_fields(recipe: Recipe) -> dict:
    """Return a recipe as plain JSON values."""
    unset = {name for name in LATER_FIELDS if getattr(recipe, name) == getattr(Recipe, name)}
    fields = {name: value for name, value in dataclasses.asdict(recipe).items() if name not in unset}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}
