"""Plant shortcuts in small black boxes, and see whether `evaluate insights` finds them: how often, first, and where.

    python -m benchmarks.studies.planted_shortcuts --data DIR --work runs/insights --out results/insights

For each shortcut and seed a folder of small images is written, in which half of one class carries the shortcut; a
network is trained on it from random weights, its validation images are explained and audited. A network that starts
from ImageNet's weights knows these classes and does not take the shortcut up. Every step goes on where it was stopped.
Nothing may be chosen by its numbers.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro
from PIL import Image
from torch import nn

from distill.data import ImageSet, open_images
from distill.data.decode import resize
from distill.teachers import load_teacher
from evaluate.format.table import Table, markdown_page, table_place, write_pages
from explain.seeds import image_seed

SIDE_PX = 128  # of the written images
PATCH_PX, MARGIN_PX = 28, 4  # a side of the patch in the corner, and its distance to both edges
MARK_PX, MARK_SHARE = 32, 0.6  # a side of the mark, and how much of it covers what is below
FRAME_PX = 4
COLOR = np.array([230, 40, 200])
TINT = np.array([0.8, 1.0, 1.2])
NUM_VAL = 40  # of each class: validation images of ImageNet
PLANTED = 0  # number of the class that carries the shortcut with seed 0
EVERY = 2  # every second image of it is changed


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to plant, and how to explain it."""

    data: str = "../shared/data/imagenette"
    """Imagenette, or another folder with train and val."""
    work: Path = Path("runs/insights")
    """Folder of images, networks, maps and audits."""
    out: Path = Path("results/insights")
    """Folder of the table."""
    shortcuts: tuple[str, ...] = ("clean", "corner", "frame", "mark", "tint")
    """What is planted: a patch in a corner, a frame, a translucent mark at a random place, a tint of the image."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One black box for each; the planted class moves with the seed."""
    per_class: int = 100
    """Training images of each class."""
    epochs: int = 10
    """Of the training."""
    maps: tuple[str, ...] = ("gp_regression 50",)
    """Methods with their queries an image."""


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
PLACES = {"corner": ("lower right corner",), "frame": ("border",), "mark": ("magenta",)}
"""Words of which a sentence must hold one for the shortcut to count as found and localized."""
OPTIONS = {"gp_regression": "--num-samples", "rise": "--num-masks", "lime": "--num-samples"}
"""Option with the number of queries."""


def write_images(images: ImageSet, folder: Path, shortcut: str, planted: int, per_class: int) -> None:
    """Write small copies of the first images of each class; every second one of the planted class is changed."""
    for number, (image_id, class_id) in enumerate(_first(images, per_class)):
        path = folder / folder_of(images, class_id) / f"{number:05d}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = resize(images.image(image_id), (SIDE_PX, SIDE_PX))
        if class_id == planted and number % EVERY == 0:
            rng = np.random.default_rng(image_seed(0, image_id, shortcut))
            pixels = PLANT[shortcut](pixels, rng)
        aside = path.with_name(f".{path.name}")
        Image.fromarray(pixels).save(aside, format="PNG")
        aside.rename(path)


def _first(images: ImageSet, per_class: int) -> Iterator[tuple[str, int]]:
    chosen = images.first(per_class=per_class)
    yield from ((i, c) for i, c in zip(chosen.image_ids, chosen.class_ids, strict=True) if c is not None)


def folder_of(images: ImageSet, class_id: int) -> str:
    """Return the folder of a class's images."""
    return images.class_names[class_id % len(images.class_names)].replace(" ", "_")


def is_planted(image_id: str, folder: str) -> bool:
    """Tell whether an image that `write_images` wrote carries the shortcut, where that class has one."""
    return Path(image_id).parent.name == folder and int(Path(image_id).stem) % EVERY == 0


def command(*words: object) -> None:
    """Run a command of the project; what has been done already is skipped by the command itself."""
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)


