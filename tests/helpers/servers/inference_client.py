"""Starts `inference_server` for a test module, and sets and reads its state."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from box_teacher import SIZE, Box
from project_paths import HELPERS

MEAN, STD = Box.mean, Box.std
LOAD_QUERIES = 1 + 8
"""Queries that check a model when a machine loads it first: one image alone, and a batch."""


def some_images(count: int = 19, seed: int = 3) -> np.ndarray:
    """Draw images for the server's black box."""
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


class Server:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"

    def set(self, **state: Any) -> None:
        request = urllib.request.Request(f"{self.root}/control", json.dumps(state).encode())  # noqa: S310 - our own
        urllib.request.urlopen(request).close()  # noqa: S310

    def reset(self) -> None:
        self.set(
            scale=6.0,
            fault="",
            healthy=0,
            times=0,
            requests=0,
            queries=0,
            connections=0,
            binary=0,
            largest=0,
            started=[],
        )

    def get(self, name: str) -> Any:
        with urllib.request.urlopen(f"{self.root}/control") as reply:  # noqa: S310 - our own
            return json.load(reply)[name]

    def spec(self, folder: Path, model: str = "probs", root: str = "", **fields: Any) -> str:
        """Write a `teacher.toml` and return the teacher's spec."""
        described = {
            "input_size": list(SIZE),
            "mean": list(MEAN),
            "std": list(STD),
            "output": "probabilities",
            **fields,
        }
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in described.items() if value is not None]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "teacher.toml"
        path.write_text("".join(lines), encoding="utf-8")
        return f"{self.root}{root}/v2/models/{model}#{path}"


@contextmanager
def running_server(*certificate: str) -> Iterator[Server]:
    """Run a server in a process of its own while the block runs."""
    script = Path(__file__).with_name("inference_server.py")
    command = [sys.executable, str(script), *certificate]
    environment = os.environ | {"PYTHONPATH": str(HELPERS)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(int(process.stdout.readline()))
        finally:
            process.kill()
