"""The paper's tables as text: Markdown for READMEs, LaTeX (booktabs) for papers, CSV for programs."""

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from evaluate.format.markdown import escaped, markdown_table
from evaluate.format.numbers import interval_text
from evaluate.paper.tables import OF_STUDENT, Cell, Line, PaperTable

PAPER = "paper"
LATEX_NEEDS = "% \\usepackage{booktabs,graphicx}"


def markdown(table: PaperTable) -> str:
    """Write caption, table and notes as Markdown."""
    heads, rows = lay_out(table)
    joined = [", ".join(part for part in head if part) for head in heads]
    notes = [line for note in table.notes for line in ("", escaped(note))]
    return (
        "\n".join([f"Table {table.number}. {escaped(table.caption)}", "", *markdown_table(joined, rows), *notes]) + "\n"
    )


def lay_out(table: PaperTable) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Lay out headings, (column, "" or "paper") each, and one row of texts per line; what is missing is empty."""
    fixed: dict[str, Callable[[Line], str]] = {"data set": lambda line: line.data_set}
    if any(line.view for line in table.lines):
        fixed["view"] = lambda line: line.view
    fixed["images"] = lambda line: "" if line.num_images is None else str(line.num_images)
    fixed["black box"] = lambda line: line.teacher
    printed, digits = printed_columns(table), 3 if table.number == 1 else 4  # as the paper prints them
    heads = [(name, "") for name in fixed]
    heads += [(title, part) for key, title in table.columns.items() for part in ("", PAPER)[: 1 + (key in printed)]]
    rows = []
    for line in table.lines:
        row = [text(line) for text in fixed.values()]
        for key in table.columns:
            row += [_cell(line, key)] + ([_number(line.printed, key, digits)] if key in printed else [])
        rows.append(row)
    return heads, rows


def printed_columns(table: PaperTable) -> set[str]:
    """Return the columns in which the paper prints a number."""
    return {key for line in table.lines for key in line.printed}


def _cell(line: Line, key: str) -> str:
    cell = line.cells.get(key)
    if cell is None:
        return ""
    mark = f" {OF_STUDENT}" if cell.explains == "student" else ""
    fewer = f" (n = {cell.value.num})" if cell.value.num != line.num_images else ""
    return f"{interval_text(cell.value)}{mark}{fewer}"


def _number(printed: Mapping[str, float], key: str, digits: int) -> str:
    return f"{printed[key]:.{digits}f}" if key in printed else ""


def latex(table: PaperTable) -> str:
    """Write the table as a LaTeX float with booktabs rules, as wide as the page; names are escaped."""
    heads, rows = lay_out(table)
    frame = pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(heads), dtype=str)
    styled: Any = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    text = styled.to_latex(
        hrules=True,
        multicol_align="c",
        column_format="l" * frame.shape[1],
        position_float="centering",
        environment="table*",
        label=f"tab:paper{table.number}",
    )
    fitted = text.replace("\\begin{tabular}", "\\resizebox{\\textwidth}{!}{%\n\\begin{tabular}")
    fitted = fitted.replace("\\end{tabular}", "\\end{tabular}}")
    caption = escape(" ".join([table.caption, *table.notes]))
    fitted = fitted.replace("\\label{", f"\\caption{{{caption}}}\n\\label{{", 1)
    return f"{LATEX_NEEDS}\n{fitted}".replace(OF_STUDENT, "\\textdagger{}")


def escape(text: str) -> str:
    """Escape a text for LaTeX, as pandas escapes cells."""
    styled: Any = pd.DataFrame([[text]]).style.hide(axis="index").hide(axis="columns").format(escape="latex")
    return styled.to_latex().split("\n", 1)[1].rsplit(" \\\\", 1)[0]


def comma_separated(table: PaperTable) -> str:
    """Write every number with full precision, one row per data set; empty where there is none."""
    printed = printed_columns(table)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    parts = ("", "_low", "_high", "_num_images", "_explains")
    heads = [f"{key}{part}" for key in table.columns for part in parts + (("_paper",) if key in printed else ())]
    writer.writerow(["data_set", "view", "num_images", "teacher", "protocol_hash", *heads])
    for line in table.lines:
        row = [line.data_set, line.view, line.num_images, line.teacher, table.protocol_hash if line.cells else ""]
        for key in table.columns:
            row += _values(line.cells.get(key)) + ([line.printed.get(key, "")] if key in printed else [])
        writer.writerow(row)
    return buffer.getvalue()


def _values(cell: Cell | None) -> list[object]:
    if cell is None:
        return [""] * 5
    value = cell.value
    numbers = ["" if x != x else f"{x:.6g}" for x in (value.mean, value.low, value.high)]  # noqa: PLR0124
    return [*numbers, value.num, cell.explains]


FORMATS: dict[str, Callable[[PaperTable], str]] = {".md": markdown, ".csv": comma_separated, ".tex": latex}
"""Ending of the file -> how it is written."""
