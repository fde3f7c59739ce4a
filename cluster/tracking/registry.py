"""Models in MLflow's stores and registry: put there, or fetched as files, looked at, and run only on demand."""

import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.private_folder import private_folder
from cluster.tracking.checksums import checksums, digest
from cluster.tracking.run_store import BOUNDS, RunSpec, RunStore
from cluster.tracking.tracker import tracking_uri

SHA256_TAG = "sha256"  # of a model's files, on its version in the registry
PROCESS_TAG = "registered_by"  # host, number and start of the process
QUIET = {**BOUNDS, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


@dataclass(frozen=True, kw_only=True)
class FetchedModel:
    """A model's files on this machine; nothing of it has run."""

    folder: Path
    """Where they lie."""
    flavours: Mapping[str, Mapping[str, Any]]
    """What its `MLmodel` says of each of its flavours."""
    inputs: list[tuple[str | None, str, tuple[int, ...]]]
    """Name, number format as numpy has it, and shape (-1: any) of each input tensor; empty where it does not say."""

    def inside(self, *parts: Any) -> Path | None:
        """Return the file that these parts of a path name in the folder; None where that is none, or elsewhere."""
        path = self.folder.joinpath(*map(str, parts)).resolve()
        return path if path.is_file() and path.is_relative_to(self.folder.resolve()) else None


def fetch_model(uri: str, folder: Path) -> FetchedModel:
    """Copy a model's files into a folder and read what they say about it.

    Args:
        uri: as MLflow has it: `models:/NAME/1`, `models:/NAME@ALIAS`, `runs:/ID/NAME`, or a path.
        folder: an empty folder on this machine.

    Raises:
        ValueError: there is no such model, or it cannot be fetched.
    """
    for setting, value in QUIET.items():
        os.environ.setdefault(setting, value)
    import mlflow
    import yaml
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    try:
        found = Path(download_artifacts(uri, dst_path=str(folder), tracking_uri=tracking_uri()))
        model = Model.load(str(found))
    except (mlflow.MlflowException, yaml.YAMLError, OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"MLflow has no model {uri!r} that can be read: {error}. Give models:/NAME/VERSION, models:/NAME@ALIAS, "
            "runs:/ID/NAME or a folder, and say in MLFLOW_TRACKING_URI where it is"
        ) from error
    schema = None if model.signature is None else model.get_input_schema()
    tensors = schema.inputs if schema is not None and schema.is_tensor_spec() else []
    inputs = [(tensor.name, str(tensor.type), tuple(tensor.shape)) for tensor in tensors]
    return FetchedModel(folder=found, flavours=model.flavors, inputs=inputs)


def load_function(model: FetchedModel) -> Callable[[Any], Any]:
    """Load a model as MLflow's pyfunc does and return its `predict`: this runs and unpickles what came with it.

    Raises:
        ValueError: it cannot be loaded.
    """
    import mlflow

    try:
        loaded = mlflow.pyfunc.load_model(str(model.folder))
    except (mlflow.MlflowException, ImportError, AttributeError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"MLflow cannot load the model: {error}; install what its requirements.txt names") from error

    def predict(given: Any) -> Any:
        try:
            return loaded.predict(given)
        except mlflow.MlflowException as error:
            raise ValueError(str(error)) from error

    return predict


def register_model(name: str, *, run_id: str | None = None, **content: Any) -> str:
    """Log a Python model to a run and register it, in the store that `tracking_uri` names.

    A process that is killed leaves no run that seems to be at work, and the next call deletes the files that it sent.

    Args:
        name: the model's name in the registry; one that is there gets another version.
        run_id: the run that it belongs to; one of its own, in the experiment `models`, where that is not in the store.
        content: as `mlflow.pyfunc.log_model` takes it.

    Returns:
        `models:/NAME/VERSION`.

    Raises:
        ValueError: the store cannot be reached or refuses; the message says why.
    """
    for setting, value in QUIET.items():
        os.environ.setdefault(setting, value)
    store = RunStore(tracking_uri())
    import mlflow
    from mlflow.models import Model

    try:
        with _run_of(store, name, run_id) as own_id:
            mlflow.set_tracking_uri(store.uri)
            experiment = store.client.get_run(own_id).info.experiment_id
            mlflow.set_experiment(experiment_id=experiment)
            _delete_unfinished(store, experiment)
            content |= {"run_id": own_id, "registered_model_name": name, "tags": {PROCESS_TAG: _this_process()}}
            logged = Model.log(None, mlflow.pyfunc, name="model", **content)
        version = str(logged.registered_model_version)
        files = checksums(_protected(logged.model_uri))
        store.client.set_model_version_tag(name, version, SHA256_TAG, digest(files))
    except mlflow.MlflowException as error:
        raise ValueError(f"MLflow cannot register {name!r}: {error}; MLFLOW_TRACKING_URI says where it is") from error
    return f"models:/{name}/{version}"


def verify_model(uri: str) -> str:
    """Compare a registered model's files with those that were registered, without running any of them.

    Args:
        uri: `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Returns:
        The SHA-256 of the names and contents of its files.

    Raises:
        ValueError: they differ, or the registry does not say what was registered.
    """
    parts = re.fullmatch(r"models:/([^/@]+)([/@])([^/@]+)", uri)
    if parts is None:
        raise ValueError(f"{uri!r} is no model of a registry; give models:/NAME/VERSION or models:/NAME@ALIAS")
    with private_folder() as folder:
        files = checksums(fetch_model(uri, folder).folder)
    name, mark, version = parts.groups()
    client = RunStore(tracking_uri()).client
    known = client.get_model_version_by_alias(name, version) if mark == "@" else client.get_model_version(name, version)
    registered = known.tags.get(SHA256_TAG)
    if registered is None:
        raise ValueError(f"the registry has no {SHA256_TAG} of {uri}; `python -m explain register` leaves one")
    if digest(files) != registered:
        raise ValueError(
            f"the files of {uri} are not those that were registered (sha256 {digest(files)}, registered {registered}); "
            "do not load it, register it again"
        )
    return registered


@contextmanager
def _run_of(store: RunStore, name: str, run_id: str | None) -> Iterator[str]:
    """Give the run `run_id` as it is, or one of the model's own, which counts as killed until the block is done."""
    if run_id is not None and (known := store.known(run_id)):
        yield known
        return
    spec = RunSpec(
        uri=store.uri,
        experiment="models",
        run_name=f"register {name}",
        params={},
        tags={"stage": "register"},
        key=uuid.uuid4().hex,
        start_ms=_now_ms(),
    )
    own = store.open(spec)
    store.end(own, "KILLED", _now_ms())
    yield own
    store.end(own, "FINISHED", _now_ms())


def _delete_unfinished(store: RunStore, experiment: str) -> None:
    """Delete models whose files were not all sent when their process, on this machine, was killed."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    for model in store.client.search_logged_models([experiment]):
        host, _, process = model.tags.get(PROCESS_TAG, "").rpartition(" ")
        if str(model.status) == "PENDING" and host == socket.gethostname() and not _lives(process):
            get_artifact_repository(model.artifact_location).delete_artifacts()
            store.client.delete_logged_model(model.model_id)


def _this_process() -> str:
    own = psutil.Process()
    return f"{socket.gethostname()} {own.pid}:{own.create_time()}"


def _lives(process: str) -> bool:
    """Tell whether a process of this machine is still there, and its number is not another one's."""
    pid, _, created = process.partition(":")
    try:
        return str(psutil.Process(int(pid)).create_time()) == created
    except psutil.NoSuchProcess:
        return False


def _protected(uri: str) -> Path:
    """Return a logged model's files, which on this machine's disk nobody can write over from here on."""
    from mlflow.artifacts import download_artifacts

    folder = Path(download_artifacts(uri, tracking_uri=tracking_uri()))
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    return folder


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
