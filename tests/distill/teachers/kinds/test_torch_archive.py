"""torch.export archives: batches, number formats, and OpenVINO in torch's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from linear_teacher import SIZE, TinyNet, slow_probabilities, some_images
from teacher_files import write_toml

from distill.teachers import load_teacher


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
