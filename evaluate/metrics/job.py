"""The metrics besides the games as a Ray Data job: maps and images in, one row per image, method and metric out.

An item is one image with all methods' maps, so that what they share is asked of the black box once.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cluster.device import own_device
from cluster.sharded_job import RowCounts, shard_size
from cluster.storage import Folder
from distill.data import ImageSet
from distill.data.frames import read_frame, without_image_ids
from distill.student.model import Student
from distill.teachers import RefusedImageError, load_teacher
from distill.teachers.query_budget import Share, check_budget
from evaluate.config import MetricsConfig
from evaluate.games.job import checked_target
from evaluate.jobs import Job, JobResult, computed_by, load_worker_teacher, provenance, run_job
from evaluate.map_sets import Source, map_items, map_row, open_played_images, open_sources
from evaluate.metrics.compute import FUNCTIONS, Subject, queries
from evaluate.metrics.objects import Objects
from evaluate.metrics.schema import SCHEMA_VERSION, metrics_schema
from evaluate.metrics.settings import METRICS, ROWS, Metric, Settings, check_metrics, row_names, settings_hash
from evaluate.metrics.student_passes import (
    OF_STUDENT,
    applies_to,
    check_student,
    explain_frames,
    explains_student,
    make_explainer,
)
from evaluate.metrics.summary import MetricSummary, summarize_metrics, track_metrics
from explain.maps import read_part
from explain.readout.checkpoint import load_explained
from explain.runners.white_box import ProgressCallback, no_progress, passes_over
from explain.seeds import image_seed
from explain.surrogate import logits

SHARD_IMAGES = 8  # ten methods ask 270 times an image: 2,000 forward passes, seconds to minutes to redo


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsWork:
    """Argument of every worker of a metrics job."""

    stored: dict[str, Any]
    """Configuration that the folder keeps."""
    settings: Settings
    """Settings of the metrics."""
    sources: list[Source]
    """Folders of maps."""
    images: ImageSet
    """Data set, without its list of images."""


def compute_metrics(config: MetricsConfig) -> JobResult[MetricSummary]:
    """Compute metrics of maps, and write the values; go on where a start stopped.

    Raises:
        ValueError: anything does not fit together, or a metric lacks what it needs, before any work starts.
        FileNotFoundError: images, teacher or student are missing.
    """
    wanted = check_metrics(config.measures)
    teacher = load_teacher(config.teacher)
    sources = open_sources(config.maps, teacher=config.teacher, teacher_fingerprint=teacher.fingerprint)
    images = open_played_images(config.data, sources[0], config.limit, config.per_class)
    objects = Objects(images=images, boxes=config.boxes)
    if {"pointing", "energy"} & set(wanted):
        objects.check()
    of_student = [name for name in OF_STUDENT if name in wanted]
    fingerprint = check_student(config.student, sources, teacher, of_student) if of_student else None
    computed = metrics_of(sources, wanted)
    check_budget(teacher, shares(computed, config.settings, len(images.image_ids)), config.max_queries)
    target = str(sources[0].config["target"])
    stored = {
        "schema_version": SCHEMA_VERSION,
        "measures": {name: config.settings.fields(name, target=target, objects=objects.kind) for name in wanted},
        **provenance(teacher, images, config),
        "student": None if fingerprint is None else Folder(str(config.student)).uri,
        "student_fingerprint": fingerprint,
        "boxes": None if config.boxes is None else Folder(config.boxes).uri,
        "maps": [source.record() for source in sources],
    }

    def finalize(folder: Folder) -> list[MetricSummary]:
        summaries = summarize_metrics([folder.uri])
        track_metrics(folder, images, summaries, stored)
        return summaries

    job = Job(
        name="measures",
        rows="metrics",
        worker=MetricsWorker,
        work=MetricsWork(stored=stored, settings=config.settings, sources=sources, images=without_image_ids(images)),
        images=images,
        items=image_items(sources, images),
        shard_items=shard_size(len(images.image_ids), SHARD_IMAGES),
        counts=RowCounts(per_item=sum(len(row_names(names)) for names in computed)),
        reports=True,
        finalize=finalize,
    )
    return run_job(job, config)


def metrics_of(sources: Sequence[Source], wanted: Sequence[Metric]) -> list[tuple[Metric, ...]]:
    """List, for each source, the metrics that say something of its maps."""
    return [tuple(metric for metric in wanted if applies_to(source, metric)) for source in sources]


def shares(measured: Sequence[Sequence[Metric]], settings: Settings, num_images: int) -> list[Share]:
    """List what a job asks of the black box for each metric, of maps that `metrics_of` lists."""
    num_maps: dict[Metric, int] = {metric: sum(metric in own for own in measured) for metric in METRICS}
    each = {name: round(sum(map(sum, queries(name, settings, num)))) for name, num in num_maps.items() if num}
    return [Share(what=name, each=asked, number=num_images) for name, asked in each.items()]


def image_items(sources: Sequence[Source], images: ImageSet) -> list[dict[str, Any]]:
    """List one item per image, in the data set's order: image_id, and part and row of its map in each source."""
    places: dict[str, list[Any]] = {image_id: [] for image_id in images.image_ids}
    for item in map_items(sources, images):
        places[item["image_id"]].append([item["part"], item["row"]])
    return [{"image_id": image_id, "maps": found} for image_id, found in places.items()]


