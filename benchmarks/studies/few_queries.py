"""Measure maps from few questions against RISE with thousands, on training images: how `gp_regression` was chosen.

    python benchmarks/studies/few_queries.py --data DIR --teacher TEACHER --out runs/few_queries

Plays both games on the black box with the maps of each choice at each budget, one choice changed at a time, and writes
a Markdown and a CSV table with the differences to RISE on the same images. Scores are kept per image, in `scores.csv`,
so that a second start goes on where the first one stopped, and another choice costs its own questions only. Training
images only: nothing may be tuned on the images that are scored.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from cluster.progress.bar import Progress
from distill.data import open_images
from distill.data.decode import resize
from distill.perturb.curves import Perturbation, area, pixel_steps, play, rank_pixels
from distill.teachers import Teacher, load_teacher
from evaluate.games.baselines import blur, mean_color
from evaluate.games.protocol import GAMES
from evaluate.statistics import paired_difference
from explain.methods.query.queries import Queries
from explain.methods.registry import METHODS
from explain.seeds import image_seed

RISE = ("rise", "rise num_cells=8 keep_probability=0.1")
"""What the others are compared with: the masks of both of its authors' families."""

CHOICES: dict[str, dict[str, Any]] = {
    RISE[0]: {},
    RISE[1]: {"num_cells": 8, "keep_probability": 0.1},
    "gp_regression": {},
    "gp_regression substrate=blur": {"substrate": "blur"},
    "gp_regression substrate=mean": {"substrate": "mean"},
    "gp_regression num_segments=50": {"num_segments": (50,)},
    "gp_regression num_segments=50,100,200": {"num_segments": (50, 100, 200)},
    "lime": {},
    "kernel_shap": {},
}
"""Label, which begins with the method's name -> options that are not its defaults."""

Key = tuple[str, int]
"""Label, queries."""
Scores = dict[Key, dict[str, list[float]]]
"""For each key image_id -> AUC of each game."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    data: str
    """Data set with a training split."""
    teacher: str
    """The black box, KIND:WHERE."""
    out: Path
    """Folder for few_queries.md, few_queries.csv and scores.csv."""
    num_images: int = 40
    """Training images, evenly spaced over the sorted list, then shuffled: the first few are of all classes."""
    choices: tuple[str, ...] = tuple(CHOICES)
    """Which choices; differences are to those of RISE's that have scores."""
    budgets: tuple[int, ...] = (24, 50, 100, 200, 500)
    """Queries per image."""
    rise_masks: int = 4000
    """Queries per image of RISE."""
    step_px: int = 1792
    """Pixels per step of the games: coarser than the protocol's, for a choice and not for a table of results."""
    seed: int = 0
    """Of the methods."""

    def __post_init__(self) -> None:
        if unknown := set(self.choices) - set(CHOICES):
            raise ValueError(f"unknown choices {sorted(unknown)}; choices: {', '.join(CHOICES)}")

    def wanted(self) -> list[Key]:
        """List what to score: each choice at each budget, RISE at its own."""
        return [(c, b) for c in self.choices for b in ((self.rise_masks,) if c in RISE else self.budgets)]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One image with its black box."""

    teacher: Teacher
    image_id: str
    frame: torch.Tensor
    """(1, 3, H, W), normalised."""
    settings: Settings
    asked: dict[str, Queries] = field(default_factory=dict)
    """Label -> what was asked for it, so that a budget reuses another's answers."""

    def maps(self, keys: list[Key]) -> Iterator[torch.Tensor]:
        """Yield the map of each key, (H, W)."""
        target = self.target
        for label, budget in keys:
            name = label.split()[0]
            method, options = METHODS[name], CHOICES[label]
            queries = self.asked.setdefault(
                label, Queries(self.teacher.forward, batch_size=self.teacher.batch_size or 64)
            )
            spent = {"num_masks" if name == "rise" else "num_samples": budget}
            seeds = [image_seed(self.settings.seed, self.image_id, name)]
            yield method.load()(queries, self.frame, target, seeds=seeds, **options, **spent)[0]

    @property
    def target(self) -> torch.Tensor:
        """Return the class explained, (1,)."""
        return self.teacher.forward(self.frame).argmax(dim=1).cpu()

    def aucs(self, keys: list[Key]) -> list[list[float]]:
        """Play both games with each key's map; return AUCs in the order of `GAMES`."""
        rng, step_px, target = np.random.default_rng(0), self.settings.step_px, int(self.target)
        frame = self.frame[0]
        mean, blurred = (  # neither draws from rng
            s(frame, mean=self.teacher.mean, std=self.teacher.std, rng=rng) for s in (mean_color, blur)
        )

        def plays() -> Iterator[Perturbation]:
            for saliency in self.maps(keys):
                steps, num_steps = pixel_steps(rank_pixels(saliency, self.teacher.input_size).ranks, step_px)
                for game in GAMES:
                    start, finish = (frame, mean) if game == "deletion" else (blurred, frame)
                    yield Perturbation(start=start, finish=finish, steps=steps, num_steps=num_steps, target=target)

        areas = [area(c, step_px=step_px, num_pixels=frame[0].numel()) for c in play(self.teacher.forward, plays())]
        return [areas[i : i + len(GAMES)] for i in range(0, len(areas), len(GAMES))]


