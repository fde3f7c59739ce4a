"""Reports of made-up scores, and what a reader sees of a page."""

import html
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from cluster.storage import Folder
from evaluate.analysis.comparison import MethodRow
from evaluate.config import ReportConfig
from evaluate.map_sets import Source
from evaluate.report.report_data import ReportData, gather
from evaluate.report.texts import numbers

LIMIT = 15  # images that are measured


class Tags(HTMLParser):
    """Collect every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def text_of(page: str) -> str:
    """Return what a reader sees, in one line."""
    body = page[page.index("</style>") : page.index("<script>")]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body.replace("<wbr>", ""))).split())


def row_of(report_data: ReportData, method: str) -> MethodRow:
    return next(row for row in report_data.rows if row.scored.method == method)


def open_maps(folder: Folder) -> list[Source]:
    return [Source(uri=entry["uri"], config=entry["config"]) for entry in folder.config()["maps"]]


def report_of(*scores: str, **options: Any) -> ReportData:
    """Gather what a report of score folders shows."""
    return gather(ReportConfig(scores=scores, out="report.html", **options))


def csv_of(report_data: ReportData) -> str:
    """Write the table of methods as CSV."""
    return numbers(report_data).csv()


class FakeTracker:
    """Stand in for MLflow; notes what it is given."""

    made: list["FakeTracker"]

    def __init__(self, experiment: str, run_name: str, **given: Any) -> None:
        self.experiment, self.run_name, self.given, self.files = experiment, run_name, given, []
        self.logged: dict[str, float] = {}
        self.tables: dict[str, list[list[Any]]] = {}
        self.page = "http://server/#/experiments/7/runs?compareRunsMode=CHART"
        FakeTracker.made.append(self)

    def __enter__(self) -> "FakeTracker":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def artifact(self, place: str, folder: str = "") -> None:
        self.files.append(Folder(place).name)

    def log(self, metrics: dict[str, float]) -> None:
        self.logged |= metrics

    def table(self, name: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
        assert {len(row) for row in rows} <= {len(columns)}
        self.tables[name] = rows
