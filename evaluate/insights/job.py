"""`python -m evaluate insights`: what a black box relies on, from the maps of a data set and its own responses.

Two Ray Data jobs and what lies between: the evidence of each image (`images/`), candidates of all classes, their trials
on the black box (`trials/`), and what is said of them (`suspicions/`, `classes/`, tables, page, MLflow).
"""

import dataclasses
import hashlib
import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.session import ray_session
from cluster.sharded_job import RowCounts, parquet_bytes, shard_size
from cluster.storage import Folder, config_hash
from cluster.tracking.run_store import legal_name
from distill.data import ImageSet
from distill.data.frames import without_image_ids
from distill.data.objects import BoxFiles
from distill.teachers import load_teacher
from distill.teachers.query_budget import Share, check_budget
from evaluate.config import InsightsConfig, OutputConfig
from evaluate.insights.candidates import Candidate, Trial, plan_trials, propose
from evaluate.insights.changes import class_changes
from evaluate.insights.classes import MIN_IMAGES, Images, class_rows, contrasts
from evaluate.insights.figure import draw_classes
from evaluate.insights.images import SHARD_IMAGES, ImagesWork, ImagesWorker, read_images
from evaluate.insights.interventions import QUERIES, SHARD_TRIALS, TrialsWork, TrialsWorker, read_trials
from evaluate.insights.page import write_page
from evaluate.insights.result import Insights
from evaluate.insights.summary import track, write_tables
from evaluate.insights.suspicions import fewest_images, judge, suspicion_rows, suspicions_table
from evaluate.jobs import Job, run_job
from evaluate.map_sets import Source, open_played_images, open_source, open_sources
from evaluate.metrics.job import image_items
from evaluate.metrics.objects import Objects
from evaluate.metrics.pointing import any_masks
from explain.pictures.class_names import class_title, name_classes

if TYPE_CHECKING:
    from distill.teachers import Teacher

SCHEMA_VERSION = "1"
PART = "part-00000.parquet"
MAX_NAME_CHARS = 200
"""Of a class, in sentences and names of metrics, of which MLflow takes 250."""


def find_insights(config: InsightsConfig) -> Insights:
    """Find and test what a black box relies on; go on where a start stopped.

    Raises:
        ValueError: anything does not fit together, before any work starts; or the test needs too many queries.
        FileNotFoundError: images or teacher are missing.
    """
    teacher = None if config.teacher is None else load_teacher(config.teacher)
    sources = _open_maps(config, teacher)
    data = open_played_images(config.data, sources[0], config.limit, config.per_class)
    if config.boxes is not None:
        Objects(images=data, boxes=config.boxes).check()
        data = dataclasses.replace(data, objects=BoxFiles(uri=config.boxes))
    stored, folder = _stored(config, teacher, data, sources), Folder(config.out)
    folder.claim(stored, what="insights")
    with ray_session(math.ceil(len(data.image_ids) / shard_size(len(data.image_ids), SHARD_IMAGES))):
        _describe_images(config, stored, data, sources)
        images = Images(read_images(folder.child("images")))
        candidates = propose(images, seed=config.seed)
        tested = candidates[: config.max_suspicions] if teacher is not None else candidates
        trials = plan_trials(images, tested, num_tested=config.num_tested, seed=config.seed)
        probs = (
            None if teacher is None else _run_trials(config, _planned(stored, images, trials), data, teacher, trials)
        )
    names = _class_names(images, data, teacher)
    judged = judge(tested, probs)
    insights = Insights(
        folder=folder,
        stored=stored,
        data=data,
        images=images,
        names=names,
        suspicions=judged,
        rows=suspicion_rows(judged, images, names),
        trials=trials,
        probs=[] if probs is None else probs.to_pylist(),
        changes=class_changes(images) if config.against is not None else [],
        notes=_notes(images, names, candidates, len(tested), tested=teacher is not None),
    )
    _write(insights)
    return insights


def _open_maps(config: InsightsConfig, teacher: "Teacher | None") -> list[Source]:
    """Open the maps, and those of the other model. Raises: ValueError where they cannot be compared."""
    if teacher is None:
        source = open_source(config.maps)
    else:
        (source,) = open_sources([config.maps], teacher=teacher.spec, teacher_fingerprint=teacher.fingerprint)
    if source.config["target"] is None:
        raise ValueError(f"the maps in {source.uri} explain no class; explain again with --teacher")
    if config.against is None:
        return [source]
    other = open_source(config.against)
    for key, advice in (
        ("method", "explain both models by the same method"),
        ("options", "explain both models with the same options"),
        ("data_fingerprint", "explain both models with the same --data, --split, --limit and --per-class"),
        ("target", "explain both models with the same --target"),
    ):
        got, wanted = other.config[key], source.config[key]
        if got != wanted:
            raise ValueError(
                f"maps of two models must be made alike, but {source.uri} has {key} {wanted} and {other.uri} {got}; "
                f"{advice}"
            )
    return [source, other]


def _stored(
    config: InsightsConfig, teacher: "Teacher | None", data: ImageSet, sources: Sequence[Source]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "teacher": None if teacher is None else teacher.spec,
        "teacher_fingerprint": None if teacher is None else teacher.fingerprint,
        "data": data.root,
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "split": data.split,
        "limit": config.limit,
        "per_class": config.per_class,
        "boxes": None if config.boxes is None else Folder(config.boxes).uri,
        "max_suspicions": config.max_suspicions,
        "num_tested": config.num_tested,
        "seed": config.seed,
        "maps": [source.record() for source in sources],
    }


