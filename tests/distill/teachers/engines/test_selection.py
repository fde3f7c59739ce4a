"""The choice of an engine: measured once, kept in private, and close to the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from linear_teacher import NUM_CLASSES
from teacher_files import copy_model, write_toml

from distill.teachers import load_teacher


def test_openvino_is_asked_for_only_where_it_is(
    onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.teachers.engines.selection.has_openvino", lambda: False)
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    write_toml(tmp_path)
    assert load_teacher(f"onnx:{path}").engine == "onnxruntime-float32"
    write_toml(tmp_path, engine="openvino")
    with pytest.raises(ValueError, match="pip install openvino"):
        load_teacher(f"onnx:{path}")


def test_wishes_that_do_not_go_together_are_an_error(onnx_folder: Path, tmp_path: Path) -> None:
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    write_toml(tmp_path, engine="onnxruntime", precision="bfloat16")
    with pytest.raises(ValueError, match="float32 only"):
        load_teacher(f"onnx:{path}")


def test_the_engine_is_measured_once(onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx_folder / "logits" / "model.onnx"
    first = load_teacher(f"onnx:{path}")
    (decision,) = (tmp_path / "cache" / "engines").glob("*.json")
    assert set(json.loads(decision.read_text())) == {"engine", "precision", "batch_size"}
    assert sorted(decision.parent.iterdir()) == [decision], "a file written aside was left behind"
    monkeypatch.setattr("distill.teachers.engines.selection._measure", lambda *_: pytest.fail("measured again"))
    assert load_teacher(f"onnx:{path}", num_threads=1).engine == first.engine
    decision.write_text(json.dumps({"engine": "onnxruntime", "precision": "float32", "batch_size": 3}))
    obeying = load_teacher(f"onnx:{path}")
    assert (obeying.engine, obeying.batch_size) == ("onnxruntime-float32", 3)
    good = {"engine": "onnxruntime", "precision": "float32", "batch_size": 3}
    for change in (
        *({"engine": "eager"}, {"engine": "evil"}, {"precision": "int8"}, {"batch_size": 0}, {"batch_size": "8"}),
        *({"batch_size": 10**9}, {"batch_size": True}, {"code": 1}),
    ):
        decision.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match="delete it"):
            load_teacher(f"onnx:{path}")
    for text in ("{", "[]", "[" * 10**5, "null"):
        decision.write_text(text)
        with pytest.raises(ValueError, match="delete it"):
            load_teacher(f"onnx:{path}")


def test_a_cache_that_cannot_be_written_is_an_error(
    onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="set MALGRADCAM_CACHE"):
        load_teacher(f"onnx:{onnx_folder / 'logits' / 'model.onnx'}")


def test_the_tolerance_for_another_precision_can_fail() -> None:
    from distill.teachers.engines.selection import is_close

    logits = np.random.default_rng(0).normal(0, 3, (32, NUM_CLASSES)).astype(np.float32)
    assert is_close(logits, logits + 7, "logits"), "a shift of all logits changes nothing"
    assert is_close(logits, logits * 1.004, "logits"), "bfloat16's rounding"
    assert not is_close(logits, logits * 0.5, "logits")
    assert not is_close(logits, logits[:, ::-1], "logits")
    assert not is_close(logits, logits * np.nan, "logits")
    uniform = np.full((32, NUM_CLASSES), 0.2)
    assert not is_close(uniform, uniform * 1.002, "probabilities"), "rows that no longer sum to one"


def test_the_fastest_choice_wins_and_a_draw_keeps_the_simpler_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.teachers.engines import selection as module
    from distill.teachers.engines.backends import EngineChoice, Run

    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])

    def taking(seconds: float) -> Run:
        def run(pixels: np.ndarray) -> np.ndarray:
            clock[0] += seconds
            return pixels

        return run

    simple = EngineChoice(engine="onnxruntime", precision="float32", batch_size=8)
    rival = EngineChoice(engine="openvino", precision="float32", batch_size=8)
    larger = EngineChoice(engine="openvino", precision="float32", batch_size=16)
    images = np.zeros((32, 3, 2, 3), np.float32)
    assert module.fastest({simple: taking(1.0), rival: taking(0.98)}, images) == simple
    assert module.fastest({simple: taking(1.0), rival: taking(0.5)}, images) == rival
    assert module.fastest({rival: taking(1.0), larger: taking(1.5)}, images) == larger, "per image, not per call"
