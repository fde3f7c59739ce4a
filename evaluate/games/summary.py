"""Summary of one method's games: means with intervals, mean curves and cost; and its MLflow run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cluster.storage import Folder
from cluster.tracking.tracker import Tracker
from distill.data import ImageSet
from evaluate.games.derived import normalised_area, relevance_gain
from evaluate.games.protocol import ALL_GAMES, GAMES, LEAST_GAMES
from evaluate.games.reader import load_results
from evaluate.map_sets import Source
from evaluate.runs import INTERVAL, Overlays, finite, interval_row, main_last, make_runs, method_run
from evaluate.statistics import Interval, mean_interval

COSTS = {
    "seconds_per_map": "map_seconds",
    "teacher_queries_per_map": "map_teacher_queries",
    "student_passes_per_map": "map_student_passes",
    "tied_share": "tied_share",
    "auc_bound": "auc_bound",  # of scores that leave points out
}
IN_TABLE = ("auc_bound",)  # and no chart
GROUP = "games/"  # of MLflow's charts
FRONT = "auc/"  # the first group of all: MLflow sorts groups, and shows names without one last
MAIN_AUCS = tuple(f"{game}_auc" for game in GAMES)


@dataclass(frozen=True, kw_only=True)
class GamesSummary:
    """One method's games over all images that have a score."""

    source: Source
    """The maps."""
    auc: dict[str, Interval]
    """Game -> mean AUC with its 95 % bootstrap interval over images."""
    insertion_normalised: Interval
    """Mean insertion AUC between each curve's own start and end, over the images where that is defined."""
    num_flat: int
    """Images with a score whose insertion curve ends too near its start for that."""
    gains: dict[str, Interval]
    """Main game -> mean symmetric relevance gain; empty where the games were not played least relevant first."""
    curves: dict[str, np.ndarray]
    """Game -> mean curve; empty where no image has one."""
    costs: dict[str, float]
    """Mean per map of seconds, teacher queries, student passes, tied share and the areas' bound; without what is
    unknown."""
    num_images: int
    """Images with a score."""
    num_errors: int
    """Images without one."""

    def mlflow_metrics(self) -> dict[str, float]:
        """List the means by their MLflow names; what is not a number is left out."""
        means = {f"{'' if name in MAIN_AUCS else GROUP}{name}": value.mean for name, value in self._intervals().items()}
        means |= {f"{FRONT}{name}": means[name] for name in MAIN_AUCS}
        return finite(means | {f"cost/{name}": value for name, value in self.costs.items() if name not in IN_TABLE})

    def mlflow_table(self) -> list[list[Any]]:
        """Lay out everything with intervals and counts, as rows of the columns `INTERVAL`."""
        counts = {"num_images": self.num_images, "num_errors": self.num_errors, "num_insertion_flat": self.num_flat}
        rows = [interval_row(name, value) for name, value in self._intervals().items()]
        return rows + [[name, value, None, None, self.num_images] for name, value in {**self.costs, **counts}.items()]

    def _intervals(self) -> dict[str, Interval]:
        return {
            **{f"{game}_auc": auc for game, auc in self.auc.items()},
            "insertion_normalised_auc": self.insertion_normalised,
            **{f"symmetric_relevance_gain_{game}": gain for game, gain in self.gains.items()},
        }


def summarize_games(folder: Folder, sources: Sequence[Source]) -> list[GamesSummary]:
    """Read a scores folder and sum it up, one outcome per source in their order."""
    found = load_results([folder.uri], cross_teacher=True)
    labels = {scored.config_hash: scored.label for scored in found.methods}
    groups = dict(list(found.rows.groupby("config_hash")))
    summaries = []
    for source in sources:
        label, rows = labels.get(source.config_hash), groups.get(source.config_hash, found.rows.iloc[:0])
        curves = {game: curve.mean for (of, game), curve in found.curves.items() if of == label}
        summaries.append(_games_summary(rows, source, curves))
    return summaries


def _games_summary(rows: Any, source: Source, curves: Mapping[str, np.ndarray]) -> GamesSummary:
    scored = rows[rows["error"].isna()]
    played = set(rows["game"])
    by_game = {game: scored[scored["game"] == game] for game in ALL_GAMES if game in played or game in GAMES}
    costs = {name: scored[column].astype("float64").mean() for name, column in COSTS.items() if column in scored}
    num_images = len(by_game[GAMES[0]])
    normalized = _normalized(by_game["insertion"])
    return GamesSummary(
        source=source,
        auc={game: mean_interval(found["auc"].to_numpy()) for game, found in by_game.items()},
        insertion_normalised=mean_interval(normalized[np.isfinite(normalized)]),
        num_flat=int(np.isnan(normalized).sum()),
        gains=_gains(by_game),
        curves={game: curves.get(game, np.zeros(0)) for game in by_game},
        costs={name: float(value) for name, value in costs.items() if np.isfinite(value)},
        num_images=num_images,
        num_errors=len(rows) // len(by_game) - num_images,
    )


def _normalized(rows: Any) -> np.ndarray:
    return normalised_area(*(rows[column].to_numpy() for column in ("auc", "start", "end")))


def _gains(by_game: Mapping[str, Any]) -> dict[str, Interval]:
    areas = {game: found.set_index("image_id")["auc"] for game, found in by_game.items()}
    return {
        game: mean_interval(relevance_gain(game, areas[game], areas[least].reindex(areas[game].index)))
        for game, least in LEAST_GAMES.items()
        if least in areas
    }


def track_games(folder: Folder, images: ImageSet, summaries: Sequence[GamesSummary], stored: Mapping[str, Any]) -> None:
    """Make one MLflow run per method, unless the scores folder notes that this store has it already.

    Args:
        folder: the scores folder.
        images: the data set.
        summaries: the methods.
        stored: the scores' configuration.
    """
    make = partial(_track, images.name, stored, folder.uri, Overlays(images))
    ordered = main_last(summaries, lambda summary: summary.source.method)
    make_runs(
        folder,
        {f"{one.source.config_hash}/{stored['protocol_hash']}": partial(make, one) for one in ordered},
    )


def _track(
    experiment: str, stored: Mapping[str, Any], uri: str, overlays: Overlays, summary: GamesSummary, *, key: str
) -> Tracker:
    params = {f"protocol.{name}": value for name, value in stored["protocol"].items()}
    params |= {f"made_for.{name}": value for name, value in stored.get("made_for", {}).items()}
    tags = {
        "stage": "cross_teacher_games" if "made_for" in stored else "games",
        "protocol_hash": stored["protocol_hash"],
        "scores": uri,
    }
    with method_run(experiment, summary.source.record(), stored, params=params, tags=tags, key=key) as tracker:
        tracker.log(summary.mlflow_metrics())
        for game, curve in summary.curves.items():
            for group in ("", FRONT) if game in GAMES else (GROUP,):
                tracker.curve(f"{group}{game}_curve", curve.tolist())
        tracker.table("games", INTERVAL, summary.mlflow_table())
        overlays.log(tracker, summary.source.uri)
    return tracker
