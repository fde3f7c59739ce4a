"""Report data as text: Markdown and CSV tables for papers and READMEs, and a summary for the console."""

import csv
import io
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from cluster.errors import visible
from evaluate.analysis.columns import Column
from evaluate.analysis.comparison import Comparison, MethodRow
from evaluate.format.markdown import SUMMARY_WIDTH, escaped, markdown_table
from evaluate.format.numbers import interval_text, p_value
from evaluate.format.safe_text import readable
from evaluate.games.protocol import GAMES, HIGHER_IS_BETTER
from evaluate.report.report_data import ReportData
from evaluate.scored_method import MARKS
from evaluate.statistics import Interval

FIXED = ("method", "kind", "config_hash", "num_images", "num_errors", "num_flat")
COSTS = ("tied_share", "teacher_queries", "student_passes", "seconds")
ARROWS = {True: " ↑", False: " ↓", None: ""}


def markdown(report_data: ReportData) -> str:
    """Write conclusions, table of methods, comparisons and agreement as Markdown."""
    results = report_data.results
    lines = [
        f"{results.num_images} images of {escaped(report_data.data_name)}, scored on "
        f"{escaped(readable(results.config['teacher']))} "
        f"({results.config['teacher_fingerprint']}), protocol {results.config['protocol']['name']} "
        f"({results.config['protocol_hash']}). Means with 95 % bootstrap intervals over images.",
        "",
        *(f"- {escaped(sentence)}" for sentence in report_data.conclusions),
        "",
        *markdown_table(*_method_cells(report_data)),
    ]
    explained = [f"{column.heading}: {column.about}." for column in report_data.columns if column.about]
    lines += ["", " ".join(explained)]
    if any(row.against for row in report_data.rows):
        lines += ["", *_comparison_lines(report_data)]
    if report_data.strata:
        lines += ["", *_strata_lines(report_data)]
    if report_data.student.agreements:
        lines += ["", "Agreement of the student with the black box:", "", *_agreement_lines(report_data)]
    return "\n".join(lines) + "\n"


def _method_cells(report_data: ReportData) -> tuple[list[str], list[list[str]]]:
    heads = ["method", "kind", *map(_heading, report_data.columns), "tied", "teacher queries", "student passes"]
    cells = [
        [
            row.scored.label,
            MARKS[row.scored.kind],
            *(_value(row, column) for column in report_data.columns),
            *_costs(row),
        ]
        for row in report_data.rows
    ]
    return [*heads, "s / map", "images", "errors"], cells


def _costs(row: MethodRow) -> list[str]:
    made = [f"{row.tied_share:.1%}", f"{row.teacher_queries:g}", f"{row.student_passes:g}", f"{row.seconds:.3g}"]
    return [*made, str(row.gap.num), str(row.num_errors)]


def _heading(column: Column) -> str:
    return column.heading + ARROWS[column.higher_is_better]


def _value(row: MethodRow, column: Column) -> str:
    value = row.values.get(column.name)
    flat = f" ({row.num_flat} flat)" if column.name == "insertion_normalised" and row.num_flat else ""
    return ("-" if value is None else interval_text(value)) + flat


def _mean(value: Interval | None) -> str:
    return "-" if value is None or not value.num else f"{value.mean:.3f}"


def _comparison_lines(report_data: ReportData) -> list[str]:
    assert report_data.results.main is not None
    main, columns = report_data.results.main.label, [c for c in report_data.columns if c.is_compared]
    rows = [row for row in report_data.rows if row.against]
    number = sum(len(row.against) for row in rows)
    about = (
        f"Each method minus {main}, paired on the images that both have: mean difference with its 95 % interval, the "
        f"share of images on which the method is better (ties half), and the p value of Wilcoxon's signed rank test, "
        f"Holm-adjusted over these {number} comparisons. `better` and `worse` stand where the interval leaves zero out "
        "and p < 0.05."
    )
    cells = [[row.scored.label, *(_comparison(row.against.get(column.name)) for column in columns)] for row in rows]
    return [about, "", *markdown_table(["method", *map(_heading, columns)], cells)]


def _comparison(found: Comparison | None) -> str:
    if found is None:
        return "-"
    return f"{found.verdict}: {_signed(found.difference)}, wins {found.win_rate:.1%}, p {p_value(found.p_holm)}"


