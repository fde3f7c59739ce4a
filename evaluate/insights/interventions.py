"""Second job of insights: images are changed and the black box is queried, one row for each image of a suspicion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster.device import own_device
from cluster.parquet import parts_schema, read_parts
from cluster.storage import Folder
from distill.data import ImageSet
from distill.data.frames import read_frame
from distill.perturb.imputation import linear_imputation
from distill.perturb.patches import patch_numbers
from distill.teachers import RefusedImageError
from evaluate.games.job import checked_target
from evaluate.insights.evidence import GRID
from evaluate.jobs import computed_by, load_worker_teacher
from evaluate.metrics.compute import ask

SCHEMA_VERSION = "1"
SHARD_TRIALS = 20
HIDDEN = ("region", "random", "rest")
"""What is hidden of an image, each alone."""
PASTED = ("region", "random")
"""What is pasted into an image of another class, each alone."""
QUERIES = 2 + len(HIDDEN) + len(PASTED)
"""Of one trial: both images as they are, too."""

# Probabilities of the suspicion's class; null where `error` says why, and those of the other image without one.
COLUMNS = pa.schema(
    [
        pa.field("suspicion", pa.int32(), nullable=False),  # number, from 0
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("target", pa.int32(), nullable=False),
        pa.field("other_id", pa.string()),  # image of another class
        pa.field("prob", pa.float32()),  # of the image as it is
        *(pa.field(f"prob_{name}_hidden", pa.float32()) for name in HIDDEN),
        pa.field("other_prob", pa.float32()),  # of the image of another class
        *(pa.field(f"other_prob_{name}_pasted", pa.float32()) for name in PASTED),
        pa.field("teacher_queries", pa.int32(), nullable=False),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class TrialsWork:
    """Argument of every worker of the second job."""

    stored: dict[str, Any]
    """Configuration that the folder keeps."""
    images: ImageSet
    """Data set, without its list of images."""


class TrialsWorker:
    """Change a shard's images and query the black box; whatever happens to one, it has a row."""

    def __init__(self, work: TrialsWork) -> None:
        """Load the teacher on this worker's cores or GPU, once."""
        self.images, self.teacher = work.images, load_worker_teacher(work.stored)
        self.schema = parts_schema(COLUMNS, SCHEMA_VERSION, work.stored, computed_by(self.teacher))

    def __call__(self, items: list[dict[str, Any]]) -> pa.Table:
        """Return a row per trial, in order."""
        return pa.Table.from_pylist([self._row(item) for item in items], schema=self.schema)

    def _row(self, item: dict[str, Any]) -> dict[str, Any]:
        row = {name: item[name] for name in ("suspicion", "image_id", "target", "other_id")} | {"teacher_queries": 0}
        size = self.teacher.input_size
        frame, problem = read_frame(self.images, item["image_id"], size)
        other = None
        if item["other_id"] is not None and problem is None:
            other, problem = read_frame(self.images, item["other_id"], size)
        if frame is None or problem is not None:
            return {**row, "error": problem}
        pixels, onto = (
            None if levels is None else self.teacher.normalize(levels[None])[0].to(own_device())
            for levels in (frame, other)
        )
        assert pixels is not None
        frames = hidden(pixels, [item[name] for name in HIDDEN])
        names = ["prob", *(f"prob_{name}_hidden" for name in HIDDEN)]
        if onto is not None:
            frames = torch.cat([frames, pasted(pixels, onto, [item[name] for name in PASTED])])
            names += ["other_prob", *(f"other_prob_{name}_pasted" for name in PASTED)]
        try:
            target = checked_target(item["target"], self.teacher)
            probs = ask(self.teacher, frames)[:, target].tolist()
        except (ValueError, RefusedImageError) as error:
            return {**row, "error": str(error)}
        return {**row, "teacher_queries": len(frames), **dict(zip(names, probs, strict=True))}


def cells_mask(cells: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Mark the pixels of cells of the grid, numbered row by row: bool (H, W)."""
    chosen = torch.zeros(GRID * GRID, dtype=torch.bool)
    chosen[list(cells)] = True
    return chosen[patch_numbers(size, (GRID, GRID))]


def hidden(pixels: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Hide regions of an image, each alone, by linear imputation from what is around them.

    Args:
        pixels: (3, H, W), normalized.
        regions: cells of each; a region without a cell hides nothing.

    Returns:
        (1 + len(regions), 3, H, W), first the image as it is.
    """
    size = (pixels.shape[1], pixels.shape[2])
    masks = torch.stack([cells_mask(region, size) for region in regions]).to(pixels.device)
    return torch.cat([pixels[None], linear_imputation(pixels, masks)])


def pasted(pixels: Tensor, onto: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Paste regions of an image into another one at the same place, each alone: as `hidden`, first `onto` as it is."""
    size = (pixels.shape[1], pixels.shape[2])
    frames = [torch.where(cells_mask(region, size).to(pixels.device), pixels, onto) for region in regions]
    return torch.stack([onto, *frames])


def read_trials(folder: Folder) -> pa.Table:
    """Read all rows of the second job. Raises: ValueError, as `read_parts`."""
    return read_parts(folder, COLUMNS, SCHEMA_VERSION, what="trials", command="evaluate insights")


def columns_of(table: pa.Table, suspicion: int) -> dict[str, np.ndarray]:
    """Return the probabilities of a suspicion's trials without an error, by column; NaN where there is none."""
    import pyarrow.compute as pc

    chosen = pc.and_(pc.equal(table["suspicion"], suspicion), pc.is_null(table["error"]))  # pyright: ignore
    own = table.filter(chosen)
    names = [name for name in COLUMNS.names if "prob" in name]
    return {name: own[name].to_numpy().astype(np.float64) for name in names}