def read_scores(path: Path) -> Scores:
    """Read the scores that are kept."""
    scores: Scores = {}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                key = row["choice"], int(row["queries"])
                scores.setdefault(key, {})[row["image_id"]] = [float(row[game]) for game in GAMES]
    return scores


def keep(path: Path, image_id: str, keys: list[Key], aucs: list[list[float]]) -> None:
    """Add one image's scores to those that are kept."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["choice", "queries", "image_id", *GAMES])
        writer.writerows([*key, image_id, *(f"{x:.6f}" for x in pair)] for key, pair in zip(keys, aucs, strict=True))


def table(settings: Settings, scores: Scores) -> list[list[str]]:
    """Make the rows under a header: means, and each game's paired difference to both of RISE's families."""
    header = ["choice", "queries", "images", *GAMES]
    for label in RISE:
        header += [f"{game} - {label}{end}" for game in GAMES for end in ("", " low", " high")] + ["pairs"]
    rows = [header]
    for key in settings.wanted():
        if not (found := scores.get(key, {})):
            continue
        values = np.array(list(found.values())).reshape(-1, len(GAMES))
        figures = [f"{x:.4f}" for x in values.mean(axis=0)]
        for label in RISE:
            reference = scores.get((label, settings.rise_masks), {})
            both = [image_id for image_id in found if image_id in reference]
            for game in range(len(GAMES)):
                mine, rises = ([some[image_id][game] for image_id in both] for some in (found, reference))
                difference = paired_difference(mine, rises)
                ends = difference.mean, difference.low, difference.high
                figures += [f"{x:+.4f}" if np.isfinite(x) else "-" for x in ends]
            figures.append(str(len(both)))
        rows.append([key[0], str(key[1]), str(len(values)), *figures])
    return rows


def picked(settings: Settings, image_ids: tuple[str, ...]) -> list[str]:
    """Take images evenly spaced over the sorted list, in a fixed random order."""
    spaced = image_ids[:: max(1, len(image_ids) // settings.num_images)][: settings.num_images]
    return [spaced[i] for i in np.random.default_rng(0).permutation(len(spaced))]


def missing(settings: Settings, kept: Path, image_id: str) -> list[Key]:
    """List what has no score for an image yet."""
    scores = read_scores(kept)
    return [key for key in settings.wanted() if image_id not in scores.get(key, {})]


def main() -> None:
    """Measure and write the tables, after every image."""
    torch.set_num_threads(1)
    settings = tyro.cli(Settings, description=__doc__)
    settings.out.mkdir(parents=True, exist_ok=True)
    kept = settings.out / "scores.csv"
    teacher, images = load_teacher(settings.teacher), open_images(settings.data, split="train")
    chosen = sorted(picked(settings, images.image_ids), key=lambda image_id: len(missing(settings, kept, image_id)))
    with Progress("few queries", len(chosen)) as progress:
        for image_id in chosen:
            if keys := missing(settings, kept, image_id):
                frame = teacher.normalize(resize(images.image(image_id), teacher.input_size)[None])
                measured = Measurement(teacher=teacher, image_id=image_id, frame=frame, settings=settings)
                keep(kept, image_id, keys, measured.aucs(keys))
                write_tables(settings, read_scores(kept))
            progress.advance()
    print("\n".join(write_tables(settings, read_scores(kept))))


def write_tables(settings: Settings, scores: Scores) -> list[str]:
    """Write both tables; return the lines of the Markdown one."""
    rows = table(settings, scores)
    with (settings.out / "few_queries.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    lines = ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]
    (settings.out / "few_queries.md").write_text("\n".join(lines) + "\n")
    return lines


if __name__ == "__main__":
    main()
