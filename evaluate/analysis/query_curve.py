"""Quality against queries: methods that ask the black box, at several budgets, beside those that ask nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.storage import unlike_defaults
from evaluate.analysis.comparison import MethodRow
from evaluate.format.figures import CONTROL_COLOUR, DASHES, INK, MAIN_COLOUR, PALETTE, png_of, svg_figure
from evaluate.games.protocol import GAMES
from evaluate.scored_method import MAIN_METHOD, ScoredMethod
from explain.methods.registry import METHODS
from explain.methods.titles import title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUDGET_OPTIONS = ("num_masks", "num_samples", "num_queries", "settled")
"""Options that say how many questions a map costs; maps that differ in others only are another curve."""


@dataclass(frozen=True, kw_only=True)
class QueryCurve:
    """One method in one configuration, at several budgets."""

    label: str
    """The method, with those options that are not its defaults."""
    rows: tuple[MethodRow, ...]
    """One per budget, the smallest first."""


def query_curves(rows: Sequence[MethodRow]) -> list[QueryCurve]:
    """Gather the rows that differ in their budget only; a method with one budget is a curve of one point."""
    found: dict[str, list[MethodRow]] = {}
    for row in sorted(rows, key=lambda row: row.teacher_queries):
        if row.teacher_queries > 0:
            found.setdefault(curve_label(row.scored), []).append(row)
    return [QueryCurve(label=label, rows=tuple(members)) for label, members in sorted(found.items())]


def curve_label(scored: ScoredMethod) -> str:
    """Name a method with those options that are not its defaults, the budget left out."""
    known = METHODS.get(scored.method)
    changed = unlike_defaults(scored.config.get("options") or {}, known and known.options())
    own = [f"{name}={value}" for name, value in sorted(changed.items()) if name not in BUDGET_OPTIONS]
    return f"{title_of(scored.method)} ({', '.join(own)})" if own else title_of(scored.method)


def plot_query_curves(game: str, rows: Sequence[MethodRow], *, theme: str) -> str:
    """Plot a game's mean AUC, with its 95 % intervals, against queries per map, as an SVG data URI.

    Methods that ask nothing are horizontal lines.

    Args:
        game: "deletion" or "insertion".
        rows: The table of methods.
        theme: "light" or "dark", for the ink of the axes.
    """
    with svg_figure((6.6, 3.6)) as (figure, uri):
        axes = figure.subplots()
        _draw(axes, game, rows, INK[theme])
        _add_legend(axes, INK[theme])
    return uri[0]


def draw_query_curves(rows: Sequence[MethodRow]) -> bytes:
    """Draw what `plot_query_curves` does of both games side by side, with one legend, as a PNG on white."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(GAMES))
    for axes, game in zip(panels, GAMES, strict=True):
        _draw(axes, game, rows, INK["light"])
    _add_legend(panels[-1], INK["light"])
    return png_of(figure)


def _draw(axes: "Axes", game: str, rows: Sequence[MethodRow], ink: str) -> None:
    _draw_lines(axes, game, [row for row in rows if row.teacher_queries == 0])
    for i, curve in enumerate(query_curves(rows)):
        _draw_curve(axes, game, curve, PALETTE[i % len(PALETTE)])
    _dress(axes, game, ink)


def _draw_curve(axes: "Axes", game: str, curve: QueryCurve, color: str) -> None:
    found = [getattr(row, game) for row in curve.rows]
    x, mean = [row.teacher_queries for row in curve.rows], [one.mean for one in found]
    axes.plot(x, mean, "o-", color=color, markersize=4, linewidth=1.7, label=curve.label)
    axes.fill_between(x, [one.low for one in found], [one.high for one in found], color=color, alpha=0.1, linewidth=0)


def _draw_lines(axes: "Axes", game: str, rows: Sequence[MethodRow]) -> None:
    num = {True: 0, False: 0}  # lines so far, of controls and of others: no two of them look alike
    for row in sorted(rows, key=lambda row: row.gap.mean, reverse=True):
        scored = row.scored
        main = scored.method == MAIN_METHOD
        i = num[scored.is_control]
        color = MAIN_COLOUR if main else CONTROL_COLOUR if scored.is_control else PALETTE[-1 - i % len(PALETTE)]
        line = axes.axhline(getattr(row, game).mean, color=color, linewidth=2.2 if main else 1.2, label=scored.title)
        if not main:
            num[scored.is_control] += 1
            line.set_dashes([float(part) for part in DASHES[1 + (i + i // len(PALETTE)) % 3].split()])


def _dress(axes: "Axes", game: str, ink: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("queries to the black box per map", color=ink)
    axes.set_ylabel(f"{game} AUC ({'lower' if game == 'deletion' else 'higher'} is better)", color=ink)
    axes.tick_params(which="both", colors=ink)
    axes.grid(color=ink, alpha=0.18, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)


def _add_legend(axes: "Axes", ink: str) -> None:
    legend = axes.legend(fontsize=6.5, frameon=False, labelcolor=ink, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in a name is one
