"""First job of insights: one row per image with the evidence of its map, and what lies under it."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.parquet import parts_schema, read_parts
from cluster.storage import Folder
from distill.data import ImageSet
from distill.data.decode import ImageError
from distill.data.frames import read_frame
from evaluate.insights.evidence import GRID, PLACES, column_of, distances, evidence, image_facts
from evaluate.map_sets import Source, map_row
from explain.maps import read_part

SCHEMA_VERSION = "1"
SHARD_IMAGES = 500
"""Images of a part: a second of work, of which most is decoding."""
FINE = 4
"""Pixels of an object's mask along each side of a cell."""
CONSTANT = "the map is constant and points nowhere"

# All but image_id, label and target are null where `error` says why, and `outside` and `inside` where the data set does
# not say where the object is.
COLUMNS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # path relative to the data set
        pa.field("label", pa.int32()),
        pa.field("target", pa.int32()),  # class explained, by which images are grouped
        pa.field("target_prob", pa.float32()),
        pa.field("evidence", pa.list_(pa.float32())),  # row by row, sum 1
        *(pa.field(column_of(name), pa.float32()) for name in PLACES),  # share of the evidence there
        pa.field("outside", pa.float32()),  # share of the evidence outside the object
        pa.field("inside", pa.list_(pa.float32())),  # share of each cell that is the object
        pa.field("size", pa.float32()),  # share of the image that holds half of the evidence
        pa.field("row", pa.float32()),  # center of mass, 0 to 1 from the top
        pa.field("column", pa.float32()),  # 0 to 1 from the left
        pa.field("color", pa.list_(pa.float32())),  # mean levels under the evidence, red, green, blue
        pa.field("image_color", pa.list_(pa.float32())),  # of the whole image
        pa.field("against_target", pa.int32()),  # of --against, as all below
        pa.field("change", pa.float32()),  # Hellinger distance of both maps' evidence, where the targets are the same
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ImagesWork:
    """Argument of every worker of the first job."""

    stored: dict[str, Any]
    """Configuration that the folder keeps."""
    sources: list[Source]
    """Folder of maps, and that of the other model where there is one."""
    images: ImageSet
    """Data set, without its list of images."""
    has_objects: bool
    """Whether the data set says where the objects are."""


class ImagesWorker:
    """Describe the evidence of a shard's images; whatever happens to one, it has a row."""

    def __init__(self, work: ImagesWork) -> None:
        """Open nothing yet: maps and images are read as they come."""
        self.work = work
        self.schema = parts_schema(COLUMNS, SCHEMA_VERSION, work.stored)
        self._part = functools.lru_cache(maxsize=len(work.sources))(read_part)

    def __call__(self, items: list[dict[str, Any]]) -> pa.Table:
        """Return a row per item, in order."""
        return pa.Table.from_pylist([self._row(item) for item in items], schema=self.schema)

    def _row(self, item: dict[str, Any]) -> dict[str, Any]:
        found, *others = (
            map_row(self._part(source.uri, part), place, item["image_id"])
            for source, (part, place) in zip(self.work.sources, item["maps"], strict=True)
        )
        row = {name: found[name] for name in ("image_id", "label", "target", "target_prob")}
        weights, error = _evidence_of(found)
        frame, problem = read_frame(self.work.images, item["image_id"], (GRID, GRID))
        inside, unknown = self._inside(item["image_id"])
        if weights is None or frame is None or unknown is not None:
            return {**row, "error": error or problem or unknown}
        compared = _compare(found, weights, others[0]) if others else {}
        known = {} if inside is None else {"inside": inside.ravel()}
        return {**row, "evidence": weights.ravel(), **image_facts(weights, frame, inside), **known, **compared}

    def _inside(self, image_id: str) -> tuple[np.ndarray | None, str | None]:
        """Compute the share of each cell that is the object, or say why that is not known; an image may have none."""
        if not self.work.has_objects:
            return None, None
        try:
            mask = self.work.images.mask(image_id, (GRID * FINE, GRID * FINE))
        except (ImageError, ValueError) as error:
            return None, f"object: {error}"
        if mask is None or not mask.any():
            return None, None
        return mask.reshape(GRID, FINE, GRID, FINE).mean(axis=(1, 3)), None


def _evidence_of(found: dict[str, Any]) -> tuple[np.ndarray | None, str | None]:
    """Compute the evidence of a map's row, or say why there is none."""
    if found["error"] is not None or found["saliency"] is None:
        return None, found["error"] or "no map"
    if found["target"] is None:
        return None, "the map explains no class"
    if not np.isfinite(found["saliency"]).all():
        return None, "the map holds values that are not finite"
    weights = evidence(found["saliency"])
    return weights, None if weights is not None else CONSTANT


def _compare(found: dict[str, Any], weights: np.ndarray, other: dict[str, Any]) -> dict[str, Any]:
    """Compare a map with that of the other model; without a value where one is missing or explains another class."""
    others, _ = _evidence_of(other)
    if others is None or other["target"] != found["target"]:
        return {"against_target": other["target"]}
    return {"against_target": other["target"], "change": float(distances(weights, others))}


def read_images(folder: Folder) -> pa.Table:
    """Read all rows of the first job. Raises: ValueError, as `read_parts`."""
    return read_parts(folder, COLUMNS, SCHEMA_VERSION, what="images", command="evaluate insights")
