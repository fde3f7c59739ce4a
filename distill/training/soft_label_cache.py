"""Soft labels: the teacher's probabilities, asked for live and kept per image, view and teacher.

Kept as Parquet parts under `<folder>/<teacher>-<views>/view-<n>/`. Each worker writes what it asked for when the epoch
ends; parts of several workers and runs add up, and an image that is in none is simply asked for again. Probabilities
stay float32: the paper passes them on unchanged.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.parquet import read_parquet
from cluster.storage import Folder, config_hash
from distill.data.versions import delete_results
from distill.training.recipes import Recipe

Ask = Callable[[np.ndarray], np.ndarray]


def soft_labels_folder(folder: Folder, teacher_fingerprint: str, recipe: Recipe) -> Folder:
    """Return the folder for soft labels of one teacher on one way of cutting and changing views."""
    cut = {"crop": recipe.crop, "crop_min_scale": recipe.crop_min_scale, "seed": recipe.seed, "resized": "torch"}
    changed = {name: getattr(recipe, name) for name in ("masked_share", "blurred_share", "mixup")}
    views = config_hash(cut | {name: value for name, value in changed.items() if value})
    return folder.child(f"{teacher_fingerprint}-{views}")


def delete_soft_labels(folder: Folder, teacher_fingerprint: str, recipe: Recipe, image_ids: Collection[str]) -> None:
    """Delete the soft labels of some images; all of the training views where images are mixed with each other."""
    labels = soft_labels_folder(folder, teacher_fingerprint, recipe)
    for view in (-1, *range(recipe.num_views)):
        view_folder = labels.child(view_name(view))
        delete_results(view_folder, image_ids, whole_parts=False)
        if view >= 0 and recipe.mixup:
            for name in view_folder.names():
                view_folder.delete(name)


def view_name(view: int) -> str:
    """Name the folder of a view's soft labels; -1 is the validation crop."""
    return f"view-{view:04d}" if view >= 0 else "view-centre"


class SoftLabels:
    """Answer with the teacher's probabilities for the images of one view."""

    def __init__(self, folder: Folder | None, view: int) -> None:
        """Read what is known of the view `view` (-1: the validation crop); with no folder nothing is kept."""
        self.folder = folder.child(view_name(view)) if folder else None
        self.known: dict[str, np.ndarray] = {}
        self.new: dict[str, np.ndarray] = {}
        self.num_asked = 0
        for name in self.folder.names() if self.folder else []:
            self.known.update(_read(self.folder, name))  # pyright: ignore[reportArgumentType]

    def probabilities(self, image_ids: Sequence[str], views: np.ndarray, ask: Ask) -> np.ndarray:
        """Return probabilities (B, K), asking the teacher for those images only that are not known.

        Args:
            image_ids: B names, the key of the answers.
            views: uint8 (B, H, W, 3) at the teacher's size.
            ask: the teacher's `probabilities`.
        """
        missing = [i for i, image_id in enumerate(image_ids) if image_id not in self.known]
        if missing:
            answers = ask(views if len(missing) == len(views) else views[missing])
            self.num_asked += len(missing)
            self.new.update((image_ids[i], row) for i, row in zip(missing, answers, strict=True))
            self.known.update((image_ids[i], row) for i, row in zip(missing, answers, strict=True))
        return np.stack([self.known[image_id] for image_id in image_ids])

    def keep(self) -> None:
        """Write the answers that are not stored yet, as one more part."""
        if self.folder is None or not self.new:
            return
        image_ids = list(self.new)
        probs = np.stack([self.new[i] for i in image_ids])
        column = pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), probs.shape[1])
        sink = io.BytesIO()
        pq.write_table(pa.table({"image_id": image_ids, "probs": column}), sink, compression="zstd")
        key = hashlib.sha256("\n".join(image_ids).encode()).hexdigest()[:12]
        self.folder.write_bytes(f"part-{key}.parquet", sink.getvalue())
        self.new.clear()


def _read(folder: Folder, name: str) -> dict[str, np.ndarray]:
    table = read_parquet(folder, name, ["image_id", "probs"])
    probs = table["probs"].combine_chunks()
    rows = np.asarray(probs.flatten()).reshape(len(table), -1)  # pyright: ignore[reportAttributeAccessIssue]
    return dict(zip(table["image_id"].to_pylist(), rows, strict=True))
