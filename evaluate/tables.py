"""The tables that the commands print at their end."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluate.measured import Measured
from evaluate.measures import HIGHER_IS_BETTER
from evaluate.outcome import MethodOutcome
from evaluate.protocol import GAMES
from evaluate.scored import name_methods
from evaluate.statistics import Interval


def print_games(outcomes: Sequence[MethodOutcome], console: Console | None = None) -> None:
    """Print one line per method: both AUCs with their 95 % intervals, images and errors; then what follows from
    the curves.
    """
    table = Table(title="Deletion (lower is better) and insertion (higher is better), 95 % intervals")
    table.add_column("method", no_wrap=True)
    for heading in ("deletion AUC", "insertion AUC", "images", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = [scored.label for scored in name_methods([outcome.source.record() for outcome in outcomes])]
    for outcome, name in zip(outcomes, names, strict=True):
        aucs = [interval_text(outcome.auc[game]) for game in ("deletion", "insertion")]
        table.add_row(name, *aucs, str(outcome.num_images), str(outcome.num_errors))
    shown = console or Console()
    shown.print(table)
    shown.print(_derived(outcomes, names))


def _derived(outcomes: Sequence[MethodOutcome], names: Sequence[str]) -> Table:
    """Lay out what follows from the curves: normalised insertion and, where it was played, the relevance gains."""
    gains = [game for game in GAMES if any(game in outcome.gains for outcome in outcomes)]
    srg = " and symmetric relevance gain (SRG)" if gains else ""
    table = Table(title=f"Normalised insertion{srg}, higher is better; flat curves have no normalised area")
    table.add_column("method", no_wrap=True)
    for heading in ("normalised insertion AUC", "flat", *(f"SRG {game}" for game in gains)):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome, name in zip(outcomes, names, strict=True):
        texts = [interval_text(outcome.gains[game]) for game in gains]
        table.add_row(name, interval_text(outcome.insertion_normalised), str(outcome.num_flat), *texts)
    return table


def print_measures(measured: Sequence[Measured], console: Console | None = None) -> None:
    """Print one line per method and measure: the mean with its 95 % interval, images and errors."""
    table = Table(title="Measures on the black box, 95 % intervals")
    for heading in ("method", "measure", "better"):
        table.add_column(heading, no_wrap=True)
    for heading in ("value", "images", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in measured:
        better = "higher" if HIGHER_IS_BETTER[one.measure] else "lower"
        value = interval_text(one.value)
        table.add_row(one.label, one.measure, better, value, str(one.value.num), str(one.num_errors))
    (console or Console()).print(table)


def print_agreement(found: dict[str, Any], console: Console | None = None) -> None:
    """Print Sim 1 to 5 of `similarity.measure` with their 95 % intervals."""
    table = Table(title=f"Agreement over {found['num_images']} images ({found['num_errors']} unreadable)")
    table.add_column("top")
    table.add_column("same classes in the same order", justify="right", no_wrap=True)
    for n in range(1, 6):
        if f"sim{n}" in found:
            table.add_row(f"Sim{n}", interval_text(Interval(num=found["num_images"], **found[f"sim{n}"])))
    (console or Console()).print(table)


def interval_text(interval: Interval) -> str:
    """Write a mean with its interval, `0.1234 [0.1200, 0.1270]`; a dash without any value."""
    if interval.num == 0:
        return "-"
    if interval.num == 1:
        return f"{interval.mean:.4f}"
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
