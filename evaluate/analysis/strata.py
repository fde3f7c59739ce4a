"""The scores where the student names the black box's class and where it names another one: two strata of the images.

Where the two disagree, a map of the student explains another decision than the one it is scored on. The controls, and
the methods that ask the black box, tell how hard the images of each stratum are in themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluate.analysis.agreement import Disagreements
from evaluate.analysis.comparison import MethodRow, Tables, interval
from evaluate.games.protocol import GAMES
from evaluate.scored_method import ScoredMethod
from evaluate.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Strata:
    """One method's scores in both strata."""

    scored: ScoredMethod
    """The method."""
    agree: Mapping[str, Interval]
    """AUC by game, on the images on which the student names the black box's class."""
    differ: Mapping[str, Interval]
    """The same where it names another one."""


def strata(rows: Sequence[MethodRow], tables: Tables, disagreements: Disagreements) -> list[Strata]:
    """Split each method's scores, in the order of the rows; none where one stratum is empty or nobody knows."""
    differing, agreeing = disagreements.differing, disagreements.known - disagreements.differing
    if not (differing and agreeing):
        return []
    found = []
    for row in rows:
        scores = {game: tables[game][row.scored.label] for game in GAMES}
        agree, differ = (
            {game: interval(own[own.index.isin(list(images))]) for game, own in scores.items()}
            for images in (agreeing, differing)
        )
        found.append(Strata(scored=row.scored, agree=agree, differ=differ))
    return found
