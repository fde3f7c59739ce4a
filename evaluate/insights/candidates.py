"""Candidates for suspicions: images of a class whose evidence lies where that of other classes does not.

Nothing is claimed here. Four kinds are proposed, and each is tested on the black box afterwards:

- cluster: maps of a class that share a place, found by clustering;
- place: images of a class with much of their evidence at the border or in one corner;
- color: images whose evidence lies on a color unlike the rest of the image, wherever it is;
- object: images with most of their evidence outside the object, where masks or boxes say where that is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import ndimage, stats

from evaluate.insights.classes import ALPHA, MIN_IMAGES, OUTSIDE, Images
from evaluate.insights.clusters import cluster_maps, descriptors
from evaluate.insights.evidence import GRID, PLACES, column_of, core, hue
from evaluate.statistics import holm

Kind = Literal["cluster", "place", "color", "object"]
MAX_AREA = 1 / 3
"""Largest share of the image that a place has: hiding more tells nothing."""
TYPICAL = 0.95
"""Share of other classes' images that have less evidence in a place than an image that belongs to its candidate."""
MIN_HUE = 25
"""Least difference of hue, in levels, between the evidence and its image, from which on a color stands out."""
COMMON = 0.75
"""Share of a class's images from which on a color is the class's own, as red is of tomatoes."""
NEARLY = 0.95
"""Share of a candidate's normal score from which on an alike one is as clear."""
MOSTLY = 0.5
"""Share of the evidence outside the object from which on it lies mostly there, and overlap of alike candidates."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Images of a class that share a place of their evidence, not tested yet."""

    kind: Kind
    """How it was found."""
    target: int
    """Class."""
    members: np.ndarray
    """Places of its images in `Images`, ascending."""
    region: np.ndarray | None
    """Cells that the maps share, bool (GRID, GRID); None where each image has its own."""
    share: float
    """Mean share of the class's evidence in the region, or outside the object; share of its images of that color."""
    others: float
    """The same of all other classes; NaN without any."""
    density: float
    """Mean evidence of its images in the region over that of an even map; 0 without a region."""
    z: float
    """Normal score of the number of the class's images that are there, against chance."""
    p_value: float
    """One-sided p of Fisher's exact test of that number, Holm-adjusted over all candidates of all classes."""


def propose(images: Images, *, seed: int = 0) -> list[Candidate]:
    """Propose candidates of all classes with at least `MIN_IMAGES` images, the clearest first.

    A candidate stays where significantly many images of the class have more evidence there than `TYPICAL` of all other
    classes' images, and those have no more than an even map would have: not in the middle, where objects are. Of
    candidates of a class that are mostly the same images and place the clearest stays, of nearly equal ones the
    denser; a color only where no place stands for its images.
    """
    found = [one for target in images.classes for one in _of_class(images, target, seed)]
    adjusted = holm([one.p_value for one in found])
    clear = [
        replace(one, p_value=p) for one, p in zip(found, adjusted, strict=True) if one.kind == "object" or p < ALPHA
    ]
    chosen: list[Candidate] = []
    for one in sorted(clear, key=lambda one: (one.region is None, -one.z)):
        alike = [k for k, other in enumerate(chosen) if _alike(one, other)]
        if not alike:
            chosen.append(one)
        elif one.z >= NEARLY * chosen[alike[0]].z and one.density > chosen[alike[0]].density:
            chosen[alike[0]] = one
    return sorted(chosen, key=lambda one: (-one.z, one.target))


def _of_class(images: Images, target: int, seed: int) -> Iterator[Candidate]:
    own = images.targets == target
    numbers = np.flatnonzero(own)
    if len(numbers) < MIN_IMAGES or own.all():
        return
    labels = cluster_maps(descriptors(images.evidence[numbers]), seed=seed)
    for label in np.unique(labels):
        members = numbers[labels == label]
        if len(members) < MIN_IMAGES:
            continue
        region = widened(core(images.evidence[members].mean(axis=0)))
        values = images.evidence[:, region].sum(axis=1)
        if _is_place(region, values[~own]):
            yield _candidate(images, members, values, values > _typical(values, own), kind="cluster", region=region)
    for name, region in PLACES.items():
        values = images.facts[column_of(name)].astype(np.float64)
        is_there = values > max(float(region.mean()), _typical(values, own))
        members = numbers[is_there[numbers]]
        if len(members) >= MIN_IMAGES and _is_place(region, values[~own]):
            yield _candidate(images, members, values, is_there, kind="place", region=region)
    yield from _colors(images, numbers, own, seed)
    values = images.facts[OUTSIDE].astype(np.float64)
    is_outside = values > MOSTLY  # NaN is not
    members = numbers[is_outside[numbers]]
    if len(members) >= MIN_IMAGES:
        yield _candidate(images, members, values, is_outside, kind="object")


def _colors(images: Images, numbers: np.ndarray, own: np.ndarray, seed: int) -> Iterator[Candidate]:
    """Cut a class's images in two by the hue of their evidence, and yield a part whose hue stands out and is rare."""
    from sklearn.cluster import KMeans

    contrasts = hue(images.color) - hue(images.image_color)
    if not np.ptp(contrasts[numbers], axis=0).any():
        return
    kmeans: Any = KMeans
    labels = kmeans(2, n_init=10, random_state=seed).fit_predict(contrasts[numbers])
    for label in (0, 1):
        center = np.median(contrasts[numbers[labels == label]], axis=0)
        closeness = -np.linalg.norm(contrasts - center, axis=1)
        is_near = closeness > _typical(closeness, own)
        members = numbers[(labels == label) & is_near[numbers]]
        stands_out = np.linalg.norm(center) >= MIN_HUE and is_near[own].mean() < COMMON
        if len(members) >= MIN_IMAGES and stands_out:
            yield _candidate(images, members, is_near.astype(np.float64), is_near, kind="color")


