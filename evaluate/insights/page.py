"""Page of an insights job: the gallery of `explain show`, suspicions first, each intervention beside its map."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from cluster.device import one_thread
from distill.data.decode import ImageError
from evaluate.insights.candidates import Trial
from evaluate.insights.changes import most_changed
from evaluate.insights.evidence import distances
from evaluate.insights.interventions import hidden, pasted
from evaluate.insights.result import Insights
from evaluate.insights.suspicions import Suspicion
from explain.maps import maps_of
from explain.pictures.gallery import Gallery, GalleryGroup, GalleryImage, save, save_pictures, write_gallery
from explain.pictures.overlay import columns_of, fit, overlay
from explain.pictures.show import file_name

SIDE_PX = 224
NUM_SHOWN = 12
"""Images of a suspicion on the page, the most typical of its trials."""
NUM_IN_SHEET = 4
PICTURES = {"map": "Map", "hidden": "Shared place hidden", "pasted": "Pasted into another class"}
AGAINST = {"map": "Map", "against": "Map of the other model"}
PROBABILITY = "probability"
NOT_DRAWN = "not drawn for this image"


def write_page(insights: Insights) -> None:
    """Write index.html with its pictures, and a sheet of each suspicion; a folder on a store gets none."""
    out = insights.folder.local_path()
    if out is None:
        return
    images: list[GalleryImage] = []
    groups: list[GalleryGroup] = []
    for one, row in zip(insights.suspicions, insights.rows, strict=True):
        file = f"image_ids/suspicion-{row['rank']:02d}.txt"
        images += _images_of(insights, one, len(groups))
        groups.append(GalleryGroup(sentence=row["sentence"], status=one.status, file=file))
    changed = list(_changed(insights, len(groups)))
    if changed:
        images += changed
        groups.append(GalleryGroup(sentence=_changed_text(insights), status="other model", file=""))
    none = [] if any(one.status == "confirmed" for one in insights.suspicions) else ["No suspicion is confirmed."]
    gallery = Gallery(
        title=insights.data.name,
        heading="What the black box relies on:",
        methods=PICTURES | (AGAINST if changed else {}),
        images=images,
        groups=groups,
        notes=[*none, *insights.notes],
    )
    write_gallery(out, gallery)


def shown_trials(insights: Insights, one: Suspicion) -> Sequence[tuple[Trial, Mapping[str, Any]]]:
    """List a suspicion's most typical trials with their rows; without the black box the rows are empty."""
    images = insights.images
    mean = images.evidence[one.candidate.members].mean(axis=0)
    rows = insights.probs or [{}] * len(insights.trials)
    own = [pair for pair in zip(insights.trials, rows, strict=True) if pair[0].suspicion == one.number]
    own.sort(key=lambda pair: float(distances(images.evidence[images.place_of(pair[0].image_id)], mean)))
    return own[:NUM_SHOWN]


def _images_of(insights: Insights, one: Suspicion, group: int) -> Iterator[GalleryImage]:
    """Draw the images of a suspicion, and its sheet; what cannot be drawn is said."""
    out = insights.folder.local_path()
    assert out is not None
    chosen = shown_trials(insights, one)
    maps = maps_of(insights.stored["maps"][0]["uri"], [trial.image_id for trial, _ in chosen])
    columns = []
    for trial, row in chosen:
        name = f"{group + 1:02d}/{file_name(trial.image_id)}"
        try:
            with one_thread():  # small pictures: to share them among threads costs more
                pictures = _pictures(insights, trial, maps[trial.image_id])
        except (ImageError, FileNotFoundError, PermissionError) as error:
            yield _image(insights, trial.image_id, group, errors=dict.fromkeys(PICTURES, str(error)))
            continue
        paths = save_pictures(out, name, pictures)
        columns.append((trial.image_id.rpartition("/")[2], list(pictures.values())))
        missing = {key: NOT_DRAWN for key in PICTURES | AGAINST if key not in pictures}
        yield _image(insights, trial.image_id, group, name=name, paths=paths, errors=missing, scores=_scores(row))
    if columns:
        save(columns_of(_alike(columns[:NUM_IN_SHEET])), out / "sheets" / f"suspicion-{group + 1:02d}.png")


