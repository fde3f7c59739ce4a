"""One worker's share of a training, whatever is learned: state, order, steps, validation. No Ray, no MLflow.

What is learned is a subclass: from a black box (`distillation`) or from labels (`finetuning`).
"""

from __future__ import annotations

import os
import pickle
import platform
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cluster.errors import WorkError
from cluster.storage import Folder
from distill.student.model import normalize
from distill.training.recipes import TrainingRecipe, lr_at
from distill.training.views import BothViews, Part, TrainingOrder, Views, collate, validation_order

STATE_FILE = "state.pt"
BROKEN_STATE = (
    pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError,
)  # fmt: skip
VALIDATION_BATCH = 64


class Trainer(ABC):
    """One worker's share of a training: network, optimizer, place in the schedule."""

    shown: ClassVar[tuple[str, ...]]
    """The terms of a step that the progress display shows."""
    figures: tuple[str, ...]
    """What `_judge` sums and `validate` averages."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        network: nn.Module,
        train: Views,
        val: Views,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Build everything at step 0; every worker comes with the same weights."""
        self.recipe, self.train_views, self.val_views, self.mean, self.std = recipe, train, val, mean, std
        # Without cpu=True accelerate takes no notice of a process group on cores; one worker needs none.
        on_cores = not torch.cuda.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.accelerator = Accelerator(mixed_precision="bf16" if uses_bfloat16(recipe) else "no", cpu=on_cores)
        self.rank, self.num_workers = self.accelerator.process_index, self.accelerator.num_processes
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        if recipe.compile:
            self.network.compile()
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.epoch, self.step = 0, 0  # the next step to take
        self.errors: dict[str, str] = {}
        self._batches: list[list[tuple[Part, int, int]]] = []  # of what `_loader` goes through next

    @abstractmethod
    def _loss(self, batch: dict) -> dict[str, Tensor]:
        """Return the terms of one step's loss, `loss` itself among them, as scalars."""

    @abstractmethod
    def _judge(self, batch: dict) -> tuple[int, list[Tensor]]:
        """Return how many images of a validation batch count, and the sum over them of each of `figures`."""

    @abstractmethod
    def store(self, folder: Folder) -> None:
        """Write what was trained, as it is now."""

    @cached_property
    def num_steps(self) -> int:
        """Steps in one epoch."""
        return len(self._order(0))

    @cached_property
    def images_per_step(self) -> int:
        """Images in one step, over all workers."""
        return self._order(0).batch_size

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

    @cached_property
    def _loader(self) -> DataLoader:
        workers = self.recipe.loader_workers
        return DataLoader(
            BothViews(self.train_views, self.val_views),
            batch_sampler=self._batches,
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,  # they take seconds to start, which is a whole epoch on a GPU
            pin_memory=torch.cuda.is_available(),  # batches are received in a thread of their own
        )

    def _load(self, part: Part, batches: Iterable[list[tuple[int, int]]]) -> Iterator[dict]:
        """Yield the batches of (image, view) pairs of one part, decoded ahead by the recipe's processes."""
        self._batches[:] = ([(part, *pair) for pair in batch] for batch in batches)
        yield from self._loader

    def train_epoch(self) -> Iterator[dict[str, float]]:
        """Take the rest of the epoch's steps; after each, yield its loss terms, learning rate and images/s."""
        self.model.train()
        started_s = time.perf_counter()
        for batch in self._load("train", self._order(self.step)):
            terms = self._take_step(batch)
            self.step += 1
            seconds, started_s = time.perf_counter() - started_s, time.perf_counter()
            yield terms | {"images_per_s": self.images_per_step / seconds, "num_images": self.images_per_step}
        self.epoch, self.step = self.epoch + 1, 0

    def _take_step(self, batch: dict) -> dict[str, float]:
        lr = lr_at(self.recipe, self.epoch + self.step / self.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        terms = self._loss(batch)
        # Gradients are averaged over workers: one with fewer images counts for fewer.
        share = len(batch["label"]) * self.num_workers / self.images_per_step
        self.accelerator.backward(terms["loss"] * share)
        if self.recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {name: float(term.detach()) for name, term in terms.items()} | {"lr": lr}

    def _pixels(self, batch: dict) -> Tensor:
        images = torch.as_tensor(batch["student"]).to(self.accelerator.device, non_blocking=True)
        return normalize(images, self.mean, self.std)

    def _labels(self, batch: dict) -> Tensor:
        return torch.as_tensor(batch["label"], device=self.accelerator.device)

    def _valid(self, batch: dict) -> list[int]:
        """Return which rows of the batch hold an image, and remember why the others do not."""
        errors = batch["error"]
        self.errors.update((batch["image_id"][i], error) for i, error in enumerate(errors) if error is not None)
        return [i for i, error in enumerate(errors) if error is None]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the mean of each of `figures` over all validation images and workers, as `val_<figure>`."""
        self.model.eval()
        totals = torch.zeros(1 + len(self.figures), dtype=torch.float64)
        num_images = len(self.val_views.images.image_ids)
        for batch in self._load("val", validation_order(num_images, VALIDATION_BATCH, self.rank, self.num_workers)):
            count, sums = self._judge(batch)
            totals += torch.tensor([count, *map(float, sums)], dtype=torch.float64)
        reduced: Any = self.accelerator.reduce(totals.float().to(self.accelerator.device), reduction="sum")
        count, *sums = reduced.cpu()
        return {
            f"val_{name}": float(total / count.clamp(min=1)) for name, total in zip(self.figures, sums, strict=True)
        }

    def all_errors(self) -> dict[str, str]:
        """Gather the broken images of all workers: image id -> reason; every worker must take part."""
        if self.num_workers == 1:
            return dict(self.errors)
        gathered: Any = gather_object([self.errors])
        return {image_id: error for errors in gathered for image_id, error in errors.items()}

    def save(self, folder: Path, errors: Mapping[str, str] | None = None) -> None:
        """Write the state from which training goes on exactly where it is now; `errors` of all workers, where known."""
        state = {"network": self.network.state_dict(), "optimiser": self.optimizer.state_dict()}
        state |= {"epoch": self.epoch, "step": self.step, "errors": dict(self.errors if errors is None else errors)}
        torch.save(state, folder / STATE_FILE)

    def restore(self, folder: Path) -> None:
        """Go back to a saved state; only tensors and plain values are read, nothing is unpickled.

        Raises:
            WorkError: it is broken, or of another training.
        """
        path = folder / STATE_FILE
        try:
            with zipfile.ZipFile(path) as archive:
                if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                    raise ValueError("it is packed, as no state that was saved here")
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimiser"])
            self.epoch, self.step = int(state["epoch"]), int(state["step"])
            self.errors = dict(state.get("errors", {}))
        except BROKEN_STATE as error:
            # torch's own advice there is to let the file run its code
            detail = "it holds more than tensors" if isinstance(error, pickle.UnpicklingError) else error
            raise WorkError(
                f"the training's state {STATE_FILE} cannot be read: {detail}; delete the run's folder checkpoints, or "
                "start again into another --out"
            ) from error


def uses_bfloat16(recipe: TrainingRecipe) -> bool:
    """Tell whether a recipe trains in bfloat16 on this machine."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    if platform.machine() != "x86_64":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