def _typical(values: np.ndarray, own: np.ndarray) -> float:
    return float(np.quantile(values[~own], TYPICAL))


def _is_place(region: np.ndarray, others: np.ndarray) -> bool:
    """Tell whether a region is small enough, and other classes' evidence is not there as well."""
    return bool(region.mean() <= MAX_AREA and others.mean() <= region.mean())


def _candidate(
    images: Images,
    members: np.ndarray,
    values: np.ndarray,
    is_there: np.ndarray,
    *,
    kind: Kind,
    region: np.ndarray | None = None,
) -> Candidate:
    """Test whether more images of the class are there than chance would have: Fisher's exact test, one-sided.

    A part of the class decides, wherever its other images are. Ranks of the whole class would not see a half that is
    there where the other half is further away than other classes are.
    """
    density = 0.0 if region is None else float(values[members].mean() / region.mean())
    target, known = int(images.targets[members[0]]), np.isfinite(values)
    own = images.targets[known] == target
    values, is_there = values[known], is_there[known]
    chance = stats.hypergeom(len(own), int(is_there.sum()), int(own.sum()))
    num, spread = int(is_there[own].sum()), float(chance.std())
    return Candidate(
        kind=kind,
        target=target,
        members=members,
        region=region,
        share=float(values[own].mean()),
        others=float(values[~own].mean()) if not own.all() else float("nan"),
        density=density,
        z=(num - float(chance.mean())) / spread if spread > 0 else 0.0,
        p_value=float(chance.sf(num - 1)),
    )


def _alike(first: Candidate, second: Candidate) -> bool:
    """Tell whether two candidates of a class are mostly the same images and place; a color has no place."""
    shared = len(np.intersect1d(first.members, second.members, assume_unique=True))
    if first.target != second.target or shared <= MOSTLY * min(len(first.members), len(second.members)):
        return False
    if first.region is None or second.region is None:
        return "object" not in (first.kind, second.kind)
    return bool((first.region & second.region).sum() > MOSTLY * min(first.region.sum(), second.region.sum()))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One image on which a candidate is tested, with what is hidden and pasted; cells are numbers, row by row."""

    suspicion: int
    """Number of the candidate."""
    image_id: str
    """Image of the candidate."""
    target: int
    """Class explained."""
    region: list[int]
    """Cells that the maps share, or those of the image's own evidence."""
    random: list[int]
    """As many cells elsewhere."""
    rest: list[int]
    """Cells of the rest of the image's evidence."""
    other_id: str | None
    """Image of another class, into which the region is pasted; None for evidence outside the object."""


def plan_trials(images: Images, candidates: Sequence[Candidate], *, num_tested: int, seed: int = 0) -> list[Trial]:
    """Plan the trials of all candidates: on images drawn from each, at most `num_tested`, other classes' drawn too."""
    trials = []
    for number, one in enumerate(candidates):
        rng = np.random.default_rng([seed, number])
        members = np.sort(rng.permutation(one.members)[:num_tested])
        others = rng.permutation(np.flatnonzero(images.targets != one.target))
        for k, member in enumerate(members):
            region = one.region if one.region is not None else own_region(images, int(member), one.kind)
            weights = images.evidence[member]
            paste = one.kind != "object" and len(others) > 0
            trials.append(
                Trial(
                    suspicion=number,
                    image_id=images.image_ids[member],
                    target=one.target,
                    region=np.flatnonzero(region).tolist(),
                    random=np.flatnonzero(moved(region, rng)).tolist(),
                    rest=np.flatnonzero((weights > 0) & ~region).tolist(),
                    other_id=images.image_ids[others[k % len(others)]] if paste else None,
                )
            )
    return trials


def own_region(images: Images, number: int, kind: Kind) -> np.ndarray:
    """Choose the cells that hold half of an image's evidence, and those beside them; for "object" outside of it alone.

    Returns:
        bool (GRID, GRID).
    """
    if kind != "object":
        return widened(core(images.evidence[number]))
    outside = images.inside_of(number) < 0.5
    return widened(core(images.evidence[number] * outside)) & outside


def widened(region: np.ndarray) -> np.ndarray:
    """Add the cells beside a region, corners too: what is hidden in part is filled in again from its own rest."""
    return ndimage.binary_dilation(region, np.ones((3, 3), dtype=bool))


def moved(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move a region around the grid, over its edges, by a random shift that leaves as little of it in place as most do.

    Returns:
        As many cells, of the same shape but for the edges.
    """
    shifts = [(down, right) for down in range(GRID) for right in range(GRID)][1:]
    overlaps = np.array([(np.roll(region, shift, axis=(0, 1)) & region).sum() for shift in shifts])
    allowed = np.flatnonzero(overlaps <= np.median(overlaps))
    return np.roll(region, shifts[int(rng.choice(allowed))], axis=(0, 1))
