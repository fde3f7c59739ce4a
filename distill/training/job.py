"""A training job: its images and run folder, opened and checked, and what each worker builds of it."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from cluster.device import own_device
from cluster.storage import Folder
from distill.config import DistillConfig, FineTuneConfig, TrainingConfig
from distill.data import ImageSet, open_images
from distill.data.versions import changed_images, record_versions
from distill.student.start import PUBLISHED, load_start
from distill.teachers import load_teacher
from distill.teachers.teacher_toml import MULTI_LABEL
from distill.teachers.tools.export import require_exporter
from distill.training.backbones import load_network
from distill.training.distillation import DistillationTrainer
from distill.training.finetuning import FineTuningTrainer, check_labels
from distill.training.recipes import Recipe, TrainingRecipe, recipe_data
from distill.training.soft_label_cache import delete_soft_labels
from distill.training.trainer import Trainer
from distill.training.views import teacher_permutation

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class TrainingJob(ABC):
    """What a training is about; the same for each of its workers."""

    stage: ClassVar[str]
    result: ClassVar[str]
    """What the run folder holds in the end."""

    name: str
    """The recipe's name."""
    recipe: TrainingRecipe
    train: ImageSet
    val: ImageSet
    out: Folder
    """The run folder."""

    @classmethod
    def _opened(cls, config: TrainingConfig, name: str) -> dict[str, Any]:
        """Open images and run folder. Raises: ValueError where the folder holds other or finished work."""
        out = Folder(config.out)
        if out.finished() is not None:
            raise ValueError(f"{config.out} holds a finished {cls.result}; give another --out")
        if out.exists(CHECKPOINTS) and not config.resume:
            raise ValueError(f"{config.out} holds unfinished work; give --resume to go on with it, or another --out")
        data = recipe_data(name, config.data)
        train, val = (open_images(data, split=split) for split in ("train", "val"))
        return {"name": name, "train": train, "val": val, "out": out}

    @property
    @abstractmethod
    def source(self) -> dict[str, str]:
        """Which models the training starts from, for the stored configuration."""

    @abstractmethod
    def build(self, *, num_threads: int, restored: bool) -> Trainer:
        """Build a worker's share of the training on the worker's device.

        Args:
            num_threads: threads of the black box.
            restored: whether a checkpoint will replace the weights.
        """

    def claim(self) -> None:
        """Claim the run folder, and record the images' versions. Raises: ValueError where other work has claimed it."""
        fingerprints = [self.train.fingerprint, self.val.fingerprint]
        config = {"recipe": self.recipe.fields(), "data": self.train.root, "data_fingerprint": fingerprints}
        self.out.claim(config | self.source, what=self.result)
        for images in (self.train, self.val):
            self.forget(changed_images(self.out, images))
            record_versions(self.out, images)

    @abstractmethod
    def forget(self, image_ids: frozenset[str]) -> None:
        """Delete what is stored of images that were replaced."""


@dataclass(frozen=True, kw_only=True)
class DistillationJob(TrainingJob):
    """A black box is distilled into a student."""

    stage = "distill"
    result = "student"

    recipe: Recipe
    teacher: str
    teacher_fingerprint: str
    init: str | None
    """Weights to start from, as `load_start` takes them."""
    init_fingerprint: str | None

    @classmethod
    def open(cls, config: DistillConfig, name: str) -> Self:
        """Open and check what a command names.

        Raises:
            ValueError: images, labels, teacher and run folder do not fit together.
        """
        opened = cls._opened(config, name)
        teacher = load_teacher(config.teacher)
        if teacher.output in MULTI_LABEL and teacher.num_outputs > 1:
            raise ValueError(
                f"teacher {teacher.spec} gives an image several labels (output = {teacher.output!r}): a student learns "
                "probabilities that sum to 1. Explain it without a student, by a query-based method"
            )
        for images in (opened["train"], opened["val"]):  # raises where the classes do not fit
            print(images.describe(teacher.num_classes, teacher.class_names), file=sys.stderr)
        teacher_permutation(len(opened["train"].image_ids), config.recipe)  # raises where there is no other image
        return cls(
            **opened,
            recipe=config.recipe,
            teacher=teacher.spec,
            teacher_fingerprint=teacher.fingerprint,
            init=config.init and _init_uri(config.init),
            init_fingerprint=config.init and _fingerprint_of(config.init, config.recipe),
        )

    @property
    def source(self) -> dict[str, str]:
        """The black box, and the student to start from where there is one."""
        init = {"init": self.init_fingerprint} if self.init_fingerprint else {}
        return {"teacher": self.teacher, "teacher_fingerprint": self.teacher_fingerprint, **init}

    def build(self, *, num_threads: int, restored: bool) -> DistillationTrainer:
        """Load black box and student."""
        teacher = load_teacher(
            self.teacher,
            num_threads=num_threads,
            device=own_device(),
            expected_fingerprint=self.teacher_fingerprint,
        )
        trainer = DistillationTrainer(self.recipe, teacher, self.train, self.val, self._soft_labels)
        if self.init and not restored:
            load_start(self.init).give(trainer.student)
        return trainer

    def forget(self, image_ids: frozenset[str]) -> None:
        """Delete their soft labels."""
        if image_ids:
            delete_soft_labels(self._soft_labels, self.teacher_fingerprint, self.recipe, image_ids)

    @property
    def _soft_labels(self) -> Folder:
        return self.out.child("soft_labels")


@dataclass(frozen=True, kw_only=True)
class FineTuningJob(TrainingJob):
    """A network is fine-tuned on labels, and becomes a black box."""

    stage = "finetune"
    result = "black box"

    network: str
    network_fingerprint: str

    @classmethod
    def open(cls, config: FineTuneConfig, name: str) -> Self:
        """Open and check what a command names.

        Raises:
            ValueError: images, labels, network and run folder do not fit together.
        """
        opened = cls._opened(config, name)
        check_labels(opened["train"], opened["val"])
        require_exporter()
        recipe, num_classes = config.recipe, len(opened["train"].class_names)
        start = load_network(config.network, num_classes, seed=recipe.seed, input_size=recipe.input_size)
        return cls(**opened, recipe=recipe, network=config.network, network_fingerprint=start.fingerprint)

    @property
    def source(self) -> dict[str, str]:
        """The network as it was before."""
        return {"network": self.network, "network_fingerprint": self.network_fingerprint}

    def build(self, *, num_threads: int, restored: bool) -> FineTuningTrainer:
        """Load the network."""
        num_classes = len(self.train.class_names)
        network = load_network(self.network, num_classes, seed=self.recipe.seed, input_size=self.recipe.input_size)
        return FineTuningTrainer(self.recipe, network, self.train, self.val)

    def forget(self, image_ids: frozenset[str]) -> None:
        """Delete nothing: labels are read anew."""


def _init_uri(init: str) -> str:
    return init if init.startswith(PUBLISHED) else Folder(init).uri


def _fingerprint_of(init: str, recipe: Recipe) -> str:
    """Return the fingerprint of the weights that training starts from. Raises: ValueError for another depth."""
    start = load_start(init)
    if start.depth != recipe.depth:
        raise ValueError(
            f"the weights of {init} have {start.depth} layers, the recipe's student {recipe.depth}; "
            f"give --depth {start.depth}, or weights of that depth (--init)"
        )
    return start.fingerprint
