"""Black boxes from MLflow: files are opened as the kinds of their own open them, and nothing is run unasked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from linear_teacher import MEAN, NUM_CLASSES, SIZE, STD, TinyNet, slow_probabilities, some_images

from distill.teachers import TeacherError, load_teacher

pytestmark = [
    # MLflow and its dependencies deprecate each other's interfaces and leave SQLite connections to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same network as an ONNX file, a torch.export archive, a pickle and a Python model, as MLflow stores them."""
    onnx = pytest.importorskip("onnx", reason="MLflow stores ONNX models with the onnx package")
    pytest.importorskip("onnxscript", reason="exporting to ONNX needs onnxscript")
    from mlflow.models import ModelSignature
    from mlflow.onnx import save_model as save_onnx
    from mlflow.pyfunc import save_model as save_function
    from mlflow.pytorch import save_model as save_torch
    from mlflow.types import Schema, TensorSpec

    from distill.teachers.teacher_toml import Description
    from distill.teachers.tools.export import export_onnx

    folder = tmp_path_factory.mktemp("models")
    pixels, net = np.zeros((2, 3, *SIZE), np.float32), TinyNet().eval()
    spec = TensorSpec(np.dtype("float32"), (-1, 3, *SIZE))
    signature = ModelSignature(inputs=Schema([spec]))
    named = ModelSignature(inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *SIZE, 3), "image")]))
    export_onnx(net, folder / "exported", Description(input_size=SIZE, mean=MEAN, std=STD, output="logits"))
    save_onnx(onnx.load(folder / "exported" / "model.onnx"), str(folder / "onnx"))
    save_torch(net, str(folder / "archive"), input_example=pixels, serialization_format="pt2")
    save_torch(net, str(folder / "pickle"), signature=signature, serialization_format="pickle")
    save_function(str(folder / "python"), python_model=make_labels(), signature=named)
    write(folder / "logits.toml")
    write(folder / "labels.toml", output="labels", num_classes=NUM_CLASSES, output_tensor="label")
    return SimpleNamespace(folder=folder)


def make_labels() -> Any:
    """Make a model of MLflow's own kind, as one that a user wrote."""
    from mlflow.pyfunc.model import PythonModel

    class Labels(PythonModel):
        """Name a class, in a dictionary."""

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            images = model_input["image"]
            if images.max() == 0:
                raise RuntimeError("black")
            return {"label": images.mean(axis=(1, 2, 3)).astype(int) % NUM_CLASSES}

    return Labels()


def write(path: Path, **changes: Any) -> None:
    values = {"input_size": list(SIZE), "mean": list(MEAN), "std": list(STD), "output": "logits", **changes}
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()), encoding="utf-8")


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("distill.teachers.engines.selection.NUM_TIMED", 1)
    monkeypatch.setattr("distill.teachers.engines.selection.NUM_PROBES", 8)


@pytest.mark.parametrize("model", ["onnx", "archive"])
def test_files_are_opened_without_mlflow_running_anything(
    models: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.pyfunc.load_model", lambda *_: pytest.fail("it was run"))
    teacher = load_teacher(f"mlflow:{models.folder / model}#{models.folder}/logits.toml")
    images = some_images()
    atol = 2e-2 if "bfloat16" in teacher.engine else 1e-5
    np.testing.assert_allclose(teacher.probabilities(images), slow_probabilities(images), atol=atol)
    assert teacher.spec == f"mlflow:{models.folder / model}#{models.folder}/logits.toml"


def test_a_description_may_lie_in_the_model_and_paths_become_absolute(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(models.folder / "onnx", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"(?s)teacher\.toml.*For example"):
        load_teacher("mlflow:model")
    write(tmp_path / "model" / "teacher.toml")
    assert load_teacher("mlflow:model").spec == f"mlflow:{tmp_path}/model"


@pytest.mark.parametrize("model", ["pickle", "python"])
def test_what_would_run_its_authors_code_is_refused_unless_that_is_named(models: Any, model: str) -> None:
    spec = f"{models.folder / model}#{models.folder}/logits.toml"
    with pytest.raises(ValueError, match=rf"run or unpickle .*write mlflow-unpickle:{spec}"):
        load_teacher(f"mlflow:{spec}")


def test_a_pickled_model_answers_where_its_risk_is_named(models: Any) -> None:
    teacher = load_teacher(f"mlflow-unpickle:{models.folder}/pickle#{models.folder}/logits.toml")
    images = some_images()
    np.testing.assert_allclose(teacher.probabilities(images), slow_probabilities(images), atol=1e-5)
    assert teacher.engine == "mlflow"


def test_a_python_model_takes_its_input_by_name_and_may_fail(models: Any) -> None:
    teacher = load_teacher(f"mlflow-unpickle:{models.folder}/python#{models.folder}/labels.toml")
    images = some_images()
    expected = np.eye(NUM_CLASSES)[images.mean(axis=(1, 2, 3)).astype(int) % NUM_CLASSES]
    np.testing.assert_array_equal(teacher.probabilities(images), expected)
    assert (teacher.engine, teacher.num_ranked, teacher.quantized) == ("mlflow-labels", 1, True)
    with pytest.raises(TeacherError, match="failed: RuntimeError: black"):
        teacher.probabilities(np.zeros((2, *SIZE, 3), np.uint8))


def test_a_registered_model_is_found_by_name_version_and_alias(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import onnx
    from mlflow.onnx import log_model

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    mlflow.set_experiment("models")  # another test's, in another store, may be the active one
    model = onnx.load(models.folder / "exported" / "model.onnx")
    with mlflow.start_run():
        log_model(model, name="model", registered_model_name="tiny")
    mlflow.MlflowClient().set_registered_model_alias("tiny", "good", "1")
    toml = models.folder / "logits.toml"
    teachers = [load_teacher(f"mlflow:models:/tiny{which}#{toml}") for which in ("/1", "@good")]
    assert teachers[0].fingerprint == teachers[1].fingerprint
    np.testing.assert_allclose(teachers[0].probabilities(some_images(3)), slow_probabilities(some_images(3)), atol=2e-2)
    with pytest.raises(ValueError, match="MLflow has no model 'models:/tiny/7'"):
        load_teacher(f"mlflow:models:/tiny/7#{toml}")


def test_a_model_that_points_out_of_its_folder_is_refused(models: Any, tmp_path: Path) -> None:
    shutil.copytree(models.folder / "onnx", tmp_path / "model")
    outside = tmp_path / "outside.onnx"
    outside.write_bytes((tmp_path / "model" / "model.onnx").read_bytes())
    said = tmp_path / "model" / "MLmodel"
    for place in (str(outside), "../outside.onnx"):
        said.write_text(said.read_text().replace("data: model.onnx", f"data: {place}"))
        with pytest.raises(ValueError, match="neither an ONNX file nor"):
            load_teacher(f"mlflow:{tmp_path}/model#{models.folder}/logits.toml")
        said.write_text(said.read_text().replace(f"data: {place}", "data: model.onnx"))


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: [", encoding="utf-8")
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ValueError, match="MLflow has no model"):
            load_teacher(f"mlflow:{place}")
