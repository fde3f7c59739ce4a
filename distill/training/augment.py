"""Augmentations of training views, the same for teacher and student: mixed with another image, masked or blurred.

The student learns what the teacher says of these very pixels (function matching, Beyer et al. 2022): masks and blurs
are those of RISE and of the games, so that it follows the black box there too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from distill.data import ImageSet
from distill.data.decode import resize
from distill.perturb.rise_masks import FAMILIES, rise_masks
from distill.training.recipes import Recipe
from distill.training.views import Size, Views, view_generator

BLUR_SIGMAS = (0.01, 0.1)
"""Share of the longer side: RISE's blur is as wide as a Gaussian of .014, LIME's and KernelSHAP's is one of .05."""

ORDER_CELLS = (3, 28)
"""Cells of a random order along each side: from the last layer of a student at 96 px to a layer 2 at 224 px."""


class Augmentation(NamedTuple):
    """What becomes of a view once it is cut."""

    kind: Literal["none", "mixed", "masked", "blurred"]
    other: int
    """The image that is mixed in, by its number."""
    share: float
    """Of the view itself in the mixture; 1 where nothing is mixed in."""


def draw_augmentation(generator: np.random.Generator, recipe: Recipe, num_images: int) -> Augmentation:
    """Draw what becomes of a view: masked or blurred, with the recipe's shares, or else mixed if the recipe mixes."""
    at, other = generator.random(), int(generator.integers(num_images))
    if at < recipe.masked_share:
        return Augmentation("masked", other, 1.0)
    if at < recipe.masked_share + recipe.blurred_share:
        return Augmentation("blurred", other, 1.0)
    if recipe.mixup:
        return Augmentation("mixed", other, generator.beta(recipe.mixup, recipe.mixup))
    return Augmentation("none", other, 1.0)


class AugmentedViews(Views):
    """Give training views, changed as `draw_augmentation` says.

    Views are mixed at each size; what masks and blurs make is made at the teacher's size, as in the games, and resized
    for the student. A row has two fields more: other_label of the image that is mixed in (-1 for none), and share of
    the view's own. A view that a broken image was to be mixed into is left out like a broken one.
    """

    def __init__(
        self,
        images: ImageSet,
        labels: Sequence[int | None],
        recipe: Recipe,
        teacher_size: Size,
        *,
        mean: Sequence[float],
        permutation: np.ndarray | None = None,
    ) -> None:
        """Keep the recipe's settings; `mean` is the teacher's mean color in [0, 1], which hides pixels."""
        super().__init__(images, labels, recipe, teacher_size, permutation)
        self.recipe, self.mean = recipe, mean

    def __getitem__(self, index: tuple[int, int]) -> dict:
        """Return one row."""
        row = super().__getitem__(index)
        change = self._change(row["teacher_image_id"], index[1])
        return row | {"other_label": int(self.labels[change.other]), "share": change.share}

    def cut(self, image_id: str, view: int) -> list[np.ndarray]:
        """Make the student's and the teacher's pixels. Raises: ImageError, naming the image."""
        pixels, change = super().cut(image_id, view), self._change(image_id, view)
        if change.kind == "none":
            return pixels
        if change.kind == "mixed":
            others = super().cut(self.images.image_ids[change.other], view)
            return [blend(own, other, change.share) for own, other in zip(pixels, others, strict=True)]
        generator = view_generator(self.recipe.seed, image_id, view, "hide/")
        frame = blurred(pixels[1], generator) if change.kind == "blurred" else masked(pixels[1], generator, self.mean)
        return [resize(Image.fromarray(frame), self.sizes[0]), frame]

    def _change(self, image_id: str, view: int) -> Augmentation:
        return draw_augmentation(
            view_generator(self.recipe.seed, image_id, view, "change/"), self.recipe, len(self.labels)
        )


def masked(view: np.ndarray, generator: np.random.Generator, mean: Sequence[float]) -> np.ndarray:
    """Hide a part of a view: one time in two under a mask of RISE, else as in a frame of a game.

    RISE's mask, of either family, leaves m x + (1 - m) mean. A game's frame shows the first pixels of a random order,
    a share of them that is uniform in (0, 1), and in place of the others the mean color or the blurred view.

    Args:
        view: uint8 (H, W, 3) at the teacher's size.
        generator: source of randomness.
        mean: the teacher's mean color, per channel in [0, 1].

    Returns:
        uint8 (H, W, 3).
    """
    size, hidden = (view.shape[0], view.shape[1]), 255 * np.asarray(mean)
    if generator.integers(2):
        num_cells, keep_probability = FAMILIES[generator.integers(2)]
        seed = int(generator.integers(2**63))
        masks = rise_masks(range(1), seed=seed, size=size, num_cells=num_cells, keep_probability=keep_probability)
        return blend(view, hidden, masks[0].numpy())
    order = random_order(generator, size)
    shown = order >= np.quantile(order, generator.random())
    return blend(view, blurred(view, generator) if generator.integers(2) else hidden, shown)


def random_order(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw a map (H, W) float32 to rank pixels by: uniform numbers in a grid, as patches or smoothed to blobs."""
    low, high = ORDER_CELLS
    num_cells = round(math.exp(generator.uniform(math.log(low), math.log(high))))
    grid = Image.fromarray(generator.random((num_cells, num_cells), dtype=np.float32))
    kernel = Image.Resampling.BILINEAR if generator.integers(2) else Image.Resampling.NEAREST
    return np.asarray(grid.resize((size[1], size[0]), kernel))


def blurred(view: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Blur a view, uint8 (H, W, 3), by a Gaussian whose sigma is drawn log-uniformly from `BLUR_SIGMAS`."""
    low, high = BLUR_SIGMAS
    sigma_px = max(view.shape) * math.exp(generator.uniform(math.log(low), math.log(high)))
    return np.asarray(Image.fromarray(view).filter(ImageFilter.GaussianBlur(sigma_px)))


def blend(view: np.ndarray, other: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Compute `share * view + (1 - share) * other`, rounded to uint8 levels.

    Args:
        view: uint8 (H, W, 3).
        other: (H, W, 3), or one color (3,), in levels from 0 to 255.
        share: in [0, 1], one number or (H, W).

    Returns:
        uint8 (H, W, 3).
    """
    height, width, _ = view.shape
    rows = (height, width * 3)  # numpy is slow where the innermost axis is three long
    other = np.tile(other, width) if other.ndim == 1 else other.reshape(rows)
    other = other.astype(np.float32)
    mixed = view.reshape(rows) - other
    mixed *= np.repeat(share.astype(np.float32), 3, axis=1) if isinstance(share, np.ndarray) else share
    mixed += other
    return np.rint(mixed, out=mixed).astype(np.uint8).reshape(view.shape)
