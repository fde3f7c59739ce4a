"""Write MLflow runs, each call bounded in time.

What MLflow itself would do wrongly for a long job: seven retries with growing waits (four minutes a call
while a server is down), and an error where two processes create the same experiment at once. Buffering, and what
becomes of that which cannot be sent, are in `tracking`.
"""

import base64
import io
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.storage import split_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# The user's own setting of any of these wins.
BOUNDS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
QUIET_LOGGERS = {
    "mlflow": logging.WARNING,
    "alembic": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
}
SQLITE = "sqlite:///"
LOCK_WAIT_S = 300  # for another process that makes the SQLite store
KEY_TAG = "tracker_key"  # finds a run again whose creation was not confirmed
MAX_BATCH = 1000  # metrics in one call, MLflow's own limit
MAX_BATCH_PARAMS = 100
MAX_PARAM_CHARS, MAX_TAG_CHARS, MAX_KEY_CHARS = 6000, 8000, 250
MAX_DIGEST_CHARS = 36
RESULT_TAG = "result_key"  # names what several jobs find out about: their numbers stand in one run
SLOTS = ("scores", "measures")  # tags of these jobs' folders; a run has one of each, and the first one's stage
KIND = {"mlflow.experimentKind": "custom_model_development"}  # else MLflow takes it for one of language models
PAGES = "http://127.0.0.1:5000"  # where `python -m cluster ui` shows a store that has no server


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Describe one MLflow run: its experiment, tags, parameters and metrics."""

    uri: str
    """Tracking URI of the store."""
    experiment: str
    """Name of the experiment; created where it is missing."""
    run_name: str
    """Name of the run."""
    params: dict[str, str]
    """Parameters, cut to MLflow's limits."""
    tags: dict[str, str]
    """Tags, cut to MLflow's limits."""
    key: str
    """Unique name of this run, known before the store has given it an id."""
    start_ms: int
    """Start, in milliseconds since 1970."""
    run_id: str | None = None
    """An existing run to go on with."""
    anew: bool = False
    """Whether a run that carries the key already was cut off, and this one takes its place."""


