"""The order of methods beside the paper's, in sentences made from the numbers: which pairs stand the same way round."""

import itertools
from collections.abc import Mapping

import numpy as np

from evaluate.analysis.comparison import interval, lead
from evaluate.analysis.conclusions import listed
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER, Game
from evaluate.paper.published import METHODS, Printed
from evaluate.paper.scores import DataSet
from evaluate.scored_method import ScoredMethod


def order_sentences(data_set: DataSet, printed: Printed) -> list[str]:
    """Say for each game how the methods that the paper compares stand there and here.

    Args:
        data_set: our scores; of several settings of a method the one that stands in the paper's column.
        printed: the paper's row to compare with, of whatever black box and images.

    Returns:
        A text for each game, deletion first.
    """
    return [order_sentence(game, data_set, printed) for game in GAMES]


def order_sentence(game: Game, data_set: DataSet, printed: Printed) -> str:
    """Say it for one game."""
    found, means = data_set.columns, {}
    for key in METHODS:
        value = interval(data_set.results.auc(game)[found[key].label]) if key in found else None
        if value is not None and value.num:
            means[key] = value.mean
    start = f"{game.capitalize()}, beside the paper's {printed.title}:"
    if len(means) < 2:
        scored = f"only {METHODS[next(iter(means))]}" if means else "none"
        return (
            f"{start} of {listed(list(METHODS.values()))} {scored} has a score here, so there is no order to compare."
        )
    theirs = {key: value for key, value in printed.numbers(game).items() if key in means}
    orders = f"best first, the paper has {_order(theirs, game)}; here it is {_order(means, game)}."
    return f"{start} {orders} {_pairs(game, data_set, {key: found[key] for key in means}, theirs)}"


def _order(values: Mapping[str, float], game: Game) -> str:
    ranked = sorted(values, key=lambda key: values[key], reverse=HIGHER_IS_BETTER[game])
    return ", ".join(f"{METHODS[key]} {values[key]:.4f}" for key in ranked)


def _pairs(game: Game, data_set: DataSet, found: Mapping[str, ScoredMethod], theirs: Mapping[str, float]) -> str:
    """Count the pairs in the paper's order, and name the others."""
    same, clearly, turned, num = 0, 0, [], 0
    for pair in itertools.combinations(found, 2):
        better, worse = sorted(pair, key=lambda key: theirs[key], reverse=HIGHER_IS_BETTER[game])
        ahead = lead(data_set.results, game, found[better].label, found[worse].label)
        if np.isnan(ahead.mean):  # no image in common
            continue
        num += 1
        if ahead.mean > 0:
            same, clearly = same + 1, clearly + (ahead.low > 0)
        else:
            mark = " clearly" if ahead.high < 0 else ""
            turned.append(f"{METHODS[worse]} is{mark} ahead of {METHODS[better]}")
    others = f"; {listed(turned)}" if turned else ""
    return (
        f"Of {num} pairs {same} stand in the paper's order, {clearly} of them clearly (the 95 % interval of the paired "
        f"difference leaves zero out){others}."
    )
