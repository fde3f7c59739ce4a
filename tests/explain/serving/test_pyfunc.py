"""A student from MLflow's registry, loaded and served away from the project, makes the maps of `python -m explain`."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import project_paths
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from servers import free_port, mlflow_server, postgres, running

import explain.job
from cluster.storage import Folder
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student
from explain.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # MLflow's own

SIZE, CLASSES = (32, 48), 7
ROOT = str(project_paths.ROOT)
METHOD = ["mal_grad_cam", "--normalisation", "none"]

LOAD = """
import json, sys
from pathlib import Path
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
images = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
import explain.serving.pyfunc
print("code", explain.serving.pyfunc.__file__)
for columns in json.loads(sys.argv[3]):
    made = model.predict(pd.DataFrame({"image": images, **columns}))
    made["saliency"] = [None if one is None else one.tolist() for one in made["saliency"]]
    print("maps", json.dumps(made.to_dict(orient="records")))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A student, ten images of which one is broken, their maps by `python -m explain`, and the student's model."""
    place = tmp_path_factory.mktemp("served")
    rng, data, run = np.random.default_rng(0), place / "data", place / "run"
    data.mkdir()
    for k in range(9):
        Image.fromarray(rng.integers(0, 25 * (k + 1), (40 + k, 90 - k, 3), dtype=np.uint8)).save(data / f"{k}.png")
    (data / "3.png").write_bytes((data / "3.png").read_bytes()[:200])
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    student = Student(
        model=ResCBAM(18, CLASSES).eval(),
        input_size=SIZE,
        mean=half,
        std=half,
        teacher="onnx:x",
        teacher_fingerprint="x",
    )
    save_student(Folder(str(run)), student)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain.job, "ray_session", nullcontext)
        assert main([*METHOD, "--data", str(data), "--student", str(run), "--out", str(place / "maps")]) == 0
    rows = sorted(pq.read_table(place / "maps").to_pylist(), key=lambda row: row["image_id"])
    env = os.environ | {"PYTHONPATH": ROOT, "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db"}
    register(run, env)
    return SimpleNamespace(place=place, data=data, run=run, rows=rows, env=env | {"PYTHONPATH": ""})


def register(run: Path, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "explain", "register", *METHOD, "--student", str(run), "--name", "birds"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2] == "model models:/birds/1"


def load(data: Path, columns: list[dict[str, Any]], env: dict[str, str], cwd: Path) -> tuple[str, list[Any]]:
    """Load the model in a process of its own; return where its code lies, and the maps for each set of columns."""
    command = [sys.executable, "-c", LOAD, "models:/birds/1", str(data), json.dumps(columns)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)
    assert done.returncode == 0, done.stderr
    said = [line.partition(" ")[::2] for line in done.stdout.splitlines()]
    code = next(text for kind, text in said if kind == "code")
    return code, [json.loads(text) for kind, text in said if kind == "maps"]


def check(made: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    assert [row["error"] is None for row in made] == [k != 3 for k in range(9)]
    for ours, row in zip(made, rows, strict=True):
        assert (ours["error"], ours["target"]) == (row["error"], row["target"])
        if row["error"] is None:
            assert (ours["map_height"], ours["map_width"]) == SIZE
            assert np.float32(ours["target_prob"]) == row["target_prob"]
            np.testing.assert_array_equal(np.float32(ours["saliency"]), np.float32(row["saliency"]))


def test_a_loaded_model_makes_the_same_maps_by_its_own_code(served: Any, tmp_path: Path) -> None:
    top = [CLASSES + 1 if row["target"] is None else row["target"] for row in served.rows]
    code, (alone, given) = load(served.data, [{}, {"target": top}], served.env, tmp_path)
    assert Path(code).is_relative_to(served.place)
    check(alone, served.rows)
    assert (
        given[3]["error"]
        == f"target {CLASSES + 1} is no class of the student; give 0 to {CLASSES - 1}, or none for its top-1"
    )
    for ours, row in zip(given, alone, strict=True):
        assert ours["saliency"] == row["saliency"]


def test_nothing_in_the_model_is_a_pickle(served: Any) -> None:
    stored = [path for path in served.place.glob("mlartifacts/**/*") if path.is_file()]
    assert {path.suffix for path in stored} <= {
        "",
        ".py",
        ".toml",
        ".json",
        ".yaml",
        ".yml",
        ".txt",
        ".html",
        ".safetensors",
    }
    assert any(path.name == "student.safetensors" for path in stored)
    assert [path for path in stored if path.read_bytes()[:1] == b"\x80"] == []


@pytest.mark.slow
@pytest.mark.chaos
def test_mlflow_serves_it_over_http(served: Any, tmp_path: Path) -> None:
    images = [base64.b64encode(path.read_bytes()).decode() for path in sorted(served.data.iterdir())]
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/birds/1", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = os.pathsep.join([str(Path(sys.executable).parent), served.env["PATH"]])  # of uvicorn
    with running(command, f"http://127.0.0.1:{port}/ping", tmp_path, served.env | {"PATH": path}):
        url, records = f"http://127.0.0.1:{port}/invocations", [{"image": image} for image in images]
        answer = httpx.post(url, json={"dataframe_records": records}, timeout=120)
        assert answer.status_code == 200, answer.text
        check(answer.json()["predictions"], served.rows)
        assert httpx.post(url, json={"dataframe_records": [{}]}, timeout=120).status_code == 400


@pytest.mark.slow
@pytest.mark.chaos
def test_a_server_on_postgresql_keeps_it(served: Any, tmp_path: Path) -> None:
    with postgres() as database, mlflow_server(database, tmp_path) as uri:
        env = served.env | {"MLFLOW_TRACKING_URI": uri}
        register(served.run, env | {"PYTHONPATH": ROOT})
        code, (made,) = load(served.data, [{}], env, tmp_path)
    assert not Path(code).is_relative_to(ROOT)
    check(made, served.rows)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["rise", "--name", "birds"],
            "method 'rise' needs more than a student and an image; these do not: mal_grad_cam",
        ),
        (["mask", "--name", "birds"], "method 'mask' needs more"),
        (["matt", "--name", "a/b"], "name 'a/b' is none for a model"),
        (["matt", "--name", "birds"], "holds no student"),
        (["nothing", "--name", "birds"], "unknown method 'nothing'"),
    ],
)
def test_what_cannot_be_served_is_refused(
    args: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["register", *args, "--student", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
