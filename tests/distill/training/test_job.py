"""Training jobs: what they forget of images that were replaced, and what they say of workers that fail."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ray.exceptions import RayActorError, RayTaskError
from ray.train import WorkerGroupError

from cluster.errors import WorkError
from cluster.storage import Folder
from distill.config import DistillConfig
from distill.training import launch
from distill.training.job import DistillationJob
from distill.training.recipes import RECIPES
from distill.training.soft_label_cache import SoftLabels, soft_labels_folder, view_name

IDS = [f"{split}/class{number % 10}/{number}.png" for split in ("train", "val") for number in range(20)]


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path)


@pytest.mark.parametrize("mixup", [False, True])
def test_soft_labels_of_a_replaced_image_are_forgotten(tmp_path: Path, mixup: bool) -> None:
    for number, image_id in enumerate(IDS):
        write(tmp_path / "data" / image_id, number)
    recipe = replace(RECIPES["demo"][1], num_views=2, mixup=0.5 if mixup else 0.0)
    config = DistillConfig(
        recipe=recipe, data=f"{tmp_path}/data", teacher="python:tiny_teacher:bright", out=f"{tmp_path}/out", resume=True
    )

    def claimed() -> dict[int, set[str]]:
        """Start the job; return the images with stored soft labels, by view."""
        job = DistillationJob.open(config, "demo")
        job.claim()
        labels = soft_labels_folder(job.out.child("soft_labels"), job.teacher_fingerprint, recipe)
        return {view: set(SoftLabels(labels, view).known) for view in (-1, 0, 1)}

    assert claimed() == {-1: set(), 0: set(), 1: set()}
    job = DistillationJob.open(config, "demo")
    labels = soft_labels_folder(Folder(config.out).child("soft_labels"), job.teacher_fingerprint, recipe)
    for view, split in ((-1, "val"), (0, "train"), (1, "train")):
        store = SoftLabels(labels, view)
        ids = [image_id for image_id in IDS if image_id.startswith(split)]
        store.probabilities(ids, np.zeros((20, 2, 2, 3), np.uint8), lambda images: np.full((len(images), 10), 0.1))
        store.keep()
        assert (tmp_path / "out/soft_labels" / labels.path.rsplit("/", 1)[1] / view_name(view)).is_dir()
    train, val = {i for i in IDS if i.startswith("train")}, {i for i in IDS if i.startswith("val")}
    assert claimed() == {-1: val, 0: train, 1: train}
    write(tmp_path / "data" / "train/class3/13.png", 99)
    write(tmp_path / "data" / "val/class4/4.png", 99)
    rest = set() if mixup else train - {"train/class3/13.png"}
    assert claimed() == {-1: val - {"val/class4/4.png"}, 0: rest, 1: rest}


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ValueError("a soft label\nis broken"), "started 6 times: a soft label is broken$"),
        (WorkError("the disk is full"), "started 6 times: the disk is full$"),
        (torch.OutOfMemoryError("out of memory"), "started 6 times: out of memory$"),
        (RayActorError(error_msg="the worker died"), "started 6 times: the worker died$"),
    ],
)
def test_what_ends_the_workers_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    class Fit:
        def fit(self) -> None:
            is_wrapped = type(failure) is ValueError
            task = RayTaskError("f", "Traceback\n" * 90, failure, "x", 1, "1.2.3.4")  # pyright: ignore[reportArgumentType]
            raise WorkerGroupError("Training failed", {0: task.as_instanceof_cause() if is_wrapped else failure})

    monkeypatch.setattr(launch, "_make_trainer", lambda _: Fit())
    start: Any = SimpleNamespace(job=SimpleNamespace(out=Folder(str(tmp_path))))
    with pytest.raises(WorkError, match=message):
        launch._fit(start)
