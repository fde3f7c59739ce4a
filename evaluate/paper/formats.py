"""The paper's tables as text: Markdown for READMEs, LaTeX (booktabs) for papers, CSV for programs."""

from collections.abc import Callable, Mapping

from evaluate.format.markdown import escaped
from evaluate.format.numbers import interval_text
from evaluate.format.table import Table
from evaluate.paper.tables import OF_STUDENT, Cell, Line, PaperTable

PAPER = "paper"


def markdown(table: PaperTable) -> str:
    """Write caption, table and notes as Markdown."""
    notes = "".join(f"\n{escaped(note)}\n" for note in table.notes)
    return f"Table {table.number}. {escaped(table.caption)}\n\n{lay_out(table).markdown()}{notes}"


def latex(table: PaperTable) -> str:
    """Write the table as a LaTeX float, as wide as the page."""
    text = lay_out(table).latex(label=f"tab:paper{table.number}", caption=" ".join([table.caption, *table.notes]))
    return text.replace(OF_STUDENT, "\\textdagger{}")


def lay_out(table: PaperTable) -> Table:
    """Lay out headings, (column, "" or "paper") each, and one row of texts per line; what is missing is empty."""
    fixed: dict[str, Callable[[Line], str]] = {"data set": lambda line: line.data_set}
    if any(line.view for line in table.lines):
        fixed["view"] = lambda line: line.view
    fixed["images"] = lambda line: "" if line.num_images is None else str(line.num_images)
    fixed["black box"] = lambda line: line.teacher
    printed, digits = printed_columns(table), 3 if table.number == 1 else 4  # as the paper prints them
    headings = [(name, "") for name in fixed]
    headings += [(title, part) for key, title in table.columns.items() for part in ("", PAPER)[: 1 + (key in printed)]]
    rows = []
    for line in table.lines:
        row = [cell(line) for cell in fixed.values()]
        for key in table.columns:
            row += [_cell(line, key)] + ([_number(line.printed, key, digits)] if key in printed else [])
        rows.append(row)
    return Table(headings=headings, rows=rows)


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


def comma_separated(table: PaperTable) -> str:
    """Write every number with full precision, one row per data set; empty where there is none."""
    printed = printed_columns(table)
    parts = ("", "_low", "_high", "_num_images", "_explains")
    names = [f"{key}{part}" for key in table.columns for part in parts + (("_paper",) if key in printed else ())]
    rows = []
    for line in table.lines:
        row = [line.data_set, line.view, line.num_images, line.teacher, table.protocol_hash if line.cells else ""]
        for key in table.columns:
            row += _values(line.cells.get(key)) + ([line.printed.get(key)] if key in printed else [])
        rows.append(row)
    return Table(headings=["data_set", "view", "num_images", "teacher", "protocol_hash", *names], rows=rows).csv()


def _values(cell: Cell | None) -> list[object]:
    if cell is None:
        return [None] * 5
    return [cell.value.mean, cell.value.low, cell.value.high, cell.value.num, cell.explains]


FORMATS: dict[str, Callable[[PaperTable], str]] = {".md": markdown, ".csv": comma_separated, ".tex": latex}
"""Ending of the file -> how it is written."""
