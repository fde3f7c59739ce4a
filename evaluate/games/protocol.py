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

Baseline = Literal["mean", "black", "blur", "noise"]
Game = Literal["deletion", "insertion", "deletion_least", "insertion_least"]
GAMES: tuple[Game, ...] = ("deletion", "insertion")  # the two main games: the most relevant pixels change first
LEAST_GAMES: dict[Game, Game] = {"deletion": "deletion_least", "insertion": "insertion_least"}
ALL_GAMES: tuple[Game, ...] = get_args(Game)
# What maps are compared by, per image: gap is insertion minus deletion AUC, a gain the symmetric relevance gain.
RankedBy = Literal["deletion", "insertion", "gap", "insertion_normalised", "deletion_gain", "insertion_gain"]
RANKINGS: tuple[RankedBy, ...] = get_args(RankedBy)
HIGHER_IS_BETTER: dict[Game, bool] = {
    "deletion": False,
    "insertion": True,
    "deletion_least": True,
    "insertion_least": False,
}

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
PATCH_ORDER = (
    "bilinear to input size, adaptive average over patches, descending, ties by murmur3 fmix32 of the patch index"
)
# Fields that came after scores were stored: at their defaults they are no part of the hash, so that it stays.
LATER_FIELDS = ("patches", "least_relevant", "points")

SAMPLING = "two thirds of the points evenly, the others in 3 rounds by width squared times difference, lines between"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of the insertion and deletion games; the defaults are RISE's (the protocol named `rise`).

    Whole patches and the reversed order are those of Blücher et al. 2024, "Decoupling pixel flipping and occlusion
    strategy".
    """

    step_px: int | None = None
    """Pixels changed from one frame to the next; without it as many as the teacher's input is wide."""
    deletion_substrate: Baseline = "mean"
    """What deleted pixels become: mean (zero in normalized space), black, blur or noise."""
    insertion_substrate: Baseline = "blur"
    """What insertion starts from: mean (zero in normalized space), black, blur or noise."""
    seed: int = 0
    """Seed of the order of tied pixels and of the noise baseline."""
    target: Annotated[str, tyro.conf.Suppress] = "teacher"
    """How the class explained was chosen: the maps' own configuration says so, never the command line."""
    patches: int | None = None
    """Change whole patches of a grid of so many rows and columns, one per step, instead of step_px pixels."""
    least_relevant: bool = False
    """Also play both games with the order reversed: the least relevant pixels or patches change first."""
    points: int | None = None
    """Play so many points of each curve only, most of them where it is steep; a fifth of 225 is 45. The scores say in
    `auc_bound` by how much an area may be off. Without it every point is played."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.step_px is not None and self.step_px < 1:
            raise ValueError(f"step_px {self.step_px} is not allowed; give 1 or more pixels, or leave it out")
        if self.patches is not None and self.patches < 2:
            raise ValueError(f"patches {self.patches} is not allowed; give 2 or more rows and columns, or leave it out")
        if self.patches is not None and self.step_px is not None:
            raise ValueError(
                f"patches {self.patches} and step_px {self.step_px} do not go together: whole patches change one per "
                "step; give one of the two"
            )
        if self.points is not None and self.points < 3:
            raise ValueError(f"points {self.points} is not allowed; give 3 or more, or leave it out to play all")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is not allowed; give 0 or more")
        for field in ("deletion_substrate", "insertion_substrate"):
            if getattr(self, field) not in get_args(Baseline):
                allowed = ", ".join(get_args(Baseline))
                raise ValueError(f"{field} '{getattr(self, field)}' is unknown; choose one of {allowed}")

    @property
    def name(self) -> str:
        """Name the protocol: `rise`, or `rise` with the settings that differ from it."""
        changed = [f"{f.name}={v}" for f in dataclasses.fields(self) if (v := getattr(self, f.name)) != f.default]
        return "rise" if not changed else f"rise({', '.join(changed)})"

    def fields(self) -> dict[str, Any]:
        """Return every setting and constant, as stored in the scores' configuration and hashed."""
        unset = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) == f.default} & set(LATER_FIELDS)
        kept = {name: value for name, value in dataclasses.asdict(self).items() if name not in unset}
        order = {} if self.patches is None else {"order": PATCH_ORDER}
        sampling = {} if self.points is None else {"sampling": SAMPLING}
        return {"name": self.name, **kept, **CONSTANTS, **order, **sampling}

    @property
    def hash(self) -> str:
        """Return the short hash (8 hex digits) that every score carries."""
        text = json.dumps(self.fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def games(self) -> tuple[Game, ...]:
        """Return the games that are played with each map, the two main ones first."""
        return ALL_GAMES if self.least_relevant else GAMES

    def baseline(self, game: Game) -> Baseline:
        """Return the baseline of a game."""
        return self.deletion_substrate if is_deletion(game) else self.insertion_substrate

    def step(self, input_size: tuple[int, int]) -> int:
        """Return the pixels per step for a teacher's input size (height, width); without patches only."""
        assert self.patches is None, "patches change one per step"
        return self.step_px or input_size[1]

    def check_size(self, input_size: tuple[int, int]) -> None:
        """Check that a teacher's input size (height, width) has at least a pixel for each patch.

        Raises:
            ValueError: there are more rows or columns of patches than of pixels.
        """
        if self.patches is not None and self.patches > min(input_size):
            height, width = input_size
            raise ValueError(
                f"patches {self.patches} does not fit the teacher's input of {height} x {width} pixels; give at most "
                f"{min(input_size)}"
            )


def is_deletion(game: str) -> bool:
    """Tell whether a game goes from the image to the baseline, in either order."""
    return game in ("deletion", LEAST_GAMES["deletion"])
