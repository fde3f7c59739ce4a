"""One worker's share of a fine-tuning: a network with a new classifier learns labels and becomes a black box."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from cluster.storage import Folder
from distill.data import ImageSet
from distill.teachers.teacher_toml import Description
from distill.teachers.tools.export import export_archive, export_onnx
from distill.training.backbones import Network
from distill.training.losses import cross_entropy
from distill.training.recipes import TrainingRecipe
from distill.training.trainer import Trainer
from distill.training.views import Views


class FineTuningTrainer(Trainer):
    """Train all of a network to tell the classes of a data set."""

    shown = ("loss", "accuracy")
    figures = ("accuracy", "ce")

    def __init__(self, recipe: TrainingRecipe, network: Network, train: ImageSet, val: ImageSet) -> None:
        """Build everything at step 0."""
        self.description = Description(
            input_size=recipe.input_size,
            mean=network.mean,
            std=network.std,
            output="logits",
            classes=tuple(train.class_names),
        )
        train_views, val_views = (Views(images, images.class_ids, recipe) for images in (train, val))
        super().__init__(recipe, network.module, train_views, val_views, mean=network.mean, std=network.std)

    def _loss(self, batch: dict) -> dict[str, Tensor]:
        # Dropout knows the global generator only: seeded for each step, a resumed run draws what it would have drawn.
        entropy = np.random.SeedSequence([self.recipe.seed, self.global_step, self.rank])
        torch.manual_seed(int(entropy.generate_state(1)[0]))
        valid = self._valid(batch)
        logits, labels = self.model(self._pixels(batch))[valid], self._labels(batch)[valid]
        hits = (logits.argmax(dim=1) == labels).sum()
        return {"loss": cross_entropy(logits, labels), "accuracy": hits / max(1, len(valid))}

    def _judge(self, batch: dict) -> tuple[int, list[Tensor]]:
        valid = self._valid(batch)
        logits, labels = self.network(self._pixels(batch))[valid].float(), self._labels(batch)[valid]
        return len(valid), [(logits.argmax(dim=1) == labels).sum(), cross_entropy(logits, labels) * len(valid)]

    def store(self, folder: Folder) -> None:
        """Write the network as a black box in float32: `model.onnx`, `model.pt2` and their `teacher.toml`."""
        plain = copy.deepcopy(self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False))
        plain.to(device="cpu", memory_format=torch.contiguous_format)
        for export in (export_onnx, export_archive):
            export(plain, folder.uri, self.description)


def check_labels(train: ImageSet, val: ImageSet) -> None:
    """Check that there is something to learn.

    Raises:
        ValueError: an image has no class, there are fewer than two classes, or the splits' classes differ.
    """
    for images in (train, val):
        missing = [i for i, class_id in zip(images.image_ids, images.class_ids, strict=True) if class_id is None]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(images.image_ids)} images ({images.split}) have no label, such as "
                f"{missing[0]!r}; fine-tuning needs labels: put the images of {images.root} into class folders"
            )
    if len(set(train.class_ids)) < 2:
        raise ValueError(
            f"the training images of {train.root} are of {len(set(train.class_ids))} class; allowed: 2 classes or more"
        )
    assert train.class_names == val.class_names
