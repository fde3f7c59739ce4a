"""Sim N over a data set, against a plain count, with a tiny student and a black box of other input size."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.storage import Folder
from distill.data.decode import center_crop, decode, resize
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import load_teacher
from evaluate import similarity
from evaluate.__main__ import main
from evaluate.config import SimilarityConfig

TEACHER = "python:box_teacher:make"
SIZE = (32, 48)  # of the student: height, width


class Recorder:
    """Stand in for the tracker and keep what it is told."""

    def __init__(self, experiment: str, run_name: str, **settings: Any) -> None:
        self.experiment, self.run_name, self.settings = experiment, run_name, settings
        self.metrics: dict[str, float] = {}
        RUNS.append(self)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def log(self, metrics: dict[str, float]) -> None:
        self.metrics |= metrics

    def inputs(self, inputs: list[dict[str, str]]) -> None:
        assert [one["context"] for one in inputs] == ["explained", "teacher"]

    def table(self, name: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
        self.rows = rows


RUNS: list[Recorder] = []


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    RUNS.clear()
    monkeypatch.setattr(similarity, "Tracker", Recorder)
    return RUNS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(40):
        pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 50)).save(folder / f"{k:02d}.png")
    (folder / "13.png").write_bytes(b"no image")
    return folder


def make_student(folder: Path, teacher: str = TEACHER, num_classes: int = 3) -> str:
    torch.manual_seed(0)
    model = ResCBAM(18, num_classes).eval()
    student = Student(
        model=model,
        input_size=SIZE,
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        teacher=teacher,
        teacher_fingerprint=load_teacher(teacher).fingerprint,
    )
    save_student(Folder(str(folder)), student)
    return str(folder)


def similarity_of(run: str, data: str, **options: Any) -> dict[str, Any]:
    return similarity.compute_similarity(SimilarityConfig(student=run, teacher=TEACHER, data=data, **options))


@pytest.mark.parametrize(("view", "cut"), [("resize", resize), ("centre_crop", center_crop)])
def test_counts_what_a_plain_loop_counts(data, tmp_path, runs, view, cut):
    run = make_student(tmp_path / "run")
    found = similarity_of(run, str(data), view=view)
    teacher, student = load_teacher(TEACHER), similarity.load_student(run)
    same = {1: 0, 2: 0, 3: 0}
    for path in sorted(data.glob("*.png")):
        if path.name == "13.png":
            continue
        image = decode(path.read_bytes())
        first = teacher.probabilities(cut(image, teacher.input_size)[None])[0]
        second = student.model(student.normalize(cut(image, SIZE)[None]))[0].numpy()
        for n in same:
            same[n] += list(np.argsort(-first)[:n]) == list(np.argsort(-second)[:n])
    assert (found["num_images"], found["num_errors"]) == (39, 1)
    for n, count in same.items():
        assert found[f"sim{n}"]["mean"] == pytest.approx(count / 39)
        assert found[f"sim{n}"]["low"] <= found[f"sim{n}"]["mean"] <= found[f"sim{n}"]["high"]
    assert 0 < same[1] < 39  # neither always nor never, or nothing is tested
    assert "sim4" not in found  # three classes
    (logged,) = runs
    assert (logged.experiment, logged.run_name) == ("photos", "similarity")
    assert logged.metrics["similarity/sim1"] == found["sim1"]["mean"]
    assert logged.rows[0] == ["sim1", *(found["sim1"][name] for name in ("mean", "low", "high")), 39]


def test_the_result_is_stored_beside_the_student(data, tmp_path):
    run = make_student(tmp_path / "run")
    found = similarity_of(run, str(data), limit=5)
    similarity_of(run, str(data), limit=5)
    (stored,) = Path(run).glob("similarity-*.json")  # the same question has one answer
    assert json.loads(stored.read_text()) == found
    similarity_of(run, str(data), limit=5, view="resize")
    assert len(list(Path(run).glob("similarity-*.json"))) == 2


def test_the_command_prints_a_table(data, tmp_path, capsys):
    run = make_student(tmp_path / "run")
    words = ["--student", run, "--teacher", TEACHER, "--data", str(data), "--limit", "6"]
    assert main(["similarity", *words]) == 0
    printed = capsys.readouterr().out
    assert "Sim1" in printed
    assert "Agreement over 6 images" in printed


def test_a_student_of_another_teacher_is_refused(data, tmp_path, capsys):
    run = make_student(tmp_path / "run", teacher="python:box_teacher:make_other")
    assert main(["similarity", "--student", run, "--teacher", TEACHER, "--data", str(data)]) == 2
    assert "was distilled from python:box_teacher:make_other" in capsys.readouterr().err


def test_a_student_with_other_classes_is_refused(data, tmp_path):
    run = make_student(tmp_path / "run", num_classes=4)
    with pytest.raises(ValueError, match="has 4 classes"):
        similarity_of(run, str(data))


def test_images_that_cannot_be_read_are_an_error(tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of 1 images"):
        similarity_of(make_student(tmp_path / "run"), str(folder))
