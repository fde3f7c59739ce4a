"""The views of an image that teacher and student train on: the same pixels, each at its own size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset, Sampler

from distill.hiding import blend, blurred, masked
from distill.images import ImageSet
from distill.images.decode import ImageError, centre_crop, decode, resize
from distill.recipes import Recipe

Size = tuple[int, int]


def view_generator(seed: int, image_id: str, view: int, purpose: str = "") -> np.random.Generator:
    """Make the random generator of one view, a function of (seed, image_id, view) and the purpose alone."""
    digest = hashlib.sha256(f"{purpose}{seed}/{view}/{image_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def random_box(
    generator: np.random.Generator, size: Size, min_scale: float, ratio: float = 4 / 3
) -> tuple[float, float, float, float]:
    """Draw the part of an image that a view shows, as torchvision's RandomResizedCrop does.

    Args:
        generator: source of randomness.
        size: height and width of the image, pixels.
        min_scale: smallest share of the area; the largest is 1.
        ratio: the box's width over height lies between 1 / ratio and ratio.

    Returns:
        (left, top, right, bottom) in pixels.
    """
    height, width = size
    for _ in range(10):
        area = height * width * generator.uniform(min_scale, 1)
        aspect = math.exp(generator.uniform(-math.log(ratio), math.log(ratio)))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = generator.uniform(0, width - w), generator.uniform(0, height - h)
            return left, top, left + w, top + h
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def training_view(
    image: Image.Image, sizes: Sequence[Size], recipe: Recipe, image_id: str, view: int
) -> list[np.ndarray]:
    """Cut one training view of an image, once for each size, each uint8 (height, width, 3)."""
    generator = view_generator(recipe.seed, image_id, view)
    box, flip = (0.0, 0.0, float(image.width), float(image.height)), False
    if recipe.crop == "random_resized":
        box = random_box(generator, (image.height, image.width), recipe.crop_min_scale)
        flip = bool(generator.integers(2))
    views = [np.asarray(image.resize((w, h), Image.Resampling.BILINEAR, box=box)) for h, w in sizes]
    return [np.ascontiguousarray(v[:, ::-1]) if flip else v for v in views]


class Change(NamedTuple):
    """What becomes of a view once it is cut."""

    kind: Literal["none", "mixed", "masked", "blurred"]
    other: int
    """The image that is mixed in, by its number."""
    share: float
    """Of the view itself in the mixture; 1 where nothing is mixed in."""


def draw_change(generator: np.random.Generator, recipe: Recipe, num_images: int) -> Change:
    """Draw what becomes of a view: masked or blurred, with the recipe's shares, or else mixed if the recipe mixes."""
    at, other = generator.random(), int(generator.integers(num_images))
    if at < recipe.masked_share:
        return Change("masked", other, 1.0)
    if at < recipe.masked_share + recipe.blurred_share:
        return Change("blurred", other, 1.0)
    if recipe.mixup:
        return Change("mixed", other, generator.beta(recipe.mixup, recipe.mixup))
    return Change("none", other, 1.0)