class RunStore:
    """Write runs to one tracking store; every method may raise what MLflow's client raises."""

    def __init__(self, uri: str) -> None:
        """Name the store; it is opened by the first call."""
        self.uri = uri
        self.experiment_id = ""  # of the run that `open` opened
        self._client: MlflowClient | None = None

    @property
    def client(self) -> "MlflowClient":
        """Return the client, made with bounded waits and a quiet log."""
        if self._client is None:
            self._client = _make_client(self.uri)
        return self._client

    def open(self, spec: RunSpec) -> str:
        """Create the run, or go on with `spec.run_id` or with the run of the same result, and return its id."""
        known = None if spec.run_id is None else self._run(spec.run_id)
        known = known or self._same_result(spec)
        if known is not None:
            return self._go_on(known, spec)
        cut_off = self.find(spec) if spec.anew else None
        if cut_off is not None:
            self.client.delete_run(cut_off)  # into MLflow's trash
        tags = spec.tags | {KEY_TAG: spec.key}
        self.experiment_id = self._experiment_id(spec.experiment)
        run = self.client.create_run(self.experiment_id, start_time=spec.start_ms, tags=tags, run_name=spec.run_name)
        self._log_params(run.info.run_id, spec.params)
        return run.info.run_id

    def _same_result(self, spec: RunSpec) -> "Run | None":
        """Find the first run in which another job has the same result, and none of this kind another folder."""
        own = {slot: spec.tags[slot] for slot in SLOTS if slot in spec.tags}
        for run in reversed(self._search(spec.experiment, RESULT_TAG, spec.tags.get(RESULT_TAG))):
            held = {slot: run.data.tags[slot] for slot in SLOTS if slot in run.data.tags}
            if held.keys() - own.keys() and held | own == own | held:
                return run
        return None

    def _go_on(self, run: "Run", spec: RunSpec) -> str:
        """Add parameters that the run does not have, and tags; its stage stays where it holds the first slot's."""
        run_id, tags = run.info.run_id, dict(spec.tags)
        self.experiment_id = run.info.experiment_id
        self.client.update_run(run_id, status="RUNNING")
        if SLOTS[0] in run.data.tags:
            tags.pop("stage", None)
        for name, value in tags.items():
            self.client.set_tag(run_id, name, value)
        self._log_params(run_id, {name: spec.params[name] for name in spec.params.keys() - run.data.params.keys()})
        return run_id

    def log(self, run_id: str, metrics: Sequence[Sequence[Any]]) -> None:
        """Send (name, value, step, time in ms) metrics, a thousand a call."""
        from mlflow.entities import Metric

        for start in range(0, len(metrics), MAX_BATCH):
            batch = [
                Metric(name, value, time_ms, step) for name, value, step, time_ms in metrics[start : start + MAX_BATCH]
            ]
            self.client.log_batch(run_id, metrics=batch)

    def artifact(self, run_id: str, place: str, folder: str) -> None:
        """Send the file at a path or URI, or a folder of this machine with all that is in it."""
        where, name = split_file(place)
        with where.on_this_machine([name]) as here:
            path = here / name
            send = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
            send(run_id, str(path), folder or None)

    def inputs(self, run_id: str, inputs: Sequence[Mapping[str, str]]) -> None:
        """Note what the run is made from: name, digest, source and context of each."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        noted = [
            DatasetInput(
                Dataset(one["name"], one["digest"][:MAX_DIGEST_CHARS], "local", json.dumps({"uri": one["source"]})),
                tags=[InputTag("mlflow.data.context", one["context"])],
            )
            for one in inputs
        ]
        self.client.log_inputs(run_id, datasets=noted)

    def table(self, run_id: str, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table as `mlflow.log_table` does, which would add its rows to an earlier one's."""
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

        file = f"{legal_name(name)}.json"
        self.client.log_text(run_id, json.dumps({"columns": columns, "data": rows}), file)
        tables = json.loads(self.client.get_run(run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        own = {"path": file, "type": "table"}
        if own not in tables:
            self.client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*tables, own]))

    def image(self, run_id: str, key: str, png: str) -> None:
        """Send a PNG, in base64, for MLflow's grid of images: one row a key, one column a run."""
        from PIL import Image

        with Image.open(io.BytesIO(base64.b64decode(png)), formats=["PNG"]) as picture:
            self.client.log_image(run_id, picture.convert("RGB"), key=re.sub(r"[^\w\-. /]", "_", key, flags=re.ASCII))

    def end(self, run_id: str, status: str, time_ms: int) -> None:
        """Mark the run as ended."""
        self.client.set_terminated(run_id, status, time_ms)

    def find(self, spec: RunSpec) -> str | None:
        """Return the id of the run that carries `spec.key`, if its creation reached the store."""
        found = self._search(spec.experiment, KEY_TAG, spec.key)
        return found[0].info.run_id if found else None

    def _search(self, experiment_name: str, tag: str, value: str | None) -> "list[Run]":
        """List the runs of an experiment whose tag has this value, newest first."""
        experiment = None if value is None else self.client.get_experiment_by_name(experiment_name)
        if experiment is None:
            return []
        return list(self.client.search_runs([experiment.experiment_id], f"tags.{tag} = '{value}'"))

    def known(self, run_id: str) -> str | None:
        """Return the id of a run that is in the store, else None."""
        run = self._run(run_id)
        return None if run is None else run.info.run_id

    def _run(self, run_id: str) -> "Run | None":
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            for tag in KIND.items() - experiment.tags.items():
                self.client.set_experiment_tag(experiment.experiment_id, *tag)
            return experiment.experiment_id
        try:
            return self.client.create_experiment(name, _artifact_location(self.uri, name), tags=KIND)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Another process was quicker.
        experiment = self.client.get_experiment_by_name(name)
        assert experiment is not None
        return experiment.experiment_id

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entities = [Param(name, value) for name, value in params.items()]
        for start in range(0, len(entities), MAX_BATCH_PARAMS):
            self.client.log_batch(run_id, params=entities[start : start + MAX_BATCH_PARAMS])


def legal_name(name: str) -> str:
    """Replace what MLflow refuses in the name of a metric, parameter or tag."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:MAX_KEY_CHARS]


def runs_page(uri: str, experiment_id: str) -> str:
    """Return the address of an experiment's runs and charts; its plain address opens a page for language models."""
    server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else PAGES
    return f"{server}/#/experiments/{experiment_id}/runs?compareRunsMode=CHART"


def absolute_uri(uri: str) -> str:
    """Make the path of an SQLite URI absolute, so that a process in another folder finds the same store."""
    if not uri.startswith(SQLITE):
        return uri
    return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}"


def _make_client(uri: str) -> "MlflowClient":
    for name, value in BOUNDS.items():
        os.environ.setdefault(name, value)
    from filelock import FileLock
    from mlflow import MlflowClient

    # After the import, which sets levels of its own.
    for name, level in QUIET_LOGGERS.items():
        logging.getLogger(name).setLevel(level)
    if not uri.startswith(SQLITE):
        return MlflowClient(tracking_uri=uri)
    path = Path(uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    # MLflow's own lock lets two processes migrate a new file at once, which leaves it broken for good.
    with FileLock(f"{path}.lock", timeout=LOCK_WAIT_S):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _artifact_location(uri: str, experiment: str) -> str | None:
    if not uri.startswith(SQLITE):
        return None
    folder = Path(uri.removeprefix(SQLITE)).absolute().parent / "mlartifacts"
    return (folder / re.sub(r"^\.+|[^\w\-. ]", "_", experiment)).as_uri()
