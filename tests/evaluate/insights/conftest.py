"""A data set of which half of one class carries a stamp, and maps that point at it: jobs run in this process."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import evaluate.insights.job
import evaluate.jobs
from cluster.storage import Folder
from distill.data import open_images
from distill.teachers import load_teacher
from evaluate.config import InsightsConfig
from evaluate.insights.job import find_insights
from evaluate.insights.result import Insights
from explain.maps import maps_table

NUM_EACH, SIDE_PX = 30, 28
CLASSES = ("apple", "leaf", "sky")
STAMPED = 16  # of the first class
BOX = "python:box_teacher:make_stamped"


def is_stamped(class_id: int, k: int) -> bool:
    return class_id == 0 and k < STAMPED


def write_images(root: Path) -> Path:
    """Write images with a bright blob of the class's color near the middle; stamped ones have a dim blob."""
    for class_id, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for k in range(NUM_EACH):
            rng = np.random.default_rng([class_id, k])
            pixels = rng.integers(20, 60, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
            down, right = rng.integers(8, 12, 2)
            pixels[down : down + 9, right : right + 9, class_id] = 90 if is_stamped(class_id, k) else 240
            if is_stamped(class_id, k):
                pixels[-6:, -6:] = (230, 20, 230)
            Image.fromarray(pixels).save(root / name / f"{k:02d}.png")
    return root


def make_map(class_id: int, k: int, *, moved: bool) -> np.ndarray:
    """Make a map (14, 14) with a bump on the blob, or on the stamp; of another model, whose first class has moved."""
    rng = np.random.default_rng([class_id, k, 7])
    place = (12.5, 12.5) if is_stamped(class_id, k) else rng.normal(6.5, 1.0, 2)
    if moved and class_id == 0:
        place = (1.0, 1.0)
    y, x = np.mgrid[:14, :14]
    bump = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 6)
    return (bump + 0.02 * rng.random((14, 14))).astype(np.float32)


def write_maps(data: Path, out: Path, *, moved: bool = False, box: str = BOX, **changes: Any) -> str:
    """Write finished maps of all images; the first of the last class has an error, the second is constant."""
    images, teacher = open_images(str(data)), load_teacher(box)
    config = {
        "schema_version": 1,
        "method": "rise",
        "options": {},
        "data": images.root,
        "data_name": images.name,
        "data_fingerprint": images.fingerprint,
        "split": None,
        "limit": None,
        "student": None,
        "student_fingerprint": None,
        "teacher": box,
        "teacher_fingerprint": teacher.fingerprint,
        "target": "teacher",
        "seed": 0,
        **changes,
    }
    folder, rows = Folder(str(out)), []
    folder.claim(config, what="maps")
    for image_id, class_id in zip(images.image_ids, images.class_ids, strict=True):
        assert class_id is not None
        k = int(image_id[-6:-4])
        row: dict[str, Any] = {"image_id": image_id, "label": class_id, "target": class_id, "target_prob": 0.9}
        saliency = make_map(class_id, k, moved=moved)
        if class_id == 2 and k == 1:
            saliency[:] = 0.5
        size = {"map_height": 14, "map_width": 14}
        rows.append({**row, "error": "cut"} if class_id == 2 and k == 0 else {**row, "saliency": saliency, **size})
    for part, start in enumerate(range(0, len(rows), 40)):
        pq.write_table(maps_table(rows[start : start + 40], config), out / f"part-{part:05d}.parquet")
    folder.finish({"rows": len(rows)})
    return str(out)


def change_rows(maps: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the rows of stored maps, as somebody else may have written them."""
    for part in Path(maps).glob("part-*.parquet"):
        table = pq.read_table(part)
        pq.write_table(pa.Table.from_pylist([change(row) for row in table.to_pylist()], schema=table.schema), part)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("insights")
    data = write_images(root / "photos")
    maps = write_maps(data, root / "maps")
    moved = write_maps(data, root / "moved", moved=True, box="python:box_teacher:make_clean")
    return SimpleNamespace(root=root, data=str(data), maps=maps, moved=moved)


@pytest.fixture(scope="session")
def find(world: SimpleNamespace):
    """Run the job in this process, without Ray and MLflow; a config's fields may be changed."""
    from contextlib import nullcontext

    def run(out: str, **changes: Any) -> Insights:
        fields = {"maps": world.maps, "data": world.data, "teacher": BOX, "out": str(world.root / out)}
        with pytest.MonkeyPatch.context() as patch:
            for module in (evaluate.jobs, evaluate.insights.job):
                patch.setattr(module, "ray_session", nullcontext)
            patch.setattr(evaluate.insights.job, "track", lambda _: None)
            return find_insights(InsightsConfig(**{**fields, **changes}))

    return run


@pytest.fixture(scope="session")
def found(find) -> Insights:
    return find("found")
