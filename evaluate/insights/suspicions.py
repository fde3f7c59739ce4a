"""Suspicions: candidates with the results of their interventions, ranked, and as sentences from the numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from cluster.parquet import parts_schema
from evaluate.insights.candidates import Candidate
from evaluate.insights.classes import ALPHA, MIN_IMAGES, Images
from evaluate.insights.evidence import color_text, contrast_text, distances, place_text
from evaluate.insights.interventions import columns_of
from evaluate.statistics import Interval, holm, mean_interval, wilcoxon

Status = Literal["confirmed", "not confirmed", "not tested"]
SCHEMA_VERSION = "1"
MIN_EFFECT = 0.1
"""Smallest mean change of a probability, beyond that of a random region, that confirms a suspicion."""
NUM_TYPICAL = 8
"""Images shown for a suspicion: those nearest to its mean map."""
EFFECTS: Mapping[str, tuple[str, str]] = {
    "hide": ("prob", "prob_region_hidden"),
    "hide_random": ("prob", "prob_random_hidden"),
    "hide_rest": ("prob", "prob_rest_hidden"),
    "paste": ("other_prob_region_pasted", "other_prob"),
    "paste_random": ("other_prob_random_pasted", "other_prob"),
}
"""Effect -> columns of trials, the first minus the second: what hiding removes, and what pasting adds."""
BEYOND: Mapping[str, tuple[str, str]] = {
    "hide_beyond": ("hide", "hide_random"),
    "paste_beyond": ("paste", "paste_random"),
}
"""Paired difference of an effect and that of a random region."""


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """A candidate after its test."""

    candidate: Candidate
    """Its images and place."""
    number: int
    """Its number among the candidates, as its trials carry it."""
    effects: Mapping[str, Interval]
    """Mean effects with 95 % intervals, by the names in `EFFECTS` and `BEYOND`; without those that were not tested."""
    p_value: float
    """Of the effect that decides against a random region (Wilcoxon), Holm-adjusted over all tested; NaN untested."""
    status: Status
    """Whether the test confirms it."""

    @property
    def deciding(self) -> str:
        """Name the effect that decides: what the place alone does to other images, or what its loss does to its own."""
        return f"{_deciding(self.candidate)}_beyond"

    @property
    def num_tested(self) -> int:
        """Count the images of the test."""
        return self.effects[self.deciding].num if self.deciding in self.effects else 0


def fewest_images(num_tests: int) -> int:
    """Compute the fewest images of which a signed rank test can say anything: 2^(1 - n) num_tests < 0.05, or 10."""
    return max(MIN_IMAGES, math.floor(math.log2(2 * max(num_tests, 1) / ALPHA)) + 1)


def judge(candidates: Sequence[Candidate], trials: pa.Table | None) -> list[Suspicion]:
    """Judge candidates by their trials, and rank them: confirmed ones first, the largest effect first.

    A place, or what has a color of its own, is confirmed where pasting it into images of other classes adds more
    probability than a random region of the same image does: by at least `MIN_EFFECT`, with an interval above 0 and
    p < 0.05. Evidence outside the object is confirmed where hiding it removes as much more than a random region.
    """
    paired = [{} if trials is None else _effects(columns_of(trials, k)) for k in range(len(candidates))]
    deciding = [_deciding(one) for one in candidates]
    tested = [k for k, own in enumerate(paired) if deciding[k] in own]
    fewest = fewest_images(len(tested))
    p_values = [wilcoxon(paired[k][deciding[k]], paired[k][f"{deciding[k]}_random"]) for k in tested]
    adjusted = dict(zip(tested, holm(p_values), strict=True))
    judged = []
    for k, (one, own) in enumerate(zip(candidates, paired, strict=True)):
        effects = {name: mean_interval(values) for name, values in own.items()}
        decides = effects.get(f"{deciding[k]}_beyond")
        p = adjusted.get(k, math.nan)
        holds = decides is not None and decides.num >= fewest and p < ALPHA and decides.low > 0
        status: Status = "not tested" if decides is None else "not confirmed"
        if decides is not None and holds and decides.mean >= MIN_EFFECT:
            status = "confirmed"
        judged.append(Suspicion(candidate=one, number=k, effects=effects, p_value=p, status=status))
    return sorted(judged, key=_rank)


def _deciding(one: Candidate) -> str:
    return "hide" if one.kind == "object" else "paste"


def _rank(one: Suspicion) -> tuple[int, float, int]:
    effect = one.effects.get(one.deciding)
    return ("confirmed", "not confirmed", "not tested").index(one.status), -effect.mean if effect else 0.0, one.number


def _effects(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute each image's effects; those of pasting are left out where nothing was pasted."""
    values = {name: columns[first] - columns[second] for name, (first, second) in EFFECTS.items()}
    known = {name: own for name, own in values.items() if own.size and np.isfinite(own).all()}
    for name, (first, second) in BEYOND.items():
        if first in known and second in known:
            known[name] = known[first] - known[second]
    return known


