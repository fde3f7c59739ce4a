"""One self-contained page about scores, with its tables as Markdown and CSV, kept in MLflow too."""

from collections.abc import Sequence
from typing import Any

from cluster.storage import Folder, split_file
from evaluate.analysis.columns import Column
from evaluate.analysis.comparison import MethodRow
from evaluate.analysis.query_curve import draw_query_curves
from evaluate.config import ReportConfig
from evaluate.format.table import table_place, write_pages
from evaluate.report.html import render
from evaluate.report.report_data import ReportData, gather
from evaluate.report.texts import console_text, markdown, numbers
from evaluate.runs import INTERVAL, finite, interval_row, made_runs, run_key, runs_line
from evaluate.scored_method import method_title


def write_report(config: ReportConfig) -> str:
    """Write the page, and the tables where asked for; keep both as artifacts of an MLflow run `report`.

    Returns:
        The summary for the console.

    Raises:
        ValueError: the scores cannot stand in one report, or a file name has another ending.
    """
    config.check()
    folder, name = split_file(config.out)
    if folder.holds_folder(name):
        raise ValueError(f"{config.out} is a folder; give an HTML file in it, such as {config.out}/report.html")
    place = None if config.table is None else table_place(config.table)
    report_data = gather(config)
    page = render(report_data, photographs=config.photographs, num_gallery=config.num_gallery)
    folder.write_bytes(name, page.encode())
    written = [folder.child(name).uri]
    if place is not None:
        written += write_pages(place, markdown(report_data), numbers(report_data))
    if config.query_plot is not None:
        plots, file = split_file(config.query_plot)
        plots.write_bytes(file, draw_query_curves(report_data.rows))
        written.append(plots.child(file).uri)
    return "\n".join(filter(None, [console_text(report_data, written[0]), runs_line(_track(report_data, written))]))


def _track(report_data: ReportData, written: Sequence[str]) -> str | None:
    """Keep the files in a run `report`, and the table's figures in the runs of the methods' games.

    So one run holds all that is known of a method, and MLflow's compare page ranks methods by any measure. A method
    whose games this store has no run of is left out.

    Returns:
        The address of the runs; None where the store is away.
    """
    from cluster.tracking.tracker import Tracker

    config = report_data.results.config
    kept = ("protocol_hash", "teacher", "teacher_fingerprint", "data", "data_fingerprint", "split")
    folders = {"scores": ", ".join(report_data.results.uris), "measures": ", ".join(report_data.metric_configs)}
    params = {name: config.get(name) for name in kept} | folders
    with Tracker(report_data.data_name, "report", params=params, tags={"stage": "report"}) as report:
        for place in written:
            report.artifact(place)
    runs = _games_runs(report_data)
    for row in report_data.rows:
        method, config_hash = row.scored.method, row.scored.config_hash
        if config_hash in runs:
            own = {"method": method, "config_hash": config_hash}
            name = method_title({"method": method, "config": row.scored.config})
            with Tracker(report_data.data_name, name, params={}, tags=own, run_id=runs[config_hash]) as tracker:
                tracker.log(mlflow_metrics(row, report_data.columns))
                tracker.table("comparison", [*INTERVAL, "win_rate", "p_holm"], _comparison(row, report_data.columns))
    return report.page


def _games_runs(report_data: ReportData) -> dict[str, str]:
    """Find the runs of the games in this store, by the maps' configuration hash."""
    made = {key: run_id for uri in report_data.results.uris for key, run_id in made_runs(Folder(uri)).items()}
    hashes = [row.scored.config_hash for row in report_data.rows]
    keys = {own: run_key(own, report_data.results.config["protocol_hash"]) for own in hashes}
    return {own: run_id for own, key in keys.items() if (run_id := made.get(key))}


def mlflow_metrics(row: MethodRow, columns: Sequence[Column]) -> dict[str, float]:
    """List a method's means by their MLflow names; what is not a number is left out."""
    return finite({one.metric: value.mean for one in columns if (value := row.values.get(one.name)) is not None})


def _comparison(row: MethodRow, columns: Sequence[Column]) -> list[list[Any]]:
    """List a method's differences to the main one: with interval, share of images won and p value."""
    compared = {column.metric: row.against[column.name] for column in columns if column.name in row.against}
    return [
        [*interval_row(name, one.difference), float(one.win_rate), float(one.p_holm)] for name, one in compared.items()
    ]
