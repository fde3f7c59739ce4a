"""What came out, in a few plain sentences made from the numbers: who is first, at which budget, and ahead of chance."""

from collections.abc import Sequence

import numpy as np

from evaluate.analysis.comparison import MethodRow, Verdict, lead
from evaluate.analysis.query_curve import curve_label
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER, Game
from evaluate.games.reader import Results
from evaluate.statistics import Interval

EXTREME = {"deletion": "lowest", "insertion": "highest"}
# What the main method does where another method's verdict is this.
VERBS: dict[Verdict, str] = {"better": "loses to", "worse": "beats", "unclear": "is not clearly different from"}


def sentences(results: Results, rows: Sequence[MethodRow]) -> list[str]:
    """Say which method is first in each game, ceilings apart, and at each budget, then what the main method beats."""
    winners = [_winner(results, rows, game) for game in GAMES]
    at_budgets = [sentence for game in GAMES for sentence in _at_budgets(rows, game)]
    return [*winners, *at_budgets, *against_controls(results, rows)]


def _winner(results: Results, rows: Sequence[MethodRow], game: Game) -> str:
    order = _best_first(rows, game)
    if not order:
        return f"No map has a score in the {game} game."
    best = order[0]
    text = f"{best.scored.label} has the {EXTREME[game]} {game} AUC, {getattr(best, game).mean:.3f}"
    rivals = [row for row in order[1:] if not _same_but_for_budget(row, best)] or order[1:]
    if not rivals:
        return f"{text}; it is the only method."
    second = rivals[0].scored.label
    ahead = lead(results, game, best.scored.label, second)
    how = "ahead of" if ahead.low > 0 else "not clearly ahead of"
    return f"{text}, {how} {second} (by {_plain(ahead)})."


def _best_first(rows: Sequence[MethodRow], game: Game) -> list[MethodRow]:
    """Return the rows that have a score in a game, ceilings apart, the best mean first."""
    scored = [row for row in rows if np.isfinite(getattr(row, game).mean) and not row.scored.is_ceiling]
    return sorted(scored, key=lambda row: getattr(row, game).mean, reverse=HIGHER_IS_BETTER[game])


def _at_budgets(rows: Sequence[MethodRow], game: Game) -> list[str]:
    """Say who has the best mean at each of the numbers of questions that several methods were given, if any two."""
    asked: dict[float, list[str]] = {}  # best first
    for row in _best_first(rows, game):
        if row.teacher_queries > 0:
            asked.setdefault(row.teacher_queries, []).append(curve_label(row.scored))
    shared = [queries for queries, names in sorted(asked.items()) if len(set(names)) > 1]
    if len(shared) < 2:
        return []
    first: dict[str, list[str]] = {}
    for queries in shared:
        first.setdefault(asked[queries][0], []).append(f"{queries:,.0f}")
    where = "; ".join(f"{name} at {listed(queries)}" for name, queries in first.items())
    return [f"The {EXTREME[game]} {game} AUC at the same number of queries: {where}."]


def _same_but_for_budget(row: MethodRow, other: MethodRow) -> bool:
    same = curve_label(row.scored) == curve_label(other.scored)
    return same and row.teacher_queries != other.teacher_queries


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


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
