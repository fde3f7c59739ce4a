"""What a recipe costs at full size, from rates that finished jobs measured: hours, queries and storage.

    hours on n workers = items / (items a second of one worker x n) / 3600

It knows jobs by their manifests alone: any job that leaves a `rate` (`cluster.planning.throughput`) can be planned.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.planning.throughput import Rate, rate_from
from cluster.storage import Folder, split_file

WORKLOADS = Path(__file__).with_name("workloads.toml")
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
ASSUMED = (
    "Hours are items / (items a second of one worker x workers): a lower bound, without start-up and without waiting "
    "for each other or for storage. A worker is as the one that was measured."
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How much work a recipe is."""

    recipe: str
    """Its name."""
    epochs: int
    """Passes over the training images."""
    num_train: int | None = None
    """Training images; None where the recipe does not say."""
    num_images: int | None = None
    """Images that are explained and scored; likewise."""
    settings: dict[str, Any]
    """What a rate of training must have been measured with."""

    def items(self, rate: Rate) -> int:
        """Count the items of a job at full size. Raises: ValueError where the number of images is not known."""
        name, flag = ("num_train", "--num-train") if rate.kind == "training" else ("num_images", "--num-images")
        images = getattr(self, name)
        if images is None:
            raise ValueError(f"recipe {self.recipe} fits data sets of any size; give {flag}")
        return images * (self.epochs if rate.kind == "training" else rate.per_image)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One job at full size."""

    rate: Rate
    """What was measured."""
    source: str
    """Where the rate was read."""
    items: int
    """Items at full size."""

    def hours(self, num_workers: int) -> float:
        """Compute the hours on so many workers."""
        return self.items * self.rate.worker_seconds / self.rate.items / num_workers / 3600

    @property
    def queries(self) -> float:
        """Scale the queries."""
        return self.items * self.rate.queries / self.rate.items

    @property
    def num_bytes(self) -> float:
        """Scale the stored bytes."""
        return self.items * self.rate.num_bytes / self.rate.items


def find_workload(recipe: str, *, settings: Mapping[str, Any] | None = None, **changes: int | None) -> Workload:
    """Look up a recipe's size; changes and settings that are not None replace its own.

    Raises:
        ValueError: there is no such recipe, or a change is below 1.
    """
    known = tomllib.loads(WORKLOADS.read_text())
    if recipe not in known:
        raise ValueError(f"recipe '{recipe}' is unknown; choose one of {', '.join(known)}")
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"{name} {value} is too small; give 1 or more")
    found = replace(Workload(recipe=recipe, **known[recipe]), **given)
    other = {name: value for name, value in (settings or {}).items() if value is not None}
    return replace(found, settings=found.settings | other)


def read_rates(place: str) -> list[Rate]:
    """Read the rate that a finished job left in its folder, or those of a JSON file: one, or a list.

    Raises:
        ValueError: there is none, or it is not whole.
    """
    try:
        if place.endswith(".json"):
            folder, name = split_file(place)
            found = folder.read_json(name)
            return [rate_from(fields) for fields in (found if isinstance(found, list) else [found])]
        manifest = Folder(place).finished()
        if manifest is None or not manifest.get("rate"):
            raise ValueError("no finished job has left a rate there")
        return [rate_from(manifest["rate"])]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}; give the --out folder of a finished job, or a .json of rates") from error


def costs(workload: Workload, places: Sequence[str]) -> list[Cost]:
    """Scale every rate to full size.

    Raises:
        ValueError: a rate cannot be read, or training was measured with other settings than the recipe's.
    """
    found = [(place, rate) for place in places for rate in read_rates(place)]
    for place, rate in found:
        for name, wanted in workload.settings.items() if rate.kind == "training" else ():
            if rate.settings.get(name) != wanted:
                raise ValueError(
                    f"{place} was measured with {name} {rate.settings.get(name)}, recipe {workload.recipe} has "
                    f"{wanted}; measure with the recipe's: a short run on some of the images is enough"
                )
    return [Cost(rate=rate, source=place, items=workload.items(rate)) for place, rate in found]


def plan_text(workload: Workload, found: Sequence[Cost], gpus: Sequence[int]) -> str:
    """Write the plan as Markdown: a row per job, their sum, and where each rate comes from.

    Raises:
        ValueError: a number of GPUs is below 1.
    """
    if min(gpus, default=0) < 1:
        raise ValueError(f"gpus {' '.join(map(str, gpus))} is not allowed; give numbers of 1 or more")
    unit = "GPU" if all(cost.rate.gpus for cost in found) else "worker"
    heads = ["job", "items", *(f"hours on {n} {unit}{'s' * (n > 1)}" for n in gpus), "queries", "storage", "measured"]
    rows = [[cost.rate.job, f"{cost.items:,}", *_totals([cost], gpus), f"[{k}]"] for k, cost in enumerate(found, 1)]
    rows.append(["all", "", *_totals(found, gpus), ""])
    lines = [heads, ["---"] * len(heads), *rows]
    images = [f"{workload.epochs} epochs of {_known(workload.num_train)} training images"]
    images += [f"{_known(workload.num_images)} images"]
    return "\n".join(
        [f"{workload.recipe}: {', '.join(images)}. {ASSUMED}", ""]
        + ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
        + ["", *(f"[{k}] {_measured(cost)}" for k, cost in enumerate(found, 1))]
    )


def _totals(found: Sequence[Cost], gpus: Sequence[int]) -> list[str]:
    """Add up hours on each number of workers, queries and storage."""
    hours = [sum(cost.hours(n) for cost in found) for n in gpus]
    queries, num_bytes = sum(cost.queries for cost in found), sum(cost.num_bytes for cost in found)
    return [*(f"{h:,.0f}" if h >= 100 else f"{h:.3g}" for h in hours), _count(queries), _size(num_bytes)]


def _measured(cost: Cost) -> str:
    rate = cost.rate
    several = f", {rate.per_image} for each image" if rate.per_image > 1 else ""
    what = f"{rate.items / rate.worker_seconds:.4g} items/s a worker{several}"
    over = f"{rate.items:,} items in {rate.worker_seconds:,.1f} s of {rate.num_workers} worker(s)"
    device = f"one {rate.machine} each" if rate.gpus else f"{rate.cpus} core(s) each of {rate.machine}"
    settings = "".join(f", {name} {value}" for name, value in rate.settings.items())
    return f"{what}: {over}, {device}{settings}; {cost.source}"


def _known(number: int | None) -> str:
    return "any number of" if number is None else f"{number:,}"


def _count(number: float) -> str:
    return f"{round(number):,}" if number else ""


def _size(num_bytes: float) -> str:
    """Write bytes in decimal units; empty for none."""
    power = 0
    while num_bytes >= 1000 and power < len(UNITS) - 1:
        num_bytes, power = num_bytes / 1000, power + 1
    return f"{num_bytes:.3g} {UNITS[power]}" if num_bytes else ""