def _describe_images(config: InsightsConfig, stored: dict[str, Any], data: ImageSet, sources: list[Source]) -> None:
    has_objects = config.boxes is not None or any_masks(data)
    work = ImagesWork(stored=stored, sources=sources, images=without_image_ids(data), has_objects=has_objects)
    items = image_items(sources, data)
    job: Job[None] = Job(
        name="images",
        rows="images",
        worker=ImagesWorker,
        work=work,
        images=data,
        items=items,
        shard_items=shard_size(len(items), SHARD_IMAGES),
        finalize=lambda _: [],
    )
    run_job(job, _output(config, "images"))


def _run_trials(
    config: InsightsConfig, stored: dict[str, Any], data: ImageSet, teacher: "Teacher", trials: list[Trial]
) -> pa.Table | None:
    """Query the black box, after the number of queries was said. Raises: ValueError where they are too many."""
    check_budget(teacher, [Share(what="trials", each=QUERIES, number=len(trials))], config.max_queries)
    print(f"interventions: {len(trials) * QUERIES:,} queries on {len(trials):,} images", file=sys.stderr)
    if not trials:
        return None
    work = TrialsWork(stored=stored, images=without_image_ids(data))
    job: Job[None] = Job(
        name="trials",
        rows="trials",
        worker=TrialsWorker,
        work=work,
        images=data,
        items=[dataclasses.asdict(trial) for trial in trials],
        shard_items=SHARD_TRIALS,
        counts=RowCounts(queries="teacher_queries"),
        finalize=lambda _: [],
    )
    run_job(job, _output(config, "trials"))
    return read_trials(Folder(config.out).child("trials"))


def _planned(stored: dict[str, Any], images: Images, trials: list[Trial]) -> dict[str, Any]:
    """Add a hash of the trials and images to what their folder keeps: rows of another plan are not taken for these."""
    seen = hashlib.sha256(images.evidence.tobytes() + images.image_color.tobytes()).hexdigest()
    return {**stored, "trials": config_hash({"images": seen, "trials": list(map(dataclasses.asdict, trials))})}


def _output(config: InsightsConfig, name: str) -> OutputConfig:
    return OutputConfig(out=Folder(config.out).child(name).uri, num_workers=config.num_workers)


def _class_names(images: Images, data: ImageSet, teacher: "Teacher | None") -> dict[int, str]:
    """Name the classes explained, with their numbers where names are the same, in MLflow at least."""
    known = name_classes(data, None if teacher is None else teacher.class_names, teacher and teacher.num_classes)
    titles = {target: class_title(known, target)[:MAX_NAME_CHARS] for target in images.classes}
    counts = Counter(map(legal_name, titles.values()))
    return {
        target: title if counts[legal_name(title)] == 1 else f"{title} (class {target})"
        for target, title in titles.items()
    }


def _notes(
    images: Images, names: dict[int, str], candidates: Sequence[Candidate], num_tested: int, *, tested: bool
) -> list[str]:
    """Say what was left out: images without evidence, classes with too few images, and what was not tested."""
    notes = []
    if images.num_errors:
        notes.append(f"{images.num_errors:,} images are left out, the first: {images.errors[0]}.")
    small = [names[target] for target in images.classes if len(images.members(target)) < MIN_IMAGES]
    if small:
        notes.append(
            f"{len(small)} of {len(names)} classes have fewer than {MIN_IMAGES} images, and nothing is said of them: "
            f"{', '.join(small[:5])}{', ...' if len(small) > 5 else ''}."
        )
    if len(names) < 2:
        notes.append("All maps explain one class; a suspicion needs other classes to compare it with.")
    if not tested:
        notes.append("Nothing is confirmed without --teacher: clusters alone are no findings.")
    elif len(candidates) > num_tested:
        notes.append(f"{len(candidates) - num_tested} further candidates were not tested (--max-suspicions).")
    if tested:
        notes.append(f"A suspicion needs {fewest_images(num_tested)} tested images to be confirmed.")
    return notes


def _write(insights: Insights) -> None:
    """Write rows of suspicions and classes, page, tables and run; the manifest last."""
    folder, images = insights.folder, insights.images
    classes = class_rows(images, contrasts(images), insights.names)
    folder.child("suspicions").write_bytes(PART, parquet_bytes(suspicions_table(insights.rows, insights.stored)))
    folder.child("classes").write_bytes(PART, parquet_bytes(pa.Table.from_pylist(classes)))
    for row in insights.rows:
        folder.child("image_ids").write_bytes(f"suspicion-{row['rank']:02d}.txt", _lines(row["image_ids"]))
    write_tables(insights)
    folder.write_bytes("classes.png", draw_classes(insights))
    write_page(insights)
    track(insights)
    confirmed = sum(one.status == "confirmed" for one in insights.suspicions)
    counts = {"rows": len(images.image_ids) + images.num_errors, "errors": images.num_errors}
    folder.finish(
        {**counts, "schema_version": SCHEMA_VERSION, "suspicions": len(insights.rows), "confirmed": confirmed}
    )


def _lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()
