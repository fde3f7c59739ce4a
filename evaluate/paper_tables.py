"""The paper's three tables from our own measurements: data sets as rows, its columns first, each beside its number.

A cell without data is empty. Rows of several data sets share one protocol, each with its own black box and images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cluster.storage import Folder
from evaluate.agreement import PREFIX
from evaluate.findings import readable
from evaluate.method_rows import interval
from evaluate.paper import METHODS, PRINTED, REFERENCE, SIMS, Printed
from evaluate.protocol import GAMES, HIGHER_IS_BETTER, Game
from evaluate.results import Results, load_results
from evaluate.scored import Scored
from evaluate.statistics import Interval

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


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set's scores."""

    name: str
    """Its name."""
    results: Results
    """The scores."""

    @property
    def columns(self) -> dict[str, Scored]:
        """Return the methods by column: the paper's first, then others, controls last.

        Of several settings of one of its methods the first one given stands in the paper's column.
        """
        methods = sorted(self.results.methods, key=lambda scored: scored.is_control)
        own = {scored.method: scored for scored in reversed(methods) if scored.method in METHODS}
        others = {scored.label: scored for scored in methods if scored not in own.values()}
        return {method: own[method] for method in METHODS if method in own} | others


def read_data_sets(scores: Sequence[str]) -> list[DataSet]:
    """Read score folders, any number of each data set.

    Raises:
        ValueError: there are none, two differ in their protocol, or two of one data set in teacher or images.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    seen: dict[str, str] = {}
    for uri in dict.fromkeys(scores):
        config = Folder(uri).config()
        seen.setdefault(str(config.get("protocol_hash")), uri)
        groups.setdefault((_name(config), str(config.get("data"))), []).append(uri)
    if len(seen) > 1:
        listed = "; ".join(f"{found} in {uri}" for found, uri in seen.items())
        raise ValueError(
            f"the scores were made under {len(seen)} protocols ({listed}); a table holds one: write one each"
        )
    names = [name for name, _ in groups]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        places = "; ".join(data for name, data in groups if name in twice)
        raise ValueError(
            f"two data sets are named {' and '.join(sorted(twice))} ({places}); give one, or rename a folder"
        )
    found = [DataSet(name=name, results=load_results(uris)) for (name, _), uris in groups.items()]
    if not found:
        raise ValueError("no scores given; give one or more --out folders of `python -m evaluate games`")
    for data_set in found:
        _refuse_other_images(data_set)
    return found


def _name(found: Mapping[str, Any]) -> str:
    return found.get("data_name") or Path(str(found.get("data", ""))).name


def _refuse_other_images(data_set: DataSet) -> None:
    found = {
        config.get("data_fingerprint"): uri
        for config, uri in zip(data_set.results.configs, data_set.results.uris, strict=True)
    }
    if len(found) > 1:
        listed = "; ".join(f"{fingerprint} in {uri}" for fingerprint, uri in found.items())
        raise ValueError(
            f"the scores of {data_set.name} are of {len(found)} choices of images ({listed}); a row is of one: give "
            "the folders of one, or play the games again with the same --limit"
        )


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
        notes=(*_common_notes([d.name for d in data_sets], beside), *_method_notes(data_sets)),
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
    """Put the lines (of data sets `names`) beside the paper's rows, in its order; a row without a line is empty."""
    ordered: list[Line] = []
    for printed in PRINTED:
        own = [line for line, name in zip(lines, names, strict=True) if beside.get(name) == printed]
        numbers = printed.numbers(table)
        ordered += own or ([Line(data_set=printed.title, printed=numbers)] if numbers else [])
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


def similarity_table(
    students: Sequence[str], data_sets: Sequence[DataSet], beside: Mapping[str, Printed]
) -> PaperTable:
    """Make Table 1 from the Sim N that lie in students' folders: those given, and those whose maps were scored.

    Raises:
        ValueError: a folder that was given holds no student.
    """
    made = [scored.config.get("student") for d in data_sets for scored in d.results.methods]
    uris = dict.fromkeys(Folder(uri).uri for uri in [*students, *made] if uri)
    lines: list[Line] = []
    notes: list[str] = []
    for uri in uris:
        found, problems = _read_sims(Folder(uri), given=uri in {Folder(student).uri for student in students})
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
    current = folder.read_json("student.json").get("fingerprint")
    names = [name for name in folder.names() if name.startswith(PREFIX) and name.endswith(".json")]
    found = [folder.read_json(name) for name in names]
    lines = [_sim_line(one) for one in found if one.get("student_fingerprint") == current]
    stale = len(found) - len(lines)
    problems = [f"Measurements of another state of the student in {shown} are left out: {stale}."] if stale else []
    missing = (
        []
        if lines
        else [f"No Sim N is stored for the student in {shown}; `python -m evaluate similarity` measures it."]
    )
    return sorted(lines, key=lambda line: line.view), problems + missing


def _sim_line(found: Mapping[str, Any]) -> Line:
    limit = f", first {found['limit']}" if found.get("limit") else ""
    num = int(found["num_images"])
    return Line(
        data_set=_name(found),
        view=f"{found.get('view', PAPERS_VIEW)}, split {found.get('split') or 'whole set'}{limit}",
        teacher=_teacher(found),
        num_images=num,
        cells={key: Cell(value=Interval(num=num, **found[key]), explains="") for key in SIMS if key in found},
    )


def make_tables(
    data_sets: Sequence[DataSet], students: Sequence[str], beside: Mapping[str, Printed]
) -> tuple[PaperTable, ...]:
    """Make all three."""
    games = [game_table(game, data_sets, beside) for game in GAMES]
    return (similarity_table(students, data_sets, beside), *games)
