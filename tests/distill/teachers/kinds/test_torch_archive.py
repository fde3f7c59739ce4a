"""torch.export archives: batches, number formats, and OpenVINO in torch's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from linear_teacher import NUM_CLASSES, SIZE, TinyNet, slow_probabilities, some_images
from teacher_files import write_toml

from distill.teachers import RefusedImageError, load_teacher


def test_an_archive_with_a_fixed_batch_is_fed_that_batch(archive: Path, tmp_path: Path) -> None:
    program = torch.export.export(TinyNet().eval(), (torch.zeros(4, 3, *SIZE),))
    torch.export.save(program, tmp_path / "model.pt2")
    write_toml(tmp_path, engine="eager")
    teacher = load_teacher(f"torch:{tmp_path / 'model.pt2'}")
    assert teacher.batch_size == 4
    np.testing.assert_allclose(teacher.probabilities(some_images(7)), slow_probabilities(some_images(7)), atol=1e-5)
    write_toml(tmp_path, input_size=[SIZE[1], SIZE[0]])
    with pytest.raises(ValueError, match="correct input_size"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


def test_a_shorter_number_format_of_an_archive_counts_on_a_gpu_alone(archive: Path, tmp_path: Path) -> None:
    short = tmp_path / "model.pt2"
    short.write_bytes(archive.read_bytes())
    write_toml(tmp_path, precision="float16", engine="eager")
    whole, halved = load_teacher(f"torch:{archive}"), load_teacher(f"torch:{short}")
    assert halved.engine == "torch-float32-cpu"
    assert halved.fingerprint == whole.fingerprint
    np.testing.assert_allclose(halved.probabilities(some_images()), whole.probabilities(some_images()), atol=1e-2)


@pytest.mark.parametrize(("wish", "far"), [({"engine": "openvino", "precision": "float32"}, 1e-5), ({}, 1e-2)])
def test_without_a_gpu_an_archive_runs_in_openvino_as_in_torch(
    archive: Path, tmp_path: Path, wish: dict, far: float
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path = tmp_path / "model.pt2"
    path.write_bytes(archive.read_bytes())
    found = {}
    for name, fields in (("eager", {"engine": "eager"}), ("wished", wish)):
        write_toml(tmp_path, **fields)
        teacher = load_teacher(f"torch:{path}")
        found[name] = teacher.probabilities(some_images())
        if name == "eager" or wish:
            assert teacher.engine == ("torch-float32-cpu" if name == "eager" else "openvino-float32")
        assert teacher.module is not None, "methods can look into it, whatever computes it"
    np.testing.assert_allclose(found["wished"], found["eager"], atol=far)


def test_an_archive_that_openvino_cannot_convert_is_torchs_unless_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")

    class Sorts(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(images.mean(dim=1))

    program = torch.export.export(Sorts(), (torch.zeros(2, 3, *SIZE),), dynamic_shapes=({0: torch.export.Dim("b")},))
    torch.export.save(program, tmp_path / "model.pt2")
    write_toml(tmp_path)
    assert load_teacher(f"torch:{tmp_path / 'model.pt2'}").engine == "torch-float32-cpu"
    write_toml(tmp_path, engine="openvino")
    with pytest.raises(ValueError, match="OpenVINO cannot"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")
    write_toml(tmp_path, engine="onnxruntime")
    with pytest.raises(ValueError, match="does not run on device 'cpu'"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_an_archive_on_a_gpu_answers_as_on_the_cpu(archive: Path, tmp_path: Path) -> None:
    short = tmp_path / "model.pt2"
    short.write_bytes(archive.read_bytes())
    write_toml(tmp_path, precision="float16")
    slow = load_teacher(f"torch:{archive}").probabilities(some_images())
    for path, engine, far in ((archive, "torch-float32-cuda", 1e-4), (short, "torch-float16-cuda", 1e-2)):
        teacher = load_teacher(f"torch:{path}", device="cuda")
        assert teacher.engine == engine
        assert teacher.normalize(some_images()).device.type == "cuda"
        np.testing.assert_allclose(teacher.probabilities(some_images()), slow, atol=far)


def test_an_unknown_device_is_an_error(archive: Path) -> None:
    with pytest.raises(ValueError, match="device 'tpu' is not there"):
        load_teacher(f"torch:{archive}", device="tpu")


class Wrapped(TinyNet):
    """Returns its logits in a container."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, pixels: torch.Tensor) -> Any:
        logits = super().forward(pixels)
        return {"tuple": (logits,), "list": [logits], "dict": {"logits": logits}, "two": (logits, 2 * logits)}[
            self.kind
        ]


def export(network: torch.nn.Module, folder: Path, **toml: Any) -> str:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network.eval(), (torch.zeros(2, 3, *SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    write_toml(folder, **toml)
    return f"torch:{folder / 'model.pt2'}"


@pytest.mark.parametrize("engine", ["eager", "openvino"])
@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
def test_one_tensor_in_a_container_is_the_output(tmp_path: Path, kind: str, engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    teacher = load_teacher(export(Wrapped(kind), tmp_path, engine=engine, precision="float32"))
    np.testing.assert_allclose(teacher.probabilities(some_images()), slow_probabilities(some_images()), atol=1e-5)
    assert teacher.module is not None
    pixels = teacher.normalize(some_images(3))
    torch.testing.assert_close(teacher.module(pixels).softmax(1), teacher.forward(pixels), atol=1e-5, rtol=0)


def test_several_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="returns 2 values; allowed: one tensor"):
        load_teacher(export(Wrapped("two"), tmp_path))


class Picky(TinyNet):
    """Fails on images that are bright."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        classes = torch.where(pixels.mean((1, 2, 3)) > 1.5, 99, 0)
        return super().forward(pixels) + torch.nn.functional.embedding(classes, torch.zeros(1, NUM_CLASSES))


def test_an_image_that_an_archive_fails_on_is_refused_and_the_others_are_answered(tmp_path: Path) -> None:
    teacher = load_teacher(export(Picky(), tmp_path, engine="eager"))
    with pytest.raises(RefusedImageError, match="failed: IndexError"):
        teacher.probabilities(np.full((1, *SIZE, 3), 255, np.uint8))
    np.testing.assert_allclose(teacher.probabilities(some_images(3)), slow_probabilities(some_images(3)), atol=1e-5)


def test_a_batch_size_is_as_wished_where_the_archive_leaves_it_open(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(archive.read_bytes())
    write_toml(tmp_path, batch_size=3, engine="eager")
    assert load_teacher(f"torch:{path}").batch_size == 3
    torch.export.save(torch.export.export(TinyNet().eval(), (torch.zeros(2, 3, *SIZE),)), path)
    with pytest.raises(ValueError, match="takes 2 images at a time; correct batch_size"):
        load_teacher(f"torch:{path}")


class Binary(torch.nn.Module):
    """One logit of two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(pixels).relu().mean((2, 3)))


def test_a_binary_archive_has_two_classes_and_is_not_looked_into(tmp_path: Path) -> None:
    teacher = load_teacher(export(Binary(), tmp_path, engine="eager"))
    pixels = teacher.normalize(some_images(3))
    positive = torch.sigmoid(Binary()(pixels)).detach()
    torch.testing.assert_close(teacher.forward(pixels), torch.cat([1 - positive, positive], 1))
    with pytest.raises(ValueError, match=r"one output.*give --student RUN"):
        _ = teacher.module
