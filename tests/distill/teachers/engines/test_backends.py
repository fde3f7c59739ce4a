"""ONNX Runtime and OpenVINO on one ONNX file: the same probabilities, and signals that still arrive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from linear_teacher import SIZE, slow_probabilities, some_images
from teacher_files import copy_model, write_toml

from distill.teachers import load_teacher


def test_the_engines_agree(onnx_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    found = {}
    for engine in ("onnxruntime", "openvino"):
        write_toml(tmp_path, engine=engine, precision="float32")
        teacher = load_teacher(f"onnx:{path}")
        assert teacher.engine == f"{engine}-float32"
        found[engine] = teacher.probabilities(some_images())
    np.testing.assert_allclose(found["openvino"], found["onnxruntime"], atol=1e-5)


SIGNALLED = """
import os, pathlib, signal, sys
from distill.teachers.engines.backends import EngineChoice, open_engine
choice = EngineChoice(engine="openvino", precision="float32", batch_size=1)
path, size = pathlib.Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))
opened = [open_engine(path, size, choice, num_threads=1, device="cpu") for _ in range(2)]
while opened:
    opened.pop(0)
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_arrive_after_models_were_let_go(onnx_folder: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    command = [sys.executable, "-c", SIGNALLED, str(onnx_folder / "logits" / "model.onnx"), *map(str, SIZE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_bfloat16_is_close_to_float32(onnx_folder: Path, tmp_path: Path) -> None:
    from distill.teachers.engines.backends import has_native_bfloat16

    if not has_native_bfloat16():
        pytest.skip("no OpenVINO with native bfloat16 here")
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    write_toml(tmp_path, precision="bfloat16")
    teacher = load_teacher(f"onnx:{path}")
    assert teacher.engine == "openvino-bfloat16"
    np.testing.assert_allclose(teacher.probabilities(some_images()), slow_probabilities(some_images()), atol=2e-2)


def test_on_a_gpu_that_onnx_runtime_cannot_use_the_cpu_answers_and_says_so(
    onnx_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime runs on GPUs")
    spec = f"onnx:{onnx_folder / 'logits' / 'model.onnx'}"
    on_gpu, on_cpu = load_teacher(spec, device="cuda"), load_teacher(spec)
    assert on_gpu.engine == on_cpu.engine
    assert np.array_equal(on_gpu.probabilities(some_images()), on_cpu.probabilities(some_images()))
    assert "pip install onnxruntime-gpu" in caplog.text
