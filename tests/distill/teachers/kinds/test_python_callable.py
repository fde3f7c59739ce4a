"""Callables of one's own: what they see, what they may be, and how they fail."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear_teacher import NUM_CLASSES, SIZE, STD
from teacher_files import python_spec

from cluster.errors import WorkError
from distill.teachers import RefusedImageError, load_teacher


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


VENDOR = """
import numpy as np
class LibraryError(Exception):
    pass
class Box:
    input_size, batch_size = (20, 30), 4
    failing, calls = [], 0
    def __call__(self, images):
        Box.calls += 1
        if Box.calls in Box.failing or images.mean((1, 2, 3)).max() > 250:
            raise LibraryError("timed out")
        level = np.load(__file__.replace(".py", ".npy")) * images.reshape(len(images), -1).mean(1) / 255
        return np.stack([level, 1 - level], 1)
"""


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A black box of a client library, whose weights lie in a file."""
    name = f"vendor_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(VENDOR)
    np.save(tmp_path / f"{name}.npy", 0.5)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("distill.teachers.retry.time.sleep", lambda _: None)
    return importlib.import_module(name)


def test_an_exception_of_a_client_library_is_retried(vendor: Any) -> None:
    teacher = load_teacher(f"python:{vendor.__name__}:Box")
    vendor.Box.failing, vendor.Box.calls = [2, 3], 0
    images = np.random.default_rng(0).integers(0, 200, (12, *SIZE, 3), dtype=np.uint8)
    levels = images.reshape(12, -1).mean(1) / 510
    np.testing.assert_allclose(teacher.probabilities(images), np.stack([levels, 1 - levels], 1), atol=1e-6)
    assert vendor.Box.calls == 3 + 2


def test_an_image_that_it_fails_on_is_refused(vendor: Any) -> None:
    teacher = load_teacher(f"python:{vendor.__name__}:Box")
    with pytest.raises(RefusedImageError, match="gave no reply: LibraryError: timed out"):
        teacher.probabilities(np.full((1, *SIZE, 3), 255, np.uint8))


def test_other_weights_behind_the_same_source_are_another_teacher(vendor: Any, tmp_path: Path) -> None:
    spec = f"python:{vendor.__name__}:Box"
    first = load_teacher(spec)
    assert load_teacher(spec, expected_fingerprint=first.fingerprint).num_load_queries == 1
    np.save(tmp_path / f"{vendor.__name__}.npy", 0.7)
    with pytest.raises(WorkError, match="changed since"):
        load_teacher(spec, expected_fingerprint=first.fingerprint)
    assert load_teacher(spec).fingerprint != first.fingerprint
