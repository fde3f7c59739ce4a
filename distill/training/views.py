"""The views of an image that networks train on: teacher and student see the same part of it, each at its own size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import Dataset, Sampler

from cluster.device import one_thread
from distill.data import ImageSet
from distill.data.decode import ImageError, center_crop
from distill.training.recipes import Recipe, TrainingRecipe

Size = tuple[int, int]
Part = Literal["train", "val"]


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
    image: Image.Image, sizes: Sequence[Size], recipe: TrainingRecipe, image_id: str, view: int
) -> list[np.ndarray]:
    """Cut one training view of an image, once for each size, each uint8 (height, width, 3)."""
    generator = view_generator(recipe.seed, image_id, view)
    part = np.array(image)
    if recipe.crop == "random_resized":
        left, top, right, bottom = random_box(generator, (image.height, image.width), recipe.crop_min_scale)
        part = part[int(top) : max(round(bottom), int(top) + 1), int(left) : max(round(right), int(left) + 1)]
        part = part[:, ::-1].copy() if generator.integers(2) else part
    return [resize_fast(part, size) for size in sizes]


def resize_fast(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Resize uint8 (H, W, 3) to `size`, bilinear with antialiasing, by torch: a third of Pillow's time.

    It is Pillow's result within a level or two. What is explained and scored is resized by Pillow.
    """
    with one_thread():
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W), channels last in memory
        resized = F.interpolate(planes, size=size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def teacher_permutation(num_images: int, recipe: Recipe) -> np.ndarray:
    """Draw for each image the one whose response it is trained on: itself, or another one where the recipe shuffles.

    Shuffled, the images stand in one ring, in an order drawn from the seed alone, and each is trained on the response
    to the one before it: every response is given once, and never to its own image.

    Returns:
        (num_images,) numbers of images.

    Raises:
        ValueError: a single image has no other.
    """
    if not recipe.shuffled:
        return np.arange(num_images)
    if num_images < 2:
        raise ValueError(f"shuffled needs 2 training images or more, got {num_images}; leave --shuffled out")
    ring = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(1,))).permutation(num_images)
    permutation = np.empty_like(ring)
    permutation[ring] = np.roll(ring, 1)
    return permutation


class Views(Dataset):
    """Give the views that an index (image, view) names; view -1 is the paper's validation crop.

    A row: image_id, student (H, W, 3) and error (None, or why there is no image); teacher_image_id and label (-1 for
    none) of the image whose response it is trained on, and with a `teacher_size` that image's teacher (h, w, 3).
    `student` is what the network that is trained sees. A broken image keeps its place as gray pixels with its error,
    so that the loop can count it and leave it out.
    """

    def __init__(
        self,
        images: ImageSet,
        labels: Sequence[int | None],
        recipe: TrainingRecipe,
        teacher_size: Size | None = None,
        permutation: np.ndarray | None = None,
    ) -> None:
        """Keep images, labels and recipe; `permutation` as of `teacher_permutation`, by default each image itself."""
        self.images, self.recipe = images, recipe
        self.labels = np.array([-1 if label is None else label for label in labels])
        self.permutation = np.arange(len(images.image_ids)) if permutation is None else permutation
        self.sizes = (recipe.input_size,) if teacher_size is None else (recipe.input_size, teacher_size)

    def __getitem__(self, index: tuple[int, int]) -> dict:
        """Return one row."""
        number, view = index
        other = int(self.permutation[number])
        image_id, teacher_image_id = (self.images.image_ids[n] for n in (number, other))
        error, pixels = None, [np.full((*size, 3), 128, np.uint8) for size in self.sizes]
        try:
            pixels = self.cut(image_id, view)
            if other != number:
                pixels[1] = self.cut(teacher_image_id, view)[1]
        except ImageError as problem:
            error = str(problem)
        return {
            "image_id": image_id,
            "teacher_image_id": teacher_image_id,
            "label": int(self.labels[other]),
            "error": error,
            **dict(zip(("student", "teacher"), pixels, strict=False)),
        }

    def cut(self, image_id: str, view: int) -> list[np.ndarray]:
        """Make the pixels at each size. Raises: ImageError, naming the image."""
        try:
            image = self.images.image(image_id)
        except (ImageError, OSError) as problem:
            raise ImageError(f"{image_id}: {problem}") from problem
        if view < 0:
            return [center_crop(image, size) for size in self.sizes]
        return training_view(image, self.sizes, self.recipe, image_id, view)


class BothViews(Dataset):
    """Give training and validation views by an index (part, image, view), so that the same processes decode both."""

    def __init__(self, train: Views, val: Views) -> None:
        self.parts: dict[Part, Views] = {"train": train, "val": val}

    def __getitem__(self, index: tuple[Part, int, int]) -> dict:
        """Return one row."""
        part, number, view = index
        return self.parts[part][number, view]


def batches_of(num_images: int, recipe: TrainingRecipe, num_workers: int) -> tuple[int, int]:
    """Return how many images a batch has, over all workers, and how many such batches an epoch has.

    A batch is the recipe's, or all images where there are fewer; the last, ragged batch is left out.

    Raises:
        ValueError: there is not an image for each worker.
    """
    size = min(recipe.batch_size, num_images)
    if size < num_workers:
        raise ValueError(
            f"{num_images} images in batches of {recipe.batch_size} do not go round {num_workers} workers; "
            "give fewer workers or more images"
        )
    return size, num_images // size


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """Deal the shuffled images of one epoch to the workers, batch by batch, from any step on.

    A function of (seed, epoch) alone, so that a resumed run sees what the undisturbed one would have seen, also with
    another number of workers, whose parts of a batch may differ by an image.
    """

    def __init__(
        self, num_images: int, recipe: TrainingRecipe, epoch: int, *, first_step: int, rank: int, num_workers: int
    ):
        self.batch_size, num_steps = batches_of(num_images, recipe, num_workers)
        order = np.random.default_rng([recipe.seed, epoch]).permutation(num_images)
        self.view = recipe.view_at(epoch)
        self.batches = order[: num_steps * self.batch_size].reshape(num_steps, self.batch_size)
        self.first_step, self.rank, self.num_workers = first_step, rank, num_workers

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield this worker's part of each batch as (image, view) pairs."""
        for batch in self.batches[self.first_step :]:
            yield [(int(i), self.view) for i in np.array_split(batch, self.num_workers)[self.rank]]

    def __len__(self) -> int:
        """Return the number of steps that are left in the epoch."""
        return len(self.batches) - self.first_step


def validation_order(num_images: int, batch_size: int, rank: int, num_workers: int) -> list[list[tuple[int, int]]]:
    """Deal all validation images to the workers, each exactly once, the last batch ragged."""
    mine = [(i, -1) for i in range(rank, num_images, num_workers)]
    return [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]


def collate(rows: Sequence[dict]) -> dict:
    """Stack rows into a batch: uint8 (B, H, W, 3) views, numbers (B,) such as int64 labels, lists of ids and errors."""
    batch = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: v if isinstance(v[0], str | None) else np.stack(v) for name, v in batch.items()}