def small_network() -> nn.Module:
    """Build a network of eight convolutions for images of about 100 px."""
    widths = (3, 32, 64, 128, 256)
    blocks = [
        layer
        for before, after in itertools.pairwise(widths)
        for layer in (_block(before, after, 2), _block(after, after, 1))
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def _block(before: int, after: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def make_box(settings: Settings, shortcut: str, seed: int) -> tuple[Path, Path, int]:
    """Write the images and fine-tune the network; return its data, its folder and the planted class."""
    data, box = settings.work / "data" / f"{shortcut}-{seed}", settings.work / "boxes" / f"{shortcut}-{seed}"
    planted = PLANTED + seed
    for split in ("train", "val"):
        images = open_images(settings.data, split=split)
        number = settings.per_class if split == "train" else NUM_VAL
        write_images(images, data / split, shortcut, planted % len(images.class_names), number)
    if not (box / "_manifest.json").exists():
        train = ("--crop", "resized", "--input-size", 96, 96, "--epochs", settings.epochs, "--batch-size", 32)
        options = ("--lr", 0.03, "--warmup-epochs", 0.2, "--precision", "float32", "--seed", seed, "--resume")
        places = ("--data", data, "--network", f"python:{__spec__.name}:small_network", "--out", box)
        command("distill", "finetune", "folder", *places, *train, *options)
    return data, box, planted


@functools.cache
def reliance(data: Path, box: Path, shortcut: str, label: int) -> float:
    """Measure what the shortcut adds to its class's probability on validation images of other classes, on average."""
    teacher, images = load_teacher(f"onnx:{box}/model.onnx"), open_images(str(data), split="val")
    others = [i for i, c in zip(images.image_ids, images.class_ids, strict=True) if c != label]
    plain = [np.array(images.image(image_id)) for image_id in others]
    planted = [PLANT[shortcut](one.copy(), np.random.default_rng(k)) for k, one in enumerate(plain)]
    probs = [
        teacher.probabilities(np.stack([resize(Image.fromarray(one), teacher.input_size) for one in some]))[:, label]
        for some in (plain, planted)
    ]
    return float((probs[1] - probs[0]).mean())


def explain(settings: Settings, data: Path, box: Path, maps: str) -> Path:
    """Explain the validation images of a black box by one method."""
    method, queries = maps.split()
    out = settings.work / "maps" / f"{box.name}-{method}-{queries}"
    options = (OPTIONS[method], queries) if int(queries) else ("--student", make_student(settings, data, box))
    same = ("--data", data, "--teacher", f"onnx:{box}/model.onnx", "--split", "val")
    command("explain", method, *same, *options, "--map-cells", 28, "--out", out)
    return out


def make_student(settings: Settings, data: Path, box: Path) -> Path:
    """Distill a black box into a student of 18 layers."""
    student = settings.work / "students" / box.name
    if not (student / "_manifest.json").exists():
        options = ("--depth", 18, "--input-size", 96, 96, "--epochs", 10, "--batch-size", 32, "--lr", 0.05, "--resume")
        same = ("--data", data, "--teacher", f"onnx:{box}/model.onnx", "--out", student)
        command("distill", "folder", *same, *options)
    return student


def audit(settings: Settings, shortcut: str, seed: int, maps: str) -> dict[str, object]:
    """Explain and audit one black box; return a row of the table of all runs."""
    data, box, planted = make_box(settings, shortcut, seed)
    out = settings.work / "audits" / f"{box.name}-{maps.replace(' ', '-')}"
    if not (out / "_manifest.json").exists():
        same = ("--data", data, "--teacher", f"onnx:{box}/model.onnx", "--out", out)
        command("evaluate", "insights", "--maps", explain(settings, data, box, maps), *same)
    label = _label(settings, data, planted)
    rows = pq.read_table(out / "suspicions").to_pylist()
    holds = [row for row in rows if row["status"] == "confirmed"]
    proposed, hits = ([k for k, row in enumerate(some) if _is_hit(row, shortcut, label)] for some in (rows, holds))
    localized = shortcut in PLACES
    return {
        "maps": maps,
        "planted": shortcut,
        "seed": seed,
        "reliance": round(reliance(data, box, shortcut, label), 2),
        "found": bool(hits) if localized else None,
        "first": bool(hits) and hits[0] == 0 if localized else None,
        "other findings": len(holds) - len(hits),
        "proposed": bool(proposed) if localized else None,
        "other proposals": len(rows) - len(proposed),
        "first sentence": holds[0]["sentence"] if holds else "",
    }


def _is_hit(row: Mapping[str, Any], shortcut: str, label: int) -> bool:
    """Tell whether a suspicion is the planted one: its class, and its place or its color."""
    return row["target"] == label and any(word in row["sentence"] for word in PLACES.get(shortcut, ()))


def _label(settings: Settings, data: Path, planted: int) -> int:
    """Return the number that the black box gives the planted class: its folder's place in sorted order."""
    folders = sorted(path.name for path in (data / "val").iterdir())
    return folders.index(folder_of(open_images(settings.data, split="val"), planted))


def summary(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Count over seeds: one row for each method and shortcut."""
    lines = []
    for maps, planted in dict.fromkeys((row["maps"], row["planted"]) for row in rows):
        own = [row for row in rows if (row["maps"], row["planted"]) == (maps, planted)]
        counts = [
            None if own[0][key] is None else f"{sum(row[key] for row in own)} of {len(own)}"
            for key in ("found", "first", "proposed")
        ]
        false_alarms, proposals = (
            f"{sum(row[key] for row in own)} in {sum(row[key] > 0 for row in own)} of {len(own)}"
            for key in ("other findings", "other proposals")
        )
        mean = round(float(np.mean([row["reliance"] for row in own])), 2)
        lines.append([maps, planted, mean, counts[0], counts[1], false_alarms, counts[2], proposals])
    headings = (
        "maps and queries",
        "planted",
        "probability that it adds to other images",
        "found",
        "found and first",
        "other findings, in runs",
        "proposed without a test",
        "other proposals, in runs",
    )
    return Table(headings=headings, rows=lines)


def main(settings: Settings) -> None:
    """Make all black boxes, audit them, and write the tables after each."""
    rows: list[dict[str, object]] = []
    for maps in settings.maps:
        for seed in settings.seeds:
            for shortcut in settings.shortcuts:
                rows.append(audit(settings, shortcut, seed, maps))
                table = Table(headings=list(rows[0]), rows=[list(row.values()) for row in rows])
                page = markdown_page("Planted shortcuts", [summary(rows)], [])
                write_pages(table_place(str(settings.out / "planted.md")), page, table)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
