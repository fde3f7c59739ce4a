"""Lay findings out as the values that `report.html.j2` shows; the template holds all words and marks."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from evaluate.figures import line_styles, plot_curves
from evaluate.findings import Findings, readable
from evaluate.gains import MIN_SPAN
from evaluate.gallery import Card, choose, make_cards, ranking, rule
from evaluate.protocol import GAMES, HIGHER_IS_BETTER, LEAST_GAMES, MEASURES
from evaluate.query_curve import plot_query_curves
from evaluate.statistics import Interval

MAX_ERRORS = 30  # error rows that are listed; the rest is counted


def render(findings: Findings, *, photographs: bool, num_gallery: int) -> str:
    """Render the page; every name is escaped, and a content policy in the page forbids all but its own script."""
    loader = PackageLoader("evaluate", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "csp": script_hash,
        "num": number,
        "shown": readable,
        "pvalue": p_value,
        "breakable": breakable,
    }
    return environment.get_template("report.html.j2").render(
        **_context(findings, photographs=photographs, num_gallery=num_gallery)
    )


def _context(findings: Findings, *, photographs: bool, num_gallery: int) -> dict[str, Any]:
    results = findings.results
    styles = line_styles(results.methods, results.main)
    order = ranking(results) if results.main is not None else []
    picks = choose(order, num_gallery)
    return {
        "found": findings,
        "config": results.config,
        "styles": styles,
        "bars": {name: bars([getattr(row, name) for row in findings.rows]) for name in MEASURES},
        "gains": [game for game in GAMES if LEAST_GAMES[game] in results.games],
        "min_span": MIN_SPAN,
        "mass_bars": bars([row.mass for row in findings.rows]),
        "pair_bars": bars([pair.difference for pair in findings.pairs], zero=True),
        "query_plots": {game: _query_plots(findings, game) for game in GAMES},
        "plots": {game: _plots(findings, game) for game in results.games},
        "best": {game: "higher" if HIGHER_IS_BETTER[game] else "lower" for game in results.games},
        "cards": _cards(findings, picks, photographs=photographs),
        "rule": rule(order, num_gallery),
        "photographs": photographs,
        "errors": errors(findings),
        "sources": [
            {"title": scored.label, "hash": scored.config_hash, "text": _pretty(scored.config)}
            for scored in results.methods
        ],
        "scores": [
            {"uri": readable(uri), "text": _pretty({k: v for k, v in config.items() if k != "maps"})}
            for uri, config in zip(results.uris, results.configs, strict=True)
        ],
    }


def _plots(findings: Findings, game: str) -> dict[str, str]:
    results = findings.results
    curves = {
        row.scored.label: results.curves[row.scored.label, game]
        for row in findings.rows
        if (row.scored.label, game) in results.curves
    }
    styles = line_styles(results.methods, results.main)
    return {theme: plot_curves(game, curves, styles, theme=theme) for theme in ("light", "dark")} if curves else {}


def _query_plots(findings: Findings, game: str) -> dict[str, str]:
    if not any(row.teacher_queries > 0 for row in findings.rows):
        return {}
    return {theme: plot_query_curves(game, findings.rows, theme=theme) for theme in ("light", "dark")}


def _cards(findings: Findings, picks: Sequence[tuple[str, str]], *, photographs: bool) -> list[Card]:
    if not picks:
        return []
    return make_cards(
        findings.results, picks, images=findings.images, student=findings.student, photographs=photographs
    )


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


def errors(findings: Findings) -> dict[str, Any]:
    """Count the images without a score by method and reason, and list the first of them."""
    bad: Any = findings.results.rows
    bad = bad[bad["error"].notna()].drop_duplicates(["image_id", "name"])
    groups = bad.groupby(["name", "error"], sort=True)["image_id"].agg(["count", "min"]).reset_index()
    return {
        "num": len(bad),
        "num_images": len(set(bad["image_id"])),
        "groups": _records(groups.sort_values("count", ascending=False, kind="stable").head(MAX_ERRORS)),
        "num_left_out": max(0, len(groups) - MAX_ERRORS),
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"name": row["name"], "error": readable(row["error"]), "count": int(row["count"]), "first": row["min"]}
        for row in frame.to_dict("records")
    ]


def _pretty(config: Any) -> str:
    return readable(json.dumps(config, indent=2, ensure_ascii=False))


def breakable(text: str) -> Markup:
    """Escape a name and let it break after its underscores on a narrow screen."""
    return Markup(str(escape(text)).replace("_", "_<wbr>"))  # noqa: S704 (escaped one step before)


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


def p_value(value: float) -> str:
    """Write a p value: three digits, or `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
