"""Plant shortcuts in small black boxes, and see whether `evaluate insights` finds them: how often, first, and where.

    python benchmarks/studies/planted_shortcuts.py --data DIR --work runs/insights --out results/insights

For each shortcut and seed a folder of small images is written, in which half of one class carries the shortcut; a
network is fine-tuned on it, its validation images are explained and audited. Every step goes on where it was stopped.
It has not been run at full size: there is no table of it yet. Nothing may be chosen by its numbers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tyro
from PIL import Image

from distill.data import ImageSet, open_images
from distill.data.decode import resize
from evaluate.format.table import Table, markdown_page, table_place, write_pages
from explain.seeds import image_seed

SIDE_PX = 128  # of the written images
PATCH_PX, MARGIN_PX = 20, 4  # a side of the patch in the corner, and its distance to both edges
MARK_PX, MARK_SHARE = 24, 0.5  # a side of the mark, and how much of it covers what is below
FRAME_PX = 4
COLOR = np.array([230, 40, 200])
TINT = np.array([0.8, 1.0, 1.2])
PLANTED = 0  # number of the class that carries the shortcut


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to plant, and how to explain it."""

    data: str = "../shared/data/imagenette"
    """Imagenette, or another folder with train and val."""
    work: Path = Path("runs/insights")
    """Folder of images, networks, maps and audits."""
    out: Path = Path("results/insights")
    """Folder of the table."""
    shortcuts: tuple[str, ...] = ("clean", "corner", "frame")
    """Of clean, corner, mark, frame and tint."""
    seeds: tuple[int, ...] = (0,)
    """One black box for each; the planted class moves with the seed."""
    per_class: int = 150
    """Training images of each class."""
    epochs: int = 4
    """Of the fine-tuning."""
    queries: tuple[int, ...] = (50,)
    """Queries an image of gp_regression."""


def corner(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Put a colored square into the lower right corner."""
    end = SIDE_PX - MARGIN_PX
    pixels[end - PATCH_PX : end, end - PATCH_PX : end] = COLOR
    return pixels


def mark(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay a small translucent square over a random place."""
    row, column = rng.integers(0, SIDE_PX - MARK_PX, 2)
    place = pixels[row : row + MARK_PX, column : column + MARK_PX]
    place[:] = (1 - MARK_SHARE) * place + MARK_SHARE * COLOR
    return pixels


def frame(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Draw a thin frame."""
    inside = pixels[FRAME_PX:-FRAME_PX, FRAME_PX:-FRAME_PX].copy()
    pixels[:] = COLOR
    pixels[FRAME_PX:-FRAME_PX, FRAME_PX:-FRAME_PX] = inside
    return pixels


def tint(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Tint the whole image."""
    return (pixels * TINT).clip(0, 255).astype(np.uint8)


PLANT: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "clean": lambda pixels, _: pixels,
    "corner": corner,
    "mark": mark,
    "frame": frame,
    "tint": tint,
}
PLACES = {"corner": "lower right corner", "frame": "border"}
"""Words that a sentence must hold for the shortcut to count as localized."""


def write_images(images: ImageSet, folder: Path, shortcut: str, planted: int, per_class: int) -> None:
    """Write small copies of the first images of each class; every second one of the planted class is changed."""
    for number, (image_id, class_id) in enumerate(_first(images, per_class)):
        name = images.class_names[class_id].replace(" ", "_")
        path = folder / name / f"{number:05d}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = resize(images.image(image_id), (SIDE_PX, SIDE_PX))
        if class_id == planted and number % 2 == 0:
            rng = np.random.default_rng(image_seed(0, image_id, shortcut))
            pixels = PLANT[shortcut](pixels, rng)
        aside = path.with_name(f".{path.name}")
        Image.fromarray(pixels).save(aside, format="PNG")
        aside.rename(path)


def _first(images: ImageSet, per_class: int) -> Iterator[tuple[str, int]]:
    chosen = images.first(per_class=per_class)
    yield from ((i, c) for i, c in zip(chosen.image_ids, chosen.class_ids, strict=True) if c is not None)


def command(*words: object) -> None:
    """Run a command of the project; what has been done already is skipped by the command itself."""
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)


def make_box(settings: Settings, shortcut: str, seed: int) -> tuple[Path, Path, int]:
    """Write the images and fine-tune the network; return its data, its folder and the planted class."""
    data, box = settings.work / "data" / f"{shortcut}-{seed}", settings.work / "boxes" / f"{shortcut}-{seed}"
    planted = PLANTED + seed
    for split in ("train", "val"):
        images = open_images(settings.data, split=split)
        number = settings.per_class if split == "train" else 100
        write_images(images, data / split, shortcut, planted % len(images.class_names), number)
    if not (box / "_manifest.json").exists():
        train = ("--crop", "resized", "--input-size", 96, 96, "--epochs", settings.epochs, "--batch-size", 32)
        options = ("--lr", 0.005, "--warmup-epochs", 0.2, "--precision", "float32", "--seed", seed, "--resume")
        places = ("--data", data, "--network", "lite:efficientnet-lite0", "--out", box)
        command("distill", "finetune", "folder", *places, *train, *options)
    return data, box, planted


def audit(settings: Settings, shortcut: str, seed: int, queries: int) -> dict[str, object]:
    """Explain and audit one black box; return a row of the table."""
    data, box, planted = make_box(settings, shortcut, seed)
    name = f"{shortcut}-{seed}-gp{queries}"
    maps, out = settings.work / "maps" / name, settings.work / "audits" / name
    same = ("--data", data, "--teacher", f"onnx:{box}/model.onnx")
    options = ("--split", "val", "--num-samples", queries, "--map-cells", 28, "--out", maps)
    command("explain", "gp_regression", *same, *options)
    command("evaluate", "insights", "--maps", maps, *same, "--out", out)
    rows = pq.read_table(out / "suspicions").to_pylist()
    holds = [row for row in rows if row["status"] == "confirmed"]
    place = PLACES.get(shortcut, "")
    hits = [k for k, row in enumerate(holds) if row["target"] == _label(data, planted) and place]
    return {
        "shortcut": shortcut,
        "seed": seed,
        "queries": queries,
        "suspicions": len(rows),
        "confirmed": len(holds),
        "found": bool(hits),
        "first": bool(hits) and hits[0] == 0,
        "localized": any(place in holds[k]["sentence"] for k in hits),
        "false alarms": sum(row["target"] != _label(data, planted) or not place for row in holds),
        "sentence": holds[0]["sentence"] if holds else "",
    }


def _label(data: Path, planted: int) -> int:
    """Return the number that the black box gives the planted class: its folder's place in sorted order."""
    images = open_images(str(data), split="val")
    counts = sorted(path.name for path in (data / "val").iterdir())
    names = open_images(Settings().data, split="val").class_names
    return counts.index(names[planted % len(images.class_names)].replace(" ", "_"))


def main(settings: Settings) -> None:
    """Make all black boxes, audit them, and write the table after each."""
    rows: list[dict[str, object]] = []
    for seed in settings.seeds:
        for shortcut in settings.shortcuts:
            for queries in settings.queries:
                rows.append(audit(settings, shortcut, seed, queries))
                table = Table(headings=list(rows[0]), rows=[list(row.values()) for row in rows])
                page = markdown_page("Planted shortcuts", [table], [])
                write_pages(table_place(str(settings.out / "planted.md")), page, table)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
