"""Callables of one's own: what they see, what they may be, and how they fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from linear_teacher import NUM_CLASSES, SIZE, STD
from teacher_files import python_spec

from distill.teachers import load_teacher


def test_rounded_frames_are_the_images_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = load_teacher(python_spec(tmp_path, monkeypatch))
    seen: list[np.ndarray] = []

    def remember(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.full((len(images), NUM_CLASSES), 1 / NUM_CLASSES)

    monkeypatch.setattr(teacher, "_function", remember)
    images = np.arange(20 * 30 * 3).reshape(1, *SIZE, 3).astype(np.uint8)  # all 256 levels in every channel
    pixels = teacher.normalize(images)
    teacher.forward(pixels)
    teacher.forward(pixels + 0.4 / 255 / max(STD))
    teacher.forward(pixels + 100)
    np.testing.assert_array_equal(seen[0], images)
    np.testing.assert_array_equal(seen[1], images)
    assert (seen[2] == 255).all()


def test_python_attributes_are_held_against_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="returns 5 classes, but its num_classes says 7"):
        load_teacher(python_spec(tmp_path, monkeypatch, num_classes=7))


def test_python_factories_that_cannot_be_used_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_boxes.py").write_text("def box():\n    return print\nnumber = 3\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for where, complaint in (
        ("odd_boxes", "allowed: package.module:factory"),
        ("no_such_module_here:box", "set PYTHONPATH"),
        ("odd_boxes:missing", "no function 'missing'"),
        ("odd_boxes:number", "no function 'number'"),
        ("odd_boxes:box", "attribute input_size"),
    ):
        with pytest.raises(ValueError, match=complaint):
            load_teacher(f"python:{where}")
