"""Describe a data set's images: their ids, classes and where to read them, without reading any."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from distill.data.boxes import Boxes
from distill.data.decode import ImageError, decode
from distill.data.objects import MaskFiles, Objects, resize_mask
from distill.data.root import LABELS, Root

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The images of one split of a data set; small, picklable, opens its storage where it is used."""

    name: str
    """The data set's name, as it names the MLflow experiment."""
    root: str
    """Absolute local path, or URI; `#labels` behind it where the data set has several kinds of labels."""
    image_ids: tuple[str, ...]
    """Paths relative to the root, sorted."""
    class_ids: tuple[int | None, ...]
    """One per image: 0 ... len(class_names) - 1, or None for an image without a class."""
    class_names: tuple[str, ...]
    """One per class, for people to read; empty where the data set has no classes."""
    split: str | None = None
    """Which part this is; None for a data set without parts that is taken whole."""
    label_spaces: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Other models that know these classes: number of classes -> that model's label of each class."""
    objects: Objects = field(default_factory=MaskFiles)
    """Where the data set says what each image's object is."""
    banner_px: int = 0
    """Rows of text at the bottom of each image that are no part of the picture."""

    def __post_init__(self) -> None:
        assert len(self.image_ids) == len(self.class_ids)

    def first(self, limit: int | None = None, per_class: int | None = None) -> ImageSet:
        """Take the first so many images of each class, or of all, in sorted order.

        Args:
            limit: how many in all; None for no limit.
            per_class: how many of each class, fewer of one that has fewer; images without a class are left out.

        Raises:
            ValueError: a number is below 1, both are given, or there are no classes to count by.
        """
        for name, number in (("limit", limit), ("per_class", per_class)):
            if number is not None and number < 1:
                raise ValueError(f"{name} {number} is too small; allowed: 1 or more, or none for all images")
        if per_class is None:
            return replace(self, image_ids=self.image_ids[:limit], class_ids=self.class_ids[:limit])
        if limit is not None:
            raise ValueError(f"limit {limit} and per_class {per_class} do not go together; give one of them")
        if not any(class_id is not None for class_id in self.class_ids):
            raise ValueError(
                f"per_class {per_class}: the images of {self.name!r} have no classes; give a limit instead"
            )
        found: dict[int, int] = {}
        kept = []
        for place, class_id in enumerate(self.class_ids):
            if class_id is not None and found.get(class_id, 0) < per_class:
                found[class_id] = found.get(class_id, 0) + 1
                kept.append(place)
        image_ids, class_ids = (tuple(values[place] for place in kept) for values in (self.image_ids, self.class_ids))
        return replace(self, image_ids=image_ids, class_ids=class_ids)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash the name, the image ids and their classes: 12 hex digits."""
        record = json.dumps([self.name, self.image_ids, self.class_ids])
        return hashlib.sha256(record.encode()).hexdigest()[:12]

    def read(self, image_id: str) -> bytes:
        """Read the image's file as it is stored; `image` makes pixels of it."""
        return Root(self.root).read(image_id)

    def image(self, image_id: str) -> Image.Image:
        """Read and decode an image, upright RGB, without the data set's banner: what every model and person sees.

        Raises:
            ImageError: if it cannot be used; the message says why.
            FileNotFoundError: if it is not there.
            WorkError: if no image of its folder is, or the disk or store that it is on fails.
        """
        try:
            image = decode(self.read(image_id))
        except FileNotFoundError:
            Root(self.root).require_folder(image_id)
            raise
        if not self.banner_px:
            return image
        if image.height <= self.banner_px:
            raise ImageError(f"the image is {image.height} pixels high, the banner below it {self.banner_px}")
        return image.crop((0, 0, image.width, image.height - self.banner_px))

    def labels(self, num_classes: int) -> tuple[int | None, ...]:
        """List the images' labels as a model with `num_classes` classes numbers them.

        Images without a class have None; a data set without classes fits every model.

        Raises:
            ValueError: if no such model can know this data set's classes.
        """
        if not self.class_names:
            return self.class_ids
        space = self._label_space(num_classes)
        return tuple(None if class_id is None else space[class_id] for class_id in self.class_ids)

    def label_name(self, label: int | None, num_classes: int) -> str:
        """Name the class `label` of a model with `num_classes` classes; "class 7" where no name is known."""
        if label is None:
            return "no label"
        space = self._label_space(num_classes) if self.class_names else ()
        return self.class_names[space.index(label)] if label in space else f"class {label}"

    def mask(self, image_id: str, size: tuple[int, int] | None = None) -> np.ndarray | None:
        """Read the object mask of an image, where the data set has one: bool (H, W), True on the object.

        Args:
            image_id: the image.
            size: height and width of the mask; None for the image's own.

        Raises:
            ValueError: if the file that says it is there but is broken.
        """
        found = self.objects.find(self, image_id)
        if isinstance(found, Boxes):
            return found.mask(size or found.size)
        return found if found is None or size is None else resize_mask(found, size)

    def _label_space(self, num_classes: int) -> tuple[int, ...]:
        spaces = {len(self.class_names): tuple(range(len(self.class_names))), **self.label_spaces}
        if num_classes not in spaces:
            allowed = " or ".join(str(size) for size in sorted(spaces))
            other = "take the images out of their class folders to go without labels"
            if Root(self.root).labels:
                other = f"choose other labels: {', '.join(f'#{labels}' for labels in LABELS)} behind the data's name"
            raise ValueError(
                f"the model has {num_classes} classes, but the labels of {self.name!r} ({self.root}) fit a "
                f"model with {allowed}; choose another teacher, or {other}"
            )
        return spaces[num_classes]
