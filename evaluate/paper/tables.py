"""The paper's three tables from our own measurements: data sets as rows, its columns first, each beside its number.

A cell without data is empty. Rows of several data sets share one protocol, each with its own black box and images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cluster.storage import Folder, same_fingerprint
from evaluate.analysis.agreement import PREFIX, part_text
from evaluate.analysis.comparison import interval
from evaluate.config import PaperConfig
from evaluate.format.safe_text import readable
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER, Game
from evaluate.paper.order import order_sentence
from evaluate.paper.published import METHODS, PRINTED, REFERENCE, SIMS, Printed
from evaluate.paper.scores import DataSet, data_name
from evaluate.statistics import Interval
from evaluate.stored import read_similarity, read_student_file

PAPERS_VIEW = "centre_crop"  # of Sim N: resized to 256 pixels, the middle 224 of them
OF_STUDENT = "†"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of ours."""

    value: Interval
    """Mean with its interval."""
    explains: str
    """What the method looks into, as `Scored.explains`; empty for Sim N."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row: a data set as it was measured, or one of the paper's that was not."""

    data_set: str
    """Its name here, or the paper's where nothing was measured."""
    view: str = ""
    """Which view and part of it the models saw (Table 1)."""
    teacher: str = ""
    """The black box, with its fingerprint."""
    num_images: int | None = None
    """Images that have a score; None where nothing was measured."""
    cells: Mapping[str, Cell] = field(default_factory=dict)
    """Our numbers by column."""
    printed: Mapping[str, float] = field(default_factory=dict)
    """The paper's numbers by column."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One of the paper's tables."""

    number: Literal[1, 2, 3]
    """Its number in the paper."""
    caption: str
    """What it shows and under which protocol."""
    columns: Mapping[str, str]
    """Key -> heading, the paper's first."""
    lines: tuple[Line, ...]
    """The paper's data sets in its order, then others."""
    notes: tuple[str, ...]
    """What a reader must know of single rows and columns."""
    protocol_hash: str
    """Of every number of ours; empty for Table 1, which plays no game."""


def game_table(game: Game, data_sets: Sequence[DataSet], beside: Mapping[str, Printed]) -> PaperTable:
    """Make Table 2 (deletion) or 3 (insertion)."""
    config = data_sets[0].results.config
    lines = [_game_line(game, data_set, beside.get(data_set.name)) for data_set in data_sets]
    others = {key: key for data_set in data_sets for key, s in data_set.columns.items() if not s.is_control}
    controls = {
        key: f"{key} (control)" for data_set in data_sets for key, s in data_set.columns.items() if s.is_control
    }
    better = "higher" if HIGHER_IS_BETTER[game] else "lower"
    return PaperTable(
        number=2 if game == "deletion" else 3,
        caption=f"{game.capitalize()} AUC on the black box, {better} is better: means with 95 % bootstrap intervals "
        f"over images, protocol {config['protocol']['name']} ({config['protocol_hash']}).",
        columns=METHODS | {key: title for key, title in (others | controls).items() if key not in METHODS},
        lines=_in_order(lines, game, [data_set.name for data_set in data_sets], beside),
        notes=(
            *_common_notes([d.name for d in data_sets], beside),
            *_method_notes(data_sets),
            *(f"{d.name}. {order_sentence(game, d, beside[d.name])}" for d in data_sets if d.name in beside),
        ),
        protocol_hash=config["protocol_hash"],
    )


def _game_line(game: Game, data_set: DataSet, printed: Printed | None) -> Line:
    results, areas = data_set.results, data_set.results.auc(game)
    found = {key: (scored, interval(areas[scored.label])) for key, scored in data_set.columns.items()}
    return Line(
        data_set=data_set.name,
        teacher=_teacher(results.config),
        num_images=max(value.num for _, value in found.values()),
        cells={key: Cell(value=value, explains=s.explains) for key, (s, value) in found.items() if value.num},
        printed=printed.numbers(game) if printed else {},
    )


def _teacher(found: Mapping[str, Any]) -> str:
    return f"{readable(str(found.get('teacher')))} ({found.get('teacher_fingerprint')})"


def _in_order(
    lines: Sequence[Line], table: str, names: Sequence[str], beside: Mapping[str, Printed]
) -> tuple[Line, ...]:
    """Put the lines (of data sets `names`) beside the paper's rows, in its order; one without a line is empty."""
    ordered: list[Line] = []
    for printed in PRINTED:
        own = [line for line, name in zip(lines, names, strict=True) if beside.get(name) == printed]
        numbers = printed.numbers(table)
        if numbers and not any(line.printed for line in own):
            ordered.append(Line(data_set=printed.title, printed=numbers))
        ordered += own
    return (*ordered, *(line for line, name in zip(lines, names, strict=True) if name not in beside))


