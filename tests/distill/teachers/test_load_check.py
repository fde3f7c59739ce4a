"""What outputs are declared to be is checked when a teacher is loaded; binary and multi-label models are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from linear_teacher import MEAN, NUM_CLASSES, SIZE, STD, some_images
from teacher_files import FakeTeacher, python_spec, write_onnx, write_toml

from distill.teachers import TeacherError, load_teacher
from distill.teachers.load_check import probe_images


def slow_sigmoid(values: np.ndarray) -> np.ndarray:
    return np.array([1 / (1 + np.exp(-value)) for value in values.ravel()]).reshape(values.shape)


def logits_of(folder: Path, images: np.ndarray, num_outputs: int) -> np.ndarray:
    """Return the logits of the same network by ONNX Runtime alone."""
    import onnxruntime

    write_onnx(folder, num_outputs=num_outputs)
    pixels = ((images / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": pixels})
    return np.asarray(logits, dtype=np.float64)


@pytest.mark.parametrize(
    ("tail", "output"),
    [
        ([], "logits"),
        (["Sigmoid"], "probabilities"),
        (["Sigmoid"], "sigmoid"),
        ([], "sigmoid_logits"),
        (["Squeeze"], "logits"),
    ],
)
def test_one_output_is_a_model_of_two_classes(tmp_path: Path, tail: list[str], output: str) -> None:
    spec = write_onnx(tmp_path, tail, num_outputs=1, toml={"output": output, "classes": ["no", "yes"]})
    teacher = load_teacher(spec)
    images = some_images()
    positive = slow_sigmoid(logits_of(tmp_path / "plain", images, 1))
    np.testing.assert_allclose(teacher.probabilities(images), np.concatenate([1 - positive, positive], 1), atol=1e-6)
    assert (teacher.num_classes, teacher.class_names) == (2, ("no", "yes"))
    write_toml(tmp_path, output=output, engine="onnxruntime", classes=["yes"])
    with pytest.raises(ValueError, match=r"returns 2 classes, but its classes says 1: .*\[negative, positive\]"):
        load_teacher(spec)


@pytest.mark.parametrize(("tail", "output"), [(["Sigmoid"], "sigmoid"), ([], "sigmoid_logits")])
def test_sigmoid_outputs_are_one_probability_each(tmp_path: Path, tail: list[str], output: str) -> None:
    teacher = load_teacher(write_onnx(tmp_path, tail, toml={"output": output}))
    images = some_images()
    expected = slow_sigmoid(logits_of(tmp_path / "plain", images, NUM_CLASSES))
    np.testing.assert_allclose(teacher.probabilities(images), expected, atol=1e-6)
    assert np.abs(expected.sum(axis=1) - 1).max() > 0.1, "rows need not sum to 1"


@pytest.mark.parametrize("tail", [["Unsqueeze"], []])
def test_axes_of_length_one_are_dropped(tmp_path: Path, tail: list[str]) -> None:
    teacher = load_teacher(write_onnx(tmp_path, tail))
    logits = logits_of(tmp_path / "plain", some_images(), NUM_CLASSES)
    powers = np.exp(logits)
    np.testing.assert_allclose(teacher.probabilities(some_images()), powers / powers.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("tail", "output", "complaint"),
    [
        (["Softmax"], "logits", 'returns probabilities.* Say output = "probabilities"'),
        (["Softmax"], "sigmoid_logits", 'Say output = "probabilities"'),
        (["Sigmoid"], "probabilities", 'If each value is a probability of its own .* output = "sigmoid"'),
        ([], "probabilities", 'If it returns logits, .*output = "logits"'),
        ([], "sigmoid", 'allowed: 0 to 1.* output = "sigmoid_logits"'),
        (["BatchSoftmax"], "sigmoid", "depend on the rest of the batch"),
        (["Log"], "logits", "NaN or infinity"),
    ],
)
def test_outputs_that_are_not_what_they_are_declared_to_be_are_refused(
    tmp_path: Path, tail: list[str], output: str, complaint: str
) -> None:
    spec = write_onnx(tmp_path, tail, toml={"output": output})
    with pytest.raises((ValueError, TeacherError), match=complaint):
        load_teacher(spec)


def test_a_softmax_over_one_output_is_refused(tmp_path: Path) -> None:
    spec = write_onnx(tmp_path, ["Softmax"], num_outputs=1, toml={"output": "probabilities"})
    with pytest.raises(ValueError, match="returns 1 for every image: a softmax over one output"):
        load_teacher(spec)


def test_a_sigmoid_that_is_declared_as_logits_is_doubted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_teacher(write_onnx(tmp_path))
    assert not caplog.text
    load_teacher(write_onnx(tmp_path, ["Sigmoid"]))
    assert 'say output = "sigmoid"' in caplog.text


class Mixing(FakeTeacher):
    """Depends on the mean of its batch, by a share."""

    def __init__(self, share: float, *, batch_size: int | None = 8, pads: bool = True) -> None:
        super().__init__(torch.zeros(0), "logits", batch_size)
        self.share, self.pads, self.num_classes = share, pads, 0

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(pixels))
        means = pixels.unflatten(2, (2, -1)).mean((3, 4)).flatten(1)[:, :NUM_CLASSES] * 5
        return means - self.share * means.mean(0, keepdim=True)


@pytest.mark.parametrize("pads", [True, False])
@pytest.mark.parametrize("batch_size", [2, 3, 8, 20, None])
def test_a_response_that_depends_on_its_batch_is_refused(batch_size: int | None, pads: bool) -> None:
    assert Mixing(0.0, batch_size=batch_size, pads=pads).finish().num_classes == NUM_CLASSES
    with pytest.raises(ValueError, match="depend on the rest of the batch"):
        Mixing(1.0, batch_size=batch_size, pads=pads).finish()


def test_a_little_noise_between_batches_is_told_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    Mixing(0.0).finish()
    assert not caplog.text
    Mixing(0.03).finish()
    assert "maps and scores have that much noise" in caplog.text


def test_dynamic_quantization_is_no_dependence_on_the_batch(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    spec = write_onnx(tmp_path)
    quantize_dynamic(tmp_path / "model.onnx", tmp_path / "model.onnx", weight_type=QuantType.QUInt8)
    assert load_teacher(spec).num_classes == NUM_CLASSES


@pytest.mark.parametrize(("batch_size", "seen"), [(8, [1, 8]), (3, [1, 3]), (None, [1, 4]), (20, [1, 20])])
def test_where_a_query_costs_one_image_and_one_whole_batch_are_queried(batch_size: int | None, seen: list[int]) -> None:
    teacher = Mixing(0.0, batch_size=batch_size, pads=False).finish()
    assert teacher.seen == seen
    assert teacher.num_load_queries == sum(seen)


def test_made_up_images_differ_and_are_few_where_they_are_large() -> None:
    images = probe_images(SIZE, MEAN, STD)
    assert images.shape == (8, 3, *SIZE)
    assert len({image.tobytes() for image in images}) == 8
    np.testing.assert_array_equal(images, probe_images(SIZE, MEAN, STD))
    assert len(probe_images((4096, 4), MEAN, STD)) == 8
    assert len(probe_images((2048, 2048), MEAN, STD, 32)) == 4


def test_a_python_teacher_may_have_several_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = python_spec(tmp_path, monkeypatch, output="sigmoid")
    assert load_teacher(spec).output == "sigmoid"
    (tmp_path / "odd").mkdir()
    with pytest.raises(ValueError, match="with output 'logits'; allowed"):
        load_teacher(python_spec(tmp_path / "odd", monkeypatch, output="logits"))
