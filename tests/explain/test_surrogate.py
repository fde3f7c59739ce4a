"""The student in the black box's place: shown each frame as it is shown images, and the same bits on any threads."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from distill.student.model import ResCBAM, Student
from distill.teachers import Teacher, load_teacher
from explain.compiled.select import EAGER
from explain.surrogate import make_surrogate, student_view

SIZE = (64, 48)
LEVELS = np.arange(24, 257, 23)[:, None, None, None]  # frames of different brightness
FRAMES = np.random.default_rng(0).integers(0, LEVELS, (11, 40, 56, 3)).astype(np.uint8)


CHOICES = [("eager", "float32", 1e-4), ("onnxruntime", "float32", 1e-4), ("openvino", "float32", 1e-4)]
CHOICES += [("openvino", "bfloat16", 5e-2)]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("python:tiny_teacher:bright")


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    model = ResCBAM(18, 10).eval().requires_grad_(False)
    model.fc.weight.mul_(100)  # so that untrained answers differ from frame to frame
    view = {"input_size": SIZE, "mean": (0.5, 0.4, 0.3), "std": (0.25, 0.3, 0.2)}
    return Student(model=model, teacher="", teacher_fingerprint="", **view)


def asked(student, teacher, engine, precision) -> Teacher:
    if engine != "eager":
        pytest.importorskip("onnx")
        pytest.importorskip(engine)
    return make_surrogate(student, teacher, replace(EAGER, engine=engine, precision=precision))


def resized(frame):
    """Resize one frame with Pillow, in floats."""
    colors = [Image.fromarray(frame[:, :, c].astype(np.float32)) for c in range(3)]
    seen = [np.asarray(color.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)) for color in colors]
    return np.stack(seen, axis=2)


@pytest.mark.parametrize(("engine", "precision", "far"), CHOICES)
def test_the_student_sees_its_own_resolution_and_normalisation(teacher, student, engine, precision, far):
    answers = asked(student, teacher, engine, precision).forward(teacher.normalize(FRAMES))
    pixels = (np.stack([resized(frame) for frame in FRAMES]) / 255 - student.mean) / student.std
    logits = student.model(torch.from_numpy(pixels).float().permute(0, 3, 1, 2))
    assert torch.allclose(answers, logits.softmax(dim=1), atol=far)
    assert answers.std(dim=0).max() > max(1e-2, 2 * far)


def test_nothing_is_resized_at_the_same_size(teacher):
    view = {"mean": teacher.mean, "std": teacher.std}
    same = student_view(teacher.normalize(FRAMES), size=(40, 56), **view)
    assert np.abs(same.numpy() * 255 - FRAMES).max() < 1e-3


@pytest.mark.parametrize(("engine", "precision"), [choice[:2] for choice in CHOICES])
def test_bits_do_not_depend_on_threads(monkeypatch, teacher, student, engine, precision):
    pixels, answers = teacher.normalize(FRAMES), []
    for number in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", partial(int, number))  # passes side by side
        answers.append(asked(student, teacher, engine, precision).forward(pixels))
    few, many = answers
    assert few.numpy().tobytes() == many.numpy().tobytes()
