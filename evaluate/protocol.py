"""The frozen evaluation protocol: what a stored score was made with, and the short hash that names it.

Numbers are only ever compared under one hash, so everything that can move a score is a field or a constant
here. This file imports no torch: the command line reads it before any work starts.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import tyro

Substrate = Literal["mean", "black", "blur", "noise"]
Game = Literal["deletion", "insertion"]
GAMES: tuple[Game, ...] = get_args(Game)

BLUR_KERNEL_PX = 11  # RISE's own kernel size
BLUR_SIGMA_PX = 5.0  # RISE's own width: with reflecting borders the kernel is nearly a box
# What is fixed for every protocol of this version and still part of its hash.
CONSTANTS = {
    "image": "resize bilinear antialias, no crop",
    "score": "teacher softmax probability of target",
    "order": "bilinear to input size, descending, ties by murmur3 fmix32 of the pixel index",
    "blur": f"impulse {BLUR_KERNEL_PX}x{BLUR_KERNEL_PX}, Gaussian sigma {BLUR_SIGMA_PX:g}, zero padding",
    "auc": "trapezoid over fraction of pixels",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of the insertion and deletion games; the defaults are RISE's (the protocol named `rise`)."""

    step_px: int | None = None
    """Pixels changed from one frame to the next; without it as many as the teacher's input is wide."""
    deletion_substrate: Substrate = "mean"
    """What deleted pixels become: mean (zero in normalised space), black, blur or noise."""
    insertion_substrate: Substrate = "blur"
    """What insertion starts from: mean (zero in normalised space), black, blur or noise."""
    seed: int = 0
    """Seed of the order of tied pixels and of the noise substrate."""
    target: Annotated[str, tyro.conf.Suppress] = "teacher"
    """How the class explained was chosen: the maps' own configuration says so, never the command line."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.step_px is not None and self.step_px < 1:
            raise ValueError(f"step_px {self.step_px} is not allowed; give 1 or more pixels, or leave it out")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is not allowed; give 0 or more")
        for field in ("deletion_substrate", "insertion_substrate"):
            if getattr(self, field) not in get_args(Substrate):
                allowed = ", ".join(get_args(Substrate))
                raise ValueError(f"{field} '{getattr(self, field)}' is unknown; choose one of {allowed}")

    @property
    def name(self) -> str:
        """Name the protocol: `rise`, or `rise` with the settings that differ from it."""
        changed = [f"{f.name}={v}" for f in dataclasses.fields(self) if (v := getattr(self, f.name)) != f.default]
        return "rise" if not changed else f"rise({', '.join(changed)})"

    def fields(self) -> dict[str, Any]:
        """Return every setting and constant, as stored in the scores' configuration and hashed."""
        return {"name": self.name, **dataclasses.asdict(self), **CONSTANTS}

    @property
    def hash(self) -> str:
        """Return the short hash (8 hex digits) that every score carries."""
        text = json.dumps(self.fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def substrate(self, game: Game) -> Substrate:
        """Return the substrate of a game."""
        return self.deletion_substrate if game == "deletion" else self.insertion_substrate

    def step(self, input_size: tuple[int, int]) -> int:
        """Return the pixels per step for a teacher's input size (height, width)."""
        return self.step_px or input_size[1]
