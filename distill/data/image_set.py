"""Describe a data set's images: their ids, classes and where to read them, without reading any."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from distill.data.boxes import Boxes
from distill.data.decode import ImageError, decode
from distill.data.labels import ClassMatch, match_classes
from distill.data.objects import MaskFiles, Objects, resize_mask
from distill.data.root import Root, Stamp, skipped_text

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
    class_folders: tuple[str, ...] = ()
    """The classes' names in the data set's own files, such as WordNet ids, where they are others than `class_names`."""
    label_spaces: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Other models that know these classes: number of classes -> that model's label of each class."""
    official: bool = False
    """The classes' order is the data set's official one, which every model of it has."""
    objects: Objects = field(default_factory=MaskFiles)
    """Where the data set says what each image's object is."""
    banner_px: int = 0
    """Rows of text at the bottom of each image that are no part of the picture."""
    stamps: Mapping[str, Stamp] = field(default_factory=dict, repr=False)
    """Size and modification time of the images, where the listing has them; `versions` has them in any case."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Files beside the images that are not read, though they may be images: ending -> number."""

    def __post_init__(self) -> None:
        assert len(self.image_ids) == len(self.class_ids)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the fields alone, without what `versions` and `fingerprint` remember."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
            return self.select(range(len(self.image_ids))[:limit])
        if limit is not None:
            raise ValueError(f"limit {limit} and per_class {per_class} do not go together; give one of them")
        if not any(class_id is not None for class_id in self.class_ids):
            raise ValueError(
                f"per_class {per_class}: the images of {self.name!r} have no classes; give a limit instead"
            )
        counts: dict[int, int] = {}
        selected = []
        for position, class_id in enumerate(self.class_ids):
            if class_id is not None and counts.get(class_id, 0) < per_class:
                counts[class_id] = counts.get(class_id, 0) + 1
                selected.append(position)
        return self.select(selected)

    def select(self, positions: Sequence[int]) -> ImageSet:
        """Take the images at these positions of `image_ids`, in that order."""
        image_ids, class_ids = (
            tuple(values[position] for position in positions) for values in (self.image_ids, self.class_ids)
        )
        return replace(self, image_ids=image_ids, class_ids=class_ids)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash the name, the image ids and their classes: 12 hex digits; the same for a copy elsewhere.

        The images' content is no part of it: `distill.data.versions` tells whether that has changed.
        """
        record = json.dumps([self.name, self.image_ids, self.class_ids])
        return hashlib.sha256(record.encode()).hexdigest()[:12]

    @functools.cached_property
    def versions(self) -> Mapping[str, Stamp]:
        """Size and modification time of each image's file; without those that are gone."""
        root = Root(self.root)
        stamps = {name: self.stamps.get(name) or root.stamp(name) for name in self.image_ids}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    @property
    def is_local(self) -> bool:
        """Whether the images lie on this machine, or in a folder that is mounted on it."""
        return "://" not in self.root

    def content_hash(self, image_id: str) -> str:
        """Hash the image's file: SHA-256 in hex. Raises: as `read`."""
        return hashlib.sha256(self.read(image_id)).hexdigest()

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

    def labels(self, num_classes: int, model_names: Sequence[str] | None = None) -> tuple[int | None, ...]:
        """List the images' labels as a model with `num_classes` classes numbers them.

        Images without a class have None; a data set without classes fits every model.

        Args:
            num_classes: of the model.
            model_names: the model's own names of its classes, where it has any: classes are matched by them.

        Raises:
            ValueError: if the model does not know this data set's classes.
        """
        if not self.class_names:
            return self.class_ids
        space = self.match_classes(num_classes, model_names).labels
        return tuple(None if class_id is None else space[class_id] for class_id in self.class_ids)

    def match_classes(self, num_classes: int, model_names: Sequence[str] | None = None) -> ClassMatch:
        """Find each class's label in a model, and how it was found. Raises: ValueError, as `labels`."""
        return match_classes(self, num_classes, model_names)

    def label_name(self, label: int | None, num_classes: int, model_names: Sequence[str] | None = None) -> str:
        """Name the class `label` of a model with `num_classes` classes; "class 7" where no name is known."""
        if label is None:
            return "no label"
        space = self.match_classes(num_classes, model_names).labels if self.class_names else ()
        if label in space:
            return self.class_names[space.index(label)]
        return model_names[label] if model_names and label < len(model_names) else f"class {label}"

    def describe(self, num_classes: int | None = None, model_names: Sequence[str] | None = None) -> str:
        """Say in one line what is read: number of images, classes, split, and how labels were matched to a model's.

        Args:
            num_classes: of the model; None where there is no model.
            model_names: the model's own names of its classes, where it has any.

        Raises:
            ValueError: as `labels`.
        """
        parts = [f"{len(self.image_ids):,} image{'s' if len(self.image_ids) != 1 else ''}"]
        unlabeled = sum(class_id is None for class_id in self.class_ids)
        if self.class_names:
            shown = ", ".join(self.class_names[:3]) + (", ..." if len(self.class_names) > 3 else "")
            parts.append(f"{len(self.class_names):,} classes ({shown})")
            parts += [f"{unlabeled:,} images without a class"] if unlabeled else []
        else:
            parts.append("no classes")
        parts.append(f"split {self.split}" if self.split else "no splits")
        if self.class_names and num_classes is not None:
            parts.append(f"labels matched by {self.match_classes(num_classes, model_names).how}")
        return ", ".join(parts) + skipped_text(self.skipped)

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
