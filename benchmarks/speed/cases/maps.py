"""Maps that are stored small, and maps computed in bfloat16: what they weigh, and what both games say of them."""

import io
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import sem

from benchmarks.speed.areas import Judged, judged
from benchmarks.speed.ratio import Row
from benchmarks.speed.world import World
from distill.student.model import Student
from distill.teachers.engines.backends import EngineChoice, has_native_bfloat16
from evaluate.games.protocol import GAMES, Protocol
from explain.compiled.select import compile_method
from explain.job import SHARD_IMAGES
from explain.maps import maps_table
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.methods.white_box.ml_grad_cam import ml_grad_cam
from explain.rank_maps import compact
from explain.runners.white_box import PASS_IMAGES

CELLS = 28
NUM_IMAGES = 64
STEPS = 56
"""Of each game: what they cost must not keep the images few."""
METHODS: dict[str, Callable] = {"mal_grad_cam": mal_grad_cam, "ml_grad_cam": ml_grad_cam}


def measure(world: World) -> list[Row]:
    """Weigh and play whole maps, small ones, and such of bfloat16."""
    torch.set_num_threads(world.threads)
    images, student = judged(world, world.number(NUM_IMAGES, 2)), world.taught
    whole = {name: student_maps(student, method, images) for name, method in METHODS.items()}
    height, width = images.teacher.input_size
    protocol = Protocol(step_px=-(-height * width // STEPS))
    exact = {name: images.areas(maps, protocol)[0] for name, maps in whole.items()}
    small = {name: [compact(one, CELLS) for one in maps] for name, maps in whole.items()}
    rows = [weigh(small["mal_grad_cam"], whole["mal_grad_cam"])]
    about = f"the float32 map, {len(images.frames)} images, {STEPS} steps"
    moved = {name: images.areas(maps, protocol)[0] - exact[name] for name, maps in small.items()}
    what = f"one stored map, {CELLS} x {CELLS}: how far the mean areas move"
    rows.append(area_row("maps", what, about, moved, why="the pixels of a cell have one place in the order"))
    if has_native_bfloat16():
        low = low_precision_maps(student, images, world.threads)
        moved = {"mal_grad_cam": images.areas(low, protocol)[0] - exact["mal_grad_cam"]}
        what = "MAL-Grad-CAM in bfloat16: how far the mean areas move"
        why = "bfloat16 keeps 8 binary digits, so near places in the order change, and float32 is the default"
        rows.append(area_row("maps", what, about, moved, why=why))
    return rows


def student_maps(student: Student, method: Callable, images: Judged) -> np.ndarray:
    """Make a method's maps of a student, at the black box's size: (N, H, W) float32."""
    pixels, chosen = student.normalize(images.frames), torch.from_numpy(images.targets)
    chunks = [slice(k, k + PASS_IMAGES) for k in range(0, len(pixels), PASS_IMAGES)]
    return np.concatenate([method(student.model, pixels[chunk], chosen[chunk]).numpy() for chunk in chunks])


def low_precision_maps(student: Student, images: Judged, threads: int) -> np.ndarray:
    """Make MAL-Grad-CAM's maps as `--precision bfloat16` does: (N, H, W)."""
    choice = EngineChoice(engine="openvino", precision="bfloat16", batch_size=min(PASS_IMAGES, len(images.frames)))
    size = (images.frames.shape[1], images.frames.shape[2])
    method = compile_method(mal_grad_cam, student.model, choice, size=size, num_threads=threads)
    return student_maps(student, method, images)


def weigh(small: list[np.ndarray], whole: np.ndarray) -> Row:
    """Say how many kB of Parquet each map takes, its row's other columns included, in a part as a job writes it."""
    kb = [_map_kb(maps, config) for maps, config in ((small, {"map_cells": CELLS}), (list(whole), {}))]
    return Row(
        key="maps",
        what=f"one stored map, `--map-cells {CELLS}`, its row's other columns included",
        against=f"float32 at {whole.shape[1]} x {whole.shape[2]}, {whole[0].nbytes / 1000:.0f} kB",
        unit="kB",
        at_most=2.0,
        figures=[kb[0]],
        note=f"the whole map takes {kb[1]:.0f} kB of Parquet; the small one keeps the order of pixels, not magnitudes",
    )


def _map_kb(maps: list[np.ndarray], config: dict) -> float:
    """Return what each map adds to a part, and its share of the rest of one."""
    empty = _parquet_bytes([], config)
    return ((_parquet_bytes(maps, config) - empty) / len(maps) + empty / SHARD_IMAGES) / 1000


def _parquet_bytes(maps: list[np.ndarray], config: dict) -> int:
    config = {"method": "mal_grad_cam", **config}
    rows = [
        {
            "image_id": f"train/n01440764/ILSVRC2012_val_{k:08d}.JPEG",
            "label": k,
            "target": k,
            "target_prob": 1 / (k + 1),
            "map_height": one.shape[0],
            "map_width": one.shape[1],
            "saliency": one,
            "teacher_queries": 0,
            "student_passes": 1,
            "seconds": 1 / (k + 2),
        }
        for k, one in enumerate(maps)
    ]
    sink = io.BytesIO()
    pq.write_table(maps_table(rows, config), sink, compression="zstd")
    return sink.tell()


def area_row(key: str, what: str, against: str, moved: dict[str, np.ndarray], *, why: str) -> Row:
    """Make the row of the farthest that a game's mean area moved, with what may move it."""
    games = {f"{name} {game}": d[:, k] for name, d in moved.items() for k, game in enumerate(GAMES)}
    single = np.abs(np.concatenate(list(games.values())))
    said = ", ".join(f"{name} {d.mean():+.5f} ± {sem(d):.5f}" for name, d in games.items())
    return Row(
        key=key,
        what=what,
        against=against,
        unit="AUC",
        at_most=0.001,
        figures=[max(float(abs(d.mean())) for d in games.values())],
        note=f"{said} (standard errors over the images); of single maps 95 % move by less than "
        f"{np.percentile(single, 95):.4f}: {why}",
    )