def _common_notes(names: Sequence[str], beside: Mapping[str, Printed]) -> list[str]:
    about = "its black boxes and images are not these, so compare the order of methods rather than numbers"
    placed = [f"{name} stands beside its {beside[name].title}" for name in dict.fromkeys(names) if name in beside]
    return [f"Paper: {REFERENCE}; {'; '.join([about, *placed])}."]


def _method_notes(data_sets: Sequence[DataSet]) -> list[str]:
    """Explain the marks, and name the settings in a paper's column where a method was scored in several."""
    columns = [(d.name, key, s) for d in data_sets for key, s in d.columns.items()]
    marked = any(scored.explains == "student" for _, _, scored in columns)
    chosen = [
        f"{METHODS[key]} of {name} is {s.label}." for name, key, s in columns if key in METHODS and key != s.label
    ]
    return ([f"{OF_STUDENT} explains the student, scored on the black box."] if marked else []) + chosen


def similarity_table(config: PaperConfig, data_sets: Sequence[DataSet], beside: Mapping[str, Printed]) -> PaperTable:
    """Make Table 1 from the Sim N that lie in students' folders: those given, and those whose maps were scored.

    A student that only a configuration names is read where it lies beside the scores.

    Raises:
        ValueError: a folder that was given holds no student.
    """
    made = [scored.config.get("student") for d in data_sets for scored in d.results.methods]
    given = [Folder(student).uri for student in config.student]
    lines: list[Line] = []
    notes: list[str] = []
    for uri in dict.fromkeys([*given, *filter(None, made)]):
        try:
            folder = Folder(config.locations.check(uri, what="student"))
        except ValueError as error:
            notes.append(f"Sim N of a student is left out: {readable(str(error))} (--student).")
            continue
        found, problems = _read_sims(folder, given=uri in given)
        lines, notes = lines + found, notes + problems
    names = [line.data_set for line in lines]
    lines = [_with_printed(line, beside) for line in lines]
    return PaperTable(
        number=1,
        caption="Sim N: share of images on which student and black box agree on the top N classes in the same order; "
        "means with 95 % bootstrap intervals over images.",
        columns=SIMS,
        lines=_in_order(lines, "sims", names, beside),
        notes=(*_common_notes(names, beside), *notes),
        protocol_hash="",
    )


def _with_printed(line: Line, beside: Mapping[str, Printed]) -> Line:
    comparable = line.data_set in beside and line.view.startswith(PAPERS_VIEW)
    return replace(line, printed=beside[line.data_set].numbers("sims")) if comparable else line


def _read_sims(folder: Folder, *, given: bool) -> tuple[list[Line], list[str]]:
    """Read a student's measurements, and say which were left out: those of another state of its weights."""
    shown = readable(folder.uri)
    if not folder.exists("student.json"):
        if given:
            raise ValueError(f"{shown} holds no student; give the --out folder of `python -m distill RECIPE`")
        return [], [f"The student in {shown} is not there any more."]
    current = read_student_file(folder).get("fingerprint")
    names = [name for name in folder.names() if name.startswith(PREFIX) and name.endswith(".json")]
    found = [read_similarity(folder, name) for name in names]
    lines = [_sim_line(one) for one in found if same_fingerprint(one.get("student_fingerprint"), current)]
    stale = len(found) - len(lines)
    problems = [f"Measurements of another state of the student in {shown} are left out: {stale}."] if stale else []
    if not lines:
        problems.append(f"No Sim N is stored for the student in {shown}; `python -m evaluate similarity` measures it.")
    return sorted(lines, key=lambda line: line.view), problems


def _sim_line(found: Mapping[str, Any]) -> Line:
    num = found["num_images"]
    return Line(
        data_set=data_name(found),
        view=f"{found.get('view', PAPERS_VIEW)}, {part_text(found)}",
        teacher=_teacher(found),
        num_images=num,
        cells={key: Cell(value=Interval(num=num, **found[key]), explains="") for key in SIMS if key in found},
    )


def make_tables(
    data_sets: Sequence[DataSet], config: PaperConfig, beside: Mapping[str, Printed]
) -> tuple[PaperTable, ...]:
    """Make all three."""
    games = [game_table(game, data_sets, beside) for game in GAMES]
    return (similarity_table(config, data_sets, beside), *games)