class Views(Dataset):
    """Give the views that an index (image, view) names; view -1 is the paper's validation crop.

    A training view is cut, then changed as `draw_change` says. Views are mixed at each size; what masks and blurs make
    is made at the teacher's size, as in the games, and resized for the student.

    A row: image_id, label and other_label (-1 for none), share of the former, student (H, W, 3), teacher (h, w, 3),
    error (None, or why there is no image). A broken image, or one that another broken one was to be mixed into, keeps
    its place as grey pixels with its error, so that the loop can count it and leave it out.
    """

    def __init__(
        self,
        images: ImageSet,
        labels: Sequence[int | None],
        recipe: Recipe,
        teacher_size: Size,
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        """Keep what rows are made of; `mean` is the teacher's mean colour in [0, 1], which hides pixels."""
        self.images, self.recipe, self.mean = images, recipe, mean
        self.labels = np.array([-1 if label is None else label for label in labels])
        self.sizes = (recipe.input_size, teacher_size)

    def __getitem__(self, index: tuple[int, int]) -> dict:
        """Return one row."""
        number, view = index
        image_id = self.images.image_ids[number]
        error, pixels = None, [np.full((*size, 3), 128, np.uint8) for size in self.sizes]
        try:
            pixels = self._cut(image_id, view)
        except ImageError as problem:
            error = str(problem)
        change = self._change(image_id, view)
        return {
            "image_id": image_id,
            "label": int(self.labels[number]),
            "other_label": int(self.labels[change.other]),
            "share": change.share,
            "student": pixels[0],
            "teacher": pixels[1],
            "error": error,
        }

    def _change(self, image_id: str, view: int) -> Change:
        return draw_change(view_generator(self.recipe.seed, image_id, view, "change/"), self.recipe, len(self.labels))

    def _cut(self, image_id: str, view: int) -> list[np.ndarray]:
        """Make the student's and the teacher's pixels of a view."""
        image = self._read(image_id)
        if view < 0:
            return [centre_crop(image, size) for size in self.sizes]
        pixels = training_view(image, self.sizes, self.recipe, image_id, view)
        change = self._change(image_id, view)
        if change.kind == "none":
            return pixels
        if change.kind == "mixed":
            other_id = self.images.image_ids[change.other]
            others = training_view(self._read(other_id), self.sizes, self.recipe, other_id, view)
            return [blend(own, other, change.share) for own, other in zip(pixels, others, strict=True)]
        generator = view_generator(self.recipe.seed, image_id, view, "hide/")
        frame = blurred(pixels[1], generator) if change.kind == "blurred" else masked(pixels[1], generator, self.mean)
        return [resize(Image.fromarray(frame), self.sizes[0]), frame]

    def _read(self, image_id: str) -> Image.Image:
        try:
            return decode(self.images.read(image_id))
        except (ImageError, OSError) as problem:
            raise ImageError(f"{image_id}: {problem}") from problem


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """Deal the shuffled images of one epoch to the workers, batch by batch, from any step on.

    A function of (seed, epoch) alone, so that a resumed run sees what the undisturbed one would have seen. The last,
    ragged batch is left out, as all workers must take part in each step.
    """

    def __init__(self, num_images: int, recipe: Recipe, epoch: int, *, first_step: int, rank: int, num_workers: int):
        batch_size = min(recipe.batch_size, num_images) // num_workers * num_workers
        if batch_size == 0:
            raise ValueError(
                f"{num_images} images in batches of {recipe.batch_size} do not go round {num_workers} workers; "
                "give fewer workers or more images"
            )
        order = np.random.default_rng([recipe.seed, epoch]).permutation(num_images)
        self.view = epoch % recipe.num_views if recipe.num_views else epoch
        self.batches = order[: num_images // batch_size * batch_size].reshape(
            -1, num_workers, batch_size // num_workers
        )
        self.first_step, self.rank = first_step, rank

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield this worker's part of each batch as (image, view) pairs."""
        for batch in self.batches[self.first_step :, self.rank]:
            yield [(int(i), self.view) for i in batch]

    def __len__(self) -> int:
        """Return the number of steps that are left in the epoch."""
        return len(self.batches) - self.first_step


def validation_order(num_images: int, batch_size: int, rank: int, num_workers: int) -> list[list[tuple[int, int]]]:
    """Deal all validation images to the workers, each exactly once, the last batch ragged."""
    mine = [(i, -1) for i in range(rank, num_images, num_workers)]
    return [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]


def collate(rows: Sequence[dict]) -> dict:
    """Stack rows into a batch: uint8 (B, H, W, 3) views, int64 labels, float64 shares, lists of ids and errors."""
    batch = {name: [row[name] for row in rows] for name in rows[0]}
    return batch | {name: np.stack(batch[name]) for name in ("student", "teacher", "label", "other_label", "share")}
