"""What the games of one method came to: means with intervals, mean curves, cost; and its MLflow run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.storage import Folder
from cluster.tracking import Tracker, tracking_uri
from evaluate.protocol import GAMES
from evaluate.schema import read_scores
from evaluate.sources import Source
from evaluate.statistics import Interval, mean_interval

RUNS_FILE = "_mlflow.json"  # which runs were made, so that a rerun makes no second one
COSTS = {
    "seconds_per_map": "map_seconds",
    "teacher_queries_per_map": "map_teacher_queries",
    "student_passes_per_map": "map_student_passes",
    "tied_share": "tied_share",
}


@dataclass(frozen=True, kw_only=True)
class MethodOutcome:
    """One method's games over all images that have a score."""

    source: Source
    """The maps."""
    auc: dict[str, Interval]
    """Game -> mean AUC with its 95 % bootstrap interval over images."""
    curves: dict[str, np.ndarray]
    """Game -> mean curve; empty where no image has one."""
    costs: dict[str, float]
    """Mean per map of seconds, teacher queries, student passes and tied share; without what is unknown."""
    num_images: int
    """Images with a score."""
    num_errors: int
    """Images without one."""

    def metrics(self) -> dict[str, float]:
        """List all numbers by their MLflow names; what is not a number is left out."""
        named = {"num_images": float(self.num_images), "num_errors": float(self.num_errors), **self.costs}
        for game, auc in self.auc.items():
            named |= {f"{game}_auc": auc.mean, f"{game}_auc_low": auc.low, f"{game}_auc_high": auc.high}
        return {name: value for name, value in named.items() if np.isfinite(value)}


def read_outcomes(folder: Folder, sources: Sequence[Source]) -> list[MethodOutcome]:
    """Read a scores folder and sum it up, one outcome per source in their order."""
    frame = read_scores(folder).to_pandas()
    return [_outcome(frame[frame["config_hash"] == source.config_hash], source) for source in sources]


def _outcome(rows: Any, source: Source) -> MethodOutcome:
    scored = rows[rows["error"].isna()]
    by_game = {game: scored[scored["game"] == game] for game in GAMES}
    costs = {name: scored[column].astype("float64").mean() for name, column in COSTS.items()}
    num_images = len(by_game[GAMES[0]])
    return MethodOutcome(
        source=source,
        auc={game: mean_interval(found["auc"].to_numpy()) for game, found in by_game.items()},
        curves={game: _mean_curve(found["curve"]) for game, found in by_game.items()},
        costs={name: float(value) for name, value in costs.items() if np.isfinite(value)},
        num_images=num_images,
        num_errors=len(rows) // len(GAMES) - num_images,
    )


def _mean_curve(curves: Any) -> np.ndarray:
    return np.asarray(np.stack(list(curves)).mean(axis=0, dtype=np.float64)) if len(curves) else np.zeros(0)


def track_outcomes(
    folder: Folder, experiment: str, outcomes: Sequence[MethodOutcome], stored: Mapping[str, Any]
) -> None:
    """Make one MLflow run per method, unless the scores folder notes that this store has it already.

    Args:
        folder: the scores folder.
        experiment: the data set's name.
        outcomes: the methods.
        stored: the scores' configuration.
    """
    store = hashlib.sha256(tracking_uri().encode()).hexdigest()[:12]  # a URI may hold a password
    made = folder.read_json(RUNS_FILE) if folder.exists(RUNS_FILE) else {}
    for outcome in outcomes:
        key = f"{store}/{outcome.source.config_hash}/{stored['protocol_hash']}"
        if key not in made:
            made[key] = _track(experiment, outcome, stored, folder.uri)
            folder.write_json(RUNS_FILE, made)


def _track(experiment: str, outcome: MethodOutcome, stored: Mapping[str, Any], uri: str) -> str | None:
    source = outcome.source
    options = {f"option.{name}": value for name, value in source.config["options"].items()}
    kept = ("teacher", "teacher_fingerprint", "data", "data_fingerprint", "split", "limit", "protocol_hash")
    student = {name: source.config[name] for name in ("student", "student_fingerprint", "target")}
    params = {"method": source.method, **options, **student, **{name: stored[name] for name in kept}}
    params |= {f"protocol.{name}": value for name, value in stored["protocol"].items()}
    tags = {
        "stage": "games",
        "method": source.method,
        "config_hash": source.config_hash,
        "protocol_hash": stored["protocol_hash"],
        "maps": source.uri,
        "scores": uri,
    }
    with Tracker(experiment, source.method, params=params, tags=tags) as tracker:
        tracker.log(outcome.metrics())
        for game, curve in outcome.curves.items():
            tracker.curve(f"{game}_curve", curve.tolist())
    return tracker.run_id