def sentence(one: Suspicion, images: Images, names: Mapping[int, str]) -> str:
    """Say what a suspicion is, and the result of its test, from the numbers alone."""
    candidate, effects = one.candidate, one.effects
    name, num = names[candidate.target], int((images.targets == candidate.target).sum())
    where = "outside the object"
    if candidate.region is not None:
        where = f"at one place ({place_text(candidate.region)}, {_percent(candidate.region.mean())} of the image)"
    under, around = (own[candidate.members].mean(axis=0) for own in (images.color, images.image_color))
    color = f", mostly {color_text(under)}" if color_text(under) != color_text(around) else ""
    if candidate.kind == "color":
        where, color = f"on {contrast_text(under, around)} that the rest of the image does not have", ""
    parts = [
        f"In {_percent(len(candidate.members) / num)} of {name} images ({len(candidate.members)} of {num}) "
        f"the evidence lies {where}{color}"
    ]
    if one.status == "not tested":
        return f"{parts[0]}; not tested on the black box."
    parts.append(
        f"hiding it removes {_number(effects['hide'])} of the probability, a random region of that size "
        f"{_number(effects['hide_random'])}, the rest of the evidence {_number(effects['hide_rest'])}"
    )
    if "paste" in effects:
        parts.append(
            f"pasted into images of other classes it adds {_number(effects['paste'])}, a random region "
            f"{_number(effects['paste_random'])}"
        )
    p = "p < .001" if one.p_value < 0.001 else f"p = {one.p_value:.3f}".replace("0.", ".")
    return f"{'; '.join(parts)} ({one.num_tested} images tested, {p})."


def typical(one: Candidate, images: Images) -> list[int]:
    """List the members whose maps are nearest to their mean map, the nearest first."""
    own = images.evidence[one.members]
    order = np.argsort(distances(own, own.mean(axis=0)), kind="stable")
    return one.members[order[:NUM_TYPICAL]].tolist()


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: Interval) -> str:
    return f"{_short(value.mean)} [{_short(value.low)}, {_short(value.high)}]"


def _short(value: float) -> str:
    text = f"{round(value, 2) + 0.0:.2f}"  # adding makes -0 and 0 the same
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else text


NUMBERS = [f"{name}{end}" for name in (*EFFECTS, *BEYOND) for end in ("", "_low", "_high")]
COLUMNS = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),  # from 1
        pa.field("suspicion", pa.int32(), nullable=False),  # number in the trials
        pa.field("target", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # of the class
        pa.field("kind", pa.string(), nullable=False),  # cluster, place, color or object
        pa.field("status", pa.string(), nullable=False),  # confirmed, not confirmed, or not tested
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("num_images", pa.int32(), nullable=False),  # that share the place
        pa.field("class_share", pa.float64(), nullable=False),  # of the images of the class
        pa.field("region", pa.list_(pa.int32())),  # cells of the grid, row by row; null where each image has its own
        pa.field("share", pa.float64()),  # mean share of the class's evidence there
        pa.field("others", pa.float64()),  # of all other classes'
        pa.field("contrast_p_holm", pa.float64()),
        pa.field("size", pa.float64()),  # mean share of the image that holds half of an image's evidence
        pa.field("color", pa.list_(pa.float64())),  # mean levels under the maps
        pa.field("num_tested", pa.int32(), nullable=False),
        *(pa.field(name, pa.float64()) for name in NUMBERS),
        pa.field("p_holm", pa.float64()),
        pa.field("typical_ids", pa.list_(pa.string())),
        pa.field("image_ids", pa.list_(pa.string())),
    ]
)


def suspicion_rows(judged: Sequence[Suspicion], images: Images, names: Mapping[int, str]) -> list[dict[str, object]]:
    """Make the row of each suspicion, in their order."""
    rows = []
    for rank, one in enumerate(judged, start=1):
        candidate = one.candidate
        num = int((images.targets == candidate.target).sum())
        row: dict[str, object] = {
            "rank": rank,
            "suspicion": one.number,
            "target": candidate.target,
            "name": names[candidate.target],
            "kind": candidate.kind,
            "status": one.status,
            "sentence": sentence(one, images, names),
            "num_images": len(candidate.members),
            "class_share": len(candidate.members) / num,
            "region": None if candidate.region is None else np.flatnonzero(candidate.region).tolist(),
            "share": candidate.share,
            "others": candidate.others,
            "contrast_p_holm": candidate.p_value,
            "size": float(images.facts["size"][candidate.members].mean()),
            "color": images.color[candidate.members].mean(axis=0).tolist(),
            "num_tested": one.num_tested,
            "p_holm": one.p_value,
            "typical_ids": [images.image_ids[k] for k in typical(candidate, images)],
            "image_ids": [images.image_ids[k] for k in candidate.members],
        }
        for name, value in one.effects.items():
            row |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        rows.append(row)
    return rows


def suspicions_table(rows: Sequence[Mapping[str, object]], stored: Mapping[str, object]) -> pa.Table:
    """Make the Parquet table of suspicions."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=parts_schema(COLUMNS, SCHEMA_VERSION, stored))
