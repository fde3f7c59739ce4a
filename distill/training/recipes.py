"""The recipes: how a network is trained on each data set, as one frozen configuration each.

`imagenet` and the fine-grained sets hold the paper's hyper-parameters (section 4); what it leaves open is a field.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

Crop = Literal["random_resized", "resized"]
Precision = Literal["auto", "float32", "bfloat16"]
Schedule = Literal["steps", "cosine"]
# At their defaults they are not recorded, so that work that was begun before they came can be resumed.
LATER_FIELDS = ("masked_share", "blurred_share", "mixup", "label_weight", "shuffled")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Hyper-parameters of training a network on images, whatever it learns from."""

    input_size: tuple[int, int] = (224, 224)
    """Height and width in pixels that the network sees; a black box that it learns from has its own."""
    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 256
    """Images per optimizer step, over all workers."""
    lr: float = 0.1
    """Highest learning rate of SGD."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty of SGD, on all parameters."""
    schedule: Schedule = "steps"
    """Learning rate over time: x0.1 at each of `lr_epochs`, or a half cosine down to zero."""
    lr_epochs: tuple[int, ...] = (30, 60, 90)
    """Epochs at which the learning rate falls (schedule `steps`)."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up from zero."""
    crop: Crop = "random_resized"
    """Training view: a random part of the image with a random flip, or the whole image resized."""
    crop_min_scale: float = 0.08
    """Smallest share of the image's area in a random crop."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto takes bfloat16 where the machine has it."""
    compile: bool = False
    """Compile the network (minutes at the start, about twice the speed after)."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 does not clip."""
    loader_workers: int = 2
    """Processes per worker that decode images; 0 decodes in the training process."""
    checkpoint_steps: int = 500
    """Steps between checkpoints; there is one at each epoch's end as well."""
    log_steps: int = 20
    """Steps between two points of the curves."""
    seed: int = 0
    """Seed of weights, order and views."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("epochs", "batch_size", "checkpoint_steps", "log_steps"):
            _check(name, getattr(self, name), "1 or more", getattr(self, name) >= 1)
        for name in ("loader_workers", "warmup_epochs", "clip_norm", "weight_decay"):
            _check(name, getattr(self, name), "0 or more", getattr(self, name) >= 0)
        _check("lr", self.lr, "above 0", self.lr > 0)
        _check("momentum", self.momentum, "0 to less than 1", 0 <= self.momentum < 1)
        _check("crop_min_scale", self.crop_min_scale, "above 0, up to 1", 0 < self.crop_min_scale <= 1)
        _check("input_size", self.input_size, "32 pixels or more a side", min(self.input_size) >= 32)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Make a recipe from the dictionary that `fields` returned, also after it was stored as JSON."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)

    def fields(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values; what came after runs were stored only where it is used."""
        unset = {name for name in LATER_FIELDS if getattr(self, name, None) == getattr(type(self), name, None)}
        kept = {name: value for name, value in dataclasses.asdict(self).items() if name not in unset}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()}

    def view_at(self, epoch: int) -> int:
        """Return the number of the view that every image shows in an epoch."""
        return epoch


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainingRecipe):
    """Hyper-parameters of one distillation."""

    depth: Literal[18, 50] = 50
    """Layers of the student."""
    num_views: int = 0
    """Views per image, taken in turn, whose soft labels are kept; 0: a new view each epoch, the teacher asked live."""
    masked_share: float = 0.0
    """Share of the training views of which a part is hidden, by RISE's masks or as in the frames of the games."""
    blurred_share: float = 0.0
    """Share of the training views that are blurred."""
    mixup: float = 0.0
    """Mix the other views with another image's, in shares drawn from Beta(mixup, mixup); 1: uniform, 0: not at all."""
    label_weight: float = 1.0
    """Weight of the cross entropy with the labels, beside the teacher's 1; 0 follows the teacher alone."""
    shuffled: bool = False
    """Teach each image the black box's answer to another one, and that one's label; the seed deals them out, once.
    For a student that sanity checks compare with, never for explaining."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name in ("num_views", "label_weight", "masked_share", "blurred_share", "mixup"):
            _check(name, getattr(self, name), "0 or more", getattr(self, name) >= 0)
        shares = self.masked_share + self.blurred_share
        _check("masked_share + blurred_share", shares, "1 or less", shares <= 1)

    def view_at(self, epoch: int) -> int:
        """Return the number of the view that every image shows in an epoch."""
        return epoch % self.num_views if self.num_views else epoch


def _check(name: str, got: object, allowed: str, ok: bool) -> None:
    if not ok:
        raise ValueError(f"{name} is {got}; allowed: {allowed}")


IMAGENET = Recipe()
FINE_GRAINED = replace(IMAGENET, lr=0.01, lr_epochs=(30, 50, 60, 70))
SMALL = replace(
    IMAGENET,
    input_size=(96, 96),
    batch_size=32,
    lr=0.03,
    schedule="cosine",
    clip_norm=5.0,
    crop_min_scale=0.35,
)
IMAGENETTE = replace(SMALL, epochs=8, warmup_epochs=0.5, num_views=4, loader_workers=1, checkpoint_steps=100)

RECIPES: dict[str, tuple[str, Recipe]] = {
    "imagenet": ("ImageNet, as in the paper (GPUs).", IMAGENET),
    "cub": ("CUB-200-2011, as in the paper (GPUs).", FINE_GRAINED),
    "cars": ("Stanford Cars, as in the paper (GPUs).", FINE_GRAINED),
    "aircraft-variant": ("FGVC Aircraft by variant, as in the paper (GPUs).", FINE_GRAINED),
    "aircraft-family": ("FGVC Aircraft by family, as in the paper (GPUs).", FINE_GRAINED),
    "aircraft-manufacturer": ("FGVC Aircraft by manufacturer, as in the paper (GPUs).", FINE_GRAINED),
    "imagenette": ("Imagenette, ResCBAM-50 at 96 px: an hour or two on two cores.", IMAGENETTE),
    "faithful": (
        "Imagenette, as long as `imagenette`, for a student that follows the black box under masks too.",
        # Without the labels' half of the gradient, about twice the learning rate makes steps of the same size.
        replace(IMAGENETTE, lr=0.05, num_views=0, label_weight=0.0, mixup=0.5, masked_share=0.4, blurred_share=0.1),
    ),
    "cars_40": (
        "Forty classes of Stanford Cars, as long as `imagenette` and at its size; starts from its student (--init).",
        replace(IMAGENETTE, epochs=60, warmup_epochs=2, num_views=0, crop_min_scale=0.5),
    ),
    "folder": (
        "Any folder of images, ResCBAM-50 at 224 px.",
        replace(IMAGENET, batch_size=128, lr=0.05, schedule="cosine", epochs=50, warmup_epochs=2),
    ),
    "demo": (
        "The demo's rendered images, ResCBAM-18 at 64 px: a minute or two on two cores.",
        replace(
            SMALL,
            depth=18,
            input_size=(64, 64),
            epochs=5,
            batch_size=64,
            lr=0.06,
            warmup_epochs=0.5,
            crop_min_scale=0.6,
            loader_workers=0,
        ),
    ),
}
"""Name -> (one line for --help, recipe)."""

FINE_TUNING = TrainingRecipe(lr=FINE_GRAINED.lr, lr_epochs=FINE_GRAINED.lr_epochs)
SHORT_FINE_TUNING = replace(
    FINE_TUNING,
    epochs=12,
    batch_size=32,
    schedule="cosine",
    warmup_epochs=1,
    crop_min_scale=0.35,
    loader_workers=1,
    checkpoint_steps=20,
    log_steps=5,
)

FINE_TUNING_RECIPES: dict[str, tuple[str, TrainingRecipe]] = {
    "cub": ("CUB-200-2011, as in the paper (GPUs).", FINE_TUNING),
    "cars": ("Stanford Cars, as in the paper (GPUs).", FINE_TUNING),
    "aircraft-variant": ("FGVC Aircraft by variant, as in the paper (GPUs).", FINE_TUNING),
    "aircraft-family": ("FGVC Aircraft by family, as in the paper (GPUs).", FINE_TUNING),
    "aircraft-manufacturer": ("FGVC Aircraft by manufacturer, as in the paper (GPUs).", FINE_TUNING),
    "cars_40": (
        "Forty classes of Stanford Cars at 224 px: half an hour on two cores.",
        # On cores, bfloat16 takes twice as long as float32 for a network of depthwise convolutions.
        replace(SHORT_FINE_TUNING, epochs=16, lr=0.02, precision="float32"),
    ),
    "folder": ("Any folder of images in class folders.", replace(SHORT_FINE_TUNING, epochs=30, batch_size=64)),
}
"""Name -> (one line for `finetune --help`, recipe)."""


def recipe_data(name: str, data: str) -> str:
    """Add to the data's name the labels that a recipe's name chooses: `aircraft-family` trains on `DIR#family`.

    Raises:
        ValueError: if `data` already chooses other labels.
    """
    from distill.data.root import split_labels

    data_set, _, wanted = name.partition("-")
    folder, given = split_labels(data.rstrip("/"))
    if data_set != "aircraft":
        return data
    if given not in (None, wanted):
        raise ValueError(f"recipe {name!r} trains on #{wanted}, but data {data!r} says #{given}; leave #{given} out")
    return f"{folder}#{wanted}"


def lr_at(recipe: TrainingRecipe, epoch: float) -> float:
    """Compute the learning rate at a moment in training, counted in epochs (2.5: half of the third is done)."""
    scale = min(1.0, epoch / recipe.warmup_epochs) if recipe.warmup_epochs else 1.0
    if recipe.schedule == "steps":
        return recipe.lr * scale * 0.1 ** sum(epoch >= at for at in recipe.lr_epochs)
    span = recipe.epochs - recipe.warmup_epochs
    done = max(0.0, epoch - recipe.warmup_epochs) / span if span > 0 else 1.0
    return recipe.lr * scale * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
