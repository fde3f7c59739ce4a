"""Teachers of every kind on one tiny network: one softmax, checked outputs, and batches that do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from linear_teacher import MEAN, NUM_CLASSES, SIZE, STD, slow_probabilities, some_images
from teacher_files import FakeTeacher, python_spec

from cluster.errors import WorkError
from distill.teachers import TeacherError, load_teacher


@pytest.fixture(params=["onnx-logits", "onnx-probabilities", "torch", "python"])
def spec(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        return f"torch:{request.getfixturevalue('archive')}"
    if request.param == "python":
        return python_spec(tmp_path, monkeypatch)
    folder = request.getfixturevalue("onnx_folder")
    return f"onnx:{folder / request.param.removeprefix('onnx-') / 'model.onnx'}"


def test_probabilities_are_one_softmax_of_the_logits(spec: str) -> None:
    teacher = load_teacher(spec)
    images = some_images()
    found = teacher.probabilities(images)
    # bfloat16 may be this machine's choice; twice the softmax or none at all is far outside
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_probabilities(images), atol=2e-2 if "bfloat16" in teacher.engine else 1e-5)
    assert found.max() > 0.5, "the images must tell one softmax from two"


def test_an_image_scores_the_same_in_any_batch(spec: str) -> None:
    teacher = load_teacher(spec)
    images = some_images()
    together = teacher.probabilities(images)
    alone = np.concatenate([teacher.probabilities(image[None]) for image in images])
    threes = np.concatenate([teacher.probabilities(images[start : start + 3]) for start in range(0, len(images), 3)])
    backwards = teacher.probabilities(images[::-1])[::-1]
    for other in (alone, threes, backwards):
        np.testing.assert_array_equal(other, together)


def test_loading_twice_gives_the_same_bytes(spec: str) -> None:
    first, second = load_teacher(spec), load_teacher(spec)
    assert (first.engine, first.fingerprint, first.batch_size) == (second.engine, second.fingerprint, second.batch_size)
    assert first.probabilities(some_images()).tobytes() == second.probabilities(some_images()).tobytes()


def test_another_model_than_the_jobs_is_refused(spec: str) -> None:
    fingerprint = load_teacher(spec).fingerprint
    assert load_teacher(spec, expected_fingerprint=fingerprint).fingerprint == fingerprint
    for other in (fingerprint[:-1], "0" * len(fingerprint), ""):
        with pytest.raises(WorkError, match=f"has fingerprint {fingerprint}, but this job started with"):
            load_teacher(spec, expected_fingerprint=other)


def test_every_kind_knows_itself(spec: str) -> None:
    teacher = load_teacher(spec, num_threads=1)
    assert (teacher.spec, teacher.input_size, teacher.num_classes) == (spec, SIZE, NUM_CLASSES)
    assert (teacher.mean, teacher.std) == (MEAN, STD)
    assert len(teacher.fingerprint) == 64
    assert teacher.quantized == spec.startswith("python:")
    assert teacher.engine
    assert teacher.probabilities(some_images(0)).shape == (0, NUM_CLASSES)


def test_forward_of_normalized_images_is_probabilities(spec: str) -> None:
    teacher = load_teacher(spec)
    images = some_images(4)
    pixels = teacher.normalize(images)
    kept = pixels.clone()
    np.testing.assert_array_equal(teacher.forward(pixels).numpy(), teacher.probabilities(images))
    assert torch.equal(pixels, kept), "the caller's pixels were changed"


def test_swapped_height_and_width_are_an_error(spec: str) -> None:
    teacher = load_teacher(spec)
    with pytest.raises(ValueError, match="height, width"):
        teacher.probabilities(some_images(2).transpose(0, 2, 1, 3))
    with pytest.raises(ValueError, match="takes float32 pixels"):
        teacher.forward(torch.zeros(2, 3, SIZE[1], SIZE[0]))
    with pytest.raises(ValueError, match="takes uint8"):
        teacher.probabilities(some_images(2).astype(np.float32))


def test_normalize_is_the_formula() -> None:
    teacher = FakeTeacher(torch.zeros(0))
    images = some_images(2)
    pixels = teacher.normalize(images)
    for image, row, column, channel in ((0, 0, 0, 0), (1, 19, 29, 2), (1, 3, 17, 1)):
        expected = (images[image, row, column, channel] / 255 - MEAN[channel]) / STD[channel]
        assert pixels[image, channel, row, column].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([0.2, 0.2, 0.2, 0.2, float("nan")], "NaN or infinity"),
        ([0.2, 0.2, 0.2, 0.2, float("inf")], "NaN or infinity"),
        ([0.5, 0.5, 0.5, 0.5, -1.0], "lowest value is -1"),
        ([0.2, 0.2, 0.2, 0.2, 0.1], "sums to 0.9"),
        ([3.0, 1.0, 2.0, 0.5, 4.0], 'output = "logits"'),
    ],
)
def test_bad_probabilities_are_refused(row: list[float], complaint: str) -> None:
    rows = torch.full((3, NUM_CLASSES), 0.2)
    rows[1] = torch.tensor(row)
    with pytest.raises(TeacherError, match=complaint):
        FakeTeacher(rows).forward(torch.zeros(3, 3, *SIZE))


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (2, 5), (3, 5, 2), (3, 5, 1, 2), (15,), ()])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError, match="returned shape"):
        FakeTeacher(torch.zeros(shape), "logits").forward(torch.zeros(3, 3, *SIZE))


def test_nan_logits_are_refused() -> None:
    with pytest.raises(TeacherError, match="NaN or infinity for 3 of 3"):
        FakeTeacher(torch.full((3, NUM_CLASSES), torch.nan), "logits").forward(torch.zeros(3, 3, *SIZE))


def test_small_rounding_of_the_sum_is_let_through() -> None:
    rows = torch.full((3, NUM_CLASSES), 0.2 * (1 + 5e-4))
    assert torch.equal(FakeTeacher(rows).forward(torch.zeros(3, 3, *SIZE)), rows)


def test_every_call_gets_the_same_number_of_images() -> None:
    teacher = FakeTeacher(torch.full((8, NUM_CLASSES), 0.2), batch_size=8)
    assert teacher.forward(torch.zeros(19, 3, *SIZE)).shape == (19, NUM_CLASSES)
    assert teacher.seen == [8, 8, 8]
