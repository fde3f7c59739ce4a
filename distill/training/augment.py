"""What becomes of training views once they are cut: mixed, masked or blurred, the same for teacher and student.

The student is taught what the teacher says of these very pixels (function matching, Beyer et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from distill.data import ImageSet
from distill.data.decode import resize
from distill.training.masking import blend, blurred, masked
from distill.training.recipes import Recipe
from distill.training.views import Size, Views, view_generator


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
        taught: np.ndarray | None = None,
    ) -> None:
        """Keep what rows are made of; `mean` is the teacher's mean colour in [0, 1], which hides pixels."""
        super().__init__(images, labels, recipe, teacher_size, taught)
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
