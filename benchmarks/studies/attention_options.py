"""Measure what the paper leaves open in MATT: sign, channel collapse and normalisation, on training images.

    python benchmarks/studies/attention_options.py --data DIR --student RUN --teacher TEACHER --out results/NAME

Plays both games on the black box for `matt` and `mal_grad_cam` under each choice and writes a Markdown and a CSV table.
Training images only: the defaults are chosen with it, and nothing may be tuned on the images that are scored.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from cluster.progress.bar import Progress
from distill.data import open_images
from distill.data.decode import resize
from distill.perturb.curves import Perturbation, area, pixel_steps, play, rank_pixels
from distill.student.checkpoint import load_student
from distill.teachers import Teacher, load_teacher
from evaluate.games.baselines import blur, mean_color
from evaluate.games.protocol import GAMES
from evaluate.statistics import mean_interval
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.methods.white_box.matt import matt
from explain.methods.white_box.ml_grad_cam import ml_grad_cam

Key = tuple[str, str, str, str, str]
"""Method, normalisation of the CAMs, sign, collapse, normalisation of the attention maps."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    data: str
    """Data set with a training split."""
    student: str
    """RUN folder of a distilled student."""
    teacher: str
    """The black box, KIND:WHERE."""
    out: Path
    """Folder for attention_options.md and .csv."""
    num_images: int = 48
    """Training images, evenly spaced over the sorted list."""
    step_px: int = 896
    """Pixels per step of the games: coarser than the protocol's, for a choice and not for a table of results."""


def attention_choices() -> Iterator[dict[str, Any]]:
    """List the choices that differ: the mean of absolute values has no sign, and min-max hides a factor."""
    signs, ways = ("positive", "negative", "absolute"), (("sum", "none"), ("mean", "none"), ("mean", "min_max"))
    for sign, (collapse, normalise) in itertools.product(signs, ways):
        yield {"sign": sign, "collapse": collapse, "normalise": normalise}
    for normalise in ("none", "min_max"):
        yield {"sign": "absolute", "collapse": "abs_mean", "normalise": normalise}


def maps_of(model: torch.nn.Module, images: torch.Tensor, target: torch.Tensor) -> Iterator[tuple[Key, torch.Tensor]]:
    """Yield every variant's map of one image, (H, W)."""
    for choice in attention_choices():
        names = (choice["sign"], choice["collapse"], choice["normalise"])
        yield ("matt", "-", *names), matt(model, images, target, **choice)[0]
        attention = {"sign": names[0], "collapse": names[1], "normalise_attention": names[2]}
        for cams in ("none", "min_max"):
            options: dict[str, Any] = {"normalise_cams": cams, "normalisation": "none"} | attention
            yield ("mal_grad_cam", cams, *names), mal_grad_cam(model, images, target, **options)[0]
    for cams in ("none", "min_max"):
        options = {"normalise": cams}
        yield ("ml_grad_cam", cams, "-", "-", "-"), ml_grad_cam(model, images, target, **options)[0]


def aucs(
    teacher: Teacher, frame: torch.Tensor, target: int, maps: list[torch.Tensor], step_px: int
) -> list[list[float]]:
    """Play both games with each map; return [deletion, insertion] AUCs."""
    rng = np.random.default_rng(0)  # neither substrate draws from it
    mean, blurred = (s(frame, mean=teacher.mean, std=teacher.std, rng=rng) for s in (mean_color, blur))

    def plays() -> Iterator[Perturbation]:
        for saliency in maps:
            steps, num_steps = pixel_steps(rank_pixels(saliency, teacher.input_size).ranks, step_px)
            for game in GAMES:
                start, finish = (frame, mean) if game == "deletion" else (blurred, frame)
                yield Perturbation(start=start, finish=finish, steps=steps, num_steps=num_steps, target=target)

    areas = [area(c, step_px=step_px, num_pixels=frame[0].numel()) for c in play(teacher.forward, plays())]
    return [areas[i : i + len(GAMES)] for i in range(0, len(areas), len(GAMES))]


def table(scores: dict[Key, list[list[float]]]) -> list[list[str]]:
    """Make the rows, best difference of the games first, under a header."""
    header = ["method", "CAMs", "sign", "collapse", "attention", "images"]
    header += [f"{game}{end}" for game in GAMES for end in ("", " low", " high")]
    rows = []
    for key, pairs in scores.items():
        values = np.array(pairs)
        intervals = [mean_interval(values[:, column]) for column in range(len(GAMES))]
        figures = [f"{x:.4f}" for i in intervals for x in (i.mean, i.low, i.high)]
        gain = values[:, GAMES.index("insertion")] - values[:, GAMES.index("deletion")]
        rows.append([*key, str(len(values)), *figures, f"{gain.mean():.4f}"])
    return [[*header, "insertion - deletion"], *sorted(rows, key=lambda row: -float(row[-1]))]


def main() -> None:
    """Measure and write the tables."""
    settings = tyro.cli(Settings, description=__doc__)
    student, teacher = load_student(settings.student), load_teacher(settings.teacher)
    images = open_images(settings.data, split="train")
    picked = images.image_ids[:: max(1, len(images.image_ids) // settings.num_images)][: settings.num_images]
    scores: dict[Key, list[list[float]]] = {}
    with Progress("attention options", len(picked)) as progress:
        for image_id in picked:
            image = images.image(image_id)
            frame = teacher.normalize(resize(image, teacher.input_size)[None])
            target = teacher.forward(frame).argmax(dim=1)
            maps = dict(maps_of(student.model, student.normalize(resize(image, student.input_size)[None]), target))
            played = aucs(teacher, frame[0], int(target), list(maps.values()), settings.step_px)
            for key, pair in zip(maps, played, strict=True):
                scores.setdefault(key, []).append(pair)
            progress.advance()
    rows = table(scores)
    settings.out.mkdir(parents=True, exist_ok=True)
    with (settings.out / "attention_options.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    lines = ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]
    (settings.out / "attention_options.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
