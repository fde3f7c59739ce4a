"""What `KIND:WHERE` and `teacher.toml` may say, and what is said of those that may not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from linear_teacher import SIZE
from object_store import BUCKET, ObjectStore
from project_paths import ROOT
from teacher_files import write_toml

from cluster.storage import Folder
from distill.teachers import KINDS, load_teacher, split_spec
from distill.teachers.teacher_toml import read_description


@pytest.mark.parametrize("spec", ["keras:model", "resnet50", "onnx:", ":model.onnx", ""])
def test_an_unknown_kind_names_the_known_ones(spec: str) -> None:
    with pytest.raises(ValueError, match="kinds: torchvision, torch, onnx, python"):
        load_teacher(spec)


def test_splitting_a_spec_keeps_later_colons() -> None:
    assert split_spec("python:package.module:factory") == ("python", "package.module:factory")


def test_the_package_imports_no_torch() -> None:
    code = "import sys, distill.teachers, distill.teachers.tools.efficientnet_lite; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_kind_has_its_file() -> None:
    for module in KINDS.values():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_model_file_may_lie_in_an_object_store(
    kind: str, onnx_folder: Path, archive: Path, store: ObjectStore, tmp_path: Path
) -> None:
    path = archive if kind == "torch" else onnx_folder / "logits" / "model.onnx"
    place = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    spec = f"{kind}:{place.uri}/{path.name}"
    with pytest.raises(FileNotFoundError, match=f"no model file {place.uri}/{path.name}"):
        load_teacher(spec)
    for name in (path.name, "teacher.toml"):
        place.write_bytes(name, path.with_name(name).read_bytes())
    there, here = load_teacher(spec), load_teacher(f"{kind}:{path}")
    assert (there.spec, there.fingerprint) == (spec, here.fingerprint)
    images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(there.probabilities(images), here.probabilities(images))


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_missing_file_and_a_missing_description_are_told_apart(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with pytest.raises(FileNotFoundError, match="no model file"):
        load_teacher(f"{kind}:{path}")
    path.write_bytes(b"model")
    with pytest.raises(FileNotFoundError, match=r"(?s)teacher\.toml.*For example.*input_size = \[224, 224\]"):
        load_teacher(f"{kind}:{path}")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"input_size": [20]}, "input_size is"),
        ({"input_size": 224}, "input_size is"),
        ({"input_size": [20.0, 30.0]}, "input_size is"),
        ({"input_size": [0, 30]}, "input_size is"),
        ({"mean": [0.5, 0.5]}, "mean is"),
        ({"mean": ["a", "b", "c"]}, "mean is"),
        ({"std": [0.2, 0.2, 0]}, "std is"),
        ({"output": "probs"}, "output is"),
        ({"classes": [1, 2]}, "classes is"),
        ({"classes": "cat"}, "classes is"),
        ({"engine": "tensorrt"}, "engine is"),
        ({"precision": "int8"}, "precision is"),
        ({"batch_size": 0}, "batch_size is"),
        ({"batch_size": 4097}, "batch_size is"),
        ({"batch_size": 8.0}, "batch_size is"),
        ({"input_size": [4096, 4096], "batch_size": 64}, "batch_size is 64"),
        ({"layout": "CHW"}, "layout is"),
        ({"datatype": "INT8"}, "datatype is"),
        ({"output_tensor": 3}, "output_tensor is"),
        ({"std": None}, "missing fields"),
        ({"Mean": [0.5, 0.5, 0.5]}, "unknown fields"),
    ],
)
def test_a_wrong_description_says_what_is_allowed(tmp_path: Path, changes: dict, complaint: str) -> None:
    write_toml(tmp_path, **changes)
    (tmp_path / "model.onnx").write_bytes(b"model")
    with pytest.raises(ValueError, match=rf"(?s)teacher\.toml: .*{complaint}.*allowed.*For example"):
        load_teacher(f"onnx:{tmp_path / 'model.onnx'}")


def test_a_description_that_is_not_toml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    (tmp_path / "teacher.toml").write_text("input_size = [224", encoding="utf-8")
    with pytest.raises(ValueError, match="is not TOML"):
        load_teacher(f"onnx:{tmp_path / 'model.onnx'}")


def test_the_fingerprint_follows_weights_and_meaning_but_not_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"

    def fingerprint(weights: bytes = b"weights", **changes: object) -> str:
        path.write_bytes(weights)
        write_toml(tmp_path, **changes)
        return read_description(path).fingerprint(path)

    first = fingerprint()
    assert fingerprint(engine="onnxruntime", precision="float32") == first
    others = [{"mean": [0.5, 0.5, 0.5]}, {"classes": ["a", "b"]}, {"output": "probabilities"}, {"weights": b"other"}]
    assert len({first, *(fingerprint(**change) for change in others)}) == 5


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    write_toml(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    plain = read_description(path)
    described = tmp_path / "teacher.toml"
    described.write_bytes(b"\xef\xbb\xbf" + described.read_bytes().replace(b"\n", b"\r\n"))
    assert read_description(path) == plain


def test_a_pipe_is_no_description(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    os.mkfifo(tmp_path / "teacher.toml")
    with pytest.raises(FileNotFoundError, match=r"no .*teacher\.toml"):
        load_teacher(f"onnx:{tmp_path / 'model.onnx'}")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(FileNotFoundError, match="no model file"):
        load_teacher(f"onnx:{tmp_path / 'pipe.onnx'}")


def test_fingerprints_are_whole_hashes_of_all_content(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    write_toml(tmp_path)
    description = read_description(path)
    meaning = {name: getattr(description, name) for name in ("input_size", "mean", "std", "output", "classes")}
    whole = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode() + hashlib.sha256(b"model").digest())
    assert description.fingerprint(path) == description.fingerprint(b"model") == whole.hexdigest()
