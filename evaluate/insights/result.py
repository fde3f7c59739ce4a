"""Result of an insights job: the source of its texts, its page and its MLflow run."""

from dataclasses import dataclass
from typing import Any

from cluster.storage import Folder
from distill.data import ImageSet
from evaluate.insights.candidates import Trial
from evaluate.insights.changes import ClassChange
from evaluate.insights.classes import Images
from evaluate.insights.suspicions import Suspicion


@dataclass(frozen=True, kw_only=True)
class Insights:
    """Everything that a job has found, for its texts, page and runs."""

    folder: Folder
    """Where it lies."""
    stored: dict[str, Any]
    """Configuration that the folder keeps."""
    data: ImageSet
    """Data set."""
    images: Images
    """Evidence of the images."""
    names: dict[int, str]
    """Class -> its name."""
    suspicions: list[Suspicion]
    """All that was tested, or proposed without a teacher; confirmed ones first."""
    rows: list[dict[str, Any]]
    """Their rows, as stored."""
    trials: list[Trial]
    """Trials of all of them."""
    probs: list[dict[str, Any]]
    """Rows of the trials, in the same order; empty without a teacher."""
    changes: list[ClassChange]
    """Of two models, by class; empty without the other's maps."""
    notes: list[str]
    """What was left out, and why."""