def _alike(columns: Sequence[tuple[str, list[Image.Image]]]) -> list[tuple[str, list[Image.Image]]]:
    rows = min(len(pictures) for _, pictures in columns)
    return [(heading, pictures[:rows]) for heading, pictures in columns]


def _pictures(insights: Insights, trial: Trial, saliency: np.ndarray) -> dict[str, Image.Image]:
    """Draw an image, its map, what is hidden of it, and where that is pasted."""
    photograph = insights.data.image(trial.image_id)
    pixels = _as_pixels(photograph)
    pictures = {
        "photograph": fit(photograph, SIDE_PX),
        "map": overlay(photograph, saliency, long_side_px=SIDE_PX),
        "hidden": _as_picture(hidden(pixels, [trial.region])[1]),
    }
    if trial.other_id is not None:
        other = insights.data.image(trial.other_id).resize(photograph.size, Image.Resampling.BILINEAR)
        pictures["pasted"] = _as_picture(pasted(pixels, _as_pixels(other), [trial.region])[1])
    return pictures


def _as_pixels(photograph: Image.Image) -> torch.Tensor:
    levels = np.asarray(fit(photograph, SIDE_PX), dtype=np.float32) / 255
    return torch.from_numpy(levels.transpose(2, 0, 1).copy())  # (H, W, 3) -> (3, H, W)


def _as_picture(pixels: torch.Tensor) -> Image.Image:
    levels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def _scores(row: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the probabilities that stand below the pictures."""
    columns = {"map": "prob", "hidden": "prob_region_hidden", "pasted": "other_prob_region_pasted"}
    known = {key: row.get(column) for key, column in columns.items()}
    return {key: {PROBABILITY: float(value)} for key, value in known.items() if value is not None}


def _image(
    insights: Insights,
    image_id: str,
    group: int,
    *,
    errors: Mapping[str, str],
    name: str = "",
    paths: Mapping[str, str] | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> GalleryImage:
    number = insights.images.place_of(image_id)
    return GalleryImage(
        image_id=image_id,
        name=name,
        label="",
        target=insights.names[int(insights.images.targets[number])],
        prob=(scores or {}).get("map", {}).get(PROBABILITY),
        disagrees=None,
        pictures=paths or {},
        errors=errors,
        scores=scores or {},
        group=group,
    )


def _changed_text(insights: Insights) -> str:
    worst = insights.changes[0]
    return (
        "Images whose maps changed most although both models predict the same; of "
        f"{insights.names[worst.target]} images the maps changed by {worst.change.mean:.2f} on average "
        "(0 the same, 1 nothing in common)."
    )


def _changed(insights: Insights, group: int) -> Iterator[GalleryImage]:
    """Draw the images that changed most under both models' maps."""
    if not insights.changes:
        return
    out, numbers = insights.folder.local_path(), most_changed(insights.images)
    assert out is not None
    ids = [insights.images.image_ids[k] for k in numbers]
    first, second = (maps_of(entry["uri"], ids) for entry in insights.stored["maps"])
    for number, image_id in zip(numbers, ids, strict=True):
        name = f"{group + 1:02d}/{file_name(image_id)}"
        try:
            photograph = insights.data.image(image_id)
        except (ImageError, FileNotFoundError, PermissionError) as error:
            yield _image(insights, image_id, group, errors=dict.fromkeys(PICTURES | AGAINST, str(error)))
            continue
        maps = {"map": first[image_id], "against": second[image_id]}
        pictures = {key: overlay(photograph, saliency, long_side_px=SIDE_PX) for key, saliency in maps.items()}
        paths = save_pictures(out, name, {"photograph": fit(photograph, SIDE_PX), **pictures})
        errors = {key: NOT_DRAWN for key in PICTURES if key not in pictures}
        change = {"against": {"change": float(insights.images.changes[number])}}
        yield _image(insights, image_id, group, name=name, paths=paths, errors=errors, scores=change)
