"""The tables that the commands print at their end."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluate.format.numbers import interval_text
from evaluate.games.protocol import GAMES
from evaluate.games.summary import GamesSummary
from evaluate.metrics.settings import HIGHER_IS_BETTER
from evaluate.metrics.summary import MetricSummary
from evaluate.sanity.summary import CheckSummary
from evaluate.scored_method import label_methods
from evaluate.statistics import Interval
from explain.methods.registry import METHODS


def print_games(summaries: Sequence[GamesSummary], console: Console | None = None) -> None:
    """Print one line per method: both AUCs with their 95 % intervals, images and errors; then what follows from
    the curves.
    """
    table = Table(title="Deletion (lower is better) and insertion (higher is better), 95 % intervals")
    table.add_column("method", no_wrap=True)
    for heading in ("deletion AUC", "insertion AUC", "images", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = [scored.label for scored in label_methods([summary.source.record() for summary in summaries])]
    for summary, name in zip(summaries, names, strict=True):
        aucs = [interval_text(summary.auc[game]) for game in ("deletion", "insertion")]
        table.add_row(name, *aucs, str(summary.num_images), str(summary.num_errors))
    shown = console or Console()
    shown.print(table)
    shown.print(_derived(summaries, names))


def _derived(summaries: Sequence[GamesSummary], names: Sequence[str]) -> Table:
    """Lay out what follows from the curves: normalised insertion and, where it was played, the relevance gains."""
    gains = [game for game in GAMES if any(game in summary.gains for summary in summaries)]
    srg = " and symmetric relevance gain (SRG)" if gains else ""
    table = Table(title=f"Normalised insertion{srg}, higher is better; flat curves have no normalised area")
    table.add_column("method", no_wrap=True)
    for heading in ("normalised insertion AUC", "flat", *(f"SRG {game}" for game in gains)):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary, name in zip(summaries, names, strict=True):
        texts = [interval_text(summary.gains[game]) for game in gains]
        table.add_row(name, interval_text(summary.insertion_normalised), str(summary.num_flat), *texts)
    return table


def print_metrics(summaries: Sequence[MetricSummary], console: Console | None = None) -> None:
    """Print one line per method and metric: the mean with its 95 % interval, images and errors."""
    table = Table(title="Measures on the black box, 95 % intervals")
    for heading in ("method", "measure", "better"):
        table.add_column(heading, no_wrap=True)
    for heading in ("value", "images", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in summaries:
        better = "higher" if HIGHER_IS_BETTER[one.metric] else "lower"
        value = interval_text(one.value)
        table.add_row(one.label, one.metric, better, value, str(one.value.num), str(one.num_errors))
    (console or Console()).print(table)


def print_sanity(summaries: Sequence[CheckSummary], console: Console | None = None) -> None:
    """Print one line per method, check and stage: the mean similarities with their 95 % intervals, images and errors;
    then which methods have no line, and why.
    """
    table = Table(
        title="Similarity to the intact student's map: 1 is the same map, 0 has nothing in common; 95 % intervals"
    )
    for heading in ("method", "check", "redrawn down to"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rank correlation", "of absolute values", "SSIM", "images", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in summaries:
        texts = [interval_text(found) for found in one.similarities.values()]
        num = one.similarities["rank_correlation"].num
        table.add_row(one.method, one.check, one.stage or "", *texts, str(num), str(one.num_errors))
    shown = console or Console()
    shown.print(table)
    for sentence in _sanity_notes({one.method for one in summaries}):
        shown.print(sentence, highlight=False)


def _sanity_notes(methods: set[str]) -> list[str]:
    classless = [name for name in METHODS if name in methods and not METHODS[name].class_specific]
    blind = [method.name for method in METHODS.values() if method.explains != "student"]
    lines = [f"{name} says nothing of a class: there is no wrong one." for name in classless]
    return [
        "A map that became constant ranks no pixels: it counts as an error, not as a similarity.",
        *lines,
        f"{', '.join(blind)} do not look into the student: no check here could change their maps.",
    ]


def print_agreement(found: dict[str, Any], console: Console | None = None) -> None:
    """Print Sim 1 to 5 of `similarity.measure` with their 95 % intervals."""
    table = Table(title=f"Agreement over {found['num_images']} images ({found['num_errors']} unreadable)")
    table.add_column("top")
    table.add_column("same classes in the same order", justify="right", no_wrap=True)
    for n in range(1, 6):
        if f"sim{n}" in found:
            table.add_row(f"Sim{n}", interval_text(Interval(num=found["num_images"], **found[f"sim{n}"])))
    (console or Console()).print(table)
