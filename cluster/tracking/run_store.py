"""Write MLflow runs, each call bounded in time.

What MLflow itself would do wrongly for a long job: seven retries with growing waits (four minutes a call
while a server is down), and an error where two processes create the same experiment at once. Buffering, and what
becomes of that which cannot be sent, are in `tracking`.
"""

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


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Describe one MLflow run: where it belongs and what it is made of."""

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
        self._client: MlflowClient | None = None

    @property
    def client(self) -> "MlflowClient":
        """Return the client, made with bounded waits and a quiet log."""
        if self._client is None:
            self._client = _make_client(self.uri)
        return self._client

    def open(self, spec: RunSpec) -> str:
        """Create the run, or go on with `spec.run_id` where that exists, and return its id."""
        known = None if spec.run_id is None else self.known(spec.run_id)
        if known is not None:
            self.client.update_run(known, status="RUNNING")
            return known
        cut_off = self.find(spec) if spec.anew else None
        if cut_off is not None:
            self.client.delete_run(cut_off)  # into MLflow's trash
        tags = spec.tags | {KEY_TAG: spec.key}
        experiment = self._experiment_id(spec.experiment)
        run = self.client.create_run(experiment, start_time=spec.start_ms, tags=tags, run_name=spec.run_name)
        self._log_params(run.info.run_id, spec.params)
        return run.info.run_id

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

    def end(self, run_id: str, status: str, time_ms: int) -> None:
        """Mark the run as ended."""
        self.client.set_terminated(run_id, status, time_ms)

    def find(self, spec: RunSpec) -> str | None:
        """Return the id of the run that carries `spec.key`, if its creation reached the store."""
        experiment = self.client.get_experiment_by_name(spec.experiment)
        if experiment is None:
            return None
        found = self.client.search_runs([experiment.experiment_id], f"tags.{KEY_TAG} = '{spec.key}'")
        return found[0].info.run_id if found else None

    def known(self, run_id: str) -> str | None:
        """Return the id of a run that is in the store, else None."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id).info.run_id
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        try:
            return self.client.create_experiment(name, artifact_location=_artifact_location(self.uri, name))
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
