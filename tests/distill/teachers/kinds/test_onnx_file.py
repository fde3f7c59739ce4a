"""ONNX files: layouts, number formats, weights beside them, and what they say about themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear_teacher import NUM_CLASSES, SIZE, some_images
from object_store import BUCKET, ObjectStore
from teacher_files import copy_model, write_onnx, write_toml

from cluster.errors import WorkError
from cluster.storage import Folder
from distill.teachers import TeacherError, load_teacher
from distill.teachers.engines.backends import open_engine


def test_lying_about_the_output_or_the_classes_is_found_when_loading(onnx_folder: Path, tmp_path: Path) -> None:
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    write_toml(tmp_path, engine="onnxruntime", classes=["a", "b"])
    with pytest.raises(ValueError, match="returns 5 classes, but its classes says 2"):
        load_teacher(f"onnx:{path}")
    write_toml(tmp_path, engine="onnxruntime", output="probabilities")
    with pytest.raises(TeacherError, match="says that it returns probabilities"):
        load_teacher(f"onnx:{path}")
    write_toml(tmp_path, engine="onnxruntime", input_size=[SIZE[1], SIZE[0]])
    with pytest.raises(ValueError, match="Correct input_size"):
        load_teacher(f"onnx:{path}")
    write_toml(tmp_path, engine="onnxruntime", classes=["a", "b", "c", "d", "e"])
    assert load_teacher(f"onnx:{path}").class_names == ("a", "b", "c", "d", "e")


def test_a_file_that_is_no_onnx_model_is_an_error(tmp_path: Path) -> None:
    write_toml(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="ONNX Runtime cannot load"):
        load_teacher(f"onnx:{tmp_path / 'model.onnx'}")


@pytest.mark.parametrize("location", ["weights.bin", "model.onnx.data", "deep/er/w"])
def test_weights_in_a_file_of_their_own_are_part_of_the_model(tmp_path: Path, location: str) -> None:
    (tmp_path / location).parent.mkdir(parents=True, exist_ok=True)
    options = {"save_as_external_data": True, "location": location, "size_threshold": 60}
    spec = write_onnx(tmp_path, **options)
    first = load_teacher(spec)
    (tmp_path / "model.onnx.bak").write_bytes(b"no part of it")
    assert load_teacher(spec).fingerprint == first.fingerprint
    (-np.fromfile(tmp_path / location, np.float32)).tofile(tmp_path / location)
    second = load_teacher(spec)
    assert second.fingerprint != first.fingerprint
    assert not np.allclose(second.probabilities(some_images()), first.probabilities(some_images()))
    with pytest.raises(WorkError, match="changed since"):
        load_teacher(spec, expected_fingerprint=first.fingerprint)
    (tmp_path / location).unlink()
    with pytest.raises(FileNotFoundError, match="which is not there"):
        load_teacher(spec)


def test_weights_in_an_object_store_come_with_the_model(tmp_path: Path, store: ObjectStore) -> None:
    (tmp_path / "w").mkdir()
    write_onnx(tmp_path, save_as_external_data=True, location="w/weights.bin", size_threshold=60)
    place = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    for name in ("model.onnx", "teacher.toml", "w/weights.bin"):
        place.write_bytes(name, (tmp_path / name).read_bytes())
    there, here = load_teacher(f"onnx:{place.uri}/model.onnx"), load_teacher(f"onnx:{tmp_path}/model.onnx")
    assert there.fingerprint == here.fingerprint


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", ""])
def test_weights_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    import onnx

    spec = write_onnx(tmp_path / "model", save_as_external_data=True, location="weights.bin", size_threshold=60)
    path = tmp_path / "model" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="a file in the model's own folder"):
        load_teacher(spec)


def test_weights_behind_a_link_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    spec = write_onnx(tmp_path / "model", save_as_external_data=True, location="weights.bin", size_threshold=60)
    (tmp_path / "model" / "weights.bin").rename(tmp_path / "outside")
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="a link out of its folder"):
        load_teacher(spec)


def test_a_model_that_changes_while_it_is_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_onnx(tmp_path)

    def swap(*arguments: Any, **options: Any) -> Any:
        run = open_engine(*arguments, **options)
        (tmp_path / "teacher.toml").touch()
        with (tmp_path / "model.onnx").open("ab") as file:
            file.write(b" ")
        return run

    monkeypatch.setattr("distill.teachers.kinds.onnx_file.open_engine", swap)
    with pytest.raises(WorkError, match="was changed while it was loaded"):
        load_teacher(spec)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layouts_and_number_formats_are_read_from_the_file(
    tmp_path: Path, layout: str, dtype: type, engine: str
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    toml = {"mean": [0.0] * 3, "std": [1 / 255] * 3, "engine": engine, "precision": "float32"}  # levels, in any format
    plain = load_teacher(write_onnx(tmp_path / "plain", toml={**toml, "engine": "onnxruntime"}))
    other = load_teacher(write_onnx(tmp_path / "other", layout=layout, dtype=dtype, toml=toml))
    assert other.quantized == (dtype == np.uint8)
    images = some_images(9) // 16  # small levels: float16 has no room for 255 of them summed up
    np.testing.assert_allclose(
        other.probabilities(images), plain.probabilities(images), atol=2e-2 if dtype == np.float16 else 1e-4
    )


def test_what_the_file_says_is_not_contradicted(tmp_path: Path) -> None:
    for toml in ({"layout": "NHWC"}, {"datatype": "UINT8"}, {"input_size": [30, 20]}):
        with pytest.raises(ValueError, match=f"Correct {next(iter(toml))}"):
            load_teacher(write_onnx(tmp_path, toml=toml))
    assert load_teacher(write_onnx(tmp_path, toml={"input_size": None})).input_size == SIZE


def test_a_batch_of_one_in_the_graph_is_offered_as_batch_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"computes one image at a time.* Set batch_size = 1 in its teacher\.toml"):
        load_teacher(write_onnx(tmp_path, batch=1))
    teacher = load_teacher(write_onnx(tmp_path, batch=1, toml={"batch_size": 1}))
    whole = load_teacher(write_onnx(tmp_path / "whole"))
    assert teacher.batch_size == 1
    np.testing.assert_allclose(teacher.probabilities(some_images(3)), whole.probabilities(some_images(3)), atol=1e-6)


def test_of_several_outputs_one_is_named(tmp_path: Path) -> None:
    import onnx

    spec = write_onnx(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"has outputs \['features', 'out0'\]; name the one"):
        load_teacher(spec)
    write_toml(tmp_path, engine="onnxruntime", output_tensor="out0")
    teacher, plain = load_teacher(spec), load_teacher(write_onnx(tmp_path / "plain"))
    np.testing.assert_allclose(teacher.probabilities(some_images(3)), plain.probabilities(some_images(3)), atol=1e-6)
    write_toml(tmp_path, engine="onnxruntime", output_tensor="features")
    assert load_teacher(spec).fingerprint != teacher.fingerprint


@pytest.mark.parametrize("norm", [{"training_mode": 1}, {}])
def test_batch_norm_in_training_mode_is_refused(tmp_path: Path, norm: dict) -> None:
    spec = write_onnx(tmp_path, norm=norm)
    if norm:
        with pytest.raises(ValueError, match=r"exported in training mode.*Call \.eval\(\)"):
            load_teacher(spec)
    else:
        assert load_teacher(spec).num_classes == NUM_CLASSES
