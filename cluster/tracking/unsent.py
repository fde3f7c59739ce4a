"""Keep tracking records that could not be sent, as JSON lines, and send them later."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.locations import Locations, local_path
from cluster.storage import check_fields, split_file
from cluster.tracking.run_store import SQLITE, RunSpec, RunStore

SENT_SUFFIX = ".sent"
FIELDS = {
    "metrics": {"metrics": list},
    "artifact": {"path": str, "folder": str},
    "inputs": {"inputs": list},
    "table": {"name": str, "columns": list, "rows": list},
    "image": {"picture": str, "png": str},
    "end": {"status": str, "time_ms": int},
}
"""Fields of the records that follow a run's."""


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
    """Send records of one run, of the kinds in `FIELDS`."""
    for record in records:
        if record["kind"] == "metrics":
            store.log(run_id, record["metrics"])
        elif record["kind"] == "artifact":
            store.artifact(run_id, record["path"], record["folder"])
        elif record["kind"] == "inputs":
            store.inputs(run_id, record["inputs"])
        elif record["kind"] == "table":
            store.table(run_id, record["name"], record["columns"], record["rows"])
        elif record["kind"] == "image":
            store.image(run_id, record["picture"], record["png"])
        else:
            store.end(run_id, record["status"], record["time_ms"])


def upload(path: Path, *, uri: str | None = None, also: Sequence[str] = ()) -> list[str]:
    """Send a file of unsent records and rename it to `<name>.sent`; what was sent before is not doubled.

    The file may come from somebody else: only artifacts below its folder are sent, and to a server only if the user
    names it. What cannot be sent for that reason, or is missing, stays in the file; the rest is sent.

    Args:
        path: The file; no job may still be writing it.
        uri: The tracking store; else MLFLOW_TRACKING_URI, else the store on this machine that each run was meant for.
        also: Other folders and files whose artifacts are sent.

    Returns:
        The ids of the runs.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no record, an artifact was not sent, or a run was meant for a server nobody named.
        ConnectionError: The store cannot be reached or refuses; the file stays for another try.
    """
    from mlflow.exceptions import MlflowException

    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    runs, allowed = _read(path), _Artifacts(path.absolute().parent, Locations(tuple(also)))
    stores = [RunStore(uri or _local_store(run.spec.uri)) for run in runs]
    run_ids, kept = [], []
    try:
        for run, store in zip(runs, stores, strict=True):
            problems = {k: problem for k, record in enumerate(run.records) if (problem := allowed.problem(record))}
            run_ids.append(_send(run, store, [record for k, record in enumerate(run.records) if k not in problems]))
            kept += [(run.spec, run.records[k], problem) for k, problem in problems.items()]
    except MlflowException as error:
        raise ConnectionError(f"could not send {path}: {error}; the file stays, try again later") from error
    path.rename(_free_name(path))
    if kept:
        append(path, [line for spec, record, _ in kept for line in (run_record(spec), record)])
        problems = "; ".join(dict.fromkeys(problem for *_, problem in kept))
        raise ValueError(f"sent {len(run_ids)} run(s), and kept in {path} what was not sent: {problems}")
    return run_ids


@dataclass(frozen=True)
class _Artifacts:
    """Artifacts that may be sent: those below the folder of the record file, and those that the user named."""

    folder: Path
    named: Locations

    def problem(self, record: dict[str, Any]) -> str | None:
        """Say why an artifact is not sent; None where it can be, and for other records."""
        if record["kind"] != "artifact":
            return None
        path = local_path(record["path"])
        if path is None:
            return None if self.named.allows(record["path"]) else f"{record['path']} is elsewhere; name it with --also"
        inside = path.resolve().is_relative_to(self.folder.resolve())
        if not inside and not any(path.resolve().is_relative_to(Path(name).resolve()) for name in self.named.named):
            return f"{path} is not below {self.folder}; name it with --also if it is to be sent"
        return None if path.exists() else f"{path} is missing"


def _local_store(uri: str) -> str:
    """Return the SQLite store that a record names. Raises: ValueError for one that is none, or is not there."""
    if not uri.startswith(SQLITE) or not Path(uri.removeprefix(SQLITE)).is_file():
        raise ValueError(f"the records were meant for {uri}; name the store to send them to with --uri")
    return uri


def _send(unsent: _Unsent, store: RunStore, records: Sequence[dict[str, Any]]) -> str:
    run_id = store.find(unsent.spec) or store.open(unsent.spec)
    deliver(store, run_id, records)
    return run_id


def _read(path: Path) -> list[_Unsent]:
    runs: dict[str, _Unsent] = {}
    folder, name = split_file(str(path))
    for number, line in enumerate(folder.read_bytes(name).decode().splitlines(), start=1):
        try:
            record = json.loads(line)
            kind, key = record["kind"], record["key"]
            if kind == "run":
                runs.setdefault(key, _Unsent(_spec(record)))
            else:
                check_fields(record, FIELDS[kind], where="the record")
                runs[key].records.append(record)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}:{number} is no tracking record; remove that line and try again") from error
    return list(runs.values())


def _spec(record: dict[str, Any]) -> RunSpec:
    fields = {name: value for name, value in record.items() if name != "kind"}
    texts = dict.fromkeys(("uri", "experiment", "run_name", "key"), str)
    check_fields(fields, {**texts, "params": dict, "tags": dict, "start_ms": int}, where="the record")
    return RunSpec(**fields)


def _free_name(path: Path) -> Path:
    name, number = path.with_name(path.name + SENT_SUFFIX), 1
    while name.exists():
        name, number = path.with_name(f"{path.name}{SENT_SUFFIX}.{number}"), number + 1
    return name
