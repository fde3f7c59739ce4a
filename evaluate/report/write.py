"""One self-contained page about scores, with its tables as Markdown and CSV, kept in MLflow too."""

from collections.abc import Sequence

import numpy as np

from cluster.storage import Folder, split_file
from evaluate.analysis.columns import Column
from evaluate.analysis.comparison import MethodRow
from evaluate.analysis.query_curve import draw_query_curves
from evaluate.format.markdown import table_stem, write_tables
from evaluate.jobs import RUNS_FILE, run_key
from evaluate.report.html import render
from evaluate.report.report_data import ReportData, gather
from evaluate.report.texts import comma_separated, console_text, markdown
from evaluate.scored_method import method_title

File = tuple[Folder, str]
"""Where a file lies, and its name."""


def write_report(
    scores: Sequence[str],
    out: str,
    *,
    measures: Sequence[str] = (),
    photographs: bool = True,
    num_gallery: int = 8,
    tables: str | None = None,
    query_plot: str | None = None,
    beside: str | None = None,
    against: str | None = None,
) -> str:
    """Write the page, and the tables where asked for; keep both as artifacts of an MLflow run `report`.

    Args:
        scores: folders of `python -m evaluate games`; one protocol, one teacher, one data set.
        out: HTML file, a path or URI.
        measures: folders of `python -m evaluate measures`, of the same maps and black box.
        photographs: False leaves every input image out, for publication: maps alone.
        num_gallery: images in the gallery, 0 or more.
        tables: file name ending in .md or .csv; both are written beside each other.
        query_plot: file name ending in .png, for both games' quality against queries.
        beside: as `gather` takes it.
        against: likewise.

    Returns:
        The summary for the console.

    Raises:
        ValueError: the scores cannot stand in one report, or an argument is out of range.
    """
    (folder, name), stem, plot = _check(out, num_gallery, tables, query_plot)
    report_data = gather(scores, measures, beside=beside, against=against)
    folder.write_bytes(name, render(report_data, photographs=photographs, num_gallery=num_gallery).encode())
    page = folder.child(name).uri
    written = [page]
    if stem is not None:
        written += write_tables(stem, markdown(report_data), comma_separated(report_data))
    if plot is not None:
        beside_it, file = plot
        beside_it.write_bytes(file, draw_query_curves(report_data.rows))
        written.append(beside_it.child(file).uri)
    _track(report_data, written)
    return console_text(report_data, page)


def _check(
    out: str, num_gallery: int, tables: str | None, query_plot: str | None
) -> tuple[File, File | None, File | None]:
    if query_plot is not None and not query_plot.endswith(".png"):
        raise ValueError(f"query_plot {query_plot} must end in .png")
    if num_gallery < 0:
        raise ValueError(f"num_gallery {num_gallery} is not allowed; give 0 or more")
    folder, name = split_file(out)
    if folder.holds_folder(name):
        raise ValueError(f"{out} is a folder; give an HTML file in it, such as {out.rstrip('/')}/report.html")
    plot = None if query_plot is None else split_file(query_plot)
    return (folder, name), None if tables is None else table_stem(tables), plot


def _track(report_data: ReportData, written: Sequence[str]) -> None:
    """Keep the files in a run `report`, and the table's figures in the runs of the methods' games.

    So one run holds all that is known of a method, and MLflow's compare page ranks methods by any measure. A method
    whose games this store has no run of is left out.
    """
    from cluster.tracking.tracker import Tracker

    config = report_data.results.config
    kept = ("protocol_hash", "teacher", "teacher_fingerprint", "data", "data_fingerprint", "split")
    folders = {"scores": ", ".join(report_data.results.uris), "measures": ", ".join(report_data.measured)}
    params = {name: config.get(name) for name in kept} | folders
    with Tracker(report_data.data_name, "report", params=params, tags={"stage": "report"}) as tracker:
        for place in written:
            tracker.artifact(place)
    runs = _games_runs(report_data)
    for row in report_data.rows:
        method, config_hash = row.scored.method, row.scored.config_hash
        if config_hash in runs:
            own = {"method": method, "config_hash": config_hash}
            name = method_title({"method": method, "config": row.scored.config})
            with Tracker(report_data.data_name, name, params=own, run_id=runs[config_hash]) as tracker:
                tracker.log(mlflow_metrics(row, report_data.columns))


def _games_runs(report_data: ReportData) -> dict[str, str]:
    """Find the runs of the games in this store, by the maps' configuration hash."""
    folders = [Folder(uri) for uri in report_data.results.uris]
    made = {k: v for folder in folders if folder.exists(RUNS_FILE) for k, v in folder.read_json(RUNS_FILE).items()}
    hashes = [row.scored.config_hash for row in report_data.rows]
    keys = {own: run_key(own, report_data.results.config["protocol_hash"]) for own in hashes}
    return {own: made[key] for own, key in keys.items() if made.get(key)}


def mlflow_metrics(row: MethodRow, columns: Sequence[Column]) -> dict[str, float]:
    """List a method's figures by their MLflow names; what is not a number is left out."""
    named: dict[str, float] = {}
    for column in columns:
        name, value, against = column.metric, row.values.get(column.name), row.against.get(column.name)
        if value is not None:
            named |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        if against is not None:
            named |= {f"{name}_win_rate": against.win_rate, f"{name}_p_holm": against.p_holm}
    return {name: value for name, value in named.items() if np.isfinite(value)}
