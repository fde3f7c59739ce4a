"""Data of a report, read and computed once: scores, metrics, table, student. What is missing becomes a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cluster.storage import Folder
from distill.data import ImageSet, open_images
from evaluate.analysis.agreement import Disagreements, StudentFacts, disagreements, read_student
from evaluate.analysis.columns import Column, game_columns, metric_columns
from evaluate.analysis.comparison import MethodRow, method_rows
from evaluate.analysis.conclusions import sentences
from evaluate.analysis.strata import Strata, strata
from evaluate.format.safe_text import readable
from evaluate.games.protocol import RANKINGS
from evaluate.games.reader import Results, load_results
from evaluate.metrics.summary import MetricSummary, metrics_config, summarize_metrics
from evaluate.paper.order import order_sentences
from evaluate.paper.published import PRINTED, Printed
from evaluate.paper.scores import DataSet, data_name


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the page, the tables and the console summary are made from."""

    results: Results
    """The scores."""
    measured: Mapping[str, Mapping[str, Any]]
    """Configurations of the metrics folders, by URI."""
    columns: list[Column]
    """What the table shows of each method."""
    rows: list[MethodRow]
    """The table, best method first."""
    conclusions: list[str]
    """What came out, in sentences."""
    beside: str | None
    """The paper's data set that was named to compare with; None for the one of the same name, if any."""
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

    @property
    def data_name(self) -> str:
        """Return the data set's name."""
        stored = self.results.config.get("data_name")
        return stored or (self.images.name if self.images else data_name(self.results.config))


def gather(
    scores: Sequence[str], measures: Sequence[str] = (), *, beside: str | None = None, against: str | None = None
) -> ReportData:
    """Read score folders, and measures of the same maps, and compute everything that a report shows.

    Args:
        scores: folders of `python -m evaluate games`.
        measures: folders of `python -m evaluate measures`.
        beside: the paper's data set with whose order of methods ours is compared; by default the one of the same name.
        against: the method that the others are tested against, as `load_results` takes it.

    Raises:
        ValueError: the scores cannot stand in one report, there are none, or the metrics are not of their maps.
    """
    results = load_results(scores, against=against)
    measured = summarize_metrics(measures)
    configs = {folder.uri: metrics_config(folder) for folder in map(Folder, measures)}
    _check_metrics_fit(results, configs, measured)
    columns, tables = _columns(results, measured)
    data_set, row = DataSet(name=data_name(results.config), results=results), _paper_row(beside, results.config)
    images, problem = _open_images(results)
    rows, differing = method_rows(results, columns, tables), disagreements(tables)
    return ReportData(
        results=results,
        measured=configs,
        columns=columns,
        rows=rows,
        conclusions=sentences(results, rows) + (order_sentences(data_set, row) if row else []),
        beside=beside,
        student=read_student(results),
        disagreements=differing,
        strata=strata(rows, tables, differing),
        images=images,
        images_problem=problem,
    )


def _paper_row(beside: str | None, config: Mapping[str, Any]) -> Printed | None:
    rows = {printed.name: printed for printed in PRINTED}
    if beside is not None and beside not in rows:
        raise ValueError(f"beside {beside!r} is no data set of the paper's; these are: {', '.join(rows)}")
    return rows.get(beside or data_name(config))


def _check_metrics_fit(
    results: Results, configs: Mapping[str, Mapping[str, Any]], measured: Sequence[MetricSummary]
) -> None:
    """Refuse measures of another black box, of other maps, or of other images than the scores'."""
    judge, known = results.config["teacher_fingerprint"], {scored.config_hash for scored in results.methods}
    for uri, config in configs.items():
        if config["teacher_fingerprint"] != judge:
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
    for one in measured:
        others = one.values.index.difference(scored)
        if len(others):
            raise ValueError(
                f"{one.metric} of {one.label} is of {len(others)} images without scores, first {others[0]}; measure "
                "the images that were scored"
            )


def _columns(results: Results, measured: Sequence[MetricSummary]) -> tuple[list[Column], dict[str, pd.DataFrame]]:
    """Lay out the table: its columns, and each one's values, images x labels."""
    labels = {scored.config_hash: scored.label for scored in results.methods}
    tables = {str(name): table for name in RANKINGS if (table := results.measure(name)) is not None}
    columns = game_columns(tables) + metric_columns({one.metric for one in measured})
    for name in {one.metric for one in measured}:
        tables[name] = pd.DataFrame({labels[one.config_hash]: one.values for one in measured if one.metric == name})
    return columns, tables


def _open_images(results: Results) -> tuple[ImageSet | None, str]:
    data = results.config["data"]
    try:
        images = open_images(data, split=results.config["split"])
    except (OSError, ValueError) as error:
        return None, f"The data set cannot be opened: {readable(str(error))}"
    gone = set(results.rows["image_id"].unique()) - set(images.image_ids)
    return images, f"{len(gone)} scored images are not in the data folder any more." if gone else ""
