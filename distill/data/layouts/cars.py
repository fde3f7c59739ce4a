"""Read Stanford Cars as torchvision does: `car_devkit.tgz`, `cars_train.tgz`, `cars_test.tgz` and the test labels.

The devkit's own `cars_test_annos.mat` has no labels; those of the test images are in `cars_test_annos_withlabels.mat`.
"""

from __future__ import annotations

from collections.abc import Mapping

from distill.data.boxes import Corners
from distill.data.image_set import ImageSet
from distill.data.layouts.listing import find_base, listed_set, read_mat, read_records
from distill.data.objects import BoxTable
from distill.data.root import Root
from distill.data.splits import find_split_part

BASES = ("stanford_cars/", "")
TEST_LABELS = "cars_test_annos_withlabels.mat"
EDGES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def recognizes(root: Root) -> bool:
    """Tell Stanford Cars by a file or folder of its own, of which one is enough."""
    return _base(root) is not None


def open_split(root: Root, split: str | None) -> ImageSet:
    """List one split: the official `test`, or `train` and `val`, nine tenths and one tenth of the official train.

    Raises:
        FileNotFoundError: if a file that the split needs is missing; the message names it.
        ValueError: if the split does not exist or a file is broken.
    """
    base = _base(root) or ""
    place = find_split_part(root.uri, split, ("train", "test"))
    listed_in = f"{base}devkit/cars_train_annos.mat"
    if place.part == "test":
        listed_in = (find_base(root, (base, f"{base}devkit/"), (TEST_LABELS,)) or base) + TEST_LABELS
    names = read_mat(root, f"{base}devkit/cars_meta.mat", "class_names")
    rows = read_records(root, listed_in, "annotations", {"fname": str, "class": int, **dict.fromkeys(EDGES, float)})
    under = f"{base}cars_{place.part}"
    return listed_set(
        root,
        {f"{under}/{row['fname']}": row["class"] for row in rows},
        {number: str(name) for number, name in enumerate(names, start=1)},
        name="cars",
        listed_in=listed_in,
        under=under,
        place=place,
        objects=BoxTable(corners={f"{under}/{row['fname']}": _corners(row) for row in rows}),
    )


def _corners(row: Mapping[str, float]) -> Corners:
    """Turn MATLAB's first and last pixel of the box, counted from 1, into its edges."""
    left, top, right, bottom = (row[edge] for edge in EDGES)
    return left - 1, top - 1, right, bottom


def _base(root: Root) -> str | None:
    return find_base(root, BASES, ("devkit/cars_meta.mat", "cars_train", "cars_test", TEST_LABELS))
