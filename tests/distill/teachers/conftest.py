"""Fixtures of teachers: a cache of their own, and one network as an ONNX file and as an archive."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from linear_teacher import MEAN, SIZE, STD, TinyNet
from teacher_files import add_softmax, write_toml


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("distill.teachers.engines.selection.NUM_TIMED", 1)
    monkeypatch.setattr("distill.teachers.engines.selection.NUM_PROBES", 8)


@pytest.fixture(scope="session")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript", reason="exporting to ONNX needs onnxscript")
    from distill.teachers.teacher_toml import Description
    from distill.teachers.tools.export import export_onnx

    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(TinyNet(), folder / "logits", Description(input_size=SIZE, mean=MEAN, std=STD, output="logits"))
    add_softmax(folder / "logits" / "model.onnx", folder / "probabilities")
    return folder


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    program = torch.export.export(
        TinyNet().eval(), (torch.zeros(2, 3, *SIZE),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, folder / "model.pt2")
    write_toml(folder)
    return folder / "model.pt2"
