"""Where the object of an image is: a data set's own masks or boxes, or boxes from annotations in another folder."""

from dataclasses import dataclass, replace

import numpy as np

from cluster.storage import Folder
from distill.data import ImageSet
from distill.data.objects import BoxFiles, Kind
from evaluate.metrics.pointing import any_masks


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Reads an image's object; small, picklable."""

    images: ImageSet
    """The data set; its list of images may be left out."""
    boxes: str | None = None
    """Folder or URI of XML annotations, NAME.xml for the image NAME.*; None for the data set's own masks or boxes."""

    @property
    def kind(self) -> Kind:
        """Return "boxes" or "masks"."""
        return self._images.objects.kind

    @property
    def _images(self) -> ImageSet:
        return self.images if self.boxes is None else replace(self.images, objects=BoxFiles(uri=self.boxes))

    def mask(self, image_id: str, size: tuple[int, int]) -> np.ndarray:
        """Read an image's object: bool, at `size` (H, W) from boxes, as large as the image from masks.

        Raises:
            ValueError: there is none, it is broken or empty; the message says which.
        """
        images = self._images
        mask = images.mask(image_id, size if self.kind == "boxes" else None)
        if mask is None and self.boxes is None:
            raise ValueError(f"the data set has no object {self.kind} of this image")
        if mask is None:
            raise ValueError(f"{self.boxes} has no {images.objects.path(image_id)}")
        if not mask.any():
            raise ValueError(f"the object in the {self.kind} of this image is empty")
        return mask

    def check(self) -> None:
        """Refuse a data set without any, or a folder with boxes of none of its images. Raises: ValueError."""
        ids, path = self.images.image_ids, self._images.objects.path
        if self.boxes is None and not any_masks(self.images):
            raise ValueError(
                f"the data set {self.images.root} has no object {self.kind} (such as {path(ids[0])}), which pointing "
                "and energy need; give --boxes FOLDER with annotations, or leave the two out of --measures"
            )
        if self.boxes is not None and not {path(image_id) for image_id in ids} & set(Folder(self.boxes).names()):
            raise ValueError(
                f"--boxes {self.boxes} has no annotation of any image in {self.images.root}, such as {path(ids[0])}; "
                "give the folder that holds these files"
            )
