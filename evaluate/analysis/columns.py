"""The columns of the report's one table: what each metric is called, which way is better, and what it says.

A metric that is not listed here gets a column under its own name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from evaluate.games.derived import MIN_SPAN
from evaluate.games.protocol import RankedBy
from evaluate.metrics.settings import HIGHER_IS_BETTER, mlflow_name

Group = Literal["games", "measures", "fidelity"]
GROUPS: dict[Group, str] = {
    "games": "Games on the black box",
    "measures": "Other measures",
    "fidelity": "The student against the black box",
}
FIDELITY = "fidelity_"
CLEAN_AGREEMENT, FRAMES_AGREEMENT = "fidelity_clean_agreement", "fidelity_frames_agreement"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: a number for each method and image, averaged over images."""

    name: str
    """Its key, as the scores or the metrics' rows name it."""
    heading: str
    """What stands above it."""
    group: Group
    """Which part of the table it is in."""
    higher_is_better: bool | None
    """Which way is better; None where nothing says so."""
    about: str
    """One sentence that explains it; may be empty."""
    metric: str
    """Its name in MLflow."""

    @property
    def is_compared(self) -> bool:
        """Tell whether methods are tested against each other: not where the student is judged, and not the map."""
        return self.group != "fidelity" and self.higher_is_better is not None

    @property
    def better(self) -> str:
        """Say which way is better; empty where nothing does."""
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]


RANDOM_ORDER = "0 for a random order (Blücher et al. 2024)"
GAMES: dict[RankedBy, tuple[str, str, str]] = {  # heading, name in MLflow, explanation
    "gap": ("Insertion − deletion", "games/insertion_minus_deletion_auc", ""),  # noqa: RUF001
    "deletion": ("Deletion AUC", "deletion_auc", ""),
    "insertion": ("Insertion AUC", "insertion_auc", ""),
    "insertion_normalised": (
        "Normalized insertion",
        "games/insertion_normalised_auc",
        "the area of (curve − start) / (end − start) of each image; a curve that ends less than "  # noqa: RUF001
        f"{MIN_SPAN:g} from its start is flat and left out",
    ),
    "deletion_gain": (
        "SRG, deletion",
        "games/symmetric_relevance_gain_deletion",
        f"symmetric relevance gain: the AUC with the least relevant first minus that with the most, {RANDOM_ORDER}",
    ),
    "insertion_gain": (
        "SRG, insertion",
        "games/symmetric_relevance_gain_insertion",
        f"symmetric relevance gain: the AUC with the most relevant first minus that with the least, {RANDOM_ORDER}",
    ),
}
NAMED: dict[str, tuple[str, str]] = {  # heading, explanation
    "road_gap": ("ROAD, gap", "half of the next two columns' difference"),
    "road_lerf": ("ROAD, least first", "mean probability of the target while the least relevant pixels are imputed"),
    "road_morf": ("ROAD, most first", "mean probability of the target while the most relevant pixels are imputed"),
    "mu_fidelity": (
        "μ-fidelity",
        "correlation of the map's sum over a random subset of cells with the drop when that subset is hidden",
    ),
    "pointing_game": ("Pointing game", "share of maps whose maximum lies on the object, or close by"),
    "energy_inside": (
        "Energy on the object",
        "share of the map, its minimum set to zero, that lies on the object: where a map points, not whether the black "
        "box looks there",
    ),
    "max_sensitivity": ("Max-sensitivity", "how far the map moves when the image changes by little"),
    CLEAN_AGREEMENT: ("Agreement, whole image", "share of images on which both name the same class first"),
    "fidelity_clean_kl": ("KL, whole image", ""),
    "fidelity_masked_agreement": ("Agreement, masked", "the same on images that RISE's masks hide in part"),
    "fidelity_masked_kl": ("KL, masked", ""),
    "fidelity_masked_correlation": ("Correlation, masked", "of both models' probabilities of the target"),
    FRAMES_AGREEMENT: ("Agreement, frames", "the same on the frames of the games"),
    "fidelity_frames_kl": ("KL, frames", ""),
}


def game_columns(names: Iterable[str]) -> list[Column]:
    """Make those columns that follow from the games' curves, in the table's order."""
    wanted = set(names)
    return [
        Column(
            name=name,
            heading=heading,
            group="games",
            higher_is_better=name != "deletion",
            about=about,
            metric=metric,
        )
        for name, (heading, metric, about) in GAMES.items()
        if name in wanted
    ]


def metric_columns(names: Iterable[str]) -> list[Column]:
    """Make the columns of measured rows, in the table's order; names that are not known come last."""
    order = list(NAMED)
    known = sorted({*names}, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [_metric_column(name) for name in known]


def _metric_column(name: str) -> Column:
    heading, about = NAMED.get(name, (name.replace("_", " ").capitalize(), ""))
    return Column(
        name=name,
        heading=heading,
        group="fidelity" if name.startswith(FIDELITY) else "measures",
        higher_is_better=HIGHER_IS_BETTER.get(name),
        about=about,
        metric=mlflow_name(name),
    )
