"""Maps of two methods of six images, with a student and masks, for tests of the metrics."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import box_teacher
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from cluster.storage import Folder
from distill.data import open_images
from distill.data.decode import decode, resize
from distill.data.frames import without_image_ids
from distill.student.checkpoint import load_student, save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import load_teacher
from evaluate.map_sets import open_played_images, open_sources
from evaluate.metrics.job import MetricsWork, MetricsWorker, image_items
from evaluate.metrics.settings import HIGHER_IS_BETTER, METRICS, ROWS, Settings
from explain.maps import maps_table

TEACHER = "python:box_teacher:make"


METHODS = ("mal_grad_cam", "random")


NAMES = {
    "mal_grad_cam": set(HIGHER_IS_BETTER),
    "random": set(HIGHER_IS_BETTER) - {"max_sensitivity", *ROWS["fidelity"]},
}


NUM_IMAGES = 6


BROKEN, NOT_FINITE, CONSTANT, NO_MASK = 1, 2, 3, 4  # numbers of the images that differ


SETTINGS = Settings(
    percentages=(20, 60), num_subsets=16, grid=4, num_perturbations=3, tolerance_px=2, num_masks=8, num_points=5
)


STUDENT_SIZE = (40, 48)


def write_images(root: Path) -> Path:
    rng = np.random.default_rng(0)
    (root / "masks").mkdir(parents=True)
    for k in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((36, 24)).save(root / f"{k:02d}.png")
        mask = np.zeros((24, 36), dtype=np.uint8)
        mask[4:16, 6:24] = 255
        if k != NO_MASK:
            Image.fromarray(mask).save(root / "masks" / f"{k:02d}.png")
    (root / f"{BROKEN:02d}.png").write_bytes(b"no image")
    return root


def make_student(folder: Path) -> Student:
    torch.manual_seed(0)
    model = ResCBAM(18, 3).eval()
    half = (0.5, 0.5, 0.5)
    teacher = load_teacher(TEACHER)
    student = Student(
        model=model,
        input_size=STUDENT_SIZE,
        mean=half,
        std=half,
        teacher=TEACHER,
        teacher_fingerprint=teacher.fingerprint,
    )
    return save_student(Folder(str(folder)), student)


def maps_config(data: Path, method: str, student: Student | None, run: Path) -> dict[str, Any]:
    images = open_images(str(data))
    explains = method == "mal_grad_cam" and student is not None
    return {
        "schema_version": 1,
        "method": method,
        "options": {},
        "data": images.root,
        "data_name": images.name,
        "data_fingerprint": images.fingerprint,
        "split": None,
        "limit": None,
        "student": str(run) if explains else None,
        "student_fingerprint": student.fingerprint if explains and student else None,
        "teacher": TEACHER,
        "teacher_fingerprint": load_teacher(TEACHER).fingerprint,
        "target": "teacher",
        "seed": 0,
    }


def make_saliency(method: str, k: int) -> np.ndarray:
    saliency = np.random.default_rng([len(method), k]).random((8, 8), dtype=np.float32)
    if k == NOT_FINITE and method == "random":
        saliency[2, 2] = np.nan
    return np.full_like(saliency, 0.3) if k == CONSTANT else saliency


def frame(data: Path, k: int, size: tuple[int, int] = box_teacher.SIZE) -> np.ndarray:
    return resize(decode((data / f"{k:02d}.png").read_bytes()), size)


def target_of(data: Path, k: int) -> int:
    return int(box_teacher.make()(frame(data, k)[None])[0].argmax())


def write_maps(data: Path, out: Path, method: str, student: Student | None, run: Path) -> str:
    config, rows = maps_config(data, method, student, run), []
    folder = Folder(str(out))
    folder.claim(config, what="maps")
    for k in range(NUM_IMAGES):
        row: dict[str, Any] = {"image_id": f"{k:02d}.png", "error": "the file cannot be decoded"}
        if k != BROKEN:
            saliency = make_saliency(method, k)
            row |= {"target": target_of(data, k), "error": None, "saliency": saliency}
            row |= {"map_height": saliency.shape[0], "map_width": saliency.shape[1]}
        rows.append(row)
    for part, start in enumerate(range(0, NUM_IMAGES, 4)):
        pq.write_table(maps_table(rows[start : start + 4], config), out / f"part-{part:05d}.parquet")
    folder.finish({"rows": NUM_IMAGES})
    return str(out)


def work_of(place: SimpleNamespace, measures: tuple[Any, ...], **changes: Any) -> MetricsWork:
    fields = {name: SETTINGS.fields(name, target="teacher", objects="masks") for name in measures}
    stored = {"teacher": TEACHER, "teacher_fingerprint": load_teacher(TEACHER).fingerprint, "boxes": None}
    stored |= {"student": place.run, "student_fingerprint": load_student(place.run).fingerprint, "measures": fields}
    images = without_image_ids(open_images(str(place.data)))
    sources = open_sources(place.maps, teacher=TEACHER, teacher_fingerprint=load_teacher(TEACHER).fingerprint)
    return MetricsWork(stored={**stored, **changes}, settings=SETTINGS, sources=sources, images=images)


def items_of(place: SimpleNamespace) -> list[Any]:
    sources = work_of(place, METRICS).sources
    images = open_played_images(str(place.data), sources[0], None)
    return json.loads(json.dumps(image_items(sources, images)))


def count_queries(worker: MetricsWorker) -> list[int]:
    asked: list[int] = []
    forward = worker.teacher.forward

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        asked.append(len(pixels))
        return forward(pixels)

    worker.teacher.forward = counted
    return asked


def value(table: Any, method: str, k: int, measure: str) -> float:
    rows = table[(table["method"] == method) & (table["image_id"] == f"{k:02d}.png") & (table["measure"] == measure)]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])
