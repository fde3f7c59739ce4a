"""MLflow runs of jobs: each made once, games and metrics of the same maps in one, with images, tables and inputs."""

import functools
import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import WorkError
from cluster.storage import Folder, config_hash
from cluster.tracking.run_store import PAGES, RESULT_TAG
from cluster.tracking.tracker import Tracker, tracking_uri
from evaluate.scored_method import MAIN_METHOD, method_title
from explain.maps import maps_of
from explain.pictures.overlay import fit, overlay

if TYPE_CHECKING:
    from PIL import Image

    from distill.data import ImageSet
    from evaluate.statistics import Interval

RUNS_FILE = "_mlflow.json"  # which runs were made, so that a rerun makes no second one
MAKING = "/making"  # behind the name of a run that is being made
PAGE = "page"  # in place of a run's name: the address of the experiment
NUM_IMAGES, IMAGE_PX = 12, 224
NUM_IMAGES_VARIABLE = "MALGRADCAM_MLFLOW_IMAGES"
RESULT = ("teacher_fingerprint", "data_fingerprint", "limit", "per_class")
"""What decides, beside the maps, whether two jobs' numbers are about the same: not the protocol."""
KEPT = ("teacher", "teacher_fingerprint", "data", "data_fingerprint", "split", "limit", "per_class", "protocol_hash")
"""Parameters of a run, from the configuration of its job."""
INTERVAL = ("name", "mean", "low", "high", "num_images")
"""First columns of every table of numbers."""


def make_runs(folder: Folder, runs: Mapping[str, Callable[..., Tracker]]) -> None:
    """Make MLflow runs, except those that the folder notes as made in this store.

    Args:
        folder: where the job's rows lie.
        runs: a run's name in the folder -> makes it and returns its tracker, closed; gets the key of `Tracker`, which
            is noted before, so that a job that is killed over it leaves no second run.
    """
    made = made_runs(folder)
    for name, make in runs.items():
        key = run_key(name)
        if key in made:
            continue
        tracker_key = made.setdefault(key + MAKING, uuid.uuid4().hex)
        folder.write_json(RUNS_FILE, made)
        tracker = make(key=tracker_key)
        made |= {key: tracker.run_id, run_key(PAGE): tracker.page}
        del made[key + MAKING]
        folder.write_json(RUNS_FILE, made)


def made_runs(folder: Folder) -> dict[str, str | None]:
    """Read which runs a folder notes as made, by `run_key`. Raises: ValueError where its note is damaged."""
    made = folder.read_json(RUNS_FILE) if folder.exists(RUNS_FILE) else {}
    if not isinstance(made, dict) or not all(run_id is None or isinstance(run_id, str) for run_id in made.values()):
        raise ValueError(f"{folder.uri}/{RUNS_FILE} names no MLflow runs; move it away, then give the command again")
    return made


def run_key(*names: str) -> str:
    """Name a run in this store, as `RUNS_FILE` notes it."""
    store = hashlib.sha256(tracking_uri().encode()).hexdigest()[:12]  # a URI may hold a password
    return "/".join([store, *names])


def runs_line(page: str | None) -> str:
    """Say where the runs are to be seen; empty where that is not known."""
    if page is None:
        return ""
    return f"MLflow: {page}" + (" (after `python -m cluster ui`)" if page.startswith(PAGES) else "")


def stored_page(folder: Folder) -> str | None:
    """Return the address of the runs that a job made, as its folder notes it for this store."""
    return made_runs(folder).get(run_key(PAGE))


def main_last(methods: Iterable[Any], name: Callable[[Any], str]) -> list[Any]:
    """Move the paper's method to the end: MLflow shows the ten newest runs first."""
    return sorted(methods, key=lambda one: name(one) == MAIN_METHOD)


@contextmanager
def method_run(
    experiment: str,
    entry: Mapping[str, Any],
    stored: Mapping[str, Any],
    *,
    tags: Mapping[str, Any],
    params: Mapping[str, Any],
    key: str,
) -> Iterator[Tracker]:
    """Open the run of one method's maps, with what was explained and by which black box.

    Args:
        experiment: the data set's name.
        entry: the maps, as the job's configuration lists them.
        stored: the job's configuration.
        tags: the job's own, one of them `scores` or `measures`.
        params: the job's own.
        key: of `Tracker`.
    """
    config = entry["config"]
    options = {f"option.{name}": value for name, value in config["options"].items()}
    student = {name: config[name] for name in ("student", "student_fingerprint", "target")}
    kept = {name: stored[name] for name in KEPT if name in stored}
    result = {name: stored.get(name) for name in RESULT} | {"maps": entry["config_hash"]}
    own = {
        "method": entry["method"],
        "config_hash": entry["config_hash"],
        "maps": entry["uri"],
        "data": stored["data"],
        "teacher": stored["teacher"],
        RESULT_TAG: config_hash(result),
    }
    params = {"method": entry["method"], **options, **student, **kept, **params}
    with Tracker(experiment, method_title(entry), params=params, tags=own | dict(tags), key=key) as tracker:
        tracker.inputs(inputs_of(stored))
        yield tracker


def inputs_of(stored: Mapping[str, Any]) -> list[dict[str, str]]:
    """List data set and black box of a job as MLflow's data set inputs."""
    return [
        {
            "name": stored["data_name"],
            "digest": stored["data_fingerprint"],
            "source": stored["data"],
            "context": "explained",
        },
        {
            "name": "black box",
            "digest": stored["teacher_fingerprint"],
            "source": stored["teacher"],
            "context": "teacher",
        },
    ]


def interval_row(name: str, interval: "Interval") -> list[Any]:
    """Lay out a mean with its interval as a row of a table that begins with the columns `INTERVAL`."""
    return [name, interval.mean, interval.low, interval.high, interval.num]


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out what is not a number, which MLflow's charts cannot show."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


class Overlays:
    """Pictures of a few images' maps, the same images for every method, spread evenly over the data set."""

    def __init__(self, images: "ImageSet") -> None:
        """Choose the images; MALGRADCAM_MLFLOW_IMAGES says how many, 0 for none."""
        number = int(os.environ.get(NUM_IMAGES_VARIABLE, NUM_IMAGES))
        ids = images.image_ids
        self.image_ids = [ids[k * len(ids) // number] for k in range(number)] if len(ids) > number else list(ids)
        self._photograph = functools.cache(functools.partial(_photograph, images))

    def log(self, tracker: Tracker, maps: str) -> None:
        """Log the pictures of a folder of maps; an image or map that cannot be read is left out."""
        saliency = maps_of(maps, self.image_ids)
        for image_id in self.image_ids:
            drawn = saliency.get(image_id)
            if drawn is None or not np.isfinite(drawn).all() or (photograph := self._photograph(image_id)) is None:
                continue
            buffer = io.BytesIO()
            overlay(photograph, drawn, long_side_px=IMAGE_PX).save(buffer, "PNG")
            tracker.image(f"images/{image_id.replace('/', ' ')}", buffer.getvalue())


def _photograph(images: "ImageSet", image_id: str) -> "Image.Image | None":
    try:
        return fit(images.image(image_id), IMAGE_PX)
    except (OSError, ValueError, WorkError):
        return None
