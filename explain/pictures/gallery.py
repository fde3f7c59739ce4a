"""The gallery page: all images with their maps, to filter, sort and walk through by keyboard; opened from disk.

The page is static: index.html and data.js, beside the pictures. It needs no server and asks none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class GalleryImage:
    """One image of the gallery."""

    image_id: str
    """Path relative to the data set."""
    name: str
    """Start of its pictures' file names; "" where it cannot be shown."""
    label: str
    """Name of its true class; "" where unknown."""
    target: str
    """Name of the class explained."""
    prob: float | None
    """The black box's probability of it."""
    disagrees: bool | None
    """Whether the student predicts another class; None where no student was given."""
    pictures: Mapping[str, str]
    """Key of a method -> path of its overlay, relative to the page."""
    errors: Mapping[str, str]
    """Key of a method -> why it has no picture."""
    scores: Mapping[str, Mapping[str, float]]
    """Key of a method -> game -> AUC."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """A page of images."""

    title: str
    """The data set's name."""
    methods: Mapping[str, str]
    """Key -> title, in the order in which they were given."""
    images: Sequence[GalleryImage]
    """All images, in the data set's order."""
    has_disagreement: bool
    """Whether a student was given."""


def write_gallery(out: Path, gallery: Gallery) -> None:
    """Write index.html and data.js into `out`."""
    rows = [
        {
            "id": image.image_id,
            "name": image.name,
            "label": image.label,
            "target": image.target,
            "prob": None if image.prob is None else round(image.prob, 4),
            "disagrees": image.disagrees,
            "errors": dict(image.errors),
            "scores": {
                key: {game: round(auc, 4) for game, auc in games.items()} for key, games in image.scores.items()
            },
        }
        for image in gallery.images
    ]
    data = {
        "title": gallery.title,
        "methods": dict(gallery.methods),
        "disagreement": gallery.has_disagreement,
        "images": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    # ASCII JSON: no line separator and no end of a script stands in it
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    (out / "data.js").write_text(f"const GALLERY = {text};\n", encoding="ascii")
    page = files("explain.pictures").joinpath("gallery.html").read_text(encoding="utf-8")
    (out / "index.html").write_text(page, encoding="utf-8")
