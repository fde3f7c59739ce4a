"""What came out, in a few plain sentences made from the numbers: who is first; does the main method beat controls."""

from collections.abc import Sequence

import numpy as np

from evaluate.method_rows import MethodRow, Verdict, lead
from evaluate.protocol import GAMES
from evaluate.results import Results
from evaluate.statistics import Interval

EXTREME = {"deletion": "lowest", "insertion": "highest"}
# What the main method does where another method's verdict is this.
VERBS: dict[Verdict, str] = {"better": "loses to", "worse": "beats", "unclear": "is not clearly different from"}


def sentences(results: Results, rows: Sequence[MethodRow]) -> list[str]:
    """Say which method is first in each game, ceilings apart, then how the main method does against each control."""
    return [*(_winner(results, rows, game) for game in GAMES), *against_controls(results, rows)]


def _winner(results: Results, rows: Sequence[MethodRow], game: str) -> str:
    sign = 1 if game == "insertion" else -1
    scored = [row for row in rows if np.isfinite(getattr(row, game).mean) and not row.scored.is_ceiling]
    order = sorted(scored, key=lambda row: -sign * getattr(row, game).mean)
    if not order:
        return f"No map has a score in the {game} game."
    best = order[0]
    text = f"{best.scored.label} has the {EXTREME[game]} {game} AUC, {getattr(best, game).mean:.3f}"
    if len(order) == 1:
        return f"{text}; it is the only method."
    second = order[1].scored.label
    ahead = lead(results, game, best.scored.label, second)
    how = "ahead of" if ahead.low > 0 else "not clearly ahead of"
    return f"{text}, {how} {second} (by {_plain(ahead)})."


def against_controls(results: Results, rows: Sequence[MethodRow]) -> list[str]:
    """Say for each control whether the main method beats it, with the paired difference in each game."""
    main = results.main
    if main is None:
        return ["mal_grad_cam was not scored, so nothing is said about it here."]
    controls = [row for row in rows if row.scored.is_control]
    if not controls:
        return ["No control was scored, so nothing here says that any map is better than chance."]
    return [_against(main.label, row) for row in controls if row.scored is not main]


def _against(main: str, row: MethodRow) -> str:
    control = row.scored.label
    found = {game: row.against[game] for game in GAMES if game in row.against}
    if not found:
        return f"{main} and the control {control} have no image in common."
    verdicts: set[Verdict] = {one.verdict for one in found.values()}
    if len(verdicts) == 1:
        numbers = "; ".join(f"{game} {_signed(-one.difference)}" for game, one in found.items())
        where = "in both games" if len(found) == 2 else f"in {next(iter(found))}"
        return f"{main} {VERBS[verdicts.pop()]} the control {control} {where} ({numbers})."
    parts = [f"{VERBS[one.verdict]} it in {game} ({_signed(-one.difference)})" for game, one in found.items()]
    return f"Against the control {control}, {main} {' and '.join(parts)}."


def _plain(value: Interval) -> str:
    return f"{value.mean:.3f}" + (f" [{value.low:.3f}, {value.high:.3f}]" if value.num > 1 else ", one image")


def _signed(value: Interval) -> str:
    if np.isnan(value.low):
        return f"{value.mean:+.3f}, one image"
    return f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
