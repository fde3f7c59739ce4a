"""Response cache of a black box on a network: its scores on this machine, by what was queried.

One SQLite file per model in the cache folder. Workers share it, and responses are written as they come, so that a
killed job loses none but those under way. Delete the file to query anew. Errors are never kept.
"""

from __future__ import annotations

import hashlib
import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from cluster.errors import WorkError
from distill.teachers.cache import private_folder

LOCK_WAIT_S = 60.0  # for other workers that write
AT_ONCE = 500  # keys in one statement; SQLite takes 999 in its oldest versions


def content_hashes(rows: np.ndarray) -> list[bytes]:
    """Hash each row of an array (B, ...): 32 bytes of SHA-256 that stand for what is queried."""
    return [hashlib.sha256(np.ascontiguousarray(row).data).digest() for row in rows]


class ResponseCache:
    """The responses of one model."""

    def __init__(self, fingerprint: str, is_valid: Callable[[np.ndarray], bool]) -> None:
        """Open the cache of the model with that fingerprint; make it where there is none.

        Args:
            fingerprint: the model's.
            is_valid: says whether scores (K,) can be a response of it: what is kept passes the checks of a fresh one.

        Raises:
            WorkError: it cannot be opened.
        """
        self._is_valid = is_valid
        self.path = private_folder("answers") / f"{fingerprint}.sqlite"
        with self._errors():
            self._open = sqlite3.connect(self.path, timeout=LOCK_WAIT_S, check_same_thread=False)
            weakref.finalize(self, self._open.close)
            self._open.execute("PRAGMA journal_mode = WAL")
            self._open.execute("PRAGMA synchronous = NORMAL")
            self._open.execute("CREATE TABLE IF NOT EXISTS answers (asked BLOB PRIMARY KEY, probs BLOB) WITHOUT ROWID")

    def read(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return what is known and valid: key -> scores (K,) float32. Raises: WorkError."""
        known: dict[bytes, np.ndarray] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            statement = f"SELECT asked, probs FROM answers WHERE asked IN ({','.join('?' * len(some))})"  # noqa: S608 - marks
            with self._errors():
                rows = self._open.execute(statement, some).fetchall()
            whole = [(key, blob) for key, blob in rows if isinstance(blob, bytes) and len(blob) % 4 == 0]
            known |= {key: np.frombuffer(blob, dtype="<f4") for key, blob in whole}
        return {key: scores for key, scores in known.items() if self._is_valid(scores)}

    def write(self, responses: Mapping[bytes, np.ndarray]) -> None:
        """Keep responses: key -> scores (K,) float32. Raises: WorkError."""
        rows = [(key, scores.astype("<f4").tobytes()) for key, scores in responses.items()]
        with self._errors(), self._open:
            self._open.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    def get_or_query(self, rows: np.ndarray, query: Callable[[list[int]], np.ndarray]) -> np.ndarray:
        """Return the scores of rows (B, ...): what is known, the rest by one query, each row once.

        Args:
            rows: what is queried.
            query: places of rows (n) -> their scores (n, K).

        Returns:
            (B, K) float32.
        """
        keys = content_hashes(rows)
        known = self.read(list(dict.fromkeys(keys)))
        missing = {key: place for place, key in reversed(list(enumerate(keys))) if key not in known}
        places = sorted(missing.values())
        if places:
            new = dict(zip((keys[place] for place in places), query(places), strict=True))
            self.write(new)
            known |= new
        return np.stack([known[key] for key in keys])

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise WorkError(
                f"answers cannot be kept in {self.path}: {error}; make room, delete the file if it is broken, or set "
                "keep_answers = false in the teacher.toml"
            ) from error
