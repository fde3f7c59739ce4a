"""Servers on loopback that tests start and stop: PostgreSQL, MLflow's on it, and any other that answers a URL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

WAIT_S = 240  # MLflow's tables take minutes on a busy machine


def find_program(name: str) -> str | None:
    """Find a program of PostgreSQL, which Debian keeps out of the PATH."""
    return shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A database server in a folder; root lends it to the user `postgres`, since it refuses to run as root."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        """Return what psycopg2 connects to; SQLAlchemy is told the driver, since its own choice has changed."""
        return f"postgresql://tester:secret@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Make its files; passwords are asked for."""
        password = self.folder / "password"
        password.write_text("secret")
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
            shutil.chown(password, "postgres")
        self.run("initdb", "-U", "tester", "-A", "scram-sha-256", "--pwfile", str(password), "--no-sync")

    def start(self) -> None:
        """Start it and wait until it answers."""
        listening = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self.run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", listening, "start")

    def stop(self) -> None:
        """Stop it at once, as a power cut would."""
        self.run("pg_ctl", "-w", "-m", "immediate", "stop")

    def run(self, name: str, *args: str) -> None:
        """Run one of its programs on its files."""
        program = find_program(name)
        assert program is not None
        user = "postgres" if os.getuid() == 0 else None
        command = [program, "-D", str(self.folder / "data"), *args]
        subprocess.run(command, check=True, user=user, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=120)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run PostgreSQL; skip where it is not installed."""
    if find_program("initdb") is None:
        pytest.skip("PostgreSQL is not installed (Debian and Ubuntu: apt-get install postgresql)")
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(folder=Path(folder), port=free_port())
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def running(command: list[str], url: str, folder: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    """Run a server until the block ends, once `url` answers; all of its processes end."""
    log = folder / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=env, start_new_session=True)
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not _answers(url):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.5)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        server.wait(60)


@contextmanager
def mlflow_server(database: Postgres, folder: Path) -> Iterator[str]:
    """Run MLflow's server on the database, its artifacts in a folder; yield its URI."""
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--backend-store-uri", database.uri.replace("://", "+psycopg2://")]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1"]
    with running([*command, "--port", uri.rpartition(":")[2]], f"{uri}/health", folder):
        yield uri


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
