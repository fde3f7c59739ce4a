"""Tracking to MLflow's own server on PostgreSQL, and what happens while the database is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from servers import Postgres, mlflow_server, postgres

from cluster.tracking import unsent as spill
from cluster.tracking.run_store import RunStore
from cluster.tracking.tracker import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """Run PostgreSQL for the module."""
    with postgres() as running:
        yield running


def metrics(database: Postgres, run_id: str) -> list[tuple[str, int, float]]:
    """Read a run's metrics from the database itself: name, step, value."""
    with psycopg2.connect(database.uri) as connection, connection.cursor() as cursor:
        cursor.execute("select key, step, value from metrics where run_uuid = %s order by key, step", (run_id,))
        found = cursor.fetchall()
    connection.close()
    return found


def test_work_goes_on_while_the_database_is_away_and_all_of_it_arrives(database: Postgres, tmp_path: Path) -> None:
    note, unsent = tmp_path / "note.txt", tmp_path / "unsent.jsonl"
    note.write_text("kept")
    with mlflow_server(database, tmp_path) as uri:
        with Tracker("birds", "midway", params={"seed": 1}, uri=uri, spill=unsent) as midway:
            midway.curve("insertion", [0.0, 1.0])
            midway._sender.submit(int).result()  # the curve has arrived
            assert midway.run_id is not None
            assert metrics(database, midway.run_id) == [("insertion", 0, 0.0), ("insertion", 1, 1.0)]
            database.stop()
            try:
                started_s = time.monotonic()
                midway.curve("deletion", [1.0, 0.5])
                midway.artifact(note)
                with Tracker("birds", "away", params={"seed": 2}, uri=uri, spill=unsent) as away:
                    away.log({"loss": 2.0})
                midway.close()
                assert time.monotonic() - started_s < 120
            finally:
                database.start()
        assert away.run_id is None
        sent = sorted(spill.upload(unsent, uri=uri), key=midway.run_id.__ne__)  # that of `midway` first
        assert sent[0] == midway.run_id
        assert metrics(database, sent[0]) == [
            ("deletion", 0, 1.0), ("deletion", 1, 0.5), ("insertion", 0, 0.0), ("insertion", 1, 1.0),
        ]  # fmt: skip
        assert metrics(database, sent[1]) == [("loss", 0, 2.0)]
        runs = [RunStore(uri).client.get_run(run_id) for run_id in sent]
        assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
        assert [run.data.params for run in runs] == [{"seed": "1"}, {"seed": "2"}]
        stored = list((tmp_path / "artifacts").glob(f"**/{midway.run_id}/**/note.txt"))
        assert [path.read_text() for path in stored] == ["kept"]
