"""Make the demo's data set and black box: `python -m distill.demo --out DIR`.

Everything is rendered and trained on this machine, so the demo needs no download, and the true object masks are
known. A second start finds what is finished and goes on from there.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from cluster import cli

VERSION = 3
"""Counts changes of what is rendered, so that a folder of an older demo is not taken for this one's."""

SIDE_PX = 128


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Render a small data set with known object masks and train a black box on it."""

    out: str
    """folder or URI for data/ (train, val, masks) and teacher/ (model.onnx, teacher.toml)"""
    seed: int = 0
    """what everything random is drawn from"""
    num_train: int = 1600
    """images to train on, spread evenly over the 8 classes"""
    num_val: int = 64
    """held-out images, spread evenly over the 8 classes"""
    epochs: int = 5
    """passes over the training images for the black box"""

    def __post_init__(self) -> None:
        """Refuse numbers that make no data set."""
        for name, least in (("seed", 0), ("num_train", 8), ("num_val", 8), ("epochs", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {least} or more")


def make_demo(config: DemoConfig) -> None:
    """Make the data set, then the black box; what is finished is kept.

    Raises:
        ValueError: if the folder holds another configuration's demo.
    """
    make_data(config)
    make_teacher(config)


def make_data(config: DemoConfig) -> None:
    """Render data/train, data/val and data/masks/val below `out`: the same bytes for the same seed.

    Raises:
        ValueError: if the folder holds another configuration's images.
    """
    from cluster.progress.bar import Progress
    from cluster.storage import Folder

    folder = Folder(config.out).child("data")
    wanted = {name: getattr(config, name) for name in ("seed", "num_train", "num_val")}
    folder.claim({**wanted, "version": VERSION, "side_px": SIDE_PX}, what="demo images")
    if folder.finished() is not None:
        print(f"data: {folder.uri} is finished")
        return
    total = config.num_train + config.num_val
    with Progress("render the images", total) as progress:
        for name, data in _files(config):
            folder.write_bytes(name, data)
            progress.advance(0 if name.startswith("masks/") else 1)
    folder.finish({"images": total})


def make_teacher(config: DemoConfig) -> None:
    """Train the black box on data/train and export it to teacher/ below `out`.

    Raises:
        ValueError: if the folder holds another configuration's black box.
    """
    from cluster.storage import Folder

    out = Folder(config.out)
    folder = out.child("teacher")
    folder.claim({**asdict(config), "out": None, "version": VERSION}, what="a demo black box")
    done = folder.finished()
    if done is None:
        from distill.data import open_images
        from distill.demo.teacher import train_teacher

        train, val = (open_images(out.child("data").uri, split=split) for split in ("train", "val"))
        start_s = time.monotonic()
        accuracy = train_teacher(train, val, folder.uri, seed=config.seed, epochs=config.epochs)
        done = {"val_accuracy": accuracy, "seconds": round(time.monotonic() - start_s, 1)}
        folder.finish(done)
    print(f"teacher: onnx:{config.out}/teacher/model.onnx, {done['val_accuracy']:.1%} right on data/val")


def _files(config: DemoConfig) -> Iterator[tuple[str, bytes]]:
    """Yield (path, PNG) of every file of the data set, drawn on all cores."""
    parts = (("train", config.num_train), ("val", config.num_val))
    places = [(part, split, index) for part, (split, number) in enumerate(parts) for index in range(number)]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for files in pool.map(partial(_draw, config.seed), places, chunksize=16):
            yield from files


def _draw(seed: int, place: tuple[int, str, int]) -> list[tuple[str, bytes]]:
    """Draw one image from its own generator; before it, where it is held out, its mask."""
    import numpy as np

    from distill.demo.rendering import CLASSES, render

    part, split, index = place
    class_name = list(CLASSES)[index % len(CLASSES)]
    scene = render(class_name, np.random.default_rng([seed, part, index]), side_px=SIDE_PX)
    name = f"{split}/{class_name}/{index:05}.png"
    mask = [(f"masks/{name}", _png(scene.mask.astype(np.uint8) * 255))] if split == "val" else []
    return [*mask, (name, _png(scene.image))]


def _png(pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)  # noise hardly compresses, and speed counts
    return buffer.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    import tyro

    return cli.run(lambda: make_demo(tyro.cli(DemoConfig, args=arguments, prog="python -m distill.demo")))
