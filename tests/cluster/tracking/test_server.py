"""One run for what several jobs find out about the same maps, and MLflow's pages, which read and do not write."""

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cluster.tracking import unsent as spill
from cluster.tracking.run_store import RESULT_TAG, RunStore, runs_page
from cluster.tracking.server import _application, reading_only, reads
from cluster.tracking.tracker import Tracker

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's store
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow.*"),
]
RESULT = {RESULT_TAG: "maps 1"}
AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make one SQLite store for the module: a new one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def job(uri: str, tags: Mapping[str, str], **params: Any) -> str:
    """Run one job's tracking; return the run's id."""
    with Tracker("squares", "matt", params=params, tags={**RESULT, **tags}, uri=uri) as tracker:
        tracker.log({next(iter(tags)): 1.0})
    assert tracker.run_id is not None
    return tracker.run_id


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), 7, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_games_and_metrics_of_the_same_maps_stand_in_one_run(store_uri: str) -> None:
    metrics = job(store_uri, {"measures": "m", "stage": "measures"}, seed=1)
    games = job(store_uri, {"scores": "a", "stage": "games"}, seed=2, step_px=224)
    assert games == metrics
    run = RunStore(store_uri).client.get_run(games)
    assert run.data.params == {"seed": "1", "step_px": "224"}
    assert {run.data.tags[name] for name in ("measures", "scores", "stage")} == {"m", "a", "games"}
    assert set(run.data.metrics) == {"measures", "scores"}
    other = job(store_uri, {"scores": "b", "stage": "games"})  # by another protocol: its AUCs have the same names
    assert other != games
    assert job(store_uri, {"measures": "n", "stage": "measures"}) == other
    assert RunStore(store_uri).client.get_run(other).data.tags["stage"] == "games"
    assert job(store_uri, {"measures": "m", "stage": "measures"}) == games  # made again: its own run
    assert job(store_uri, {"measures": "m", RESULT_TAG: "maps 2"}) not in (games, other)


def test_experiments_are_of_the_kind_that_shows_charts(store_uri: str) -> None:
    client = RunStore(store_uri).client
    client.create_experiment("of before")
    with Tracker("of before", "r", params={}, uri=store_uri) as tracker:
        assert tracker.page is not None
    for name in ("of before", "squares"):
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
        page = f"/#/experiments/{experiment.experiment_id}/runs?compareRunsMode=CHART"
        assert runs_page(store_uri, experiment.experiment_id) == f"http://127.0.0.1:5000{page}"
        assert runs_page("https://host/mlflow/", experiment.experiment_id) == f"https://host/mlflow{page}"


@pytest.mark.parametrize("away", [False, True], ids=["at once", "sent later"])
def test_inputs_tables_and_images_arrive(store_uri: str, tmp_path: Path, away: bool) -> None:
    unsent = tmp_path / "unsent.jsonl"
    uri, tags = AWAY if away else store_uri, {"scores": f"away {away}", RESULT_TAG: "drawn"}
    with Tracker("squares", "drawn", params={}, tags=tags, uri=uri, spill=unsent) as tracker:
        source = {"name": "squares", "digest": "d" * 64, "source": "s3://me:secret@bucket", "context": "explained"}
        tracker.inputs([source])
        for value in (1.0, float("nan")):  # the second table takes the first one's place
            tracker.table("games", ["name", "mean"], [["auc", value], ["images", 3]])
        tracker.image("val/class 1/ä%.png", png())
    (run_id,) = spill.upload(unsent, uri=store_uri) if away else [tracker.run_id]
    assert run_id is not None
    client = RunStore(store_uri).client
    run = client.get_run(run_id)
    assert run.inputs is not None
    (noted,) = run.inputs.dataset_inputs
    assert (noted.dataset.digest, json.loads(noted.dataset.source)) == ("d" * 36, {"uri": "s3://bucket"})
    assert [(tag.key, tag.value) for tag in noted.tags] == [("mlflow.data.context", "explained")]
    table = pd.read_json(client.download_artifacts(run_id, "games.json"), orient="split")  # as MLflow's load_table
    assert table["mean"].isna().tolist() == [True, False]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "games.json", "type": "table"}]
    names = [Path(item.path).name for item in client.list_artifacts(run_id, "images")]
    assert {name.split("+step+0+")[0] for name in names} == {"val~class 1~__.png"}
    with Image.open(client.download_artifacts(run_id, f"images/{next(n for n in names if n.endswith('png'))}")) as got:
        assert np.asarray(got).tolist() == np.full((4, 6, 3), 7).tolist()


@pytest.mark.parametrize("bad", [{"picture": "x"}, {"picture": "x", "png": 7}])
def test_a_picture_that_is_none_is_named(tmp_path: Path, bad: Mapping[str, Any]) -> None:
    run = {"uri": "sqlite:///x", "experiment": "e", "run_name": "r", "params": {}, "tags": {}, "start_ms": 1}
    lines = [{"kind": "run", "key": "k", **run}, {"kind": "image", "key": "k", **bad}]
    (tmp_path / "unsent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="jsonl:2 is no tracking record"):
        spill.upload(tmp_path / "unsent.jsonl")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/ajax-api/2.0/mlflow/artifacts/list", True),
        ("POST", "/ajax-api/2.0/mlflow/runs/search", True),
        ("POST", "/graphql", True),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact", False),
        ("POST", "/ajax-api/2.0/mlflow/runs/create", False),
        ("POST", "/api/2.0/mlflow/experiments/create", False),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact/", False),
        ("POST", "/ajax-api/2.0/mlflow/runs/search/../create", False),
        ("POST", "/ajax-api/2.0/mlflow/runs/search\n", False),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/search", False),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/search", False),
    ],
)
def test_only_requests_that_read_pass(method: str, path: str, allowed: bool) -> None:
    assert reads(method, path) == allowed


def test_pages_show_runs_and_refuse_to_write_files(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("starlette.testclient")
    run_id = job(store_uri, {"scores": "kept", "stage": "games"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)  # MLflow's server sets it too: so that it is put back
    for name in ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "_MLFLOW_SERVER_FILE_STORE"):
        monkeypatch.setenv(name, "")
    pages = client.TestClient(reading_only(_application(store_uri)), base_url="http://127.0.0.1:5000")
    upload = {"run_uuid": run_id, "path": "report.html"}
    refused = pages.post("/ajax-api/2.0/mlflow/upload-artifact", params=upload, content=b"<script>")
    assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")
    assert list(RunStore(store_uri).client.list_artifacts(run_id)) == []
    (experiment,) = [one for one in RunStore(store_uri).client.search_experiments() if one.name == "squares"]
    found = pages.post("/ajax-api/2.0/mlflow/runs/search", json={"experiment_ids": [experiment.experiment_id]})
    assert run_id in [run["info"]["run_id"] for run in found.json()["runs"]]
    assert pages.get("/health").text == "OK"


def test_pages_of_no_store_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command = [sys.executable, "-m", "cluster", "ui"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "run a job first" in done.stderr
