"""The tables that the commands print at their end."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluate.outcome import MethodOutcome
from evaluate.statistics import Interval


def print_games(outcomes: Sequence[MethodOutcome], console: Console | None = None) -> None:
    """Print one line per method: both AUCs with their 95 % intervals, images and errors."""
    table = Table(title="Deletion (lower is better) and insertion (higher is better), 95 % intervals")
    table.add_column("method", no_wrap=True)
    for heading in ("deletion AUC", "insertion AUC", "images", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    count = Counter(outcome.source.method for outcome in outcomes)
    for outcome in outcomes:
        source = outcome.source
        name = source.method if count[source.method] == 1 else f"{source.method} {source.config_hash}"
        aucs = [interval_text(outcome.auc[game]) for game in ("deletion", "insertion")]
        table.add_row(name, *aucs, str(outcome.num_images), str(outcome.num_errors))
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
