"""The metrics besides the games: their names, settings, and the short hash that names each one's settings.

This file imports no torch: the command line reads it before any work starts.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Metric = Literal["road", "mu_fidelity", "pointing", "energy", "max_sensitivity", "fidelity"]
METRICS: tuple[Metric, ...] = get_args(Metric)
ROWS: dict[Metric, tuple[str, ...]] = {
    "road": ("road_morf", "road_lerf", "road_gap"),
    "mu_fidelity": ("mu_fidelity",),
    "pointing": ("pointing_game",),
    "energy": ("energy_inside",),
    "max_sensitivity": ("max_sensitivity",),
    "fidelity": (
        "fidelity_clean_agreement",
        "fidelity_clean_kl",
        "fidelity_masked_agreement",
        "fidelity_masked_kl",
        "fidelity_masked_correlation",
        "fidelity_frames_agreement",
        "fidelity_frames_kl",
    ),
}
"""What each metric writes for a map: one row a name."""
HIGHER_IS_BETTER = {
    "road_morf": False,
    "road_lerf": True,
    "road_gap": True,
    "mu_fidelity": True,
    "pointing_game": True,
    "energy_inside": True,
    "max_sensitivity": False,
    "fidelity_clean_agreement": True,
    "fidelity_clean_kl": False,
    "fidelity_masked_agreement": True,
    "fidelity_masked_kl": False,
    "fidelity_masked_correlation": True,
    "fidelity_frames_agreement": True,
    "fidelity_frames_kl": False,
}
# The settings that move a metric, and what is fixed for this version and still part of its hash.
FIELDS: dict[Metric, tuple[str, ...]] = {
    "road": ("percentages", "noise", "seed"),
    "mu_fidelity": ("grid", "subset_share", "num_subsets", "seed"),
    "pointing": ("tolerance_px",),
    "energy": (),
    "max_sensitivity": ("radius", "num_perturbations", "seed"),
    "fidelity": ("num_masks", "num_points", "seed"),
}
CONSTANTS: dict[Metric, str] = {
    "road": "linear imputation 1/6 1/12, Gaussian noise in normalised space, probability of target, mean over frames",
    "mu_fidelity": "mean colour in grid cells, drop of the target's probability, Pearson",
    "pointing": "bilinear to input size, share of tied maxima near the object",
    "energy": "map less its minimum at its own size, share inside the object",
    "max_sensitivity": "uniform in the maximum norm, unclipped, relative l2, most of all",
    "fidelity": "same top-1, KL(teacher || student) in nats; RISE masks 7 .5 and 8 .1; frames of protocol rise; "
    "bilinear antialias to the student's size; Spearman within each mask family, mean",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the metrics; each counts only for the measure that it names."""

    percentages: tuple[int, ...] = (10, 20, 30, 40, 50, 70, 90)
    """ROAD: shares of the pixels that are removed, in percent."""
    noise: float = 0.01
    """ROAD: standard deviation of the noise on filled-in pixels, in normalized units."""
    grid: int = 14
    """Mu-fidelity: cells per side."""
    subset_share: float = 0.2
    """Mu-fidelity: share of the cells in a subset."""
    num_subsets: int = 128
    """Mu-fidelity: subsets, each one query of the black box per image."""
    tolerance_px: float = 15
    """Pointing game: how far beside the object a maximum still hits, in pixels of the black box's input."""
    radius: float = 0.02
    """Max-sensitivity: largest change of a pixel, whose range is [0, 1]."""
    num_perturbations: int = 10
    """Max-sensitivity: changed images."""
    num_masks: int = 100
    """Fidelity: frames under RISE masks, half of each family; each a query and a student pass per image."""
    num_points: int = 15
    """Fidelity: frames of each of a map's two games, both ends included; each a query and a student pass."""
    seed: int = 0
    """Seed of noise, subsets, changed images, RISE masks, and of the order of tied pixels."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        percentages = self.percentages
        if not percentages or not all(0 < p < 100 for p in percentages) or len(set(percentages)) < len(percentages):
            raise ValueError(f"percentages {percentages} are not allowed; give different ones from 1 to 99")
        ranges = {
            "noise": (self.noise >= 0, "0 or more"),
            "grid": (self.grid >= 2, "2 or more cells"),
            "subset_share": (0 < self.subset_share < 1, "a share above 0 and below 1"),
            "num_subsets": (self.num_subsets >= 2, "2 or more"),
            "tolerance_px": (self.tolerance_px >= 0, "0 or more pixels"),
            "radius": (self.radius > 0, "a number above 0"),
            "num_perturbations": (self.num_perturbations >= 1, "1 or more"),
            "num_masks": (self.num_masks >= 4 and self.num_masks % 2 == 0, "an even number, 4 or more"),
            "num_points": (self.num_points >= 2, "2 or more"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (allowed, text) in ranges.items():
            if not allowed:
                raise ValueError(f"{name} {getattr(self, name)} is not allowed; give {text}")

    def fields(self, metric: Metric, *, target: str, objects: str | None) -> dict[str, Any]:
        """Return what decides a metric's numbers, as stored in the configuration and hashed.

        Args:
            measure: one of METRICS.
            target: how the maps' class was chosen.
            objects: what the maps are held against, "masks" or "boxes"; None where nothing is.
        """
        floats = {field.name for field in dataclasses.fields(self) if field.type is float}
        values = {name: getattr(self, name) for name in FIELDS[metric]}
        own = {name: float(value) if name in floats else value for name, value in values.items()}  # 15 is 15.0
        if "percentages" in own:
            own["percentages"] = sorted(self.percentages)
        held = {"objects": objects} if metric in ("pointing", "energy") else {}
        return {"measure": metric, **own, **held, "target": target, "constants": CONSTANTS[metric]}


def settings_hash(fields: dict[str, Any]) -> str:
    """Hash a metric's settings: the 8 hex digits that its rows carry as `protocol_hash`."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def check_metrics(metrics: Sequence[str]) -> tuple[Metric, ...]:
    """Return the metrics in their usual order, each once. Raises: ValueError for none, or an unknown one."""
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise ValueError(f"measures {', '.join(unknown) or 'none'} unknown; choose from {', '.join(METRICS)}")
    return tuple(name for name in METRICS if name in metrics)


def row_names(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """List the names of the rows that these metrics write for a map, in their order."""
    return tuple(name for metric in metrics for name in ROWS[metric])


def mlflow_name(metric: str) -> str:
    """Name a metric in MLflow: in the group of its charts."""
    return f"fidelity/{metric.removeprefix('fidelity_')}" if metric.startswith("fidelity_") else f"metrics/{metric}"
