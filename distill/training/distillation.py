"""One worker's share of a distillation: the student, the black box and its soft labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cluster.storage import Folder
from distill.data import ImageSet
from distill.student.checkpoint import save_student
from distill.student.model import IMAGENET_MEAN, IMAGENET_STD, ResCBAM, Student
from distill.student.similarity import sim_n
from distill.teachers import Teacher
from distill.training.augment import AugmentedViews
from distill.training.losses import distillation_loss, kl_divergence, mixed_labels
from distill.training.recipes import Recipe
from distill.training.soft_label_cache import SoftLabels, soft_labels_folder
from distill.training.trainer import Trainer
from distill.training.views import Views, teacher_permutation

SIM_NS = (1, 2, 3, 4, 5)


class DistillationTrainer(Trainer):
    """Train a student to predict what the black box predicts."""

    recipe: Recipe
    shown = ("loss", "kl")

    def __init__(self, recipe: Recipe, teacher: Teacher, train: ImageSet, val: ImageSet, soft_labels: Folder) -> None:
        """Build everything at step 0; every worker draws the same weights from the recipe's seed."""
        self.teacher = teacher
        teacher.caches_responses = False  # `SoftLabels` keeps what is seen again
        self.sim_ns = [n for n in SIM_NS if n <= (teacher.num_ranked or teacher.num_classes)]
        self.figures = ("kl", "accuracy", *(f"sim{n}" for n in self.sim_ns))
        self.soft_labels = soft_labels_folder(soft_labels, teacher.fingerprint, recipe)
        self.num_views = recipe.num_views
        torch.manual_seed(recipe.seed)
        self.student = ResCBAM(recipe.depth, teacher.num_classes)
        labels, val_labels = (images.labels(teacher.num_classes, teacher.class_names) for images in (train, val))
        permutation = teacher_permutation(len(train.image_ids), recipe)
        train_views = AugmentedViews(
            train, labels, recipe, teacher.input_size, mean=teacher.mean, permutation=permutation
        )
        val_views = Views(val, val_labels, recipe, teacher.input_size)
        super().__init__(recipe, self.student, train_views, val_views, mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def train_epoch(self) -> Iterator[dict[str, float]]:
        """Take the rest of the epoch's steps, and keep what the black box answered in it."""
        self.soft = SoftLabels(self.soft_labels if self.num_views else None, self.recipe.view_at(self.epoch))
        yield from super().train_epoch()
        self.soft.keep()

    def _loss(self, batch: dict) -> dict[str, Tensor]:
        valid, probs = self._teach(batch)
        logits = self.model(self._pixels(batch))
        return distillation_loss(
            probs, logits[valid], self._training_labels(batch)[valid], label_weight=self.recipe.label_weight
        )

    def _training_labels(self, batch: dict) -> Tensor:
        """Return the labels (B,), or (B, K) where the recipe mixes images."""
        device = self.accelerator.device
        labels, others = (torch.as_tensor(batch[name], device=device) for name in ("label", "other_label"))
        share = torch.as_tensor(batch["share"], dtype=torch.float32, device=device)
        return mixed_labels(labels, others, share, self.teacher.num_classes) if self.recipe.mixup else labels

    def _teach(self, batch: dict) -> tuple[list[int], Tensor]:
        """Return which rows of the batch hold an image, and the teacher's probabilities for those."""
        valid = self._valid(batch)
        if not valid:
            return valid, torch.zeros(0, self.teacher.num_classes, device=self.accelerator.device)
        ids = [batch["teacher_image_id"][i] for i in valid]
        views = batch["teacher"] if len(valid) == len(batch["teacher"]) else batch["teacher"][valid]
        probs = self.soft.probabilities(ids, views, self.teacher.probabilities)
        return valid, torch.as_tensor(probs, device=self.accelerator.device)

    def validate(self) -> dict[str, float]:
        """Compare student and teacher on all validation images: Sim1..Sim5, KL and accuracy, over all workers."""
        self.soft = SoftLabels(self.soft_labels, -1)
        metrics = super().validate()
        self.soft.keep()
        return metrics

    def _judge(self, batch: dict) -> tuple[int, list[Tensor]]:
        valid, probs = self._teach(batch)
        logits = self.student(self._pixels(batch))[valid].float()
        hits = (logits.argmax(dim=1) == self._labels(batch)[valid]).sum()
        sims = [sim_n(probs, logits, n).sum() for n in self.sim_ns]
        return len(valid), [kl_divergence(probs, logits) * len(valid), hits, *sims]

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
            shuffled=self.recipe.shuffled,
        )

    def store(self, folder: Folder) -> None:
        """Write the student."""
        save_student(folder, self.result())
