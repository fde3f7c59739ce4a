"""What is known of the student: its run folder's description and Sim N, and on which images it disagrees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cluster import command_line
from cluster.errors import WorkError
from cluster.locations import Locations
from cluster.storage import Folder, same_fingerprint
from evaluate.analysis.columns import CLEAN_AGREEMENT, FRAMES_AGREEMENT
from evaluate.analysis.comparison import Tables
from evaluate.games.reader import Results
from evaluate.stored import MAX_N, read_similarity, read_student_file

PREFIX = "similarity-"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One measurement of Sim 1 to 5."""

    sims: tuple[Mapping[str, float] | None, ...]
    """Mean, low and high of Sim 1 to 5; None beyond the number of classes."""
    num_images: int
    """Images that both models saw."""
    about: str
    """View and split."""
    doubt: str
    """Why it may not be about this student and black box; empty where nothing speaks against it."""
    command: Mapping[str, Any] | None
    """Command that made it; None where that is not known."""


@dataclass(frozen=True, kw_only=True)
class StudentFacts:
    """The student that the maps were made with."""

    uri: str | None
    """Its run folder; None where no map used a student."""
    description: Mapping[str, Any]
    """Its `student.json`; empty where it cannot be read."""
    command: Mapping[str, Any] | None
    """Command that made it; None where that is not known."""
    agreements: tuple[Agreement, ...]
    """Its measurements, in the order of their file names; those in no doubt first."""
    problem: str
    """Why something is missing; empty where nothing is."""

    @property
    def sim1(self) -> Mapping[str, float] | None:
        """Return Sim1 of the first measurement that is in no doubt."""
        return next((found.sims[0] for found in self.agreements if not found.doubt), None)


@dataclass(frozen=True, kw_only=True)
class Disagreements:
    """On which images the student and the black box name different classes."""

    tables: Tables
    """The measured columns that hold agreement per image and map; empty where it was not measured."""

    @property
    def measured(self) -> bool:
        """Tell whether it was measured."""
        return CLEAN_AGREEMENT in self.tables

    @cached_property
    def known(self) -> frozenset[str]:
        """Return the images on which it was measured."""
        return self._where(lambda table: table.notna())

    @cached_property
    def differing(self) -> frozenset[str]:
        """Return the images on which the student of any map disagrees."""
        return self._where(lambda table: table == 0)

    def _where(self, holds: Callable[[pd.DataFrame], pd.DataFrame]) -> frozenset[str]:
        table = self.tables.get(CLEAN_AGREEMENT)
        return frozenset() if table is None else frozenset(table.index[holds(table).any(axis=1)])

    def flagged(self, image_id: str, label: str) -> bool | None:
        """Tell whether a map's student disagrees on its image; None where nobody knows."""
        value = self._value(CLEAN_AGREEMENT, image_id, label)
        return None if np.isnan(value) else value == 0

    def on_frames(self, image_id: str, label: str) -> float:
        """Return on what share of a map's frames both agree; NaN where nobody knows."""
        return self._value(FRAMES_AGREEMENT, image_id, label)

    def _value(self, name: str, image_id: str, label: str) -> float:
        table = self.tables.get(name)
        if table is None or label not in table.columns or image_id not in table.index:
            return float("nan")
        return float(table.at[image_id, label])  # pyright: ignore[reportArgumentType]


def disagreements(tables: Tables) -> Disagreements:
    """Pick the agreement per image and map from what was measured."""
    return Disagreements(tables={name: tables[name] for name in (CLEAN_AGREEMENT, FRAMES_AGREEMENT) if name in tables})


def read_student(results: Results, locations: Locations) -> StudentFacts:
    """Find the student of the maps (MAL-Grad-CAM's, else the first) and what its run folder says.

    Args:
        results: the scores.
        locations: what may be opened: a configuration names the folder, and may come from somebody else.
    """
    users = [scored for scored in (results.main, *results.methods) if scored and scored.config.get("student")]
    if not users:
        return _nothing(None, "No map was made with a student.")
    uri = users[0].config["student"]
    try:
        folder = Folder(locations.check(uri, what="student"))
    except ValueError as error:
        return _nothing(uri, f"What is known of the student is left out: {error} (--student).")
    try:
        names = [name for name in folder.names() if name.startswith(PREFIX) and name.endswith(".json")]
        description, command = read_student_file(folder), command_line.stored(folder)
        agreements = [_agreement(folder, name, results, users[0].config) for name in names]
    except (OSError, ValueError, WorkError) as error:
        return _nothing(uri, f"The student's folder cannot be read: {error}")
    problem = "" if agreements else _nothing_there(description)
    ordered = tuple(sorted(agreements, key=lambda agreement: bool(agreement.doubt)))
    return StudentFacts(uri=uri, description=description, command=command, agreements=ordered, problem=problem)


def _nothing(uri: str | None, problem: str) -> StudentFacts:
    return StudentFacts(uri=uri, description={}, command=None, agreements=(), problem=problem)


def _nothing_there(description: Mapping[str, Any]) -> str:
    start = "" if description else "The student's run folder is not there any more. "
    return f"{start}No Sim N is stored for this student; `python -m evaluate similarity` measures it."


def part_text(found: Mapping[str, Any]) -> str:
    """Say which images of a data set were taken, from a configuration's split, limit and per_class."""
    first = f", first {found['limit']}" if found.get("limit") else ""
    of_each = f", first {found['per_class']} of each class" if found.get("per_class") else ""
    return f"split {found.get('split') or 'whole set'}{first}{of_each}"


def _agreement(folder: Folder, name: str, results: Results, maps: Mapping[str, Any]) -> Agreement:
    found = read_similarity(folder, name)
    sims = tuple(found.get(f"sim{n}") for n in range(1, MAX_N + 1))
    about = f"{found.get('view', 'unknown view')}, {part_text(found)}"
    doubts = []
    if not same_fingerprint(found.get("teacher_fingerprint"), results.config["teacher_fingerprint"]):
        doubts.append("another black box")
    if not same_fingerprint(found.get("student_fingerprint"), maps.get("student_fingerprint")):
        doubts.append("another state of the student")
    doubt = " and ".join(doubts)
    command = command_line.stored(folder, f"_command-{name}")
    return Agreement(sims=sims, num_images=found["num_images"], about=about, doubt=doubt, command=command)
