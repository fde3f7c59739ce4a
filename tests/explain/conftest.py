"""Fixtures of explain jobs: an untrained small student, and images of which some are broken."""

import io
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from explain_jobs import SIZE, TEACHER
from PIL import Image

import explain.job
from cluster.storage import Folder
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import load_teacher
from explain.config import Job
from explain.methods.registry import METHODS


@pytest.fixture
def serial(monkeypatch) -> None:
    """Leave Ray out: all shards run in this process, as those of a small job do."""
    monkeypatch.setattr(explain.job, "ray_session", nullcontext)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Ten class folders with 12 images, none of them square, two of them broken."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 25 * (i + 1), (50 + i, 70 - i, 3), dtype=np.uint8)
        (root / f"c{i}").mkdir()
        Image.fromarray(pixels).save(root / f"c{i}" / "whole.png")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    (root / "c3" / "cut.png").write_bytes(buffer.getvalue()[:200])
    (root / "c5" / "empty.jpg").write_bytes(b"")
    return str(root)


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> str:
    """An untrained 18-layer student of the first black box."""
    run_dir = tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    made = Student(
        model=ResCBAM(18, 10).eval().requires_grad_(False),
        input_size=SIZE,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        teacher=TEACHER,
        teacher_fingerprint=load_teacher(TEACHER).fingerprint,
    )
    save_student(Folder(str(run_dir)), made)
    return str(run_dir)


@pytest.fixture
def job(data, student, tmp_path):
    """Make jobs that differ from the plain one in what a test says."""

    def make(name="mal_grad_cam", out="maps", **changed):
        options = METHODS[name].options()
        defaults = {"options": options, "data": data, "student": student, "teacher": TEACHER, "num_workers": 1}
        return Job(**{**defaults, "out": str(tmp_path / out), **changed})

    return make
