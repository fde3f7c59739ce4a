"""The commands that made a report, rebuilt from the configurations that lie beside the results."""

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster.storage import unlike_defaults
from distill.training.recipes import RECIPES
from evaluate.format.safe_text import readable
from evaluate.games.protocol import Protocol
from evaluate.metrics.settings import FIELDS, METRICS, Settings
from evaluate.report.report_data import ReportData
from explain.methods.registry import METHODS

OUT = "report.html"
MAX_CHARS = 160  # of a command on one line


def commands(report_data: ReportData) -> list[str]:
    """List the commands in their order, to be run from the folder that the shown paths are relative to."""
    results, student = report_data.results, report_data.student
    lines = [] if not student.config else [distil(student.config, str(student.uri))]
    lines += [explain(scored.config, scored.maps) for scored in results.methods if scored.config]
    lines += [games(config, uri) for uri, config in zip(results.uris, results.configs, strict=True)]
    lines += [measures(config, uri) for uri, config in report_data.measured.items()]
    lines += [similarity(found.settings, str(student.uri)) for found in student.agreements if not found.doubt]
    own = {"measures": list(report_data.measured) or None, "out": OUT, "beside": report_data.beside}
    return [*lines, _command("evaluate report", scores=results.uris, **own)]


def distil(config: Mapping[str, Any], out: str) -> str:
    """Rebuild `python -m distill` from a student's configuration, by the recipe that is nearest to its own."""
    recipe = config["recipe"]
    changes = {name: unlike_defaults(recipe, known) for name, (_, known) in RECIPES.items()}
    name = min(changes, key=lambda name: len(changes[name]))
    return _command("distill " + name, data=config["data"], teacher=config["teacher"], out=out, **changes[name])


def explain(config: Mapping[str, Any], out: str) -> str:
    """Rebuild `python -m explain` from the configuration of maps."""
    method, teacher, target = config["method"], config.get("teacher"), config.get("target")
    known = METHODS.get(method)
    by_default = "teacher" if teacher else "student"
    asks_student = known is not None and known.is_query_based and config.get("explains") == "student"
    return _command(
        f"explain {shlex.quote(method)}",
        data=config.get("data"),
        student=config.get("student"),
        teacher=teacher,
        out=out,
        ask="student" if asks_student else None,
        target=None if target == by_default else target,
        split=config.get("split"),
        limit=config.get("limit"),
        per_class=config.get("per_class"),
        seed=config.get("seed") or None,
        **unlike_defaults(config.get("options") or {}, known and known.options()),
    )


def games(config: Mapping[str, Any], out: str) -> str:
    """Rebuild `python -m evaluate games` from the configuration of scores."""
    names = {field.name for field in dataclasses.fields(Protocol)} - {"target"}
    protocol = {name: value for name, value in config["protocol"].items() if name in names}
    return _judging("evaluate games", config, out, **unlike_defaults(protocol, Protocol()))


def measures(config: Mapping[str, Any], out: str) -> str:
    """Rebuild `python -m evaluate measures` from the configuration of metrics."""
    found = config["measures"]
    settings = {name: fields[name] for measure, fields in found.items() for name in FIELDS.get(measure, ())}
    names = [name for name in METRICS if name in found]
    own = {"measures": names, "student": config.get("student"), "boxes": config.get("boxes")}
    return _judging("evaluate measures", config, out, **own, **unlike_defaults(settings, Settings()))


def similarity(settings: Mapping[str, Any], student: str) -> str:
    """Rebuild `python -m evaluate similarity` from one of its results."""
    own = {name: settings.get(name) for name in ("teacher", "data", "split", "limit", "per_class", "view")}
    return _command("evaluate similarity", student=student, **own)


def _judging(name: str, config: Mapping[str, Any], out: str, **flags: Any) -> str:
    maps = [entry["uri"] for entry in config["maps"]]
    same = {"data": config["data"], "teacher": config["teacher"], "out": out}
    chosen = {name: config.get(name) for name in ("limit", "per_class")}
    return _command(name, maps=maps, **same, **chosen, **flags)


def _command(name: str, **flags: Any) -> str:
    """Write a command, a line of it for each option where it would be long."""
    parts = [
        f"python -m {name}",
        *(" ".join(words) for flag, value in flags.items() if (words := [*_words(flag, value)])),
    ]
    line = " ".join(parts)
    return line if len(line) <= MAX_CHARS else " \\\n    ".join(parts)


def _words(flag: str, value: Any) -> Iterator[str]:
    option = flag.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{option}" if value else f"--no-{option}"
    elif value is not None:
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        yield from (f"--{option}", *map(_quoted, items))


def _quoted(item: Any) -> str:
    """Quote one word for a shell; a text that begins with a dash is a path here, and no option."""
    text = readable(str(item))
    return shlex.quote(f"./{text}" if isinstance(item, str) and text.startswith("-") else text)
