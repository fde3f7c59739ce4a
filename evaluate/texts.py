"""Findings as text: Markdown and CSV tables for papers and READMEs, and a summary for the console."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluate.findings import Findings, readable
from evaluate.gains import MIN_SPAN
from evaluate.method_rows import MethodRow, PairRow
from evaluate.page import p_value
from evaluate.statistics import Interval
from evaluate.tables import interval_text

COLUMNS = ("method", "explains", "config_hash", "num_images", "num_errors")
INTERVALS = ("deletion", "insertion", "gap", "mass", "insertion_normalised", "deletion_gain", "insertion_gain")
GAINS = {"deletion_gain": "SRG deletion ↑", "insertion_gain": "SRG insertion ↑"}
COSTS = ("tied_share", "teacher_queries", "student_passes", "seconds")
SUMMARY_WIDTH = 220  # wider than any table: nothing is cut off


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
        *markdown_table(*_method_cells(findings)),
        "",
        *_explanations(findings),
    ]
    if findings.pairs:
        lines += ["", "Paired differences, mal_grad_cam minus the other method; wins are images, ties half:", ""]
        lines += markdown_table(
            ["against", "game", "difference", "wins", "Wilcoxon p", "Holm p", "mal_grad_cam is"],
            [_pair_cells(pair) for pair in findings.pairs],
        )
    if findings.student.agreements:
        lines += ["", "Agreement of the student with the black box:", "", *_agreement_lines(findings)]
    return "\n".join(lines) + "\n"


def _method_cells(findings: Findings) -> tuple[list[str], list[list[str]]]:
    heads = ["method", "explains", "deletion AUC ↓", "insertion AUC ↑", "insertion − deletion", "tied"]  # noqa: RUF001
    heads += ["teacher queries", "student passes", "s / map", "images", "errors"]
    masks = any(row.mass for row in findings.rows)
    derived = {"insertion_normalised": "normalised insertion ↑", **_gains(findings)}
    cells = [
        [row.scored.label, _explains(row), *(interval_text(getattr(row, name)) for name in INTERVALS[:3])]
        + [f"{row.tied_share:.1%}", f"{row.teacher_queries:g}", f"{row.student_passes:g}", f"{row.seconds:.3g}"]
        + [str(row.gap.num), str(row.num_errors)]
        + ([_maybe(row.mass)] if masks else [])
        + [_maybe(getattr(row, name)) + _left_out(row, name) for name in derived]
        for row in findings.rows
    ]
    return heads + (["mass in mask"] if masks else []) + list(derived.values()), cells


def _gains(findings: Findings) -> dict[str, str]:
    """List the gains that were played, with their headings."""
    return {name: head for name, head in GAINS.items() if any(getattr(row, name) for row in findings.rows)}


def _maybe(value: Interval | None) -> str:
    return interval_text(value) if value else "-"


def _left_out(row: MethodRow, name: str) -> str:
    return f" ({row.num_flat} flat)" if name == "insertion_normalised" and row.num_flat else ""


def _explanations(findings: Findings) -> list[str]:
    lines = [
        "Normalised insertion: the AUC of (curve - start) / (end - start) of each image; images whose curve ends less "
        f"than {MIN_SPAN:g} from its start are left out and counted as flat."
    ]
    if _gains(findings):
        lines.append(
            "SRG, the symmetric relevance gain: in deletion the AUC with the least relevant first minus the AUC with "
            "the most relevant first, in insertion the other way round; 0 for a random order."
        )
    return [" ".join(lines)]


def _explains(row: MethodRow) -> str:
    return "control" if row.scored.is_control else row.scored.explains


def _pair_cells(pair: PairRow) -> list[str]:
    texts = [_signed(pair.difference), f"{pair.win_rate:.1%}", p_value(pair.p_value), p_value(pair.p_holm)]
    return [pair.scored.label, pair.game, *texts, pair.verdict]


def _signed(value: Interval) -> str:
    return interval_text(value, sign="+")


def _agreement_lines(findings: Findings) -> list[str]:
    rows = [
        [found.about, str(found.num_images), *(_sim_text(sim) for sim in found.sims), found.doubt or "-"]
        for found in findings.student.agreements
    ]
    return markdown_table(["view", "images", *(f"Sim{n}" for n in range(1, 6)), "made for"], rows)


def _sim_text(sim: object) -> str:
    return "-" if not isinstance(sim, dict) else f"{sim['mean']:.3f} [{sim['low']:.3f}, {sim['high']:.3f}]"


def table_stem(name: str) -> Path:
    """Return the file name of a table without its ending. Raises: ValueError for another ending or place."""
    if "://" in name:
        raise ValueError(f"table {name} is no file on this machine; tables are written locally")
    if Path(name).suffix not in (".md", ".csv"):
        raise ValueError(f"table {name} must end in .md or .csv; both are written")
    return Path(name).expanduser().with_suffix("")


def write_tables(stem: Path, as_markdown: str, as_csv: str) -> list[Path]:
    """Write a table in both forms beside each other; return the two files."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, text in ((".md", as_markdown), (".csv", as_csv)):
        written.append(stem.with_name(stem.name + suffix))
        written[-1].write_text(text, encoding="utf-8")
    return written


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table, one string per line; cells may hold any text."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(_cell(text) for text in line) + " |" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def comma_separated(rows: Sequence[MethodRow]) -> str:
    """Write the table of methods as CSV with full precision; empty where a number is unknown."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ends = [f"{name}{end}" for name in INTERVALS for end in ("", "_low", "_high")]
    writer.writerow([*COLUMNS, *ends, *COSTS, "num_flat"])
    for row in rows:
        fixed = [row.scored.label, _explains(row), row.scored.config_hash, row.gap.num, row.num_errors]
        found = [getattr(row, name) for name in INTERVALS]
        values = [v for i in found for v in ((i.mean, i.low, i.high) if i else (None,) * 3)]
        values += [getattr(row, name) for name in COSTS]
        writer.writerow([*fixed, *("" if v is None or v != v else f"{v:.6g}" for v in values), row.num_flat])  # noqa: PLR0124
    return buffer.getvalue()


def console_text(findings: Findings, page: Path | None) -> str:
    """Write both AUCs, relevance gains, mass inside the mask and Sim1 where known, headline, and where the page is."""
    results = findings.results
    masks = any(row.mass for row in findings.rows)
    gains = _gains(findings)
    table = Table(
        title=f"{findings.data_name}: {results.num_images} images, scored on the black box", title_justify="left"
    )
    marks = ["mass in mask"] if masks else []
    for heading in ("method", "deletion AUC ↓", "insertion AUC ↑", *gains.values(), *marks, "s / map"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for row in findings.rows:
        texts = [_maybe(getattr(row, name)) for name in ("deletion", "insertion", *gains)]
        mass = [_maybe(row.mass)] if masks else []
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
