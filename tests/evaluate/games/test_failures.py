"""A black box that fails: on one image, now and then, or for good; what each job's worker makes of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from flaky_teacher import Moody
from PIL import Image

from cluster.storage import Folder
from distill.data import open_images
from distill.data.frames import without_image_ids
from distill.teachers import RefusedImageError, TeacherError, load_teacher
from distill.teachers.base import RETRY_WAITS_S
from evaluate.__main__ import main as evaluate_main
from evaluate.games.job import GamesWork, GamesWorker
from evaluate.games.protocol import Protocol
from evaluate.map_sets import Source, map_items
from evaluate.metrics.job import MetricsWork, MetricsWorker, image_items
from evaluate.metrics.settings import Settings, check_metrics
from explain.__main__ import main as explain_main
from explain.maps import maps_table
from explain.methods.options import RiseOptions
from explain.methods.registry import METHODS
from explain.runners.query_cache import read_responses
from explain.targets import TargetTask, TargetWorker
from explain.worker import MapTask, MapWorker

TEACHER = "python:flaky_teacher:make"
NUM_IMAGES, BRIGHT = 5, 2
IDS = [f"{k}.png" for k in range(NUM_IMAGES)]
FAILURES = {
    "nan": "NaN or infinity",
    "slow": "gave no reply: TimeoutError: too bright to be quick",
    "picky": "failed: ValueError: too bright",
}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Wait for nothing, and note for how long."""
    noted: list[float] = []
    monkeypatch.setattr("distill.teachers.retry.time.sleep", noted.append)
    Moody.mood, Moody.num_calls = "well", 0
    yield noted
    Moody.mood = "well"


