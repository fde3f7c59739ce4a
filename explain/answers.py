"""Answers that were paid for: kept per image, so that no job asks the same question twice.

One folder beside the maps for everything that is shown alike: the same black box, images, targets, seed, method and
those of its options that decide its frames. Jobs that differ in the rest (the budget, the estimator) share it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.storage import Folder, config_hash
from cluster.tables import read_parquet
from explain.registry import Method

# What decides the frames besides the method and its own options, as named in the maps' configuration.
SHARED = ("data", "data_fingerprint", "split", "limit", "teacher", "teacher_fingerprint", "target", "seed")
# The same, where the student answered.
SHARED_OF_STUDENT = ("explains", "student_fingerprint")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of one image."""

    answers: np.ndarray
    """The target's probability on frames 0, 1, ..., (n,) float32."""
    seconds: float
    """What asking for them took."""


def answers_folder(out: str, method: Method, config: Mapping[str, Any]) -> Folder:
    """Return the folder beside the maps for the answers that this configuration's frames get, and claim it.

    Raises:
        ValueError: If it holds something else.
    """
    of_student = SHARED_OF_STUDENT if config.get("explains") == "student" else ()
    later = {"version": method.frames_version} if method.frames_version > 1 else {}
    shown = {
        **{key: config[key] for key in (*SHARED, *of_student)},
        **later,
        "method": method.name,
        "options": {name: config["options"][name] for name in method.frame_options},
    }
    folder = Folder(out).beside(f"answers-{method.name}-{config_hash(shown)}")
    folder.claim(shown, what="answers")
    return folder


def read_answers(folder: Folder, image_ids: Sequence[str]) -> dict[str, Known]:
    """Read what is known of the images of one shard: image_id -> answers."""
    name = _part(image_ids)
    if not folder.exists(name):
        return {}
    rows = read_parquet(folder, name, ["image_id", "answers", "seconds"]).to_pylist()
    return {
        row["image_id"]: Known(answers=np.array(row["answers"], dtype=np.float32), seconds=row["seconds"])
        for row in rows
    }


def write_answers(folder: Folder, image_ids: Sequence[str], known: Mapping[str, Known]) -> None:
    """Keep what is known of the images of one shard, in place of what was known before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image_id": image_id, "answers": k.answers, "seconds": k.seconds} for image_id, k in known.items()]
    schema = pa.schema({"image_id": pa.string(), "answers": pa.list_(pa.float32()), "seconds": pa.float64()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    folder.write_bytes(_part(image_ids), sink.getvalue().to_pybytes())


def _part(image_ids: Sequence[str]) -> str:
    return f"part-{hashlib.sha256(chr(10).join(image_ids).encode()).hexdigest()[:16]}.parquet"
