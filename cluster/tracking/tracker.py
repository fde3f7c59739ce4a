"""Log a run to MLflow without ever stopping the work.

All talk with the store happens on one thread of its own, in batches. What cannot be sent is appended to a
spill file as JSON lines, and `python -m cluster upload FILE` sends it later.
"""

import base64
import logging
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.storage import Folder
from cluster.tracking import unsent as spill_file
from cluster.tracking.run_store import (
    MAX_BATCH,
    MAX_PARAM_CHARS,
    MAX_TAG_CHARS,
    SQLITE,
    RunSpec,
    RunStore,
    absolute_uri,
    legal_name,
    runs_page,
)

FLUSH_INTERVAL_S = 5.0
SERVER_WAIT_S = 20.0  # then the work starts without a run id
SQLITE_WAIT_S = 300.0  # a new store takes 10 s, and minutes on a machine whose disk is busy; it does come
RETRY_AFTER_S = 60.0  # after a failure everything is spilled for so long
SPILL_NAME = "mlflow-unsent.jsonl"
TRACKING = "tracking.json"  # in a student's folder: the MLflow run that a resumed job goes on with

log = logging.getLogger(__name__)


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else `mlflow.db` in the working folder; SQLite paths become absolute."""
    return absolute_uri(os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db")


class Tracker:
    """Log parameters, metrics and artifacts of one MLflow run; use it with `with`."""

    def __init__(
        self,
        experiment: str,
        run_name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, Any] | None = None,
        uri: str | None = None,
        spill: Path | None = None,
        run_id: str | None = None,
        key: str | None = None,
    ) -> None:
        """Open the run; waits at most `SERVER_WAIT_S` for a server.

        Args:
            experiment: The experiment's name; created where it is missing.
            run_name: The run's name.
            params: Any values; their text is cut to MLflow's limit.
            tags: Any values; their text is cut to MLflow's limit.
            uri: The store; `tracking_uri()` by default.
            spill: File for what cannot be sent; `mlflow-unsent.jsonl` in the working folder by default.
            run_id: A run to go on with; its parameters stay. A new one is made where it is gone.
            key: A name that no other run has, kept by the caller: what an earlier start left under it is replaced.
        """
        self._spec = RunSpec(
            uri=absolute_uri(uri) if uri else tracking_uri(),
            experiment=experiment,
            run_name=run_name,
            params=_texts(params, MAX_PARAM_CHARS),
            tags=_texts(tags or {}, MAX_TAG_CHARS),
            key=key or uuid.uuid4().hex,
            anew=key is not None,
            start_ms=_now_ms(),
            run_id=run_id,
        )
        self._spill = (spill or Path(SPILL_NAME)).absolute()
        self._store = RunStore(self._spec.uri)
        self._lock = threading.Lock()
        self._metrics: list[tuple[str, float, int, int]] = []
        self._failed: BaseException | None = None
        self._failed_s = 0.0
        self._spilled = False
        self._closed = threading.Event()
        # One thread keeps the order, and a future holds whatever a store's client raises.
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="tracker")
        self._opening = self._sender.submit(self._store.open, self._spec)
        self._opening.add_done_callback(self._opened)
        local = self._spec.uri.startswith(SQLITE)
        wait([self._opening], timeout=SQLITE_WAIT_S if local else SERVER_WAIT_S)
        threading.Thread(target=self._flush_regularly, name="tracker-clock", daemon=True).start()

    def __enter__(self) -> Self:
        """Return the tracker; the run is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as finished, as failed after an error, or as killed after an interrupt."""
        if kind is None:
            self.close()
        else:
            self.close("FAILED" if issubclass(kind, Exception) else "KILLED")

    @property
    def run_id(self) -> str | None:
        """Return the run's id, or None while the store has not given one."""
        done = self._opening.done() and self._opening.exception() is None
        return self._opening.result() if done else None

    @property
    def page(self) -> str | None:
        """Return the address of the runs of this experiment, or None while the store has not given the run an id."""
        return self.run_id and _without_password(runs_page(self._spec.uri, self._store.experiment_id))

    def log(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at `step`; returns at once, they are sent every few seconds."""
        now = _now_ms()
        rows = [(legal_name(name), float(value), step, now) for name, value in metrics.items()]
        with self._lock:
            self._metrics += rows
            full = len(self._metrics) >= MAX_BATCH
        if full:
            self._flush()

    def curve(self, name: str, values: Sequence[float]) -> None:
        """Log a curve as one metric with the steps 0 ... n - 1.

        The points lie a second apart: MLflow's page first draws over time, where one moment would be an upright line.
        """
        first = _now_ms() - 1000 * (len(values) - 1)
        rows = [(legal_name(name), float(value), step, first + 1000 * step) for step, value in enumerate(values)]
        with self._lock:
            self._metrics += rows
        self._flush()

    def artifact(self, place: str | Path, folder: str = "") -> None:
        """Log the file at a path or URI, or a local folder with its files; it must stay in place until `close`."""
        self._submit({"kind": "artifact", "path": Folder(str(place)).uri, "folder": folder})

    def inputs(self, inputs: Sequence[Mapping[str, str]]) -> None:
        """Log what the run is made from: `name`, `digest`, `source` and `context` of each."""
        noted = [{name: _without_password(text) for name, text in one.items()} for one in inputs]
        self._submit({"kind": "inputs", "inputs": noted})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table of numbers and texts as the artifact `NAME.json`; what is not a number becomes empty."""
        finite = [[None if isinstance(x, float) and not math.isfinite(x) else x for x in row] for row in rows]
        self._submit({"kind": "table", "name": name, "columns": list(columns), "rows": finite})

    def image(self, name: str, png: bytes) -> None:
        """Log a picture; MLflow's pages show those of one name from several runs beside each other."""
        self._submit({"kind": "image", "picture": name, "png": base64.b64encode(png).decode()})

    def close(self, status: str = "FINISHED") -> None:
        """Send what is left and end the run; a second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._flush()
        self._submit({"kind": "end", "status": status, "time_ms": _now_ms()})
        self._sender.shutdown(wait=True)

    def _flush_regularly(self) -> None:
        while not self._closed.wait(FLUSH_INTERVAL_S):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            metrics, self._metrics = self._metrics, []
            # Inside the lock, so that `close` cannot shut the sender down in between.
            if metrics:
                self._submit({"kind": "metrics", "metrics": metrics})

    def _submit(self, record: dict[str, Any]) -> None:
        record = {**record, "key": self._spec.key}
        self._sender.submit(self._deliver, record).add_done_callback(lambda sent: self._sent(sent, record))

    def _deliver(self, record: dict[str, Any]) -> None:
        run_id = self._opening.result()
        if self._failed is not None and time.monotonic() - self._failed_s < RETRY_AFTER_S:
            raise self._failed
        spill_file.deliver(self._store, run_id, [record])

    def _opened(self, opening: Future[str]) -> None:
        error = opening.exception()
        if error is not None:
            self._note(error)

    def _sent(self, sent: Future[None], record: dict[str, Any]) -> None:
        error = sent.exception()
        if error is None:
            return
        self._note(error)
        self._keep(record)

    def _note(self, error: BaseException) -> None:
        if self._failed is None:
            log.warning(
                "tracking at %s failed (%s); the work goes on. What cannot be sent is kept in %s: "
                "send it later with `python -m cluster upload %s`",
                _without_password(self._spec.uri), _first_line(error), self._spill, self._spill,
            )  # fmt: skip
        if error is not self._failed:
            self._failed, self._failed_s = error, time.monotonic()

    def _keep(self, record: dict[str, Any]) -> None:
        records = [record]
        if not self._spilled:
            spec = replace(self._spec, run_id=self.run_id, uri=_without_password(self._spec.uri))
            records.insert(0, spill_file.run_record(spec))
        try:
            spill_file.append(self._spill, records)
            self._spilled = True
        except OSError as error:
            log.warning("could not write %s either (%s): tracking records are lost", self._spill, error)


def _texts(values: Mapping[str, Any], limit: int) -> dict[str, str]:
    return {legal_name(name): _without_password(str(value))[:limit] for name, value in values.items()}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _without_password(uri: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", uri)
