"""Findings as text: Markdown and CSV tables for papers and READMEs, and a summary for the console."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluate.findings import Findings, readable
from evaluate.method_rows import MethodRow, PairRow
from evaluate.page import p_value
from evaluate.statistics import Interval
from evaluate.tables import interval_text

COLUMNS = ("method", "explains", "config_hash", "num_images", "num_errors")
INTERVALS = ("deletion", "insertion", "gap", "mass")
COSTS = ("tied_share", "teacher_queries", "student_passes", "seconds")
SUMMARY_WIDTH = 160  # wider than any table: nothing is cut off


def markdown(findings: Findings) -> str:
    """Write headline, table of methods and paired differences as Markdown."""
    results = findings.results
    lines = [
        f"{results.num_images} images of {_cell(findings.data_name)}, scored on "
        f"`{readable(results.config['teacher'])}` "
        f"({results.config['teacher_fingerprint']}), protocol {results.config['protocol']['name']} "
        f"({results.config['protocol_hash']}). Means with 95 % bootstrap intervals over images.",
        "",
        *(f"- {_cell(sentence)}" for sentence in findings.headline),
        "",
        *_markdown_table(*_method_cells(findings)),
    ]
    if findings.pairs:
        lines += ["", "Paired differences, mal_grad_cam minus the other method:", ""]
        lines += _markdown_table(
            ["against", "game", "difference", "Wilcoxon p", "Holm p", "mal_grad_cam is"],
            [_pair_cells(pair) for pair in findings.pairs],
        )
    if findings.student.agreements:
        lines += ["", "Agreement of the student with the black box:", "", *_agreement_lines(findings)]
    return "\n".join(lines) + "\n"


def _method_cells(findings: Findings) -> tuple[list[str], list[list[str]]]:
    heads = ["method", "explains", "deletion AUC ↓", "insertion AUC ↑", "insertion − deletion", "tied"]  # noqa: RUF001
    heads += ["teacher queries", "student passes", "s / map", "images", "errors"]
    masks = any(row.mass for row in findings.rows)
    cells = [
        [row.scored.label, _explains(row), *(interval_text(getattr(row, name)) for name in INTERVALS[:3])]
        + [f"{row.tied_share:.1%}", f"{row.teacher_queries:g}", f"{row.student_passes:g}", f"{row.seconds:.3g}"]
        + [str(row.gap.num), str(row.num_errors)]
        + ([(interval_text(row.mass) if row.mass else "-")] if masks else [])
        for row in findings.rows
    ]
    return heads + (["mass in mask"] if masks else []), cells


def _explains(row: MethodRow) -> str:
    return "control" if row.scored.is_control else row.scored.explains


def _pair_cells(pair: PairRow) -> list[str]:
    texts = [_signed(pair.difference), p_value(pair.p_value), p_value(pair.p_holm)]
    return [pair.scored.label, pair.game, *texts, pair.verdict]


def _signed(value: Interval) -> str:
    return f"{value.mean:+.4f}" + (f" [{value.low:+.4f}, {value.high:+.4f}]" if value.num > 1 else "")


def _agreement_lines(findings: Findings) -> list[str]:
    rows = [
        [found.about, str(found.num_images), *(_sim_text(sim) for sim in found.sims), found.doubt or "-"]
        for found in findings.student.agreements
    ]
    return _markdown_table(["view", "images", *(f"Sim{n}" for n in range(1, 6)), "made for"], rows)


def _sim_text(sim: object) -> str:
    return "-" if not isinstance(sim, dict) else f"{sim['mean']:.3f} [{sim['low']:.3f}, {sim['high']:.3f}]"


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(_cell(text) for text in line) + " |" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def comma_separated(rows: Sequence[MethodRow]) -> str:
    """Write the table of methods as CSV with full precision; empty where a number is unknown."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ends = [f"{name}{end}" for name in INTERVALS for end in ("", "_low", "_high")]
    writer.writerow([*COLUMNS, *ends, *COSTS])
    for row in rows:
        fixed = [row.scored.label, _explains(row), row.scored.config_hash, row.gap.num, row.num_errors]
        found = [getattr(row, name) for name in INTERVALS]
        values = [v for i in found for v in ((i.mean, i.low, i.high) if i else (None,) * 3)]
        values += [getattr(row, name) for name in COSTS]
        writer.writerow([*fixed, *("" if v is None or v != v else f"{v:.6g}" for v in values)])  # noqa: PLR0124
    return buffer.getvalue()


def console_text(findings: Findings, page: Path | None) -> str:
    """Write both AUCs, mass inside the mask and Sim1 where known, the headline, and where the page is."""
    results = findings.results
    masks = any(row.mass for row in findings.rows)
    table = Table(
        title=f"{findings.data_name}: {results.num_images} images, scored on the black box", title_justify="left"
    )
    for heading in ("method", "deletion AUC ↓", "insertion AUC ↑", *(["mass in mask"] if masks else []), "s / map"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for row in findings.rows:
        texts = [interval_text(getattr(row, name)) for name in ("deletion", "insertion")]
        mass = [(interval_text(row.mass) if row.mass else "-")] if masks else []
        name = row.scored.label + (" (control)" if row.scored.is_control else "")
        table.add_row(name, *texts, *mass, f"{row.seconds:.3g}")
    console = Console(file=io.StringIO(), width=SUMMARY_WIDTH, markup=False, highlight=False, emoji=False)
    console.print(table)
    for line in [*findings.headline, *_last_lines(findings, page)]:
        console.print(line, soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n")


def _last_lines(findings: Findings, page: Path | None) -> list[str]:
    sim1 = findings.student.sim1
    lines = []
    if sim1 is not None:
        lines.append(f"Student and black box agree on the first class (Sim1): {_sim_text(sim1)}")
    if findings.masses.shares:
        lines.append(f"A uniform map would have {findings.masses.area:.3f} of its mass inside the masks.")
    return lines if page is None else [*lines, f"Report: {page}"]
