"""Keep tracking records that could not be sent, as JSON lines, and send them later."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.tracking.run_store import RunSpec, RunStore, absolute_uri

SENT_SUFFIX = ".sent"


@dataclass(frozen=True)
class _Unsent:
    spec: RunSpec
    records: list[dict[str, Any]] = field(default_factory=list)


def append(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Append records to the spill file, a line each; it is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))


def run_record(spec: RunSpec) -> dict[str, Any]:
    """Make the record that describes a run; it stands before the run's other records."""
    return {"kind": "run", **asdict(spec)}


def deliver(store: RunStore, run_id: str, records: Sequence[dict[str, Any]]) -> None:
    """Send records of one run: kinds `metrics`, `artifact` and `end`."""
    for record in records:
        if record["kind"] == "metrics":
            store.log(run_id, record["metrics"])
        elif record["kind"] == "artifact":
            store.artifact(run_id, record["path"], record["folder"])
        else:
            store.end(run_id, record["status"], record["time_ms"])


def upload(path: Path, *, uri: str | None = None) -> list[str]:
    """Send a spill file and rename it to `<name>.sent`; what was sent before is not doubled.

    Args:
        path: The spill file; no job may still be writing it.
        uri: The tracking store; else MLFLOW_TRACKING_URI, else where each run was meant to go.

    Returns:
        The ids of the runs.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no record.
        ConnectionError: The store cannot be reached or refuses; the file stays for another try.
    """
    from mlflow.exceptions import MlflowException

    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    unsent = _read(path)
    try:
        run_ids = [_send(run, uri) for run in unsent]
    except MlflowException as error:
        raise ConnectionError(f"could not send {path}: {error}; the file stays, try again later") from error
    path.rename(_free_name(path))
    return run_ids


def _send(unsent: _Unsent, uri: str | None) -> str:
    spec = unsent.spec
    store = RunStore(absolute_uri(uri or spec.uri))
    run_id = store.find(spec) or store.open(spec)
    deliver(store, run_id, unsent.records)
    return run_id


def _read(path: Path) -> list[_Unsent]:
    runs: dict[str, _Unsent] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            record = json.loads(line)
            kind, key = record.pop("kind") if record["kind"] == "run" else record["kind"], record["key"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number} is no tracking record; remove that line and try again") from error
        if kind == "run":
            runs.setdefault(key, _Unsent(RunSpec(**record)))
        else:
            runs[key].records.append(record)
    return list(runs.values())


def _free_name(path: Path) -> Path:
    name, number = path.with_name(path.name + SENT_SUFFIX), 1
    while name.exists():
        name, number = path.with_name(f"{path.name}{SENT_SUFFIX}.{number}"), number + 1
    return name
