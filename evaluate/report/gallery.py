"""The gallery, as the paper's figure 6: the input and every method's map side by side, for images chosen by a rule.

The three maps of its figure 5 (ML-Grad-CAM, MATT and their product) are the first ones where they were scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from evaluate.format.figures import JPEG_QUALITY, encode
from evaluate.games.reader import Results
from evaluate.report.report_data import ReportData
from evaluate.scored_images import read_image
from evaluate.scored_method import MAIN_METHOD, ScoredMethod
from explain.maps import STD, maps_of
from explain.pictures.class_names import class_title, name_classes
from explain.pictures.overlay import OPACITY, overlay

SHOWN = ("ml_grad_cam", "matt", MAIN_METHOD)  # in the order of the paper's figure 5
LONG_SIDE_PX, DOUBT_PX = 224, 64
GRAY = (128, 128, 128)  # under a map whose photograph is not shown
HERO_IMAGES, HERO_METHODS = 4, 3  # of the picture at the top of the page
RULE = (
    "Images are ordered by {label}'s insertion minus deletion AUC (then by name); the {best} best, the {middle} "
    "around the median and the {worst} worst of {total} are shown. Nobody picked them by eye."
)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One method's map of an image."""

    scored: ScoredMethod
    """The method."""
    source: str | None
    """Data URI of the map over its photograph; None where it cannot be shown."""
    doubt: str | None
    """Data URI of the standard deviation of the map's values; None where the method knows none."""
    note: str
    """AUCs of this map, or why there is no picture."""
    differs: bool | None
    """Whether its student disagrees with the black box on this image; None where nobody knows, or it has none."""
    on_frames: float
    """Share of this map's frames on which they agree; NaN likewise."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One image of the gallery."""

    image_id: str
    """Path relative to the data set."""
    place: str
    """best, middle or worst, and its rank."""
    label: str
    """Name of its true class."""
    target: str
    """Name of the class explained."""
    size: tuple[int, int]
    """Height and width in which everything is shown, in pixels."""
    photograph: str | None
    """Data URI of the image; None where it is not shown or cannot be read."""
    tiles: tuple[Tile, ...]
    """One per method."""
    differs: bool
    """Whether a student is known to disagree with the black box on this image."""


