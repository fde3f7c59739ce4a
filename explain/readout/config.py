"""Settings of `python -m explain fit`, as the command line shows them. Imports no torch."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Fit a learned read-out to a student, for the method `readout` and for `gp_regression --prior readout`."""

    student: str
    """RUN folder of `python -m distill`; the read-out is stored in it, in place of one that is there."""
    maps: str
    """Maps of training images by a query-based method on the student's black box, such as
    `python -m explain gp_regression --split train --num-samples 64`."""
    data: str | None = None
    """Folder or URI of the images that the maps explain. Default: the location stored with the maps, if it is local and
    in the same run as maps or student; another one is opened only when it is given here."""
    teacher: str | None = None
    """The student's black box, KIND:WHERE. With it the read-out is refined by both games, played softly on the student;
    after each epoch the black box plays them on the validation images."""
    epochs: int = 6
    """Epochs over the images; the read-out of the best one is kept."""
    lr: float = 0.002
    """Highest learning rate of AdamW; it rises, then falls to nothing."""
    batch_size: int = 32
    """Images per step."""
    game_epochs: int = 3
    """Epochs of the refinement by games, where the black box is given; the read-out of the best one is kept."""
    held_out: float = 0.1
    """Share of the images that validates both kinds of epochs."""
    seed: int = 0
    """Seed of weights, order and validation images."""
    max_queries: int | None = None
    """Start only if the fit sends at most so many queries to the black box."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("epochs", "batch_size", "game_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is too small; give 1 or more")
        if not self.lr > 0:
            raise ValueError(f"lr {self.lr} is not above 0; 0.002 is usual")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out {self.held_out} is no share between 0 and 1; 0.1 is usual")

    def fields(self) -> dict[str, Any]:
        """Return the settings that decide the read-out, besides student, black box and maps."""
        left_out = {"student", "maps", "data", "teacher", "max_queries"} | (
            {"game_epochs"} if self.teacher is None else set()
        )
        return {name: value for name, value in asdict(self).items() if name not in left_out}
