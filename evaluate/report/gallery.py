"""The gallery, as the paper's figure 6: the input and every method's map side by side, for images chosen by a rule.

The three maps of its figure 5 (ML-Grad-CAM, MATT and their product) are the first ones where they were scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.data import ImageSet
from evaluate.analysis.agreement import StudentFacts
from evaluate.format.figures import draw_map, draw_photographs
from evaluate.games.reader import Results
from evaluate.report.report_data import ReportData
from evaluate.scored_images import read_image
from evaluate.scored_method import MAIN_METHOD, ScoredMethod
from explain.maps import STD, maps_of

SHOWN = ("ml_grad_cam", "matt", MAIN_METHOD)  # in the order of the paper's figure 5
LONG_SIDE_PX = 224
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
    """Data URI of the map; None where it cannot be shown."""
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
    photographs: tuple[str, str] | None
    """Data URIs of the image, and of the same in dim grey; None where it is not shown or cannot be read."""
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
    cards = []
    for image_id, place in picks:
        found = {label: drawn.get(image_id) for label, drawn in maps.items()}
        size = _size(found)
        frame = read_image(images, image_id, size) if photographs else None
        over = frame is not None
        label, target = (class_name(images, report_data.student, rows.at[image_id, key]) for key in ("label", "target"))
        tiles = tuple(
            _tile(report_data, scored, image_id, found[scored.label], stds[scored.label].get(image_id), over=over)
            for scored in methods
        )
        pictures = None if frame is None else draw_photographs(frame)
        differs = image_id in report_data.disagreements.differing
        same = {"image_id": image_id, "place": place, "label": label, "target": target, "size": size}
        cards.append(Card(**same, photographs=pictures, tiles=tiles, differs=differs))
    return cards


def _size(found: Mapping[str, np.ndarray | None]) -> tuple[int, int]:
    """Scale the first map's (height, width) so that the longer side has `LONG_SIDE_PX`."""
    shape = next((m.shape for m in found.values() if m is not None), (LONG_SIDE_PX, LONG_SIDE_PX))
    height, width = (max(1, round(side * LONG_SIDE_PX / max(shape))) for side in shape)
    return height, width


def _tile(
    report_data: ReportData,
    scored: ScoredMethod,
    image_id: str,
    saliency: np.ndarray | None,
    std: np.ndarray | None,
    *,
    over: bool,
) -> Tile:
    aucs = [report_data.results.auc(game).at[image_id, scored.label] for game in ("deletion", "insertion")]
    source, note = None, "deletion {:.3f}, insertion {:.3f}".format(*aucs)
    if saliency is None:
        note = "No map is stored." if scored.label in report_data.maps else "The map is not opened."
    elif not np.isfinite(saliency).all():
        note = "The map holds values that are not finite."
    else:
        source = draw_map(saliency, over_photograph=over)
    known = report_data.disagreements if scored.kind == "student" else None
    return Tile(
        scored=scored,
        source=source,
        doubt=draw_map(std, over_photograph=False) if std is not None and np.isfinite(std).all() else None,
        note=note,
        differs=None if known is None else known.flagged(image_id, scored.label),
        on_frames=float("nan") if known is None else known.on_frames(image_id, scored.label),
    )


def class_name(images: ImageSet | None, student: StudentFacts, number: float | None) -> str:
    """Name a class of the black box as well as the student's description and the data set can."""
    if number is None or np.isnan(number):
        return "none"
    names = student.description.get("class_names") or ()
    if 0 <= int(number) < len(names):
        return str(names[int(number)])
    num_classes = student.description.get("num_classes")
    if images is not None and num_classes is not None:
        try:
            return images.label_name(int(number), int(num_classes))
        except ValueError:
            return f"class {int(number)}"
    return f"class {int(number)}"
