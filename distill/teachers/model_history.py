"""Models that answered behind one name, such as a URL, told apart by their responses to made-up images.

A server keeps its URL and its version when its model is replaced. So this machine notes what the first model responded,
and compares at each load. The first model behind a name has the name's own fingerprint, each later one a fingerprint of
its own, and with it other cached responses and other output folders. A worker on a machine that has seen none
of them takes over the fingerprint of its job.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from distill.teachers.cache import private_folder, read_small, write_entry

TOLERANCE = 1e-3  # of a score, or of the largest logit: float16 and other hardware
MAX_MODELS = 1000


@dataclass(frozen=True, kw_only=True)
class SeenModel:
    """One model that answered behind a name."""

    number: int
    """0 for the first one that was seen."""
    outputs: list[list[float]]
    """Its outputs for made-up images, (n, K)."""
    tolerance: float
    """How far they may be from those of another load."""
    batch_sizes: list[int | None]
    """The sizes of batches that it has been checked with."""

    def __post_init__(self) -> None:
        """Refuse what this file did not write. Raises: ValueError."""
        values = np.asarray(self.outputs, dtype=np.float64)
        numbers = type(self.number) is int and 0 <= self.number < MAX_MODELS and isinstance(self.tolerance, float)
        if not numbers or values.ndim != 2 or not np.isfinite(values).all() or not isinstance(self.batch_sizes, list):
            raise ValueError("a model has a number, outputs (n, K), a tolerance and batch sizes")

    def answers(self, outputs: np.ndarray) -> bool:
        """Say whether outputs (n, K) are this model's."""
        own = np.asarray(self.outputs)
        return own.shape == outputs.shape and bool(np.abs(own - outputs).max() <= self.tolerance)


class ModelHistory:
    """What this machine knows of the models behind one name."""

    def __init__(self, fingerprint: str, *, name: str, expected: str | None = None) -> None:
        """Open the notes of a name.

        Args:
            fingerprint: SHA-256 in hex of all that describes the model but its content.
            name: the teacher, for messages.
            expected: the fingerprint of the model that a job started with, where a worker loads it.

        Raises:
            ValueError: the cache folder cannot be used.
        """
        self.fingerprint = fingerprint
        """That of the model which answers now, after `recognize` or `record`."""
        self._base, self._name = fingerprint, name
        self._expected = None if expected is None else self._number_of(expected)
        self._file = private_folder("models") / f"{fingerprint}.json"

    def recognize(self, outputs: np.ndarray, batch_size: int | None) -> bool:
        """Find the model that has these outputs (n, K); say whether it has been checked here with this batch size."""
        for seen in reversed(self._read()):
            if seen.answers(outputs) and self._expected in (None, seen.number):
                self.fingerprint = self._fingerprint_of(seen.number)
                return batch_size in seen.batch_sizes
        return False

    def record(self, outputs: np.ndarray, batch_size: int | None, *, noise: float) -> None:
        """Note a model that was checked, under the number of the job, or else the next one.

        Args:
            outputs: for made-up images, (n, K).
            batch_size: that it was checked with.
            noise: the difference of an output between two batches.

        Raises:
            ValueError: the notes cannot be written.
        """
        try:
            with FileLock(f"{self._file}.lock"):
                models = {seen.number: seen for seen in self._read()}
                number = self._number_for(outputs, models)
                if number is None:
                    return
                sizes = models[number].batch_sizes if number in models else []
                models[number] = SeenModel(
                    number=number,
                    outputs=outputs.astype(np.float64).tolist(),
                    tolerance=float(max(TOLERANCE * max(1.0, np.abs(outputs).max()), 2 * noise)),
                    batch_sizes=[*(size for size in sizes if size != batch_size), batch_size],
                )
                write_entry(self._file, json.dumps([asdict(seen) for seen in models.values()]), replace=True)
        except OSError as error:
            raise ValueError(f"{self._file} cannot be written: {error}; make room, or set MALGRADCAM_CACHE") from error
        self.fingerprint = self._fingerprint_of(number)

    def _number_for(self, outputs: np.ndarray, models: dict[int, SeenModel]) -> int | None:
        """Return the number to note a model under; None where the job's own number is another model's here."""
        if self._expected is not None:
            known = models.get(self._expected)
            if known is None or known.answers(outputs):
                return self._expected
            self.fingerprint = self._fingerprint_of(max(models) + 1)  # not the job's: whoever loads it compares
            return None
        for seen in models.values():
            if seen.answers(outputs):
                return seen.number
        if models:
            logging.getLogger(__name__).warning(
                "teacher %r answers otherwise than before: taken for another model, with other responses and scores",
                self._name,
            )
        return max(models, default=-1) + 1

    def _fingerprint_of(self, number: int) -> str:
        return hashlib.sha256(f"{self._base} {number}".encode()).hexdigest() if number else self._base

    def _number_of(self, fingerprint: str) -> int | None:
        return next((k for k in range(MAX_MODELS) if self._fingerprint_of(k) == fingerprint), None)

    def _read(self) -> list[SeenModel]:
        try:
            models = [SeenModel(**fields) for fields in json.loads(read_small(self._file))]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{Path(self._file)} holds no models ({error}); delete it, and the model is checked again"
            ) from error
        return models
