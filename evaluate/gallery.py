"""The gallery, as the paper's figure 5: input, ML-Grad-CAM, MATT and their product, for images chosen by a rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distill.images import ImageSet
from distill.images.decode import decode, resize
from evaluate.agreement import StudentFacts
from evaluate.figures import draw_map, draw_overlay, encode
from evaluate.results import Results
from evaluate.scored import MAIN_METHOD, Scored
from explain.schema import maps_of

SHOWN = {"ml_grad_cam": "ML-Grad-CAM", "matt": "MATT", MAIN_METHOD: "MAL-Grad-CAM"}
LONG_SIDE_PX = 224
RULE = (
    "Images are ordered by mal_grad_cam's insertion minus deletion AUC (then by name); the {best} best, the {middle} "
    "around the median and the {worst} worst of {total} are shown. Nobody picked them by eye."
)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a card."""

    title: str
    """What it shows."""
    source: str | None
    """Data URI; None where it cannot be shown."""
    note: str
    """AUCs of this map, or why there is no picture."""


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
    tiles: tuple[Tile, ...]
    """Input first (where photographs are shown), then the three maps."""


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


def rule(order: Sequence[str], num: int) -> str:
    """State how `choose` chooses."""
    words = [place.partition(",")[0] for _, place in choose(order, num)]
    counts = {word: words.count(word) for word in ("best", "middle", "worst")}
    return RULE.format(total=len(order), **counts)


def ranking(results: Results) -> list[str]:
    """Order the images from best to worst for MAL-Grad-CAM; those without both scores are left out."""
    assert results.main is not None
    gap = (results.auc("insertion") - results.auc("deletion"))[results.main.label].dropna()
    return sorted(gap.index, key=lambda image_id: (-gap[image_id], image_id))


def make_cards(
    results: Results,
    picks: Sequence[tuple[str, str]],
    *,
    images: ImageSet | None,
    student: StudentFacts,
    photographs: bool,
) -> list[Card]:
    """Draw the chosen images.

    Args:
        results: The scores.
        picks: From `choose`.
        images: The data set; None where it cannot be opened: maps are then shown alone.
        student: Says how many classes the target's number counts.
        photographs: False leaves every input out, also under the maps.
    """
    rows = results.rows.drop_duplicates("image_id").set_index("image_id")
    columns = _columns(results)
    ids = [image_id for image_id, _ in picks]
    maps = {name: maps_of(scored.maps, ids) for name, scored in columns.items() if scored is not None}
    cards = []
    for image_id, place in picks:
        found = {name: maps.get(name, {}).get(image_id) for name in SHOWN}
        frame = _frame(images, image_id, _size(found)) if photographs else None
        tiles = [_input_tile(frame)] if photographs else []
        tiles += [
            _map_tile(results, columns[name], image_id=image_id, name=name, saliency=found[name], frame=frame)
            for name in SHOWN
        ]
        names = [_class_name(images, student, rows.at[image_id, key]) for key in ("label", "target")]
        cards.append(Card(image_id=image_id, place=place, label=names[0], target=names[1], tiles=tuple(tiles)))
    return cards


def _columns(results: Results) -> dict[str, Scored | None]:
    found = {name: next((s for s in results.methods if s.method == name), None) for name in SHOWN}
    return {**found, MAIN_METHOD: results.main}


def _size(found: Mapping[str, np.ndarray | None]) -> tuple[int, int]:
    """Scale the maps' (height, width) so that the longer side has `LONG_SIDE_PX`."""
    shape = next((m.shape for m in found.values() if m is not None), (LONG_SIDE_PX, LONG_SIDE_PX))
    height, width = (max(1, round(side * LONG_SIDE_PX / max(shape))) for side in shape)
    return height, width


def _frame(images: ImageSet | None, image_id: str, size: tuple[int, int]) -> np.ndarray | None:
    if images is None:
        return None
    try:
        return resize(decode(images.read(image_id)), size)
    except (OSError, ValueError):
        return None


def _input_tile(frame: np.ndarray | None) -> Tile:
    if frame is None:
        return Tile(title="Input", source=None, note="The image cannot be read.")
    return Tile(title="Input", source=encode(frame, "JPEG"), note="")


def _map_tile(
    results: Results,
    scored: Scored | None,
    *,
    image_id: str,
    name: str,
    saliency: np.ndarray | None,
    frame: np.ndarray | None,
) -> Tile:
    if scored is None:
        return Tile(title=SHOWN[name], source=None, note=f"{name} was not scored.")
    if saliency is None:
        return Tile(title=SHOWN[name], source=None, note="No map is stored any more.")
    source = draw_map(saliency, _size({name: saliency})) if frame is None else draw_overlay(saliency, frame)
    return Tile(title=SHOWN[name], source=source, note=_auc_note(results, scored, image_id))


def _auc_note(results: Results, scored: Scored, image_id: str) -> str:
    deletion, insertion = (results.auc(game).at[image_id, scored.label] for game in ("deletion", "insertion"))
    return f"del {deletion:.3f} · ins {insertion:.3f}"


def _class_name(images: ImageSet | None, student: StudentFacts, number: float | None) -> str:
    """Name a class of the black box as well as the student's description and the data set can."""
    if number is None or np.isnan(number):
        return "none"
    names = student.description.get("class_names") or ()
    if int(number) < len(names):
        return str(names[int(number)])
    num_classes = student.description.get("num_classes")
    if images is not None and num_classes is not None:
        try:
            return images.label_name(int(number), int(num_classes))
        except ValueError:
            return f"class {int(number)}"
    return f"class {int(number)}"
