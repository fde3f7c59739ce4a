"""What came out, in a few plain sentences made from the numbers: who is first, at which budget, and ahead of chance."""

from collections.abc import Sequence

import numpy as np

from evaluate.analysis.comparison import MethodRow, Verdict, interval, lead, paired
from evaluate.analysis.query_curve import curve_label
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER, Game
from evaluate.games.reader import Results
from evaluate.scored_method import MAIN_METHOD
from evaluate.statistics import Interval
from explain.methods.titles import title_of

FEW_IMAGES = 30
EXTREME = {"deletion": "lowest", "insertion": "highest"}
# What the main method does where another method's verdict is this.
VERBS: dict[Verdict, str] = {"better": "loses to", "worse": "beats", "unclear": "is not clearly different from"}


def advice(results: Results, rows: Sequence[MethodRow]) -> list[str]:
    """Say in plain words which map to use and how certain that is, by insertion minus deletion AUC.

    First the best map of all, then the best one that takes no query, where that is another.
    """
    maps = [row for row in rows if np.isfinite(row.gap.mean) and not (row.scored.is_control or row.scored.is_oracle)]
    controls = [row for row in rows if np.isfinite(row.gap.mean) and row.scored.is_control]
    if not maps:
        return ["No map of a method has a score, so there is none to recommend."]
    best = maps[0]
    rivals = [row for row in maps[1:] if not _same_but_for_budget(row, best)]
    cost = (
        f"{best.teacher_queries:,.0f} queries of the black box per map" if best.teacher_queries else "no query per map"
    )
    said = [
        f"Use {best.scored.title}: of {len(maps)} maps it has the best scores, and it takes {cost}. "
        f"{_certainty(results, best, rivals[0]) if rivals else ''}{_above_controls(results, best, controls)}"
    ]
    free = next((row for row in maps if row.teacher_queries == 0), best)
    if free is not best:
        said.append(f"Without a query per map, use {free.scored.title}.{_above_controls(results, free, controls)}")
    if best.gap.num < FEW_IMAGES:
        said.append(f"Only {best.gap.num} images were scored: read all this as a hint.")
    return said


def _certainty(results: Results, best: MethodRow, second: MethodRow) -> str:
    ahead = _ahead(results, best, second)
    name, images = second.scored.title, f"{best.gap.num} images"
    if ahead.low > 0:
        return f"It is clearly ahead of the second, {name}: other images of this kind would very likely say the same."
    return f"That it is ahead of the second, {name}, is not certain: on these {images} the two may be as good."


def _above_controls(results: Results, row: MethodRow, controls: Sequence[MethodRow]) -> str:
    """Say whether a map is clearly better than the best control."""
    if not controls:
        return " No control was scored, so nothing says that it is better than chance."
    name = controls[0].scored.title
    if _ahead(results, row, controls[0]).low > 0:
        return f" It clearly beats the control {name}, which looks at no model."
    return f" Take care: it is not clearly better than the control {name}, which looks at no model."


def _ahead(results: Results, row: MethodRow, other: MethodRow) -> Interval:
    gaps = results.measure("gap")
    assert gaps is not None, "every protocol has both games"
    first, second = paired(gaps, row.scored.label, other.scored.label)
    return interval(first - second)


def sentences(results: Results, rows: Sequence[MethodRow]) -> list[str]:
    """Say which method is first in each game, the oracle apart, and at each budget, then what the main method beats."""
    winners = [_winner(results, rows, game) for game in GAMES]
    at_budgets = [sentence for game in GAMES for sentence in _at_budgets(rows, game)]
    return [*winners, *at_budgets, *against_controls(results, rows)]


def _winner(results: Results, rows: Sequence[MethodRow], game: Game) -> str:
    order = _best_first(rows, game)
    if not order:
        return f"No map has a score in the {game} game."
    best = order[0]
    text = f"{best.scored.title} has the {EXTREME[game]} {game} AUC, {getattr(best, game).mean:.3f}"
    rivals = [row for row in order[1:] if not _same_but_for_budget(row, best)] or order[1:]
    if not rivals:
        return f"{text}; it is the only method."
    second = rivals[0].scored.title
    ahead = lead(results, game, best.scored.label, rivals[0].scored.label)
    how = "ahead of" if ahead.low > 0 else "not clearly ahead of"
    return f"{text}, {how} {second} (by {_plain(ahead)})."


def _best_first(rows: Sequence[MethodRow], game: Game) -> list[MethodRow]:
    """Return the rows that have a score in a game, the oracle apart, the best mean first."""
    scored = [row for row in rows if np.isfinite(getattr(row, game).mean) and not row.scored.is_oracle]
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
        return [f"{title_of(MAIN_METHOD)} was not scored, so nothing is said about it here."]
    controls = [row for row in rows if row.scored.is_control]
    if not controls:
        return ["No control was scored, so nothing here says that any map is better than chance."]
    return [_against(main.title, row) for row in controls if row.scored is not main]


def _against(main: str, row: MethodRow) -> str:
    control = row.scored.title
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