class MetricsWorker:
    """Measure the maps of a shard's images; whatever happens to one, it keeps all its rows."""

    def __init__(self, work: MetricsWork) -> None:
        """Load the teacher, and the student where maps are made anew, on this worker's cores or GPU, once."""
        stored, self.settings, self.sources, self.images = work.stored, work.settings, work.sources, work.images
        self.objects = Objects(images=self.images, boxes=stored["boxes"])
        self.metrics: tuple[Metric, ...] = tuple(stored["measures"])
        self.metrics_of = metrics_of(self.sources, self.metrics)
        self.hashes = {name: settings_hash(fields) for name, fields in stored["measures"].items()}
        self.device = own_device()
        self.teacher = load_worker_teacher(stored)
        self.schema = metrics_schema(stored, computed_by(self.teacher))
        self.student = self._load_student(stored)
        self.explainers = [make_explainer(source, self.student) for source in self.sources]
        self.answerer = None if self.student is None else passes_over(self.student, logits)
        # A shard's maps mostly share one part a source.
        self._part = functools.lru_cache(maxsize=len(self.sources))(read_part)

    def _load_student(self, stored: dict[str, Any]) -> Student | None:
        if stored["student"] is None:
            return None
        read_outs = [source.config.get("readout_fingerprint") for source in self.sources if explains_student(source)]
        read_out = next((fingerprint for fingerprint in read_outs if fingerprint), None)
        return load_explained(
            stored["student"],
            device=self.device,
            with_readout=read_out is not None,
            expected_fingerprint=stored["student_fingerprint"],
            expected_readout=read_out,
        )

    def __call__(self, items: list[dict[str, Any]], tell: ProgressCallback = no_progress) -> pa.Table:
        """Return, for each item in order, each source's rows in the order of the metrics; `tell` hears of each."""
        rows: list[dict[str, Any]] = []
        for item in items:
            rows += self._rows(item)
            tell(len(rows), 0)
        return pa.Table.from_pylist(rows, schema=self.schema)

    def _rows(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        found = [self._map_row(number, item) for number in range(len(self.sources))]
        cells: list[dict[str, dict[str, Any]]] = [{} for _ in found]
        frame, problem = read_frame(self.images, item["image_id"], self.teacher.input_size)
        errors = [problem or self._problem(row) for row in found]
        usable = [k for k, error in enumerate(errors) if error is None]
        if usable and frame is not None:
            pixels = self.teacher.normalize(frame[None])[0].to(self.device)
            subject = self._subject(item["image_id"], pixels, [found[k] for k in usable], usable)
            for metric in self.metrics:
                numbers = [number for number, k in enumerate(usable) if metric in self.metrics_of[k]]
                for number, own in zip(numbers, self._cells(metric, subject.only(numbers)), strict=True):
                    cells[usable[number]] |= own
        return [row for k in range(len(found)) for row in self._full_rows(k, found[k], cells[k], errors[k])]

    def _map_row(self, number: int, item: dict[str, Any]) -> dict[str, Any]:
        part, place = item["maps"][number]
        return map_row(self._part(self.sources[number].uri, part), place, item["image_id"])

    def _problem(self, row: dict[str, Any]) -> str | None:
        """Say why a map cannot be measured; None where it can."""
        if row["error"] is not None:
            return row["error"]
        try:
            checked_target(row["target"], self.teacher)
        except ValueError as error:
            return str(error)
        return None if np.isfinite(row["saliency"]).all() else "the map holds values that are not finite"

    def _subject(self, image_id: str, pixels: torch.Tensor, found: list[dict[str, Any]], numbers: list[int]) -> Subject:
        maps = [torch.from_numpy(np.array(row["saliency"], dtype=np.float32)).to(self.device) for row in found]
        explain = [self._explain(number, row) for number, row in zip(numbers, found, strict=True)]
        return Subject(
            image_id=image_id,
            pixels=pixels,
            maps=maps,
            targets=[row["target"] for row in found],
            mask=functools.partial(self.objects.mask, image_id, self.teacher.input_size),
            explain=explain,
            frame=functools.partial(self._student_frame, image_id),
            answer=self._answer,
        )

    def _explain(self, number: int, row: dict[str, Any]) -> Any:
        explainer = self.explainers[number]
        if explainer is None:
            return None
        seed = image_seed(self.sources[number].config["seed"], row["image_id"], row["method"])
        return functools.partial(explain_frames, explainer, row["target"], seed)

    def _student_frame(self, image_id: str) -> np.ndarray:
        assert self.student is not None
        frame, error = read_frame(self.images, image_id, self.student.input_size)
        assert frame is not None, error  # the teacher's frame was read from the same file
        return frame.astype(np.float32) / 255

    def _answer(self, frames: np.ndarray) -> np.ndarray:
        assert self.answerer is not None
        return explain_frames(self.answerer, 0, 0, frames)

    def _cells(self, metric: Metric, subject: Subject) -> Iterator[dict[str, dict[str, Any]]]:
        """Yield, for each map of the subject, row name -> value, error, teacher_queries and seconds."""
        if not subject.maps:
            return
        names = ROWS[metric]
        started_s = time.perf_counter()
        try:
            values = FUNCTIONS[metric](subject, self.settings, self.teacher)
            asked = queries(metric, self.settings, len(subject.maps))
        except (ValueError, RefusedImageError) as error:
            values = [(str(error),) * len(names)] * len(subject.maps)
            asked = [(0.0,) * len(names)] * len(values)
        worked = sum(not isinstance(own[0], str) for own in values) or len(values)
        seconds = (time.perf_counter() - started_s) / worked / len(names)
        for own, shares in zip(values, asked, strict=True):
            yield {
                name: {
                    **({"error": value} if isinstance(value, str) else {"value": value, "seconds": seconds}),
                    "teacher_queries": number,
                }
                for name, value, number in zip(names, own, shares, strict=True)
            }

    def _full_rows(
        self, number: int, found: dict[str, Any], cells: dict[str, dict[str, Any]], error: str | None
    ) -> Iterator[dict[str, Any]]:
        same = {name: found[name] for name in ("image_id", "method", "config_hash", "target")}
        for metric in self.metrics_of[number]:
            for name in ROWS[metric]:
                row = {**same, "measure": name, "protocol_hash": self.hashes[metric]}
                nothing = {"teacher_queries": 0.0, "seconds": 0.0, "error": error}
                yield {**row, **nothing, **cells.get(name, {})}
