"""Maps of two methods of twenty images, for tests of the games."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import box_teacher
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from cluster.storage import Folder
from distill.data import open_images
from distill.data.decode import decode, resize
from distill.data.frames import without_image_ids
from distill.teachers import load_teacher
from evaluate.config import GamesConfig
from evaluate.games.job import GamesWork, GamesWorker, play_games
from evaluate.games.protocol import Protocol
from evaluate.map_sets import Source, open_sources
from explain.maps import maps_table

TEACHER = "python:box_teacher:make"


NUM_IMAGES = 20


BROKEN, NOT_FINITE, CONSTANT = 3, 5, 7  # numbers of the images that differ


def write_images(root: Path) -> Path:
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    for k in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 30)).save(root / f"{k:02d}.png")
    (root / f"{BROKEN:02d}.png").write_bytes(b"no image")
    return root


def maps_config(data: Path, method: str, **changes: Any) -> dict[str, Any]:
    images = open_images(str(data))
    config = {
        "schema_version": 1,
        "method": method,
        "options": {},
        "data": images.root,
        "data_fingerprint": images.fingerprint,
        "split": None,
        "limit": None,
        "student": None,
        "student_fingerprint": None,
        "teacher": TEACHER,
        "teacher_fingerprint": load_teacher(TEACHER).fingerprint,
        "target": "teacher",
        "seed": 0,
    }
    return {**config, **changes}


def map_row(data: Path, k: int, saliency: np.ndarray) -> dict[str, Any]:
    row = {"image_id": f"{k:02d}.png", "label": None, "teacher_queries": 2, "student_passes": 1, "seconds": 0.5}
    if k == BROKEN:
        return {**row, "target": None, "error": "the file cannot be decoded"}
    probs = box_teacher.make()(frame(data, row["image_id"])[None])[0]
    row |= {"target": int(probs.argmax()), "target_prob": float(probs.max()), "error": None}
    return {**row, "saliency": saliency, "map_height": saliency.shape[0], "map_width": saliency.shape[1]}


def frame(data: Path, image_id: str) -> np.ndarray:
    return resize(decode((data / image_id).read_bytes()), box_teacher.SIZE)


def make_saliency(method: str, k: int) -> np.ndarray:
    saliency = np.random.default_rng([len(method), k]).random((8, 8), dtype=np.float32)
    if k == NOT_FINITE:
        saliency[2, 2] = np.nan
    return np.full_like(saliency, 0.3) if k == CONSTANT else saliency


def write_maps(data: Path, out: Path, method: str, **changes: Any) -> str:
    folder, config = Folder(str(out)), maps_config(data, method, **changes)
    folder.claim(config, what="maps")
    rows = [map_row(data, k, make_saliency(method, k)) for k in range(NUM_IMAGES)]
    for part, start in enumerate(range(0, NUM_IMAGES, 9)):
        pq.write_table(maps_table(rows[start : start + 9], config), out / f"part-{part:05d}.parquet")
    folder.finish({"rows": NUM_IMAGES})
    return str(out)


def play(place: SimpleNamespace, out: str, **changes: Any) -> Any:
    options: dict[str, Any] = {"data": str(place.data), "teacher": TEACHER, "out": out, "maps": tuple(place.maps)}
    return play_games(GamesConfig(**{**options, **changes}))


def make_worker(place: SimpleNamespace, protocol: Protocol) -> GamesWorker:
    sources, images = check(place.maps), without_image_ids(open_images(str(place.data)))
    fingerprint = load_teacher(TEACHER).fingerprint
    stored = {"teacher": TEACHER, "teacher_fingerprint": fingerprint, "protocol": protocol.fields()}
    return GamesWorker(GamesWork(stored=stored, protocol=protocol, sources=sources, images=images))


def check(maps: list[str], teacher: str = TEACHER, **options: bool) -> list[Source]:
    return open_sources(maps, teacher=teacher, teacher_fingerprint=load_teacher(teacher).fingerprint, **options)