def _signed(value: Interval) -> str:
    return interval_text(value, sign="+")


def _strata_lines(report_data: ReportData) -> list[str]:
    known, differing = report_data.disagreements.known, report_data.disagreements.differing
    about = (
        f"Where the student names the black box's class, {len(known) - len(differing)} of {len(known)} images measured,"
        f" and where it names another one, {len(differing)}: there a map of the student explains another decision than "
        "the one it is scored on."
    )
    wheres = ("both agree", "they differ")
    heads = [f"{game}{ARROWS[HIGHER_IS_BETTER[game]]}, {where}" for game in GAMES for where in wheres]
    rows = [
        [one.scored.label, *(interval_text(part[game]) for game in GAMES for part in (one.agree, one.differ))]
        for one in report_data.strata
    ]
    return [about, "", *markdown_table(["method", *heads], rows)]


def _agreement_lines(report_data: ReportData) -> list[str]:
    rows = [
        [found.about, str(found.num_images), *(_sim_text(sim) for sim in found.sims), found.doubt or "-"]
        for found in report_data.student.agreements
    ]
    return markdown_table(["view", "images", *(f"Sim{n}" for n in range(1, 6)), "made for"], rows)


def _sim_text(sim: object) -> str:
    return "-" if not isinstance(sim, dict) else f"{sim['mean']:.3f} [{sim['low']:.3f}, {sim['high']:.3f}]"


def comma_separated(report_data: ReportData) -> str:
    """Write the table of methods as CSV with full precision; empty where a number is unknown."""
    buffer = io.StringIO()
    records = [_record(row, report_data.columns) for row in report_data.rows]
    writer = csv.DictWriter(buffer, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def _record(row: MethodRow, columns: Sequence[Column]) -> dict[str, str | int]:
    fixed = (row.scored.label, row.scored.kind, row.scored.config_hash, row.gap.num, row.num_errors, row.num_flat)
    numbers: dict[str, float | None] = {}
    for column in columns:
        value, found = row.values.get(column.name), row.against.get(column.name)
        for name, one in ((column.name, value), (f"{column.name}_difference", found and found.difference)):
            numbers |= {name: one and one.mean, f"{name}_low": one and one.low, f"{name}_high": one and one.high}
        numbers |= {
            f"{column.name}_{name}": found and getattr(found, name) for name in ("win_rate", "p_value", "p_holm")
        }
    numbers |= {name: getattr(row, name) for name in COSTS}
    texts = {name: "" if number is None or np.isnan(number) else f"{number:.6g}" for name, number in numbers.items()}
    return dict(zip(FIXED, fixed, strict=True)) | texts


def console_text(report_data: ReportData, page: str | None) -> str:
    """Write both AUCs, relevance gains, measures and Sim1 where known, conclusions, and where the page is."""
    results, columns = report_data.results, report_data.columns
    played = [
        column for column in columns if column.name in ("deletion", "insertion", "deletion_gain", "insertion_gain")
    ]
    measured = [column for column in columns if column.group == "measures"]
    table = Table(
        title=visible(f"{report_data.data_name}: {results.num_images} images, scored on the black box"),
        title_justify="left",
    )
    for heading in ("method", *map(_heading, played)):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for heading in (*map(_heading, measured), "s / map"):
        table.add_column(heading, justify="right")
    for row in report_data.rows:
        name = visible(row.scored.label) + (" (control)" if row.scored.is_control else "")
        means = [_mean(row.values.get(column.name)) for column in measured]
        table.add_row(name, *(_value(row, column) for column in played), *means, f"{row.seconds:.3g}")
    console = Console(file=io.StringIO(), width=SUMMARY_WIDTH, markup=False, highlight=False, emoji=False)
    console.print(table)
    for line in [*report_data.conclusions, *_last_lines(report_data, page)]:
        console.print(visible(line), soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n")


def _last_lines(report_data: ReportData, page: str | None) -> list[str]:
    sim1, differing = report_data.student.sim1, report_data.disagreements
    lines = []
    if sim1 is not None:
        lines.append(f"Student and black box agree on the first class (Sim1): {_sim_text(sim1)}")
    if differing.measured:
        lines.append(f"They disagree on {len(differing.differing)} of {len(differing.known)} explained images.")
    return lines if page is None else [*lines, f"Report: {page}"]
