"""Tracking: a real SQLite store, a server that refuses, a server that says nothing, and a race."""

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from cluster.tracking import run_store as runs
from cluster.tracking import tracker as tracking
from cluster.tracking import unsent as spill
from cluster.tracking.run_store import RunSpec, RunStore, _artifact_location
from cluster.tracking.tracker import Tracker, tracking_uri

# MLflow's store uses a loader strategy that SQLAlchemy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

START_RACERS = """
import sys
from cluster.tracking.tracker import Tracker
with Tracker("raced", sys.argv[2], params={}, uri=sys.argv[1]) as tracker:
    print(tracker.run_id)
"""


@pytest.fixture(scope="module", autouse=True)
def imported_mlflow() -> None:
    """Import MLflow before any clock runs: on a busy machine that alone takes a minute."""
    _ = RunStore("http://127.0.0.1:9").client


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make one SQLite store for the module: a new one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def refusing_uri() -> str:
    """Find a port that nothing listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def silent_uri() -> Iterator[str]:
    """Listen, and never answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def history(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    """Read a metric back as (step, value), in the order of its steps."""
    return sorted((metric.step, metric.value) for metric in RunStore(uri).client.get_metric_history(run_id, name))


def test_a_run_reads_back(store_uri: str, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>")
    with Tracker(
        "imagenette", "matt", params={"seed": 3, "bad(name)": None}, tags={"stage": "explain"}, uri=store_uri
    ) as tracker:
        tracker.log({"loss": 2.0, "sim@1": 0.5}, step=0)
        tracker.log({"loss": 1.0}, step=1)
        tracker.curve("insertion", [0.0, 0.25, 1.0])
        tracker.artifact(report, "reports")
    assert tracker.run_id is not None
    run = RunStore(store_uri).client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "matt"
    assert run.data.params == {"seed": "3", "bad_name_": "None"}
    assert run.data.tags["stage"] == "explain"
    assert run.data.metrics["sim_1"] == 0.5
    assert history(store_uri, tracker.run_id, "loss") == [(0, 2.0), (1, 1.0)]
    assert history(store_uri, tracker.run_id, "insertion") == [(0, 0.0), (1, 0.25), (2, 1.0)]
    stored = list(Path(store_uri.removeprefix("sqlite:///")).parent.glob("mlartifacts/**/report.html"))
    assert len(stored) == 1
    assert stored[0].parent.name == "reports"


def test_more_metrics_than_one_call_takes_all_arrive(store_uri: str) -> None:
    with Tracker("imagenette", "long", params={}, uri=store_uri) as tracker:
        for step in range(2500):
            tracker.log({"loss": step / 2}, step=step)
    assert tracker.run_id is not None
    assert history(store_uri, tracker.run_id, "loss") == [(step, step / 2) for step in range(2500)]


def test_metrics_arrive_while_the_work_goes_on(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "FLUSH_INTERVAL_S", 0.05)
    with Tracker("imagenette", "slow", params={}, uri=store_uri) as tracker:
        tracker.log({"loss": 1.0})
        assert tracker.run_id is not None
        deadline_s = time.monotonic() + 30
        while not history(store_uri, tracker.run_id, "loss") and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert history(store_uri, tracker.run_id, "loss") == [(0, 1.0)]


def test_long_params_are_cut(store_uri: str) -> None:
    with Tracker("imagenette", "wordy", params={"recipe": "x" * 10_000}, uri=store_uri) as tracker:
        pass
    assert tracker.run_id is not None
    assert RunStore(store_uri).client.get_run(tracker.run_id).data.params["recipe"] == "x" * 6000


def test_an_error_ends_the_run_as_failed_and_passes_on(store_uri: str) -> None:
    tracker = Tracker("imagenette", "broken", params={}, uri=store_uri)
    with pytest.raises(ZeroDivisionError), tracker:
        raise ZeroDivisionError
    assert tracker.run_id is not None
    assert RunStore(store_uri).client.get_run(tracker.run_id).info.status == "FAILED"


def test_a_run_is_continued(store_uri: str) -> None:
    with Tracker("imagenette", "resumed", params={"epochs": 2}, uri=store_uri) as first:
        first.log({"loss": 2.0}, step=0)
    with Tracker("imagenette", "resumed", params={"epochs": 3}, uri=store_uri, run_id=first.run_id) as second:
        second.log({"loss": 1.0}, step=1)
    assert first.run_id is not None
    assert second.run_id == first.run_id
    assert history(store_uri, first.run_id, "loss") == [(0, 2.0), (1, 1.0)]
    assert RunStore(store_uri).client.get_run(first.run_id).info.status == "FINISHED"


def test_a_run_that_is_gone_is_made_anew(store_uri: str) -> None:
    with Tracker("imagenette", "anew", params={}, uri=store_uri, run_id="0" * 32) as tracker:
        pass
    assert tracker.run_id not in (None, "0" * 32)


def test_a_run_that_was_cut_off_is_replaced_by_the_next_of_its_key(store_uri: str) -> None:
    kept = {"params": {}, "uri": store_uri, "key": "the games of one folder"}
    cut_off = Tracker("imagenette", "cut off", **kept)
    cut_off.log({"deletion_auc": 0.5})
    cut_off._flush()
    with Tracker("imagenette", "another", params={}, uri=store_uri) as another:
        pass
    with Tracker("imagenette", "whole", **kept) as whole:
        whole.log({"deletion_auc": 0.25})
    client = RunStore(store_uri).client
    stages = {tracker.run_id: client.get_run(str(tracker.run_id)).info.lifecycle_stage for tracker in (cut_off, whole)}
    assert stages == {cut_off.run_id: "deleted", whole.run_id: "active"}
    assert client.get_run(str(another.run_id)).info.lifecycle_stage == "active"
    assert history(store_uri, str(whole.run_id), "deletion_auc") == [(0, 0.25)]
    cut_off.close("KILLED")


def test_a_refusing_server_costs_little_and_upload_delivers(
    refusing_uri: str, store_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unsent, note = tmp_path / "unsent.jsonl", tmp_path / "note.txt"
    note.write_text("kept")
    started_s = time.monotonic()
    with (
        caplog.at_level(logging.WARNING, logger="cluster"),
        Tracker("away", "matt", params={"seed": 1}, uri=refusing_uri, spill=unsent) as tracker,
    ):
        for step in range(1500):
            tracker.log({"loss": step / 4}, step=step)
        tracker.curve("deletion", [1.0, 0.5])
        tracker.artifact(note)
    assert time.monotonic() - started_s < 60  # MLflow alone: four minutes a call
    assert tracker.run_id is None
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("cluster")]
    assert len(ours) == 1
    assert f"python -m cluster upload {unsent}" in ours[0]

    command = [sys.executable, "-m", "cluster", "upload", str(unsent), "--uri", store_uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run_id,) = done.stdout.split()[-1:]
    run = RunStore(store_uri).client.get_run(run_id)
    assert (run.info.status, run.info.run_name, run.data.params) == ("FINISHED", "matt", {"seed": "1"})
    assert history(store_uri, run_id, "loss") == [(step, step / 4) for step in range(1500)]
    assert history(store_uri, run_id, "deletion") == [(0, 1.0), (1, 0.5)]
    assert [item.path for item in RunStore(store_uri).client.list_artifacts(run_id)] == ["note.txt"]
    assert not unsent.exists()

    again = tmp_path / "unsent.jsonl.sent"
    assert spill.upload(again, uri=store_uri) == [run_id]
    assert len(history(store_uri, run_id, "loss")) == 1500


def test_a_silent_server_does_not_hold_the_work(
    silent_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(tracking, "SERVER_WAIT_S", 0.5)
    started_s = time.monotonic()
    tracker = Tracker("away", "matt", params={}, uri=silent_uri, spill=tmp_path / "unsent.jsonl")
    tracker.log({"loss": 1.0})
    assert time.monotonic() - started_s < 15
    tracker.close()
    assert time.monotonic() - started_s < 60
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "unsent.jsonl").read_text().splitlines()]
    assert kinds == ["run", "metrics", "end"]


def test_a_store_that_fails_midway_gets_the_rest_by_upload(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent = tmp_path / "unsent.jsonl"

    def refuse(self: RunStore, run_id: str, metrics: object) -> None:
        raise ConnectionError("gone")

    with Tracker("imagenette", "midway", params={}, uri=store_uri, spill=unsent) as tracker:
        tracker.curve("insertion", [0.0])
        tracker._sender.submit(int).result()  # the first curve has arrived
        monkeypatch.setattr(RunStore, "log", refuse)
        tracker.curve("deletion", [1.0])
    monkeypatch.undo()
    assert tracker.run_id is not None
    assert history(store_uri, tracker.run_id, "deletion") == []
    assert spill.upload(unsent) == [tracker.run_id]
    assert history(store_uri, tracker.run_id, "insertion") == [(0, 0.0)]
    assert history(store_uri, tracker.run_id, "deletion") == [(0, 1.0)]
    assert RunStore(store_uri).client.get_run(tracker.run_id).info.status == "FINISHED"


def test_passwords_stay_out_of_the_spill(refusing_uri: str, tmp_path: Path) -> None:
    uri = refusing_uri.replace("://", "://me:secret@")
    with Tracker("away", "matt", params={}, uri=uri, spill=tmp_path / "unsent.jsonl"):
        pass
    assert "secret" not in (tmp_path / "unsent.jsonl").read_text()


def test_passwords_stay_out_of_params_and_tags(store_uri: str) -> None:
    place = "s3://me:secret@bucket/run and postgresql://you:secret@host/db"
    with Tracker("private", "matt", params={"data": place}, tags={"maps": place}, uri=store_uri) as tracker:
        pass
    assert tracker.run_id is not None
    run = RunStore(store_uri).client.get_run(tracker.run_id).data
    assert run.params["data"] == run.tags["maps"] == "s3://bucket/run and postgresql://host/db"
    assert "secret" not in str(run.to_dictionary())


@pytest.mark.parametrize("name", ["..", "../../elsewhere", ".hidden", "a/../..", "/etc", "...."])
def test_artifacts_stay_below_the_store_whatever_the_data_set_is_called(tmp_path: Path, name: str) -> None:
    where = unquote(urlsplit(str(_artifact_location(f"sqlite:///{tmp_path}/mlflow.db", name))).path)
    assert Path(where).resolve().parent == tmp_path / "mlartifacts"
    assert where == str(Path(where).resolve())


def test_a_lost_race_for_the_experiment_is_no_error(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    winner = RunStore(store_uri)
    expected = winner.client.create_experiment("contested")
    loser = RunStore(store_uri)
    looked = []

    def look(name: str) -> object:
        looked.append(name)
        return None if len(looked) == 1 else winner.client.get_experiment_by_name(name)

    monkeypatch.setattr(loser.client, "get_experiment_by_name", look)
    spec = RunSpec(uri=store_uri, experiment="contested", run_name="r", params={}, tags={}, key="k", start_ms=1)
    run_id = loser.open(spec)
    assert looked == ["contested", "contested"]
    assert winner.client.get_run(run_id).info.experiment_id == expected


def test_two_processes_start_a_new_store_and_experiment_together(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/deep/mlflow.db"
    commands = [[sys.executable, "-c", START_RACERS, uri, name] for name in ("one", "two")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) for command in commands]
    run_ids = [racer.communicate()[0].strip() for racer in racers]
    client = RunStore(uri).client
    experiments = {client.get_run(run_id).info.experiment_id for run_id in run_ids}
    assert len(set(run_ids)) == 2
    assert len(experiments) == 1


def test_upload_of_no_file_and_of_no_records(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cluster", "upload", str(tmp_path / "none.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    (tmp_path / "broken.jsonl").write_text('{"kind": "run"')
    with pytest.raises(ValueError, match="jsonl:1 is no tracking record"):
        spill.upload(tmp_path / "broken.jsonl")


def record(kind: str, **fields: object) -> str:
    return json.dumps({"kind": kind, "key": "k", **fields}) + "\n"


RUN = {"experiment": "e", "run_name": "r", "params": {}, "tags": {}, "start_ms": 1}


@pytest.mark.parametrize(
    "line",
    [
        record("end"),
        record("artifact", path=7, folder=""),
        record("artifact", path="x"),
        record("run", **RUN),
        record("run", **RUN, uri="x", other=1),
        record("what"),
        "[]\n",
        "7\n",
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "unsent.jsonl").write_text(record("run", **RUN, uri="sqlite:///x") + line)
    with pytest.raises(ValueError, match="jsonl:2 is no tracking record"):
        spill.upload(tmp_path / "unsent.jsonl")


def test_upload_sends_what_lies_below_its_file_or_is_named_and_keeps_the_rest(store_uri: str, tmp_path: Path) -> None:
    job, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    for path in (job / "a.txt", elsewhere / "secret.txt", elsewhere / "named.txt", tmp_path / "beside.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    (job / "link.txt").symlink_to(elsewhere / "secret.txt")
    paths = [job / "a.txt", job / "missing.txt", elsewhere / "secret.txt", tmp_path / "beside.txt", job / "link.txt"]
    others = ["s3://bucket/x", "reference://x::http://host/y", f"{job}/../elsewhere/secret.txt"]
    unsent = job / "unsent.jsonl"
    lines = [record("artifact", path=str(path), folder="") for path in (*paths, *others, elsewhere / "named.txt")]
    run = record("run", **{**RUN, "uri": store_uri, "experiment": "below"})
    unsent.write_text(run + "".join(lines) + record("metrics", metrics=[["loss", 1.0, 0, 1]]))
    with pytest.raises(ValueError, match=r"^sent 1 run\(s\), and kept in .*missing\.txt is missing"):
        spill.upload(unsent, uri=store_uri, also=[str(elsewhere / "named.txt")])
    store = RunStore(store_uri)
    (experiment,) = [one for one in store.client.search_experiments() if one.name == "below"]
    (sent,) = store.client.search_runs([experiment.experiment_id])
    assert [item.path for item in store.client.list_artifacts(sent.info.run_id)] == ["a.txt", "named.txt"]
    assert history(store_uri, sent.info.run_id, "loss") == [(0, 1.0)]
    kept = [json.loads(line).get("path") for line in unsent.read_text().splitlines()]
    assert [path for path in kept if path] == [str(path) for path in (*paths[1:], *others)]
    (job / "missing.txt").write_text("here again")
    with pytest.raises(ValueError, match="secret"):
        spill.upload(unsent, uri=store_uri)
    names = [item.path for item in store.client.list_artifacts(sent.info.run_id)]
    assert names == ["a.txt", "missing.txt", "named.txt"]


def test_upload_to_a_server_that_is_still_away_keeps_the_file(
    refusing_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent = tmp_path / "unsent.jsonl"
    with Tracker("away", "matt", params={}, uri=refusing_uri, spill=unsent):
        pass
    with pytest.raises(ConnectionError, match="try again later"):
        spill.upload(unsent, uri=refusing_uri)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match=rf"meant for {refusing_uri}; name the store to send them to with --uri"):
        spill.upload(unsent)  # a file of somebody else may name any server, which would get the user's token
    assert unsent.exists()


def test_the_store_is_named_by_the_environment_else_beside_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert tracking_uri() == f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri() == "http://server:5000"


def test_legal_names_keep_what_mlflow_allows() -> None:
    assert runs.legal_name("val/sim 1.a-b_c:d") == "val/sim 1.a-b_c:d"
    assert runs.legal_name("a(b)%") == "a_b__"
    assert len(runs.legal_name("x" * 400)) == 250
