"""The student in the black box's place: shown each frame as it is shown images, and the same bits on any threads."""

import numpy as np
import pytest
import torch
from PIL import Image

from distill.student import ResCBAM, Student
from distill.teachers import Teacher, load_teacher
from explain.stand_in import stand_in, student_view

SIZE = (64, 48)
LEVELS = np.arange(24, 257, 23)[:, None, None, None]  # frames of different brightness
FRAMES = np.random.default_rng(0).integers(0, LEVELS, (11, 40, 56, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("python:explain_teacher:bright")


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    model = ResCBAM(18, 10).eval().requires_grad_(False)
    model.fc.weight.mul_(100)  # so that untrained answers differ from frame to frame
    view = {"input_size": SIZE, "mean": (0.5, 0.4, 0.3), "std": (0.25, 0.3, 0.2)}
    return Student(model=model, teacher="", teacher_fingerprint="", **view)


def resized(frame):
    """Resize one frame with Pillow, in floats."""
    colours = [Image.fromarray(frame[:, :, c].astype(np.float32)) for c in range(3)]
    seen = [np.asarray(colour.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)) for colour in colours]
    return np.stack(seen, axis=2)


def test_the_student_sees_its_own_resolution_and_normalisation(teacher, student):
    answers = stand_in(student, teacher).forward(teacher.normalise(FRAMES))
    pixels = (np.stack([resized(frame) for frame in FRAMES]) / 255 - student.mean) / student.std
    logits = student.model(torch.from_numpy(pixels).float().permute(0, 3, 1, 2))
    assert torch.allclose(answers, logits.softmax(dim=1), atol=1e-4)
    assert answers.std(dim=0).max() > 1e-2


def test_nothing_is_resized_at_the_same_size(teacher):
    view = {"mean": teacher.mean, "std": teacher.std}
    same = student_view(teacher.normalise(FRAMES), size=(40, 56), **view)
    assert np.abs(same.numpy() * 255 - FRAMES).max() < 1e-3


def test_bits_do_not_depend_on_threads(teacher, student):
    pixels = teacher.normalise(FRAMES)
    one, three = (stand_in(student, teacher, num_threads=number).forward(pixels) for number in (1, 3))
    assert one.numpy().tobytes() == three.numpy().tobytes()
