"""Settings of `python -m explain show`: pictures and a gallery of stored maps. Imports no torch."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draw stored maps over their photographs: a PNG per image and method, and an HTML gallery of all images."""

    maps: tuple[str, ...]
    """Folders of `python -m explain METHOD`, one per method, of the same data set."""
    data: str
    """The images that the maps explain."""
    out: str
    """Folder for the pictures and index.html; what is there already is drawn again."""
    scores: tuple[str, ...] = ()
    """Folders of `python -m evaluate games` with scores of these maps: the gallery sorts and filters by them."""
    student: str | None = None
    """RUN folder of `python -m distill`: the gallery marks images of which it predicts another class."""
    teacher: str | None = None
    """The black box, KIND:WHERE: names its classes where the data set does not, and is not queried."""
    opacity: float = 0.7
    """Share of the map's color where the map is highest, 0 to 1."""
    colormap: str = "inferno"
    """Colormap of matplotlib; inferno, viridis, magma, plasma and cividis are perceptually uniform."""
    size: int = 320
    """Longer side of each picture in pixels."""
    sheets: bool = True
    """Also draw one PNG per image with the photograph and all methods side by side."""
    limit: int | None = None
    """Draw only the first so many images, in sorted order."""

    def __post_init__(self) -> None:
        if not self.maps:
            raise ValueError("no maps are given; give --maps with folders of `python -m explain METHOD`")
        check_picture(self)
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit {self.limit} is too small; give 1 or more, or none for all images")


def check_picture(config: Any) -> None:
    """Check the opacity and the size of a command's pictures. Raises: ValueError."""
    if not 0 <= config.opacity <= 1:
        raise ValueError(f"opacity {config.opacity} is not allowed; give 0 to 1")
    if not 32 <= config.size <= 4096:
        raise ValueError(f"size {config.size} is not allowed; give 32 to 4096 pixels")
