"""Texts that the commands print at their end: tables of results, and what to know of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluate.format.numbers import interval_text
from evaluate.format.table import Table, console_page
from evaluate.games.protocol import GAMES
from evaluate.games.summary import GamesSummary
from evaluate.metrics.settings import HIGHER_IS_BETTER
from evaluate.metrics.summary import MetricSummary
from evaluate.sanity.summary import SIMILARITIES, CheckSummary
from evaluate.scored_method import label_methods, titled
from evaluate.statistics import Interval
from explain.methods.registry import METHODS
from explain.methods.titles import title_of


def games_text(summaries: Sequence[GamesSummary]) -> str:
    """Write both AUCs of each method with their 95 % intervals, images and errors; then what follows from the curves:
    normalized insertion and, where they were played, the relevance gains.
    """
    names = [scored.title for scored in label_methods([summary.source.record() for summary in summaries])]
    gains = [game for game in GAMES if any(game in summary.gains for summary in summaries)]
    of_gains = " and symmetric relevance gain (SRG)" if gains else ""
    areas = Table(
        caption="Deletion (lower is better) and insertion (higher is better), 95 % intervals",
        headings=["method", "deletion AUC", "insertion AUC", "images", "errors"],
        rows=[
            [name, *(interval_text(summary.auc[game]) for game in GAMES), summary.num_images, summary.num_errors]
            for name, summary in zip(names, summaries, strict=True)
        ],
    )
    derived = Table(
        caption=f"Normalized insertion{of_gains}, higher is better; flat curves have no normalized area",
        headings=["method", "normalized insertion AUC", "flat", *(f"SRG {game}" for game in gains)],
        rows=[
            [
                name,
                interval_text(summary.insertion_normalised),
                summary.num_flat,
                *(interval_text(summary.gains[game]) for game in gains),
            ]
            for name, summary in zip(names, summaries, strict=True)
        ],
    )
    return console_page("", [areas, derived], [])


def metrics_text(summaries: Sequence[MetricSummary]) -> str:
    """Write the mean of each method and metric with its 95 % interval, images and errors."""
    rows = [
        [
            titled(one.method, one.label),
            one.metric,
            "higher" if HIGHER_IS_BETTER[one.metric] else "lower",
            interval_text(one.value),
            one.value.num,
            one.num_errors,
        ]
        for one in summaries
    ]
    headings = ["method", "metric", "better", "value", "images", "errors"]
    return console_page(
        "", [Table(caption="Metrics on the black box, 95 % intervals", headings=headings, rows=rows)], []
    )


def sanity_text(summaries: Sequence[CheckSummary]) -> str:
    """Write the mean similarities of each method, check and stage with their 95 % intervals, images and errors; then
    which methods have no row, and why.
    """
    table = Table(
        caption="Similarity to the intact student's map: 1 is the same map, 0 has nothing in common; 95 % intervals",
        headings=[
            *("method", "check", "randomized down to"),
            *("rank correlation", "of absolute values", "SSIM", "images", "errors"),
        ],
        rows=[
            [
                title_of(one.method),
                one.check,
                one.stage,
                *(interval_text(one.similarities[name]) for name in SIMILARITIES),
                one.similarities["rank_correlation"].num,
                one.num_errors,
            ]
            for one in summaries
        ],
    )
    return console_page("", [table], _sanity_notes({one.method for one in summaries}))


def _sanity_notes(methods: set[str]) -> list[str]:
    classless = [name for name in METHODS if name in methods and not METHODS[name].class_specific]
    blind = [title_of(method.name) for method in METHODS.values() if method.explains != "student"]
    return [
        "A map that became constant ranks no pixels: it counts as an error, not as a similarity.",
        *(f"{title_of(name)} does not depend on a class: there is no wrong one." for name in classless),
        f"{', '.join(blind)} do not look into the student: no check here could change their maps.",
    ]


def similarity_text(result: Mapping[str, Any]) -> str:
    """Write Sim 1 to 5 of `evaluate.similarity.compute_similarity` with their 95 % intervals."""
    num_images = result["num_images"]
    rows = [
        [f"Sim{n}", interval_text(Interval(num=num_images, **result[f"sim{n}"]))]
        for n in range(1, 6)
        if f"sim{n}" in result
    ]
    caption = f"Agreement over {num_images} images ({result['num_errors']} unreadable)"
    return console_page("", [Table(caption=caption, headings=["top", "same classes in the same order"], rows=rows)], [])
