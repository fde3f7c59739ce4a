"""What a job of many rows costs beside its models, piece by piece; each probe runs in a process of its own.

Rows are simulated: images are names alone, the black box and the method do nothing or take a given time.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.session import WorkerResources
from cluster.sharded_job import Shard, make_shards, parquet_bytes, part_counts, shard_size
from cluster.storage import PART_SUFFIX, Folder
from distill.data import ImageSet
from distill.teachers import load_teacher
from evaluate.map_sets import Source, map_items
from explain.config import Job
from explain.job import SHARD_IMAGES
from explain.job import map_items as explain_items
from explain.maps import maps_schema
from explain.methods.options import NoOptions
from explain.methods.registry import find_method
from explain.plan import Plan
from explain.targets import targets_folder

METHOD, TEACHER = "random", "python:benchmarks.reliability.slow_box:make"
CONFIG = {"method": METHOD}
CLASS_IMAGES = 1300  # images in a class folder, as ImageNet has them
MAP_SIZE = 8  # map height and width in pixels of the simulated maps


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a probe measured."""

    wall_s: float
    """Seconds on the clock."""
    cpu_s: float
    """Seconds of the processor: what a busy machine does not change."""
    peak_mb: float
    """Most memory of the process above what it had before, in MB."""
    value: float = 0.0
    """What the probe counts."""


def measured(work: Callable[[], float]) -> Cost:
    """Run the work once and say what it cost."""
    before, wall_s, cpu_s = _peak_mb(), time.perf_counter(), time.process_time()
    value = work()
    times = {"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s}
    return Cost(**times, peak_mb=_peak_mb() - before, value=value)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def names(num_images: int) -> ImageSet:
    """Name images as ImageNet does, and read none."""
    classes = [f"n{k:08d}" for k in range(-(-num_images // CLASS_IMAGES))]
    ids = tuple(
        f"train/{classes[k // CLASS_IMAGES]}/{classes[k // CLASS_IMAGES]}_{k:07d}.JPEG" for k in range(num_images)
    )
    labels = tuple(k // CLASS_IMAGES for k in range(num_images))
    return ImageSet(name="names", root="/nowhere", image_ids=ids, class_ids=labels, class_names=tuple(classes))


def list_names(num_images: int, folder: str) -> Cost:
    """Hold the images' names and hash them, which every command does."""
    return measured(lambda: float(len(names(num_images).fingerprint)))


def write_parts(num_images: int, folder: str) -> Cost:
    """Write the targets and maps that the other probes read; the value is the number of files of each."""
    images, size = names(num_images), shard_size(num_images, SHARD_IMAGES)
    starts = range(0, num_images, size)

    def work() -> float:
        targets, maps = _targets(images, folder), Folder(f"{folder}/maps")
        maps.claim(CONFIG, what="maps")
        for k, start in enumerate(starts):
            ids = images.image_ids[start : start + size]
            for place, table in ((targets, _target_table(ids)), (maps, map_table(ids, MAP_SIZE))):
                place.write_bytes(f"part-{k:05d}{PART_SUFFIX}", parquet_bytes(table))
        targets.finish({})
        return float(len(starts))

    return measured(work)


def plan_maps(num_images: int, folder: str) -> Cost:
    """Plan an explain job whose targets are there: read them, make its shards; the value is their size in MB."""
    images = names(num_images)
    job: Any = Job(options=NoOptions(), data=images.root, out=f"{folder}/out")
    options: Any = {"student": None, "teacher": load_teacher(TEACHER), "config": {}, "job": job, "size": (8, 8)}
    options["folder"] = Folder(job.out)
    plan = Plan(method=find_method(METHOD), images=images, labels=images.class_ids, target="teacher", **options)
    one = WorkerResources(num_workers=1, cpus=1, gpus=0)
    size = shard_size(num_images, SHARD_IMAGES)
    return measured(lambda: _size_mb(make_shards(explain_items(plan, one), size)))


def plan_games(num_images: int, folder: str) -> Cost:
    """Plan the games of one folder of maps: find each image's map, make the shards; the value is their size in MB."""
    images, source = names(num_images), Source(uri=f"{folder}/maps", config=CONFIG)
    return measured(lambda: _size_mb(make_shards(map_items([source], images), shard_size(num_images, 16))))


def look_at_parts(num_images: int, folder: str) -> Cost:
    """List a folder and read each part's footer, as every start of a job does; the value is the number of rows."""
    return measured(lambda: float(sum(rows for rows, _ in part_counts(Folder(f"{folder}/maps")).values())))


def part_size(num_images: int, folder: str) -> Cost:
    """Make one part of 64 maps of 224 x 224 px that do not compress; the value is its size in MB."""
    return measured(lambda: len(parquet_bytes(map_table(names(SHARD_IMAGES).image_ids, 224))) / 1e6)


def _size_mb(shards: list[Shard]) -> float:
    return sum(len(shard.packed) for shard in shards) / 1e6


def _targets(images: ImageSet, folder: str) -> Folder:
    return targets_folder(Folder(f"{folder}/out"), load_teacher(TEACHER), images)


def _target_table(ids: tuple[str, ...]) -> pa.Table:
    columns = {"image_id": pa.array(ids), "target": pa.array(np.arange(len(ids), dtype=np.int32))}
    columns |= {"target_prob": pa.array(np.ones(len(ids), np.float32)), "error": pa.nulls(len(ids), pa.string())}
    return pa.table(columns)


def map_table(ids: tuple[str, ...], side: int) -> pa.Table:
    """Make maps of noise, `side` pixels square."""
    schema, number = maps_schema(CONFIG), len(ids)
    noise = pa.array(np.random.default_rng(0).random(number * side * side, dtype=np.float32))
    ends = pa.array(np.arange(number + 1, dtype=np.int32) * side * side)
    filled = {"image_id": pa.array(ids), "saliency": pa.ListArray.from_arrays(ends, noise)}
    filled |= {name: pa.array(np.full(number, side, np.int32)) for name in ("map_height", "map_width")}
    return pa.table([filled.get(f.name, pa.nulls(number, f.type)) for f in schema], schema=schema)


PROBES: dict[str, Callable[[int, str], Cost]] = {
    "names of the images": list_names,
    "write parts (for what follows)": write_parts,
    "plan an explain job": plan_maps,
    "plan a games job": plan_games,
    "list a folder, read its footers": look_at_parts,
    "a part of 64 maps of 224 px": part_size,
}
