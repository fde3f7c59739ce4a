"""Data of a report, read and computed once: scores, metrics, table, student. What is missing becomes a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cluster import command_line
from cluster.storage import Folder, same_fingerprint
from distill.data import ImageSet
from evaluate.analysis.agreement import Disagreements, StudentFacts, disagreements, read_student
from evaluate.analysis.columns import Column, game_columns, metric_columns
from evaluate.analysis.comparison import MethodRow, method_rows
from evaluate.analysis.conclusions import advice, sentences
from evaluate.analysis.strata import Strata, strata
from evaluate.config import ReportConfig
from evaluate.games.protocol import RANKINGS
from evaluate.games.reader import Results, load_results
from evaluate.metrics.summary import MetricSummary, summarize_metrics
from evaluate.paper.order import order_sentences
from evaluate.paper.published import PRINTED, Printed
from evaluate.paper.scores import DataSet, data_name
from evaluate.scored_images import open_scored_images, openable_maps
from evaluate.stored import metrics_config


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the page, the tables and the console summary are made from."""

    results: Results
    """The scores."""
    metric_configs: Mapping[str, Mapping[str, Any]]
    """Configurations of the folders of metrics, by URI."""
    columns: list[Column]
    """What the table shows of each method."""
    rows: list[MethodRow]
    """The table, best method first."""
    advice: list[str]
    """Which map to use and how certain that is, in plain words."""
    conclusions: list[str]
    """What came out, in sentences."""
    student: StudentFacts
    """The student and its agreement with the black box."""
    disagreements: Disagreements
    """On which images the two disagree."""
    strata: list[Strata]
    """Each method's scores where they agree and where they do not; empty where nobody knows."""
    images: ImageSet | None
    """The data set; None where it cannot be opened."""
    images_problem: str
    """Why it cannot be opened; empty where it can."""
    maps: Mapping[str, str]
    """Folders of maps that may be opened, by the method's label."""
    maps_problem: str
    """Which folders of maps are not opened; empty where all are."""
    commands: Sequence[str]
    """Commands that made the results, for a POSIX shell."""
    unknown: Sequence[str]
    """Folders whose command is not known."""

    @property
    def data_name(self) -> str:
        """Return the data set's name."""
        stored = self.results.config.get("data_name")
        return stored or (self.images.name if self.images else data_name(self.results.config))


def gather(config: ReportConfig) -> ReportData:
    """Read score folders, and metrics of the same maps, and compute everything that a report shows.

    Raises:
        ValueError: the scores cannot stand in one report, there are none, or the metrics are not of their maps.
    """
    results, locations = load_results(config.scores, against=config.against), config.locations
    summaries = summarize_metrics(config.measures)
    configs = {folder.uri: metrics_config(folder) for folder in map(Folder, config.measures)}
    _check_metrics_fit(results, configs, summaries)
    columns, tables = _columns(results, summaries)
    data_set, row = DataSet(name=data_name(results.config), results=results), _paper_row(config.beside, results.config)
    images, images_problem = open_scored_images(results, locations, config.data)
    maps, maps_problem = openable_maps(results.methods, locations)
    rows, differing = method_rows(results, columns, tables), disagreements(tables)
    student = read_student(results, locations)
    commands, unknown = _commands(student, [*maps.values(), *results.uris, *configs])
    return ReportData(
        results=results,
        metric_configs=configs,
        columns=columns,
        rows=rows,
        advice=advice(results, rows),
        conclusions=sentences(results, rows) + (order_sentences(data_set, row) if row else []),
        student=student,
        disagreements=differing,
        strata=strata(rows, tables, differing),
        images=images,
        images_problem=images_problem,
        maps=maps,
        maps_problem=maps_problem,
        commands=commands,
        unknown=unknown,
    )


def _commands(student: StudentFacts, folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """List the commands that made the results, in their order, and the folders whose command is not known."""
    stored = {str(student.uri): student.command} if student.description else {}
    stored |= {uri: command_line.stored(Folder(uri)) for uri in folders}
    commands = [command for command in stored.values() if command]
    commands += [agreement.command for agreement in student.agreements if agreement.command and not agreement.doubt]
    running = command_line.describe()
    lines: list[str] = []
    place = ""
    for command in [*commands, *([running] if running else [])]:
        if (here := command_line.shell_place(command)) != place:
            lines, place = [*lines, here], here
        lines.append(command_line.shell_lines(command))
    return lines, [uri for uri, command in stored.items() if command is None]


def _paper_row(beside: str | None, config: Mapping[str, Any]) -> Printed | None:
    rows = {printed.name: printed for printed in PRINTED}
    if beside is not None and beside not in rows:
        raise ValueError(f"beside {beside!r} is no data set of the paper's; these are: {', '.join(rows)}")
    return rows.get(beside or data_name(config))


def _check_metrics_fit(
    results: Results, configs: Mapping[str, Mapping[str, Any]], summaries: Sequence[MetricSummary]
) -> None:
    """Refuse measures of another black box, of other maps, or of other images than the scores'."""
    judge, known = results.config["teacher_fingerprint"], {scored.config_hash for scored in results.methods}
    for uri, config in configs.items():
        if not same_fingerprint(config["teacher_fingerprint"], judge):
            raise ValueError(
                f"the metrics in {uri} ask {config['teacher']} ({config['teacher_fingerprint']}), the scores "
                f"{results.config['teacher']} ({judge}); measure the maps on that black box"
            )
        strangers = [entry for entry in config["maps"] if entry["config_hash"] not in known]
        if strangers:
            raise ValueError(
                f"the metrics in {uri} are of maps that have no scores, first {strangers[0]['method']} "
                f"({strangers[0]['config_hash']}, {strangers[0]['uri']}); play the games with them too, or leave these "
                "measures out"
            )
    scored = pd.Index(results.rows["image_id"].unique())
    for one in summaries:
        others = one.values.index.difference(scored)
        if len(others):
            raise ValueError(
                f"{one.metric} of {one.label} is of {len(others)} images without scores, first {others[0]}; measure "
                "the images that were scored"
            )


def _columns(results: Results, summaries: Sequence[MetricSummary]) -> tuple[list[Column], dict[str, pd.DataFrame]]:
    """Lay out the table: its columns, and each one's values, images x labels."""
    labels = {scored.config_hash: scored.label for scored in results.methods}
    tables = {str(name): table for name in RANKINGS if (table := results.measure(name)) is not None}
    columns = game_columns(tables) + metric_columns({one.metric for one in summaries})
    for name in {one.metric for one in summaries}:
        tables[name] = pd.DataFrame({labels[one.config_hash]: one.values for one in summaries if one.metric == name})
    return columns, tables
