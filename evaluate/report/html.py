"""Lay report data out as the values that `report.html.j2` shows; the template holds all words and marks."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cluster.errors import visible
from evaluate.analysis.columns import GROUPS, Column
from evaluate.analysis.query_curve import plot_query_curves
from evaluate.format.figures import PLOT_HEIGHT, PLOT_WIDTH, CurvePlot, line_styles, plot_curves
from evaluate.format.numbers import p_value
from evaluate.format.safe_text import readable
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER
from evaluate.report.gallery import choose, hero, make_cards, ranking, rule
from evaluate.report.report_data import ReportData
from evaluate.scored_method import MARKS
from evaluate.statistics import Interval

MAX_ERRORS = 30  # error rows that are listed; the rest is counted


def render(report_data: ReportData, *, photographs: bool, num_gallery: int) -> str:
    """Render the page; every name is escaped, and a content policy in the page forbids all but its own script."""
    environment = Environment(
        loader=PackageLoader("evaluate.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {
        "csp": script_hash,
        "num": number,
        "signed": signed,
        "shown": readable,
        "pvalue": p_value,
        "breakable": breakable,
    }
    return environment.get_template("report.html.j2").render(
        **_context(report_data, photographs=photographs, num_gallery=num_gallery)
    )


def _context(report_data: ReportData, *, photographs: bool, num_gallery: int) -> dict[str, Any]:
    results, judge = report_data.results, report_data.results.main or report_data.rows[0].scored
    order = ranking(results, judge)
    picks = choose(order, num_gallery)
    cards = make_cards(report_data, picks, photographs=photographs) if picks else []
    present = {row.scored.kind for row in report_data.rows}
    return {
        "found": report_data,
        "config": results.config,
        "styles": line_styles(results.methods, results.main),
        "numbers": {row.scored.label: k for k, row in enumerate(report_data.rows)},
        "marks": MARKS,
        "kinds": [kind for kind in MARKS if kind in present],
        "groups": _groups(report_data.columns),
        "bars": {
            column.name: bars([row.values.get(column.name) for row in report_data.rows])
            for column in report_data.columns
        },
        "counts": {column.name: _count(report_data, column) for column in report_data.columns},
        "num_tests": sum(len(row.against) for row in report_data.rows),
        "plots": {game: _plot(report_data, game) for game in results.games},
        "plot_size": (PLOT_WIDTH, PLOT_HEIGHT),
        "query_plots": {game: _query_plots(report_data, game) for game in GAMES},
        "best": {game: "higher" if HIGHER_IS_BETTER[game] else "lower" for game in results.games},
        "cards": cards,
        "hero": hero(report_data, cards),
        "rule": rule(judge.title, order, num_gallery),
        "photographs": photographs,
        "errors": errors(report_data),
        "sources": _sources(report_data),
    }


def _groups(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """List the parts of the table that have columns."""
    parts = [(name, title, [column for column in columns if column.group == name]) for name, title in GROUPS.items()]
    return [{"name": name, "title": title, "columns": own} for name, title, own in parts if own]


def _count(report_data: ReportData, column: Column) -> str:
    """Say on how many images a column stands, where that is not all that have a score."""
    found = {(row.values[column.name].num, row.gap.num) for row in report_data.rows if column.name in row.values}
    counts = {num for num, _ in found if num}
    if column.group == "games" or all(num in (0, scored) for num, scored in found):
        return ""
    return f"{min(counts)} to {max(counts)} images" if len(counts) > 1 else f"{max(counts)} images"


def _plot(report_data: ReportData, game: str) -> CurvePlot | None:
    results, labels = report_data.results, [row.scored.label for row in report_data.rows]
    curves = {label: results.curves[label, game] for label in labels if (label, game) in results.curves}
    return plot_curves(curves) if curves else None


def _query_plots(report_data: ReportData, game: str) -> dict[str, str]:
    if not any(row.teacher_queries > 0 for row in report_data.rows):
        return {}
    return {theme: plot_query_curves(game, report_data.rows, theme=theme) for theme in ("light", "dark")}


def _sources(report_data: ReportData) -> list[dict[str, str]]:
    """List the configurations behind the page: what they are of, and their text."""
    results = report_data.results
    folders = {
        **{
            ("Scores", config["protocol_hash"], uri): config
            for uri, config in zip(results.uris, results.configs, strict=True)
        },
        **{("Measures", "", uri): config for uri, config in report_data.metric_configs.items()},
    }
    found = [
        {
            "title": f"{what} in {readable(uri)}",
            "hash": mark,
            "text": _pretty({k: v for k, v in config.items() if k != "maps"}),
        }
        for (what, mark, uri), config in folders.items()
    ]
    maps = [
        {"title": f"Maps of {scored.title}", "hash": scored.config_hash, "text": _pretty(scored.config)}
        for scored in results.methods
    ]
    return found + maps


def bars(intervals: Sequence[Interval | None], *, zero: bool = False) -> list[dict[str, float] | None]:
    """Place intervals on one common axis, in percent of its length: low, mean, high, and zero where it is asked for.

    An interval without ends is a point; None or NaN has no bar.
    """
    ends = [_ends(interval) for interval in intervals]
    values = [value for end in ends if end for value in end] + ([0.0] if zero else [])
    if not values:
        return [None] * len(intervals)
    low, span = min(values), max(max(values) - min(values), 1e-9)
    places = [None if end is None else [3 + 94 * (value - low) / span for value in end] for end in ends]
    origin = 3 + 94 * (0 - low) / span
    return [
        None if place is None else {"low": place[0], "mean": place[1], "high": place[2], "zero": origin}
        for place in places
    ]


def _ends(interval: Interval | None) -> tuple[float, float, float] | None:
    if interval is None or math.isnan(interval.mean):
        return None
    if math.isnan(interval.low):
        return interval.mean, interval.mean, interval.mean
    return interval.low, interval.mean, interval.high


def errors(report_data: ReportData) -> dict[str, Any]:
    """Count the images without a score by reason, and list the commonest reasons with their methods."""
    bad: Any = report_data.results.rows
    bad = bad.loc[bad["error"].notna(), ["image_id", "name", "error"]].drop_duplicates(["image_id", "name"])
    groups = bad.groupby("error", observed=True)["image_id"].nunique().sort_values(ascending=False, kind="stable")
    listed = [(error, bad[bad["error"] == error]) for error in groups.index[:MAX_ERRORS]]
    return {
        "num": len(bad),
        "num_images": bad["image_id"].nunique(),
        "groups": [
            {
                "error": readable(error),
                "num_images": int(groups[error]),
                "methods": _methods(report_data, set(own["name"])),
                "first": min(own["image_id"]),
            }
            for error, own in listed
        ],
        "num_left_out": len(groups) - len(listed),
    }


def _methods(report_data: ReportData, labels: set[str]) -> str:
    every = [row.scored for row in report_data.rows]
    return "all" if len(labels) == len(every) else ", ".join(one.title for one in every if one.label in labels)


def _pretty(config: Any) -> str:
    return readable(json.dumps(config, indent=2, ensure_ascii=False))


def breakable(text: str) -> Markup:
    """Escape a name and let it break after its underscores on a narrow screen."""
    return Markup(str(escape(visible(text))).replace("_", "_<wbr>"))  # noqa: S704 (escaped one step before)


def script_hash(script: str) -> str:
    """Hash an inline script as a content security policy names it."""
    import base64
    import hashlib

    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with a true minus sign; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"  # noqa: RUF001
    return f"{value:.{digits}f}".replace("-", "−")  # noqa: RUF001


def signed(sentence: str) -> str:
    """Give the numbers of a sentence true minus signs; hyphens inside of words and ranges stay."""
    return re.sub(r"(?<!\w)-(?=\.?\d)", "−", sentence)  # noqa: RUF001
