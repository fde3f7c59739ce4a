"""`python -m evaluate COMMAND`: maps and students compared with the black box."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from cluster import cli, command_line
from evaluate.config import (
    GamesConfig,
    InsightsConfig,
    JobConfig,
    MetricsConfig,
    PaperConfig,
    ReportConfig,
    SanityConfig,
    SimilarityConfig,
    SpecificityConfig,
    StabilityConfig,
)

EVALUATE = (
    "Compare maps and students with the black box that they explain: games, measures and checks write Parquet and "
    "MLflow runs; report and tables read them. `metrics` is another name of `measures`. " + cli.VERBOSE_HELP
)
ALIASES = {"metrics": "measures"}
Command = (
    Annotated[GamesConfig, tyro.conf.subcommand("games")]
    | Annotated[MetricsConfig, tyro.conf.subcommand("measures")]
    | Annotated[SanityConfig, tyro.conf.subcommand("sanity")]
    | Annotated[InsightsConfig, tyro.conf.subcommand("insights")]
    | Annotated[SimilarityConfig, tyro.conf.subcommand("similarity")]
    | Annotated[ReportConfig, tyro.conf.subcommand("report")]
    | Annotated[StabilityConfig, tyro.conf.subcommand("substrates")]
    | Annotated[PaperConfig, tyro.conf.subcommand("tables")]
    | Annotated[SpecificityConfig, tyro.conf.subcommand("specificity")]
)


def run_games(config: GamesConfig) -> str:
    """Play the games; return the table."""
    from evaluate.games.job import play_games
    from evaluate.report.console import games_text

    report = cli.next_step("evaluate", "report", scores=config.out, out=cli.beside(config.out, "-report.html"))
    return f"{_with_counts(play_games(config), config, games_text)}\n{report}"


def run_metrics(config: MetricsConfig) -> str:
    """Compute metrics; return the table."""
    from evaluate.metrics.job import compute_metrics
    from evaluate.report.console import metrics_text

    scores = cli.beside(config.out, "-scores")
    games = {"data": config.data, "teacher": config.teacher, "out": scores}
    report = {"measures": config.out, "out": cli.beside(config.out, "-report.html")}
    lines = [
        _with_counts(compute_metrics(config), config, metrics_text),
        cli.next_step("evaluate", "games", "--maps", *config.maps, **games),
        cli.next_step("evaluate", "report", scores=scores, **report),
    ]
    return "\n".join(lines)


def run_sanity(config: SanityConfig) -> str:
    """Check maps; return the table."""
    from evaluate.report.console import sanity_text
    from evaluate.sanity.job import check_maps

    return f"{_with_counts(check_maps(config), config, sanity_text)}\n{_explain_step(config)}"


def _with_counts(result: Any, config: JobConfig, table: Callable[[Any], str]) -> str:
    from cluster.storage import Folder
    from evaluate.runs import runs_line, stored_page

    counts, page = result.counts, runs_line(stored_page(Folder(config.out)))
    lines = [table(result.summaries), f"{counts.rows} rows, {counts.errors} with an error, in {config.out}", page]
    return "\n".join(filter(None, lines))


def run_insights(config: InsightsConfig) -> str | int:
    """Find what the black box relies on; return the sentences, or status 1 after them where two models differ."""
    from evaluate.insights.job import find_insights
    from evaluate.insights.summary import exit_status, insights_text

    insights = find_insights(config)
    text, status = insights_text(insights), exit_status(insights, config)
    if not status:
        return text
    print(text)
    return status


def run_similarity(config: SimilarityConfig) -> str:
    """Compute the agreement; return the table."""
    from evaluate.report.console import similarity_text
    from evaluate.similarity import compute_similarity

    return f"{similarity_text(compute_similarity(config))}\n{_explain_step(config)}"


def _explain_step(config: SanityConfig | SimilarityConfig) -> str:
    """Return the command that explains by a student which has just been checked."""
    maps = {"student": config.student, "out": cli.beside(config.student, "-maps/mal_grad_cam")}
    return cli.next_step("explain", "mal_grad_cam", data=config.data, teacher=config.teacher, **maps)


def run_report(config: ReportConfig) -> str:
    """Write the page; return its summary."""
    from evaluate.report.write import write_report

    return write_report(config)


def run_stability(config: StabilityConfig) -> str:
    """Compare protocols; return the tables."""
    from evaluate.analysis.rank_stability import write_stability

    return write_stability(config)


def run_tables(config: PaperConfig) -> str:
    """Write the paper's tables and figures; return their list."""
    from evaluate.paper.write import write_paper

    return "\n".join(write_paper(config))


def run_specificity(config: SpecificityConfig) -> str:
    """Compare black boxes; return the tables."""
    from evaluate.analysis.specificity import write_specificity

    return write_specificity(config)


RUN: dict[type, Callable[[Any], str | int]] = {
    GamesConfig: run_games,
    InsightsConfig: run_insights,
    MetricsConfig: run_metrics,
    SanityConfig: run_sanity,
    SimilarityConfig: run_similarity,
    ReportConfig: run_report,
    StabilityConfig: run_stability,
    PaperConfig: run_tables,
    SpecificityConfig: run_specificity,
}


def run(args: Sequence[str]) -> str | int:
    """Parse and run a command; return what it prints, or its exit status.

    Raises:
        ValueError, OSError, WorkError: for the user to mend.
    """
    parse: Any = tyro.cli
    named = [ALIASES.get(word, word) if k == 0 else word for k, word in enumerate(args)]
    config = cli.checked(parse(Command, prog=cli.prog("evaluate"), args=named, description=EVALUATE))
    config.check()
    return RUN[type(config)](config)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 2 for what the user can mend."""
    given = cli.take_verbose(args)
    with command_line.running("evaluate", given):
        return cli.run(lambda: run(given))


if __name__ == "__main__":
    sys.exit(main())
