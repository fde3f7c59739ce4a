"""Fixtures of teachers on a network: a server in a process of its own, and no waiting between attempts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inference_client import Server, running_server

from distill.teachers.http.client import TOKEN_VARIABLE


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.reset()
    return running


@pytest.fixture(autouse=True)
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Wait for nothing between attempts, and note for how long; a long reply is one of a megabyte."""
    noted: list[float] = []
    monkeypatch.setattr("distill.teachers.http.client.MAX_REPLY_BYTES", 2**20)
    monkeypatch.setattr("distill.teachers.retry.time.sleep", noted.append)
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    return noted
