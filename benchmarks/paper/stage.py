"""One stage of a chain of commands: what it runs, whether its result is whole, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.sharded_job import part_counts
from cluster.storage import MANIFEST, Folder

CHECKPOINTS = "checkpoints"  # of a training that has begun


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command and what it leaves."""

    name: str
    """What it makes, in words."""
    command: tuple[str, ...]
    """What stands behind `python -m`."""
    out: str
    """Where that lies."""
    proof: str | None = MANIFEST
    """The file that is written last; None where each run makes it anew, in little time."""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """What the configuration of a whole result holds, by dotted keys."""
    num_rows: Callable[[], int] | None = None
    """Counts the rows of the whole, where it is Parquet."""

    @property
    def is_done(self) -> bool:
        """Tell whether the result is whole. Raises: ValueError where it was made with other settings."""
        folder = Folder(self.out)
        if self.proof is None or not folder.exists(self.proof):
            return False
        for key, wanted in self.made_with.items():
            if (found := _look_up(folder.config(), key)) != wanted:
                raise ValueError(
                    f"{self.out} was made with {key} {found}, not {wanted}; give the setting that it was made with, "
                    "delete the folder, or give another --out"
                )
        return True

    @property
    def progress(self) -> str:
        """Say how far it is."""
        folder = Folder(self.out)
        if self.is_done:
            return f"done{_figures(folder, str(self.proof))}"
        if self.num_rows and (parts := part_counts(folder)):
            return f"{sum(rows for rows, _ in parts.values()):,} of {self.num_rows():,} rows"
        if self.proof is None:
            return "made anew by each run"
        return "begun" if self.proof == MANIFEST and folder.exists(CHECKPOINTS) else "to do"


def _look_up(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[int(part)] if isinstance(config, list) else config.get(part)
    return config


def _figures(folder: Folder, proof: str) -> str:
    """Pick from a result's file what says how it came out."""
    found = folder.read_json(proof) if proof.endswith(".json") else {}
    metrics = {name.removeprefix("val_"): value for name, value in found.get("metrics", {}).items()}
    metrics |= {"sim1": found["sim1"]["mean"]} if "sim1" in found else {}
    shown = [f"{found['rows']:,} rows, {found['errors']:,} with an error"] if "rows" in found else []
    shown += [f"{name} {metrics[name]:.4f}" for name in ("sim1", "accuracy") if name in metrics][:1]
    return "".join(f": {text}" for text in shown)
