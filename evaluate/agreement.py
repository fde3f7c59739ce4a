"""What is known of the student: its description and the Sim N files in its run folder, or why they are missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.storage import Folder
from evaluate.results import Results

PREFIX = "similarity-"
MAX_N = 5


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


@dataclass(frozen=True, kw_only=True)
class StudentFacts:
    """The student that the maps were made with."""

    uri: str | None
    """Its run folder; None where no map used a student."""
    description: Mapping[str, Any]
    """Its `student.json`; empty where it cannot be read."""
    agreements: tuple[Agreement, ...]
    """Its measurements, in the order of their file names; those in no doubt first."""
    problem: str
    """Why something is missing; empty where nothing is."""

    @property
    def sim1(self) -> Mapping[str, float] | None:
        """Return Sim1 of the first measurement that is in no doubt."""
        return next((found.sims[0] for found in self.agreements if not found.doubt), None)


def read_student(results: Results) -> StudentFacts:
    """Find the student of the maps (MAL-Grad-CAM's, else the first) and what its run folder says."""
    users = [scored for scored in (results.main, *results.methods) if scored and scored.config.get("student")]
    if not users:
        return StudentFacts(uri=None, description={}, agreements=(), problem="No map was made with a student.")
    uri = users[0].config["student"]
    try:
        folder = Folder(uri)
        names = [name for name in folder.names() if name.startswith(PREFIX) and name.endswith(".json")]
        description = folder.read_json("student.json") if folder.exists("student.json") else {}
        found = [_agreement(folder.read_json(name), results, users[0].config) for name in names]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return StudentFacts(uri=uri, description={}, agreements=(), problem=f"Its folder cannot be read: {error}")
    problem = "" if found else _nothing_there(description)
    ordered = tuple(sorted(found, key=lambda agreement: bool(agreement.doubt)))
    return StudentFacts(uri=uri, description=description, agreements=ordered, problem=problem)


def _nothing_there(description: Mapping[str, Any]) -> str:
    start = "" if description else "The student's run folder is not there any more. "
    return f"{start}No Sim N is stored for this student; `python -m evaluate similarity` measures it."


def _agreement(found: Mapping[str, Any], results: Results, maps: Mapping[str, Any]) -> Agreement:
    sims = tuple(found.get(f"sim{n}") for n in range(1, MAX_N + 1))
    limit = f", first {found['limit']}" if found.get("limit") else ""
    about = f"{found.get('view', 'unknown view')}, split {found.get('split') or 'whole set'}{limit}"
    doubts = []
    if found.get("teacher_fingerprint") != results.config["teacher_fingerprint"]:
        doubts.append("another black box")
    if found.get("student_fingerprint") != maps.get("student_fingerprint"):
        doubts.append("another state of the student")
    return Agreement(sims=sims, num_images=int(found["num_images"]), about=about, doubt=" and ".join(doubts))
