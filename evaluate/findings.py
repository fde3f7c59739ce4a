"""Everything a report says, gathered once: scores, tables, student, masks. What is missing becomes a sentence."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.images import ImageSet, open_images
from evaluate.agreement import StudentFacts, read_student
from evaluate.headline import sentences
from evaluate.method_rows import MethodRow, PairRow, method_rows, pair_rows
from evaluate.pointing import MaskShares
from evaluate.results import Results, load_results

MAX_PARENTS = 2  # steps up from the working folder that a shown path may take


@dataclass(frozen=True, kw_only=True)
class Masses:
    """Share of map mass inside the object masks."""

    shares: dict[str, dict[str, float]]
    """By method label and image_id; empty where the data set has no masks."""
    area: float
    """Mean share of the image that the objects cover; NaN without masks."""
    problem: str
    """Why a share is missing; empty where none is."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the page, the tables and the console summary are made from."""

    results: Results
    """The scores."""
    rows: list[MethodRow]
    """Table of methods, best first."""
    pairs: list[PairRow]
    """MAL-Grad-CAM against each other method."""
    headline: list[str]
    """What came out, in sentences."""
    student: StudentFacts
    """The student and its agreement with the black box."""
    masses: Masses
    """Where the maps point."""
    images: ImageSet | None
    """The data set; None where it cannot be opened."""
    images_problem: str
    """Why it cannot be opened; empty where it can."""

    @property
    def data_name(self) -> str:
        """Return the data set's name."""
        stored = self.results.config.get("data_name")
        return stored or (self.images.name if self.images else Path(self.results.config["data"]).name)


def gather(scores: Sequence[str]) -> Findings:
    """Read score folders and compute everything that a report shows.

    Raises:
        ValueError: the scores cannot stand in one report, or there are none.
    """
    results = load_results(scores)
    images, problem = _open_images(results)
    masses = _masses(results, images, problem)
    rows, pairs = method_rows(results, masses.shares), pair_rows(results)
    return Findings(
        results=results,
        rows=rows,
        pairs=pairs,
        headline=sentences(results, rows, pairs),
        student=read_student(results),
        masses=masses,
        images=images,
        images_problem=problem,
    )


def _open_images(results: Results) -> tuple[ImageSet | None, str]:
    data = results.config["data"]
    try:
        images = open_images(data, split=results.config["split"])
    except (OSError, ValueError) as error:
        return None, f"The data set cannot be opened: {readable(str(error))}"
    gone = set(results.rows["image_id"]) - set(images.image_ids)
    return images, f"{len(gone)} scored images are not in the data folder any more." if gone else ""


def _masses(results: Results, images: ImageSet | None, problem: str) -> Masses:
    if images is None:
        return Masses(shares={}, area=float("nan"), problem=problem)
    measured, problems, shares = MaskShares(images), [], {}
    try:
        if measured.any_masks(sorted(results.rows["image_id"].unique())):
            for scored in results.methods:
                shares[scored.label] = measured.of(scored.maps)
    except (OSError, ValueError) as error:
        problems.append(f"The share of mass is not complete: {readable(str(error))}")
    return Masses(
        shares={label: found for label, found in shares.items() if found},
        area=measured.area(),
        problem=" ".join(problems),
    )


def readable(text: str) -> str:
    """Shorten paths below or near the working folder, and take passwords out of URIs, for people who read a page."""
    without = re.sub(r"(://)[^/@\s]*@", r"\1", text)
    here = Path.cwd()
    for steps, folder in enumerate([here, *here.parents][: MAX_PARENTS + 1]):
        if folder != Path(folder.anchor):
            without = without.replace(f"{folder}{os.sep}", "../" * steps)
    return without
