"""Teacher specificity as text: tables for the console, Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from evaluate.analysis.specificity import BOTH, Comparison, Specificity, compare_teachers
from evaluate.format.markdown import table_stem, write_tables
from evaluate.format.numbers import interval_text
from evaluate.format.text_tables import Grid, console_grids, markdown_grids
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER
from evaluate.statistics import Interval


def write_specificity(scores: Sequence[str], *, tables: str | None = None) -> str:
    """Compare maps of different black boxes and write the tables where asked for.

    Args:
        scores: as `compare_teachers` takes them.
        tables: file name ending in .md or .csv; both are written beside each other.

    Returns:
        The tables for the console.

    Raises:
        ValueError: the scores cannot be compared, or the file name has another ending.
    """
    stem = None if tables is None else table_stem(tables)
    found = compare_teachers(scores)
    if stem is not None:
        text = markdown_grids(_title(found), grids(found), sentences(found))
        write_tables(stem, text, comma_separated(found))
    return console_grids(_title(found), grids(found), sentences(found))


def _title(found: Specificity) -> str:
    return f"Teacher specificity: {found.title}. " + "; ".join(f"{k}: {name}" for k, name in found.teachers.items())


def sentences(found: Specificity) -> list[str]:
    """Say on which images maps were compared, and how often the diagonal wins."""
    counts = {(one.teachers, one.num_images, one.num_scored): None for one in found.comparisons}
    lines = [
        f"{first} and {second} are compared on the {num} of {total} images whose two maps are of the same class: both "
        "black boxes' top-1, where that is the target."
        for (first, second), num, total in counts
    ]
    wins = sum(one.verdict(BOTH) == "the diagonal wins" for one in found.comparisons)
    return [*lines, f"Over both black boxes the diagonal wins {wins} of {len(found.comparisons)} comparisons."]


def grids(found: Specificity) -> list[Grid]:
    """Lay out, for each pair of black boxes, mean AUCs by made for and scored on; then all paired differences."""
    pairs = dict.fromkeys(one.teachers for one in found.comparisons)
    return [*(_auc_grid(pair, found.comparisons) for pair in pairs), _difference_grid(found.comparisons)]


def _auc_grid(pair: tuple[str, str], comparisons: Sequence[Comparison]) -> Grid:
    rows = [
        [one.method, one.game, made, *(interval_text(one.aucs[made, on]) for on in pair), str(one.num_images)]
        for one in comparisons
        if one.teachers == pair
        for made in pair
    ]
    heads = ["method", "game", "made for", *(f"scored on {on}" for on in pair), "images"]
    return "Mean AUC with 95 % bootstrap interval over images", heads, rows


def _difference_grid(comparisons: Sequence[Comparison]) -> Grid:
    rows = [
        [
            one.method,
            one.game,
            "/".join(one.teachers) if on == BOTH else on,
            interval_text(value, sign="+"),
            one.verdict(on),
        ]
        for one in comparisons
        for on, value in one.differences.items()
    ]
    better = ", ".join(f"{'above' if HIGHER_IS_BETTER[game] else 'below'} zero in {game}" for game in GAMES)
    caption = f"AUC of the black box's own maps minus that of the other's, paired on the images; better is {better}"
    return caption, ["method", "game", "scored on", "difference", "verdict"], rows


def comma_separated(found: Specificity) -> str:
    """Write every number as one row of a CSV, with full precision; differences have no `made_for`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["method", "game", "teachers", "made_for", "scored_on", "value", "low", "high", "images", "verdict"]
    )
    for one in found.comparisons:
        named = [one.method, one.game, "/".join(one.teachers)]
        for (made, on), value in one.aucs.items():
            writer.writerow([*named, made, on, *_numbers(value), ""])
        for on, value in one.differences.items():
            writer.writerow([*named, "", on, *_numbers(value), one.verdict(on)])
    return buffer.getvalue()


def _numbers(value: Interval) -> list[object]:
    numbers = (value.mean, value.low, value.high)
    return [*("" if np.isnan(number) else f"{number:.6g}" for number in numbers), value.num]
