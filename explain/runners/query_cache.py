"""Response cache of query-based methods: responses per image, so that no job sends the same query twice.

One folder beside the maps for everything that gives the same frames: black box, data, targets, seed, method and those
of its options that decide its frames. Jobs that differ in the rest (the budget, the estimator, how many of the images)
share it. Responses to an image that has changed since are deleted; errors are never kept.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.parquet import read_parquet
from cluster.storage import Folder, config_hash
from distill.data.versions import update_versions
from distill.teachers.outputs import SUM_TOLERANCE
from explain.methods.registry import Method

if TYPE_CHECKING:
    from explain.plan import Plan

PART = "part-"
# What decides an image's responses besides the method and its own options, as named in the maps' configuration.
SHARED = ("data", "split", "teacher", "teacher_fingerprint", "target", "seed")
# The same, where a label is the class: its number may be another among other images.
SHARED_OF_LABELS = ("data_fingerprint",)
# The same, where the student is queried as a surrogate.
SHARED_OF_STUDENT = ("explains", "student_fingerprint")


@dataclass(frozen=True, kw_only=True)
class Responses:
    """Stored responses to the frames of one image."""

    probs: np.ndarray
    """The target's probability on frames 0, 1, ..., (n,) float32."""
    seconds: float
    """Time that the queries took."""

    def is_valid(self) -> bool:
        """Tell whether they are what a black box may respond: probabilities, as is checked when they are new."""
        highest = 1 + SUM_TOLERANCE
        return bool(np.isfinite(self.seconds) and ((self.probs >= 0) & (self.probs <= highest)).all())  # NaN is neither


def open_responses(plan: "Plan", shard_images: int) -> Folder:
    """Open the response cache of a job whose shards have so many images, without responses to images that changed."""
    folder = response_cache_folder(plan.folder, plan.method, plan.config)
    update_versions(folder, plan.images, whole_parts=False)
    image_ids = plan.images.image_ids
    regroup_responses(folder, [image_ids[k : k + shard_images] for k in range(0, len(image_ids), shard_images)])
    return folder


def response_cache_folder(maps: Folder, method: Method, config: Mapping[str, Any]) -> Folder:
    """Return the folder beside the maps for the responses to this configuration's frames, and claim it.

    Raises:
        ValueError: If it holds something else.
    """
    of_student = SHARED_OF_STUDENT if config.get("explains") == "student" else ()
    precision = {"precision": config["precision"]} if of_student and "precision" in config else {}
    of_labels = SHARED_OF_LABELS if config["target"] == "label" else ()
    later = {"version": method.frames_version} if method.frames_version > 1 else {}
    shown = {
        **{key: config[key] for key in (*SHARED, *of_student, *of_labels)},
        **later,
        **precision,
        "method": method.name,
        "options": {name: config["options"][name] for name in method.frame_options},
    }
    folder = maps.beside(f"answers-{method.name}-{config_hash(shown)}")
    folder.claim(shown, what="answers")
    return folder


def regroup_responses(folder: Folder, shards: Sequence[tuple[str, ...]]) -> None:
    """Copy the responses to the shards' images, each shard a list of ids, to where `read_responses` looks for them.

    A job of more or fewer images cuts them into other shards, whose responses lie in other parts.
    """
    mine = {_part(image_ids) for image_ids in shards}
    others = [name for name in folder.names() if name.startswith(PART) and name not in mine]
    shard_of = {image_id: image_ids for image_ids in shards for image_id in image_ids} if others else {}
    for name in others:
        stored = _read(folder, name)
        for image_ids in {shard_of[image_id] for image_id in stored if image_id in shard_of}:
            here = read_responses(folder, image_ids)
            if more := {
                image_id: stored[image_id]
                for image_id in image_ids
                if image_id in stored and _is_more(stored[image_id], here.get(image_id))
            }:
                write_responses(folder, image_ids, here | more)


def _is_more(stored: Responses, known: Responses | None) -> bool:
    return known is None or len(stored.probs) > len(known.probs)


def read_responses(folder: Folder, image_ids: Sequence[str]) -> dict[str, Responses]:
    """Read the responses to the images of one shard: image_id -> responses."""
    name = _part(image_ids)
    return _read(folder, name) if folder.exists(name) else {}


def _read(folder: Folder, name: str) -> dict[str, Responses]:
    try:
        rows = read_parquet(folder, name, ["image_id", "answers", "seconds"]).to_pylist()
    except ValueError as error:
        print(f"stored responses cannot be read, and are queried again: {error}", file=sys.stderr)
        return {}
    stored = {
        row["image_id"]: Responses(probs=np.array(row["answers"], dtype=np.float32), seconds=row["seconds"])
        for row in rows
        if row["image_id"] is not None and row["answers"] is not None and row["seconds"] is not None
    }
    return {image_id: responses for image_id, responses in stored.items() if responses.is_valid()}


def write_responses(folder: Folder, image_ids: Sequence[str], known: Mapping[str, Responses]) -> None:
    """Store the responses to the images of one shard, in place of what was stored before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image_id": image_id, "answers": k.probs, "seconds": k.seconds} for image_id, k in known.items()]
    schema = pa.schema({"image_id": pa.string(), "answers": pa.list_(pa.float32()), "seconds": pa.float64()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    folder.write_bytes(_part(image_ids), sink.getvalue().to_pybytes())


def _part(image_ids: Sequence[str]) -> str:
    return f"{PART}{hashlib.sha256(chr(10).join(image_ids).encode()).hexdigest()[:16]}.parquet"
