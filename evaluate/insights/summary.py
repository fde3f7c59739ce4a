"""Tables, console text and MLflow run of an insights job."""

from functools import partial

import numpy as np

from cluster.tracking.tracker import Tracker
from evaluate.config import InsightsConfig
from evaluate.format.table import Table, console_page, markdown_page
from evaluate.insights.changes import changes_table
from evaluate.insights.result import Insights
from evaluate.runs import inputs_of, make_runs

NAME = "insights"


def suspicions_text(insights: Insights) -> list[str]:
    """List the sentences of confirmed suspicions, the strongest first; else say that there is none."""
    holds = [row["sentence"] for row in insights.rows if row["status"] == "confirmed"]
    return [f"{k}. {text}" for k, text in enumerate(holds, start=1)] or ["No suspicion is confirmed."]


def insights_text(insights: Insights) -> str:
    """Write sentences, the changes between two models where there are any, and what was left out, for a console."""
    tables = [changes_table(insights.changes, insights.names)] if insights.changes else []
    return console_page("", tables, [*suspicions_text(insights), *insights.notes, f"page: {insights.folder.uri}"])


def exit_status(insights: Insights, config: InsightsConfig) -> int:
    """Return 1 where a class's maps changed by more than `fail_above` with confidence, else 0."""
    limit = config.fail_above
    return int(limit is not None and any(one.exceeds(limit) for one in insights.changes))


def write_tables(insights: Insights) -> None:
    """Write suspicions.md and suspicions.csv: sentences, then the numbers of all that was tested."""
    table = suspicions_as_table(insights)
    tables = [table, *([changes_table(insights.changes, insights.names)] if insights.changes else [])]
    page = markdown_page("What the black box relies on", tables, [*suspicions_text(insights), *insights.notes])
    for name, text in {"suspicions.md": page, "suspicions.csv": table.csv()}.items():
        insights.folder.write_bytes(name, text.encode())


def suspicions_as_table(insights: Insights) -> Table:
    """Write the numbers of all suspicions as a table."""
    columns = ("rank", "name", "kind", "status", "class_share", "num_tested", "hide", "hide_random", "hide_rest")
    columns += ("paste", "paste_random", "p_holm")
    rows = [[row.get(column) for column in columns] for row in insights.rows]
    return Table(caption="Suspicions, confirmed ones first", headings=columns, rows=rows)


def track(insights: Insights) -> None:
    """Make the MLflow run of the job, unless the folder notes that this store has it already."""
    make_runs(insights.folder, {NAME: partial(_track, insights)})


def mlflow_metrics(insights: Insights) -> dict[str, float]:
    """List counts, the largest tested effect of each class, and the change of each class between two models."""
    named = {
        "num_suspicions": float(len(insights.suspicions)),
        "num_confirmed": float(sum(one.status == "confirmed" for one in insights.suspicions)),
        "num_images": float(len(insights.images.image_ids)),
    }
    for one in reversed(insights.suspicions):  # the first of a class stays
        if one.deciding in one.effects:
            value, name = one.effects[one.deciding], f"effect_{insights.names[one.candidate.target]}"
            named |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
    named |= {f"change_{insights.names[one.target]}": one.change.mean for one in insights.changes}
    return {name: value for name, value in named.items() if np.isfinite(value)}


def _track(insights: Insights, *, key: str) -> Tracker:
    stored, maps = insights.stored, insights.stored["maps"][0]
    params = {name: value for name, value in stored.items() if name not in ("maps", "schema_version")}
    tags = {"stage": NAME, "method": maps["method"], "config_hash": maps["config_hash"], "maps": maps["uri"]}
    params |= {"method": maps["method"]}
    tags |= {NAME: insights.folder.uri}
    with Tracker(insights.data.name, f"{NAME} {maps['method']}", params=params, tags=tags, key=key) as tracker:
        if stored["teacher"] is not None:
            tracker.inputs(inputs_of(stored))
        tracker.log(mlflow_metrics(insights))
        for name in ("suspicions.md", "suspicions.csv", "classes.png"):
            tracker.artifact(f"{insights.folder.uri}/{name}")
        if insights.folder.holds_folder("sheets"):
            tracker.artifact(insights.folder.child("sheets").uri, folder="sheets")
    return tracker
