"""A scored method: what it is called in tables and plots, and the sums behind its mean curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from explain.methods.registry import METHODS
from explain.methods.titles import title_of

MAIN_METHOD = "mal_grad_cam"
ORACLE = "oracle"  # searches with the games' own score: how far maps can get at least, and no explanation
Kind = Literal["student", "asks", "teacher", "control", "unknown"]
MARKS: dict[Kind, str] = {
    "student": "explains the student, scored on the teacher",
    "asks": "asks the black box",
    "teacher": "looks into the black box",
    "control": "control",
    "unknown": "not a registered method",
}


@dataclass(frozen=True, kw_only=True)
class ScoredMethod:
    """One method, as one configuration of it was scored."""

    label: str
    """Its name in the report: the method, with what tells it from others of the same name."""
    method: str
    """Its registered name."""
    config_hash: str
    """Hash of the maps' configuration."""
    maps: str
    """Folder of the maps."""
    config: Mapping[str, Any]
    """The maps' configuration."""

    @property
    def title(self) -> str:
        """Return the label with the method's name as people write it."""
        return titled(self.method, self.label)

    @property
    def explains(self) -> str:
        """Return "student", "teacher", "nothing" (a control), or "unknown"."""
        registered = METHODS[self.method].explains if self.method in METHODS else "unknown"
        return self.config.get("explains", registered)

    @property
    def kind(self) -> Kind:
        """Return what the method looks at, as every table marks it."""
        if self.explains == "teacher":
            return "asks" if self.method in METHODS and METHODS[self.method].is_query_based else "teacher"
        kinds: dict[str, Kind] = {"student": "student", "nothing": "control"}
        return kinds.get(self.explains, "unknown")

    @property
    def is_control(self) -> bool:
        """Tell whether the method looks at no model."""
        return self.explains == "nothing"

    @property
    def is_oracle(self) -> bool:
        """Tell whether the maps were found by playing the games."""
        return self.method == ORACLE


@dataclass
class MeanCurve:
    """The sums behind a mean curve; curves are added in blocks."""

    num: int = 0
    """Number of curves."""
    sums: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Sum over curves, (points,)."""
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Sum of squares over curves, (points,)."""

    def add(self, curves: np.ndarray) -> None:
        """Add curves (N, points)."""
        block = curves.astype(np.float64)
        if not self.num:
            self.sums, self.squares = np.zeros(block.shape[1]), np.zeros(block.shape[1])
        self.num += len(block)
        self.sums += block.sum(axis=0)
        self.squares += (block**2).sum(axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Return the mean curve, (points,)."""
        return self.sums / self.num

    @property
    def half_width(self) -> np.ndarray:
        """Return half of the 95 % normal interval of the mean at each point: 1.96 s / sqrt(n)."""
        variance = np.maximum(self.squares / self.num - self.mean**2, 0) * self.num / max(self.num - 1, 1)
        return 1.96 * np.sqrt(variance / self.num)


def label_methods(maps: Sequence[Mapping[str, Any]]) -> tuple[ScoredMethod, ...]:
    """Label each distinct configuration by its method, and by what differs where a method comes twice."""
    distinct = {entry["config_hash"]: entry for entry in maps}
    return tuple(
        ScoredMethod(
            label=_label(entry, [e for e in distinct.values() if method_title(e) == method_title(entry)]),
            method=entry["method"],
            config_hash=entry["config_hash"],
            maps=entry["uri"],
            config=entry.get("config", {}),
        )
        for entry in distinct.values()
    )


def titled(method: str, label: str) -> str:
    """Write the method at the start of a label as people do."""
    return title_of(method) + label.removeprefix(method) if label.startswith(method) else label


def method_title(maps: Mapping[str, Any]) -> str:
    """Name the method of maps, and the model that they explain where that is another than the method's usual one."""
    method, explains = maps["method"], maps.get("config", {}).get("explains")
    usual = METHODS[method].explains if method in METHODS else None
    return method if explains in (None, usual) else f"{method} of the {explains}"


def _label(entry: Mapping[str, Any], same: Sequence[Mapping[str, Any]]) -> str:
    if len(same) == 1:
        return method_title(entry)
    options = [e.get("config", {}).get("options") or {} for e in same]
    keys = sorted(key for key in {k for o in options for k in o} if len({str(o.get(key)) for o in options}) > 1)
    own = entry.get("config", {}).get("options") or {}
    texts = [f"{key}={own.get(key)}" for key in keys]
    alike = [e for e, o in zip(same, options, strict=True) if all(str(o.get(key)) == str(own.get(key)) for key in keys)]
    if len(alike) > 1:  # of two students, or of two black boxes
        texts.append(_folder(entry, alike))
    return f"{method_title(entry)} ({', '.join(texts)})"


def _folder(entry: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> str:
    """Return the end of the maps' place that no other shares: its last folder, with those above it where needed."""
    places = [e["uri"].rstrip("/").split("/") for e in alike]
    own = entry["uri"].rstrip("/").split("/")
    for num in range(1, len(own) + 1):
        if sum(place[-num:] == own[-num:] for place in places) == 1:
            return "/".join(own[-num:])
    return entry["config_hash"][:6]
