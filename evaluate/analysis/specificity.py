"""Teacher specificity: whether maps explain their own black box, by maps made for two of them, each scored on both.

A map that finds the object would do well on any good classifier. One that explains its own black box does better there
than the map of the same image and class that was made for another one.
"""

import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from cluster.storage import config_hash
from evaluate.analysis.comparison import interval
from evaluate.config import SpecificityConfig
from evaluate.format.numbers import interval_text
from evaluate.format.safe_text import readable
from evaluate.format.table import Table, console_page, markdown_page, table_place, write_pages
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER, Game
from evaluate.games.reader import Results, load_results
from evaluate.scored_method import label_methods
from evaluate.statistics import Interval

Verdict = Literal["the diagonal wins", "the diagonal loses", "undecided"]
Place = tuple[str, str]  # letters: of the black box that maps were made for, and of the one that scored them
BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method and game: maps made for two black boxes, each scored on both, on the same images."""

    method: str
    """The method's label."""
    game: Game
    """deletion or insertion."""
    teachers: tuple[str, str]
    """Letters of the two black boxes."""
    aucs: Mapping[Place, Interval]
    """By (made for, scored on): mean AUC over the images."""
    differences: Mapping[str, Interval]
    """By the black box that scores: AUC of its own maps minus AUC of the other's, paired on the images; under BOTH the
    mean of the two."""
    num_images: int
    """Images with all four scores whose two maps are of the same class."""
    num_scored: int
    """Images with all four scores."""

    def verdict(self, scored_on: str) -> Verdict:
        """Say whether a black box's own maps are the better ones there, only where the interval leaves zero out."""
        difference = self.differences[scored_on]
        if not (difference.low > 0 or difference.high < 0):
            return "undecided"
        return "the diagonal wins" if (difference.low > 0) == HIGHER_IS_BETTER[self.game] else "the diagonal loses"


@dataclass(frozen=True, kw_only=True)
class Specificity:
    """What score folders say about the specificity of maps."""

    title: str
    """Data set and protocol."""
    teachers: Mapping[str, str]
    """Letter -> black box and its fingerprint."""
    comparisons: tuple[Comparison, ...]
    """One per pair of black boxes, method and game, at least one."""


def write_specificity(config: SpecificityConfig) -> str:
    """Compare maps of different black boxes, write the tables where asked for, and return them for the console.

    Raises:
        ValueError: the scores cannot be compared, or the file name has another ending.
    """
    place = None if config.table is None else table_place(config.table)
    specificity = compare_teachers(config.scores)
    teachers = "; ".join(f"{letter}: {name}" for letter, name in specificity.teachers.items())
    page = f"Teacher specificity: {specificity.title}. {teachers}", tables(specificity), sentences(specificity)
    if place is not None:
        write_pages(place, markdown_page(*page), numbers(specificity))
    return console_page(*page)


def compare_teachers(scores: Sequence[str]) -> Specificity:
    """Compare maps made for different black boxes on each of them.

    Args:
        scores: folders of `python -m evaluate games`: for two black boxes A and B the maps of A scored on A, those of
            B on B, and, with `--cross-teacher`, A's on B and B's on A.

    Raises:
        ValueError: the scores differ in more than their black boxes, or no method has all four.
    """
    if not scores:
        raise ValueError("no scores given; give the --out folders of `python -m evaluate games`")
    parts = [load_results([uri], cross_teacher=True) for uri in dict.fromkeys(scores)]
    _check_alike(parts)
    teachers = {mark: spec for part in parts for mark, spec in (_teacher(_made_for(part)), _teacher(part.config))}
    letters = dict(zip(teachers, string.ascii_uppercase, strict=False))
    cells = _cells(parts, letters)
    comparisons = [
        _compare(cells, method, game, pair)
        for pair in itertools.combinations(letters.values(), 2)
        for method in dict.fromkeys(label for label, _ in cells)
        if all((method, place) in cells for place in _places(pair))
        for game in GAMES
    ]
    named = {letters[mark]: f"{readable(spec)} ({mark})" for mark, spec in teachers.items()}
    if not comparisons:
        found = "; ".join(f"{method} made for {made}, scored on {on}" for method, (made, on) in cells)
        raise ValueError(
            f"no method was made for two black boxes and scored on both ({found}; {named}); play what is missing with "
            "`python -m evaluate games ... --cross-teacher`"
        )
    config = next(part.config for part in parts if "made_for" not in part.config)
    title = f"{config.get('data_name') or readable(config['data'])}, protocol {config['protocol']['name']}"
    return Specificity(title=title, teachers=named, comparisons=tuple(comparisons))


def _made_for(part: Results) -> dict[str, Any]:
    return part.config.get("made_for", part.config)


def _teacher(config: Mapping[str, Any]) -> tuple[str, str]:
    return config["teacher_fingerprint"], config["teacher"]


def _check_alike(parts: Sequence[Results]) -> None:
    for part in parts:
        for what, wanted, got in zip(("images", "protocols", "targets"), _same(parts[0]), _same(part), strict=True):
            if got != wanted:
                raise ValueError(
                    f"the scores must differ in their black boxes only, but {parts[0].uris[0]} ({wanted}) and "
                    f"{part.uris[0]} ({got}) are of different {what}; play the games again alike"
                )


