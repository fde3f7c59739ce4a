"""`python -m explain show`: overlays of stored maps as PNG files, and a gallery page of all images. Starts no Ray."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cluster.device import own_device
from cluster.progress.bar import Progress
from distill.data import ImageSet, open_images
from distill.data.decode import ImageError, resize
from distill.student.checkpoint import load_student
from distill.student.model import Student
from distill.teachers import load_teacher
from explain.pictures.class_names import class_title, name_classes
from explain.pictures.config import Show
from explain.pictures.gallery import Gallery, GalleryImage, save, save_pictures, write_gallery
from explain.pictures.map_rows import ImageMaps, MapFolder, image_maps, open_map_folders, read_scores
from explain.pictures.overlay import fit, overlay, side_by_side

MAX_NAME_BYTES = 200
"""Of a path's component; file systems take 255."""
WAITING = 8
"""Images that are drawn at once, for each core."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What `show` wrote."""

    page: Path
    """index.html of the gallery."""
    num_images: int
    """Images in the gallery."""
    num_pictures: int
    """Overlays that were written."""
    num_missing: int
    """Maps that could not be drawn; the gallery says why."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Everything that is opened once: settings, images, map folders, class names, scores."""

    config: Show
    images: ImageSet
    labels: Mapping[str, str]
    folders: Sequence[MapFolder]
    names: Sequence[str]
    scores: Mapping[tuple[str, str, str], float]
    student: Student | None
    out: Path


def show(config: Show) -> Shown:
    """Draw all maps and write the gallery.

    Raises:
        ValueError, FileNotFoundError: something named does not exist or does not fit together.
    """
    job = _open(config)
    order = {image_id: place for place, image_id in enumerate(job.images.image_ids)}
    drawn: list[GalleryImage] = []
    with Progress("show", min(len(order), config.limit or len(order))) as progress:
        for image in _drawn(job, image_maps(job.folders, order)):
            drawn.append(image)
            progress.advance(1)
    if not drawn:
        raise ValueError(f"{config.data} holds none of the images of these maps; give the data that they were made of")
    gallery = Gallery(
        title=job.images.name,
        methods={one.key: one.title for one in job.folders},
        images=drawn,
        has_disagreement=job.student is not None,
    )
    write_gallery(job.out, gallery)
    pictures = sum(len(image.pictures) for image in drawn)
    return Shown(
        page=job.out / "index.html",
        num_images=len(drawn),
        num_pictures=pictures,
        num_missing=len(drawn) * len(job.folders) - pictures,
    )


def _open(config: Show) -> _Job:
    folders = open_map_folders(config.maps)
    splits = {one.config.get("split") for one in folders}
    assert len(splits) == 1, "open_map_folders checks it"
    images = open_images(config.data, split=splits.pop())
    teacher = load_teacher(config.teacher) if config.teacher is not None else None
    student = load_student(config.student, device=own_device()) if config.student is not None else None
    model = teacher or student
    num_classes = None if model is None else model.num_classes
    own_names = (None if teacher is None else teacher.class_names) or (None if student is None else student.class_names)
    names = name_classes(images, own_names, num_classes)
    labels = images.labels(len(names)) if names and images.class_names else images.class_ids
    return _Job(
        config=config,
        images=images,
        labels={
            i: "" if label is None else class_title(names, label)
            for i, label in zip(images.image_ids, labels, strict=True)
        },
        folders=folders,
        names=names,
        scores=read_scores(config.scores, folders) if config.scores else {},
        student=student,
        out=Path(config.out),
    )


def _drawn(job: _Job, maps: Iterator[ImageMaps]) -> Iterator[GalleryImage]:
    """Draw images side by side on all cores, and yield them in their order; few are in memory at once."""
    cores = os.cpu_count() or 1
    waiting: deque[Future[GalleryImage]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for number, found in enumerate(maps):
            if number == job.config.limit:
                break
            waiting.append(pool.submit(_draw, job, found))
            if len(waiting) >= WAITING * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _draw(job: _Job, found: ImageMaps) -> GalleryImage:
    """Draw one image's photograph, overlays and sheet; what cannot be drawn is said."""
    first = next(iter(found.rows.values()))
    probs = [row["target_prob"] for row in found.rows.values() if row["target_prob"] is not None]
    target = class_title(job.names, first["target"])
    facts: dict[str, Any] = {
        "image_id": found.image_id,
        "label": job.labels[found.image_id],
        "target": target,
        "prob": probs[0] if probs else None,
        "scores": _scores(job, found.image_id),
    }
    try:
        photograph = job.images.image(found.image_id)
    except (ImageError, FileNotFoundError, PermissionError) as error:
        reason = f"{type(error).__name__}: {error}"
        return GalleryImage(**facts, errors=dict.fromkeys(found.rows, reason), pictures={}, name="", disagrees=None)
    name = file_name(found.image_id)
    panels = {"Photograph": fit(photograph, job.config.size)}
    overlays, errors = {}, {}
    for one in job.folders:
        row = found.rows.get(one.key)
        if row is None or row["saliency"] is None or not np.isfinite(row["saliency"]).all():
            errors[one.key] = "no map of this image" if row is None else row["error"] or "values that are not finite"
            continue
        options = {"opacity": job.config.opacity, "colormap": job.config.colormap}
        overlays[one.key] = overlay(photograph, row["saliency"], long_side_px=job.config.size, **options)
        panels[f"{one.title}\n{_cost(row)}"] = overlays[one.key]
    save_pictures(job.out, name, {"photograph": panels["Photograph"]})
    pictures = save_pictures(job.out, name, overlays)
    if job.config.sheets:
        prob = "" if facts["prob"] is None else f" ({facts['prob']:.2f})"
        save(side_by_side(panels, heading=f"{target}{prob}"), job.out / "sheets" / f"{name}.png")
    disagrees = None if job.student is None else _top_class(job.student, photograph) != first["target"]
    return GalleryImage(**facts, errors=errors, pictures=pictures, name=name, disagrees=disagrees)


def _cost(row: Mapping[str, Any]) -> str:
    queries = row["teacher_queries"]
    return f"{queries:,} queries" if queries else "no query"


def _scores(job: _Job, image_id: str) -> dict[str, dict[str, float]]:
    games: dict[str, dict[str, float]] = {}
    for one in job.folders:
        for game in ("deletion", "insertion"):
            auc = job.scores.get((image_id, one.key, game))
            if auc is not None:
                games.setdefault(one.key, {})[game] = auc
    return games


def _top_class(student: Student, photograph: Image.Image) -> int:
    frame = resize(photograph, student.input_size)
    with torch.inference_mode():
        return int(student.model(student.normalize(frame[None])).argmax())


def file_name(image_id: str) -> str:
    """Return an image id as a relative path of a file, without its ending: long names are cut and hashed."""
    parts = []
    for part in image_id.split("/"):
        safe = "".join(c if c.isprintable() and c not in '\\:*?"<>|#%' else "_" for c in part)
        if safe != part or len(safe.encode()) > MAX_NAME_BYTES or safe in ("", ".", ".."):
            digest = hashlib.sha256(part.encode(errors="surrogatepass")).hexdigest()[:12]
            safe = f"{safe.encode()[:MAX_NAME_BYTES].decode(errors='ignore').strip('.')}-{digest}"
        parts.append(safe)
    return "/".join(parts)
