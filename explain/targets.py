"""Target of each image: the teacher's top-1 is queried once and stored for every method."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.parquet import read_computed_by, read_parquet, with_computed_by
from cluster.progress.bar import Progress
from cluster.session import WorkerResources
from cluster.sharded_job import Shard, Summary, make_shards, parquet_bytes, run_shards, shard_size
from cluster.storage import PART_SUFFIX, Folder
from distill.data import ImageSet
from distill.data.frames import read_frame, without_image_ids
from distill.data.versions import update_versions
from distill.teachers import RefusedImageError, load_teacher
from distill.teachers.outputs import SUM_TOLERANCE

if TYPE_CHECKING:
    import pyarrow as pa

    from distill.teachers import Teacher


SHARD_IMAGES = 64
"""Images of a shard."""


def targets_folder(maps: Folder, teacher: "Teacher", images: ImageSet) -> Folder:
    """Return the folder beside the maps for this teacher's top-1 of these images, and claim it."""
    folder = maps.beside(f"targets-{teacher.fingerprint[:12]}-{images.fingerprint[:12]}")
    config = {
        "teacher": teacher.spec,
        "teacher_fingerprint": teacher.fingerprint,
        "data": images.root,
        "data_fingerprint": images.fingerprint,
    }
    folder.claim(config, what="targets")
    return folder


def stored_targets(
    maps: Folder, teacher: "Teacher", images: ImageSet, resources: WorkerResources
) -> Iterator[dict[str, Any]]:
    """Read the teacher's top-1 of each image, in their order; query the teacher first where it is not stored yet.

    Targets of images that have changed are deleted, and a stored error is not taken over: the teacher is queried again.
    """
    folder = targets_folder(maps, teacher, images)
    update_versions(folder, images, whole_parts=True)
    items = ({"image_id": image_id} for image_id in images.image_ids)
    shards = make_shards(items, shard_size(len(images.image_ids), SHARD_IMAGES))
    before = set(folder.names())
    if folder.finished() is None:
        summary = _query_all(teacher, images, folder, shards, resources)
        folder.finish({**asdict(summary), **read_computed_by(folder)})
    for shard in shards:
        yield from query_again(teacher, images, folder, shard, stored=f"{shard.name}{PART_SUFFIX}" in before)


def _query_all(
    teacher: "Teacher", images: ImageSet, folder: Folder, shards: Sequence[Shard], resources: WorkerResources
) -> Summary:
    """Query the teacher for all targets that are not stored: in workers, or a single shard here, where it is loaded."""
    if len(shards) > 1:
        task = TargetTask(teacher=teacher.spec, fingerprint=teacher.fingerprint, images=without_image_ids(images))
        return run_shards(TargetWorker, task, shards, folder, resources=resources, description="targets")
    started_s = time.monotonic()
    with Progress("targets", len(images.image_ids), unit="rows") as progress:
        rows = [row for shard in shards for row in query_again(teacher, images, folder, shard, stored=False)]
        progress.advance(len(rows))
    folder.sweep()
    errors = sum(row["error"] is not None for row in rows)
    return Summary(len(rows), errors, 0, time.monotonic() - started_s)


@dataclass(frozen=True, kw_only=True)
class TargetTask:
    """Work of every worker that queries the teacher for targets."""

    teacher: str
    """The black box, KIND:WHERE."""
    images: ImageSet
    """Images, read by their ids; without their list."""
    fingerprint: str | None = None
    """Fingerprint of the black box that the job was checked with; None accepts any."""


class TargetWorker:
    """Query the teacher for its top-1 of each image, whole and resized to the teacher's input size."""

    def __init__(self, task: TargetTask) -> None:
        """Load the teacher on this worker's cores or GPU. Raises: WorkError if it is another one than the job's."""
        import torch

        from cluster.device import own_device

        self.images, threads = task.images, torch.get_num_threads()
        self.teacher = load_teacher(
            task.teacher, num_threads=threads, device=own_device(), expected_fingerprint=task.fingerprint
        )

    def __call__(self, items: list[dict[str, Any]]) -> "pa.Table":
        """Return one row per item: image_id, target, target_prob, error."""
        rows = query_targets(self.teacher, self.images, [item["image_id"] for item in items])
        return _table(rows, {"engine": self.teacher.engine, "device": self.teacher.device})


def query_targets(teacher: "Teacher", images: ImageSet, image_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Query the teacher for its top-1 of some images: image_id and target with target_prob, or error."""
    read = [read_frame(images, image_id, teacher.input_size) for image_id in image_ids]
    responses = iter(responses_or_errors(teacher, [frame for frame, _ in read if frame is not None]))
    return [
        {"image_id": image_id, **_target(error if frame is None else next(responses))}
        for image_id, (frame, error) in zip(image_ids, read, strict=True)
    ]


def query_again(
    teacher: "Teacher", images: ImageSet, folder: Folder, shard: Shard, *, stored: bool
) -> list[dict[str, Any]]:
    """Read the targets of a shard; where they are `stored` from before, query the teacher again for each with an error.

    A part that is broken or gone is computed again here. The part is replaced where anything has changed.
    """
    part = f"{shard.name}{PART_SUFFIX}"
    image_ids = [item["image_id"] for item in shard.items]
    try:
        rows = read_parquet(folder, part, ["image_id", "target", "target_prob", "error"]).to_pylist()
    except (ValueError, FileNotFoundError):
        rows = []
    known = {row["image_id"]: row for row in rows if not stored or _is_target(row, teacher.num_classes)}
    missing = [image_id for image_id in image_ids if image_id not in known]
    if not missing:
        return [known[image_id] for image_id in image_ids]
    known |= {row["image_id"]: row for row in query_targets(teacher, images, missing)}
    computed_by = {"engine": teacher.engine, "device": teacher.device}
    table = _table([known[image_id] for image_id in image_ids], computed_by)
    if table.to_pylist() != rows:
        folder.write_bytes(part, parquet_bytes(table))
    return table.to_pylist()


def _is_target(row: dict[str, Any], num_classes: int) -> bool:
    """Tell whether a stored row is what a teacher may respond: a class and its probability."""
    if row["error"] is not None or row["target"] is None or row["target_prob"] is None:
        return False
    return 0 <= row["target"] < num_classes and 0 <= row["target_prob"] <= 1 + SUM_TOLERANCE


def _table(rows: Sequence[dict[str, Any]], computed_by: dict[str, str]) -> "pa.Table":
    import pyarrow as pa

    schema = pa.schema(
        {"image_id": pa.string(), "target": pa.int32(), "target_prob": pa.float32(), "error": pa.string()}
    )
    return pa.Table.from_pylist(list(rows), schema=with_computed_by(schema, computed_by))


def responses_or_errors(teacher: "Teacher", frames: Sequence[np.ndarray]) -> list[np.ndarray | str]:
    """Query the teacher for each frame's probabilities, (K,); where it refuses a frame alone, return the error instead.

    Raises:
        TeacherError: the teacher fails on every image.
    """
    try:
        return list(teacher.probabilities(np.stack(frames))) if frames else []
    except RefusedImageError as error:
        if len(frames) == 1:
            return [str(error)]
        return [response for frame in frames for response in responses_or_errors(teacher, [frame])]


def _target(response: np.ndarray | str | None) -> dict[str, Any]:
    return top_class(response) if isinstance(response, np.ndarray) else {"error": response}


def top_class(probs: np.ndarray) -> dict[str, Any]:
    """Return the class with the highest probability (the first of equals) and that probability."""
    target = int(probs.argmax())
    return {"target": target, "target_prob": float(probs[target])}