@pytest.fixture
def place(tmp_path: Path) -> SimpleNamespace:
    """Five images, one of them bright, and their maps by one method."""
    data, rng = tmp_path / "photos", np.random.default_rng(0)
    data.mkdir()
    for k, image_id in enumerate(IDS):
        pixels = rng.integers(200, 256, (12, 18, 3)) if k == BRIGHT else rng.integers(0, 120, (12, 18, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(data / image_id)
    images = open_images(str(data))
    config = {"method": "random", "options": {}, "seed": 0, "target": "teacher"}
    folder = Folder(str(tmp_path / "maps"))
    folder.claim(config, what="maps")
    rows = [
        {"image_id": image_id, "target": 1, "saliency": rng.random((4, 6)), "map_height": 4, "map_width": 6}
        for image_id in IDS
    ]
    pq.write_table(maps_table(rows, config), f"{folder.path}/part-00000.parquet")
    return SimpleNamespace(
        images=images, light=without_image_ids(images), source=Source(uri=folder.uri, config=config), root=tmp_path
    )


def ask_targets(place: SimpleNamespace) -> Callable[[], Any]:
    worker = TargetWorker(TargetTask(teacher=TEACHER, images=place.light))
    return lambda: worker([{"image_id": image_id} for image_id in IDS])


def make_rise(place: SimpleNamespace, name: str = "answers") -> Callable[[], Any]:
    options = RiseOptions(num_masks=70)
    stored = {"method": "rise", "options": asdict(options), "seed": 0, "teacher": TEACHER, "student": None}
    task = MapTask(
        method=METHODS["rise"],
        options=options,
        config=stored,
        images=place.light,
        size=(12, 18),
        batch_size=8,
        responses=Folder(str(place.root / name)),
    )
    worker = MapWorker(task)
    item = {"label": None, "target": 1, "target_prob": 0.5, "error": None}
    return lambda: worker([{**item, "image_id": image_id} for image_id in IDS])


def play(place: SimpleNamespace) -> Callable[[], Any]:
    stored = {"teacher": TEACHER, "teacher_fingerprint": load_teacher(TEACHER).fingerprint}
    work = GamesWork(stored=stored, protocol=Protocol(), sources=[place.source], images=place.light)
    worker = GamesWorker(work)
    return lambda: worker(list(map_items([place.source], place.images)))


def measure(place: SimpleNamespace) -> Callable[[], Any]:
    settings, wanted = Settings(num_subsets=8), check_metrics(["road", "mu_fidelity"])
    measures = {name: settings.fields(name, target="teacher", objects=None) for name in wanted}
    stored = {"teacher": TEACHER, "teacher_fingerprint": load_teacher(TEACHER).fingerprint, "student": None}
    stored |= {"boxes": None, "measures": measures}
    work = MetricsWork(stored=stored, settings=settings, sources=[place.source], images=place.light)
    worker = MetricsWorker(work)
    return lambda: worker(json.loads(json.dumps(image_items([place.source], place.images))))


WORKS = [ask_targets, make_rise, play, measure]
COSTS = ["seconds", "target_prob", "teacher_queries"]


def rows(work: Callable[[], Any], mood: str) -> Any:
    Moody.mood = mood
    try:
        return work().to_pandas()
    finally:
        Moody.mood = "well"


@pytest.mark.parametrize("mood", FAILURES)
@pytest.mark.parametrize("make", WORKS)
def test_an_image_that_the_black_box_fails_on_is_an_error_row_and_no_other_changes(place, make, mood):
    whole = rows(make(place), "well")
    work = make(place, "others") if make is make_rise else make(place)
    found = rows(work, mood)
    assert whole["error"].isna().all()
    bright = found["image_id"] == IDS[BRIGHT]
    assert found["image_id"].tolist() == whole["image_id"].tolist()
    assert found.loc[bright, "error"].str.contains(FAILURES[mood], regex=False).all()
    assert found["error"].isna().tolist() == (~bright).tolist()
    same = [name for name in whole.columns if name not in COSTS]
    pd.testing.assert_frame_equal(found.loc[~bright, same], whole.loc[~bright, same], check_dtype=False)


@pytest.mark.parametrize("make", WORKS)
def test_what_passes_is_asked_again(place, make, waits):
    whole = rows(make(place), "well")
    work = make(place, "others") if make is make_rise else make(place)
    Moody.num_calls = 0
    pd.testing.assert_frame_equal(
        rows(work, "hiccup").drop(columns=COSTS, errors="ignore"), whole.drop(columns=COSTS, errors="ignore")
    )
    assert waits
    assert len(waits) % 2 == 0
    for first, second in zip(waits[::2], waits[1::2], strict=True):  # each is drawn within half of itself
        assert (first, second) == pytest.approx(RETRY_WAITS_S, rel=0.5)
    assert len(set(waits)) == len(waits), "workers that all wait alike come back at once"


@pytest.mark.parametrize("make", WORKS)
def test_a_black_box_that_is_gone_stops_the_job_at_once(place, make):
    work = make(place)
    Moody.num_calls = Moody.patience = 0
    Moody.mood = "dead"
    with pytest.raises(TeacherError, match="gave no reply: ConnectionError: nobody there") as caught:
        work()
    assert not isinstance(caught.value, RefusedImageError)
    assert Moody.num_calls == 6  # three attempts, and three with what it knew when it was loaded


def test_answers_that_came_before_the_end_are_kept(place):
    whole = rows(make_rise(place), "well")
    work = make_rise(place, "others")
    Moody.mood, Moody.num_calls, Moody.patience = (
        "dead",
        0,
        18 + 17,
    )  # an image takes 16 calls for 64 masks, two for the rest
    with pytest.raises(TeacherError):
        work()
    kept = read_responses(Folder(str(place.root / "others")), IDS)
    assert {image_id: len(known.probs) for image_id, known in kept.items()} == {IDS[0]: 70, IDS[1]: 64}
    Moody.mood, Moody.num_calls = "well", 0
    found = work().to_pandas()
    assert Moody.num_calls == 2 + 3 * 18
    assert all(np.array_equal(a, b) for a, b in zip(found["saliency"], whole["saliency"], strict=True))


def test_answers_of_an_image_that_failed_are_numbers(place):
    rows(make_rise(place), "nan")
    kept = read_responses(Folder(str(place.root / "answers")), IDS)
    assert [len(kept[image_id].probs) for image_id in IDS if image_id != IDS[BRIGHT]] == [70] * 4
    assert all(np.isfinite(known.probs).all() for known in kept.values())


def test_one_that_never_worked_is_one_line_on_stderr(place, capsys):
    words = ["--data", place.images.root, "--teacher", "python:flaky_teacher:mad", "--out", str(place.root / "out")]
    assert explain_main(["random", *words]) == 2
    assert evaluate_main(["games", "--maps", place.source.uri, *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: teacher") and "NaN or infinity" in line for line in lines)