def _same(part: Results) -> tuple[Any, Any, Any]:
    """Return what all folders must share: images, protocol but for the target, and how the target was chosen."""
    protocol = {name: value for name, value in part.config["protocol"].items() if name not in ("name", "target")}
    return part.config["data_fingerprint"], protocol, part.config["maps"][0]["config"]["target"]


def _cells(parts: Sequence[Results], letters: Mapping[str, str]) -> dict[tuple[str, Place], pd.DataFrame]:
    """Read, by method and place, each image's AUCs and target. A method is the same where its options are."""
    entries = [entry for part in parts for entry in part.config["maps"]]
    settings = {e["config_hash"]: config_hash({"method": e["method"], **e["config"]["options"]}) for e in entries}
    named = label_methods([{**entry, "config_hash": settings[entry["config_hash"]]} for entry in entries])
    labels = {scored.config_hash: scored.label for scored in named}
    cells: dict[tuple[str, Place], pd.DataFrame] = {}
    for part in parts:
        place = letters[_made_for(part)["teacher_fingerprint"]], letters[part.config["teacher_fingerprint"]]
        for scored in part.methods:
            key = labels[settings[scored.config_hash]], place
            if key in cells:
                raise ValueError(f"{key[0]} in {part.uris[0]} stands in an earlier folder too; give one of them")
            rows: Any = part.rows[part.rows["name"] == scored.label]
            targets = rows.drop_duplicates("image_id").set_index("image_id")["target"]
            cells[key] = pd.DataFrame({game: part.auc(game)[scored.label] for game in GAMES} | {"target": targets})
    return cells


def _places(pair: tuple[str, str]) -> list[Place]:
    return [(made, on) for made in pair for on in pair]


def _compare(
    cells: Mapping[tuple[str, Place], pd.DataFrame], method: str, game: Game, pair: tuple[str, str]
) -> Comparison:
    frames = {place: cells[method, place] for place in _places(pair)}
    columns = {place: frame[game] for place, frame in frames.items()}
    scored = pd.concat(columns.values(), axis=1, join="inner", keys=range(len(columns))).dropna()
    first, second = (frames[letter, letter]["target"].reindex(scored.index) for letter in pair)
    aucs = dict(zip(columns, scored[first == second].to_numpy().T, strict=True))
    differences = {on: aucs[on, on] - aucs[other, on] for on, other in (pair, pair[::-1])}
    differences[BOTH] = (differences[pair[0]] + differences[pair[1]]) / 2
    return Comparison(
        method=method,
        game=game,
        teachers=pair,
        aucs={place: interval(values) for place, values in aucs.items()},
        differences={on: interval(values) for on, values in differences.items()},
        num_images=len(differences[BOTH]),
        num_scored=len(scored),
    )


def sentences(specificity: Specificity) -> list[str]:
    """Say on which images maps were compared, and how often the diagonal wins."""
    counts = {(one.teachers, one.num_images, one.num_scored): None for one in specificity.comparisons}
    lines = [
        f"{first} and {second} are compared on the {num} of {total} images whose two maps are of the same class: both "
        "black boxes' top-1, where that is the target."
        for (first, second), num, total in counts
    ]
    wins = sum(one.verdict(BOTH) == "the diagonal wins" for one in specificity.comparisons)
    return [*lines, f"Over both black boxes the diagonal wins {wins} of {len(specificity.comparisons)} comparisons."]


def tables(specificity: Specificity) -> list[Table]:
    """Lay out, for each pair of black boxes, mean AUCs by made for and scored on; then all paired differences."""
    pairs = dict.fromkeys(one.teachers for one in specificity.comparisons)
    better = ", ".join(f"{'above' if HIGHER_IS_BETTER[game] else 'below'} zero in {game}" for game in GAMES)
    differences = Table(
        caption=f"AUC of the black box's own maps minus that of the other's, paired on the images; better is {better}",
        headings=["method", "game", "scored on", "difference", "verdict"],
        rows=[
            [
                one.method,
                one.game,
                "/".join(one.teachers) if on == BOTH else on,
                interval_text(value, sign="+"),
                one.verdict(on),
            ]
            for one in specificity.comparisons
            for on, value in one.differences.items()
        ],
    )
    return [*(_auc_table(pair, specificity.comparisons) for pair in pairs), differences]


def _auc_table(pair: tuple[str, str], comparisons: Sequence[Comparison]) -> Table:
    return Table(
        caption="Mean AUC with 95 % bootstrap interval over images",
        headings=["method", "game", "made for", *(f"scored on {on}" for on in pair), "images"],
        rows=[
            [one.method, one.game, made, *(interval_text(one.aucs[made, on]) for on in pair), one.num_images]
            for one in comparisons
            if one.teachers == pair
            for made in pair
        ],
    )


def numbers(specificity: Specificity) -> Table:
    """List every number as one row; differences have no `made_for`."""
    rows: list[list[object]] = []
    for one in specificity.comparisons:
        named = [one.method, one.game, "/".join(one.teachers)]
        rows += [[*named, made, on, *_cells_of(value), None] for (made, on), value in one.aucs.items()]
        rows += [[*named, None, on, *_cells_of(value), one.verdict(on)] for on, value in one.differences.items()]
    headings = ["method", "game", "teachers", "made_for", "scored_on", "value", "low", "high", "images", "verdict"]
    return Table(headings=headings, rows=rows)


def _cells_of(value: Interval) -> list[object]:
    return [value.mean, value.low, value.high, value.num]
