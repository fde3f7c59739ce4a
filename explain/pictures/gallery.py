"""The gallery page: all images with their maps, to filter, sort and walk through by keyboard; opened from disk.

The page is static: index.html and data.js, beside the pictures. It needs no server and asks none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from explain.pictures.overlay import fit

THUMBNAIL_PX = 160


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
    """Key of a method -> game -> AUC, or another number -> its value."""
    group: int | None = None
    """Number of its group in the gallery."""


@dataclass(frozen=True, kw_only=True)
class GalleryGroup:
    """Images that a sentence is about: a strip of them stands above the others."""

    sentence: str
    """What it says."""
    status: str
    """A word before it."""
    file: str
    """File with the ids of all its images, relative to the page; "" where there is none."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """A page of images."""

    title: str
    """The data set's name."""
    methods: Mapping[str, str]
    """Key -> title, in the order in which they were given."""
    images: Sequence[GalleryImage]
    """All images, in the data set's order."""
    has_disagreement: bool = False
    """Whether a student was given."""
    heading: str = "Saliency maps of"
    """Words before the title."""
    groups: Sequence[GalleryGroup] = ()
    """Groups of images, shown first."""
    notes: Sequence[str] = ()
    """Sentences below the groups."""


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
            "group": image.group,
            "errors": dict(image.errors),
            "scores": {
                key: {game: round(auc, 4) for game, auc in games.items()} for key, games in image.scores.items()
            },
        }
        for image in gallery.images
    ]
    data = {
        "title": f"{gallery.heading} {gallery.title}",
        "groups": [vars(group) for group in gallery.groups],
        "notes": list(gallery.notes),
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


def save_pictures(out: Path, name: str, pictures: Mapping[str, Image.Image]) -> dict[str, str]:
    """Save an image's pictures as PNG with thumbnails, where the page looks for them; return their paths by key.

    Args:
        out: folder of the page.
        name: start of the pictures' file names.
        pictures: key -> picture; "photograph" is the image itself, and becomes a JPEG.
    """
    paths = {}
    for key, picture in pictures.items():
        paths[key] = f"photographs/{name}.jpg" if key == "photograph" else f"{key}/{name}.png"
        save(picture, out / paths[key])
        save(fit(picture, THUMBNAIL_PX), out / "thumbnails" / key / f"{name}.jpg")
    return paths


def save(picture: Image.Image, path: Path) -> None:
    """Save a picture as JPEG or PNG, as its path ends; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 85} if path.suffix == ".jpg" else {"compress_level": 2}
    picture.save(path, **options)
