"""Where the object of an image is: a data set's masks, or boxes from annotations in a folder beside it."""

from dataclasses import dataclass

import numpy as np

from cluster.storage import Folder
from distill.images import ImageSet
from evaluate.boxes import read_boxes
from evaluate.pointing import MaskShares


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Reads an image's object; small, picklable."""

    images: ImageSet
    """The data set; its list of images may be left out."""
    boxes: str | None = None
    """Folder or URI of XML annotations, NAME.xml for the image NAME.*; None for the data set's masks."""

    @property
    def kind(self) -> str:
        """Return "boxes" or "masks"."""
        return "masks" if self.boxes is None else "boxes"

    def mask(self, image_id: str, size: tuple[int, int]) -> np.ndarray:
        """Read an image's object: bool, at `size` (H, W) from boxes, as large as the image from masks.

        Raises:
            ValueError: there is none, it is broken or empty; the message says which.
        """
        mask = self._mask(image_id, size)
        if not mask.any():
            raise ValueError(f"the object in the {self.kind} of this image is empty")
        return mask

    def _mask(self, image_id: str, size: tuple[int, int]) -> np.ndarray:
        if self.boxes is None:
            mask = self.images.mask(image_id)
            if mask is None:
                raise ValueError("the data set has no object mask of this image")
            return mask
        name = annotation(image_id)
        try:
            data = Folder(self.boxes).read_bytes(name)
        except FileNotFoundError:
            raise ValueError(f"{self.boxes} has no {name}") from None
        return read_boxes(data).mask(size)

    def check(self) -> None:
        """Refuse a data set without masks, or a folder with boxes of none of its images. Raises: ValueError."""
        ids = self.images.image_ids
        if self.boxes is None and not MaskShares(self.images).any_masks(ids):
            raise ValueError(
                f"the data set {self.images.root} has no object masks (masks/NAME.png), which pointing and energy "
                "need; give --boxes FOLDER with annotations, or leave the two out of --measures"
            )
        if self.boxes is not None and not {annotation(image_id) for image_id in ids} & set(Folder(self.boxes).names()):
            raise ValueError(
                f"--boxes {self.boxes} has no annotation of any image in {self.images.root}, such as "
                f"{annotation(ids[0])}; give the folder that holds these files"
            )


def annotation(image_id: str) -> str:
    """Name the file of an image's boxes: ILSVRC2012_val_00000001.xml of n01440764/ILSVRC2012_val_00000001.JPEG."""
    name = image_id.rpartition("/")[2]
    return (name.rpartition(".")[0] or name) + ".xml"