def choose(order: Sequence[str], num: int) -> list[tuple[str, str]]:
    """Choose images of a list that goes from best to worst: as many best as worst, the rest around the median.

    Returns:
        (image_id, place) in the order of the list; all of them where there are no more than `num`.
    """
    total = len(order)
    num = min(num, total)
    edge = (num + 1) // 3
    middle = num - 2 * edge
    start = max(edge, min((total - middle) // 2, total - edge - middle))
    picks = [*range(edge), *range(start, start + middle), *range(total - edge, total)]
    words = ["best"] * edge + ["middle"] * middle + ["worst"] * edge
    return [(order[i], f"{word}, {i + 1} of {total}") for i, word in zip(picks, words, strict=True)]


def rule(label: str, order: Sequence[str], num: int) -> str:
    """State how `choose` chooses."""
    words = [place.partition(",")[0] for _, place in choose(order, num)]
    counts = {word: words.count(word) for word in ("best", "middle", "worst")}
    return RULE.format(label=label, total=len(order), **counts)


def ranking(results: Results, judge: ScoredMethod) -> list[str]:
    """Order the images from best to worst for a method; those without both scores are left out."""
    gap = (results.auc("insertion") - results.auc("deletion"))[judge.label].dropna()
    return sorted(gap.index, key=lambda image_id: (-gap[image_id], image_id))


def side_by_side(report_data: ReportData) -> list[ScoredMethod]:
    """Order the methods: the paper's figure 5 first, then as in the table, the controls last."""
    order = [row.scored for row in report_data.rows]
    place = {name: k for k, name in enumerate(SHOWN)}
    return sorted(order, key=lambda scored: (scored.is_control, place.get(scored.method, len(SHOWN))))


def make_cards(report_data: ReportData, picks: Sequence[tuple[str, str]], *, photographs: bool) -> list[Card]:
    """Draw the chosen images, (image_id, place) each; without photographs the maps stand alone."""
    results, images = report_data.results, report_data.images
    ids = [image_id for image_id, _ in picks]
    own: Any = results.rows[results.rows["image_id"].isin(ids)]
    rows = own.drop_duplicates("image_id").set_index("image_id")
    methods = side_by_side(report_data)
    folders = report_data.maps
    maps = {scored.label: maps_of(folders[scored.label], ids) if scored.label in folders else {} for scored in methods}
    stds = {scored.label: maps_of(folders[scored.label], ids, STD) if maps[scored.label] else {} for scored in methods}
    names = name_classes(images, *(report_data.student.description.get(key) for key in ("class_names", "num_classes")))
    cards = []
    for image_id, place in picks:
        found = {label: drawn.get(image_id) for label, drawn in maps.items()}
        size = _size(found)
        frame = read_image(images, image_id, size) if photographs else None
        under = None if frame is None else Image.fromarray(frame)
        label, target = (rows.at[image_id, key] for key in ("label", "target"))
        tiles = tuple(
            _tile(report_data, scored, image_id, (found[scored.label], stds[scored.label].get(image_id)), under)
            for scored in methods
        )
        card = Card(
            image_id=image_id,
            place=place,
            label=class_title(names, None if pd.isna(label) else int(label)),
            target=class_title(names, None if pd.isna(target) else int(target)),
            size=size,
            photograph=None if under is None else encode(under, "JPEG", quality=JPEG_QUALITY),
            tiles=tiles,
            differs=image_id in report_data.disagreements.differing,
        )
        cards.append(card)
    return cards


def hero(report_data: ReportData, cards: Sequence[Card]) -> dict[str, Any]:
    """Choose what the top of the page shows: images evenly from the gallery's, with the best maps and the paper's."""
    shown = [row.scored for row in report_data.rows if not (row.scored.is_control or row.scored.is_oracle)]
    free = [row.scored for row in report_data.rows if row.scored in shown and row.teacher_queries == 0]
    wanted = [*shown[:1], *free[:1], *filter(None, [report_data.results.main]), *shown[1:]]
    methods = list({scored.label: scored for scored in wanted}.values())[:HERO_METHODS]
    drawn = [card for card in cards if any(tile.source for tile in card.tiles)]
    number = min(HERO_IMAGES, len(drawn))
    return {"methods": methods, "cards": [drawn[k * len(drawn) // number] for k in range(number)]}


def _size(found: Mapping[str, np.ndarray | None]) -> tuple[int, int]:
    """Scale the first map's (height, width) so that the longer side has `LONG_SIDE_PX`."""
    shape = next((m.shape for m in found.values() if m is not None), (LONG_SIDE_PX, LONG_SIDE_PX))
    height, width = (max(1, round(side * LONG_SIDE_PX / max(shape))) for side in shape)
    return height, width


def _tile(
    report_data: ReportData,
    scored: ScoredMethod,
    image_id: str,
    maps: tuple[np.ndarray | None, np.ndarray | None],
    under: Image.Image | None,
) -> Tile:
    """Draw a map, and its deviation where that is known, or say why there is none."""
    saliency, std = maps
    aucs = [report_data.results.auc(game).at[image_id, scored.label] for game in ("deletion", "insertion")]
    source, note = None, "deletion {:.3f}, insertion {:.3f}".format(*aucs)
    if saliency is None:
        note = "No map is stored." if scored.label in report_data.maps else "The map is not opened."
    elif not np.isfinite(saliency).all():
        note = "The map holds values that are not finite."
    else:
        source = _picture(saliency, under, LONG_SIDE_PX)
    known = report_data.disagreements if scored.kind == "student" else None
    return Tile(
        scored=scored,
        source=source,
        doubt=_picture(std, None, DOUBT_PX) if std is not None and np.isfinite(std).all() else None,
        note=note,
        differs=None if known is None else known.flagged(image_id, scored.label),
        on_frames=float("nan") if known is None else known.on_frames(image_id, scored.label),
    )


def _picture(saliency: np.ndarray, photograph: Image.Image | None, side_px: int) -> str:
    """Draw a map over its photograph; without one in full color over gray."""
    height, width = saliency.shape
    under = Image.new("RGB", (width, height), GRAY) if photograph is None else photograph
    drawn = overlay(under, saliency, opacity=1.0 if photograph is None else OPACITY, long_side_px=side_px)
    return encode(drawn, "JPEG", quality=JPEG_QUALITY)
