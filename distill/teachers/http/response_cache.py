"""What a black box on a network has answered: kept on this machine by what was asked, so that no job asks it again.

One SQLite file per black box in the cache folder. Workers share it, and answers are written as they come, so that a
killed job loses none but those under way. Delete the file to ask anew.
"""

from __future__ import annotations

import hashlib
import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from cluster.errors import WorkError
from distill.teachers.cache import cache_folder

LOCK_WAIT_S = 60.0  # for other workers that write
AT_ONCE = 500  # keys in one query; SQLite takes 999 in its oldest versions


def content_hashes(rows: np.ndarray) -> list[bytes]:
    """Hash each row of an array (B, ...): 32 bytes of SHA-256 that stand for what is asked."""
    return [hashlib.sha256(np.ascontiguousarray(row).data).digest() for row in rows]


class ResponseCache:
    """The answers of one black box."""

    def __init__(self, fingerprint: str) -> None:
        """Open the store of the black box with that fingerprint; make it where there is none.

        Raises:
            WorkError: it cannot be opened.
        """
        self.path = cache_folder("answers") / f"{fingerprint}.sqlite"
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open = sqlite3.connect(self.path, timeout=LOCK_WAIT_S, check_same_thread=False)
            weakref.finalize(self, self._open.close)
            self._open.execute("PRAGMA journal_mode = WAL")
            self._open.execute("PRAGMA synchronous = NORMAL")
            self._open.execute("CREATE TABLE IF NOT EXISTS answers (asked BLOB PRIMARY KEY, probs BLOB) WITHOUT ROWID")

    def read(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return what is known: key -> probabilities (K,) float32. Raises: WorkError."""
        found: dict[bytes, np.ndarray] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            query = f"SELECT asked, probs FROM answers WHERE asked IN ({','.join('?' * len(some))})"  # noqa: S608 - marks
            with self._errors():
                rows = self._open.execute(query, some).fetchall()
                found |= {asked: np.frombuffer(probs, dtype="<f4") for asked, probs in rows}
        return found

    def write(self, answers: Mapping[bytes, np.ndarray]) -> None:
        """Keep answers: key -> probabilities (K,) float32; what is there already stays. Raises: WorkError."""
        rows = [(asked, probs.astype("<f4").tobytes()) for asked, probs in answers.items()]
        with self._errors(), self._open:
            self._open.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    def get_or_query(self, rows: np.ndarray, ask: Callable[[list[int]], np.ndarray]) -> np.ndarray:
        """Answer for rows (B, ...): what is known from the store, the rest by one question, each row once.

        Args:
            rows: what is asked.
            ask: places of rows (n) -> their probabilities (n, K).

        Returns:
            (B, K) float32.
        """
        keys = content_hashes(rows)
        known = self.read(list(dict.fromkeys(keys)))
        missing = {key: place for place, key in reversed(list(enumerate(keys))) if key not in known}
        places = sorted(missing.values())
        if places:
            new = dict(zip((keys[place] for place in places), ask(places), strict=True))
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
