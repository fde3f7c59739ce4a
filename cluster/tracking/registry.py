"""Models in MLflow's stores and registry: put there, or fetched as files, looked at, and run only on demand."""

import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.tracking.run_store import BOUNDS, RunSpec, RunStore
from cluster.tracking.tracker import tracking_uri

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
    key, now_ms = uuid.uuid4().hex, time.time_ns() // 1_000_000
    own = {"run_name": f"register {name}", "params": {}, "tags": {"stage": "register"}}
    spec = RunSpec(uri=store.uri, experiment="models", key=key, start_ms=now_ms, run_id=run_id, **own)
    import mlflow

    try:
        run_id = store.open(spec)
        mlflow.set_tracking_uri(store.uri)
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(name="model", registered_model_name=name, **content)
    except mlflow.MlflowException as error:
        raise ValueError(f"MLflow cannot register {name!r}: {error}; MLFLOW_TRACKING_URI says where it is") from error
    return f"models:/{name}/{logged.registered_model_version}"
