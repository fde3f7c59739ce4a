"""One table, written for a console, as Markdown, as CSV and as LaTeX."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rich.console
import rich.table

from cluster.errors import visible
from cluster.storage import Folder, split_file
from evaluate.format.markdown import escaped

CONSOLE_WIDTH = 220  # characters: wider than any table, so that nothing is cut off
LATEX_NEEDS = "% \\usepackage{booktabs,graphicx}"
Place = tuple[Folder, str]
"""Folder of a file, and its name."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under headings. Texts may hold anything; numbers are written as each format needs them."""

    headings: Sequence[str | tuple[str, str]]
    """Heading of each column; a pair stands in two lines in LaTeX, and is joined by a comma elsewhere."""
    rows: Sequence[Sequence[object]]
    """Cells: texts, numbers, or None for what is unknown."""
    caption: str = ""
    """What the table shows; may be empty."""

    def markdown(self) -> str:
        """Write caption and table as Markdown."""
        lines = [_joined(self.headings), ["---"] * len(self.headings), *(map(_text, row) for row in self.rows)]
        table = "\n".join("| " + " | ".join(escaped(text) for text in line) + " |" for line in lines)
        return f"{escaped(self.caption)}:\n\n{table}\n" if self.caption else f"{table}\n"

    def csv(self) -> str:
        """Write headings and rows as CSV, numbers with six digits; empty where one is unknown."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_joined(self.headings))
        writer.writerows([_text(cell) for cell in row] for row in self.rows)
        return buffer.getvalue()

    def console(self) -> str:
        """Write caption and table for a console; the first column is aligned to the left."""
        console, table = _console(), rich.table.Table(title=visible(self.caption) or None, title_justify="left")
        for k, heading in enumerate(_joined(self.headings)):
            table.add_column(visible(heading), justify="right" if k else "left")
        for row in self.rows:
            table.add_row(*(visible(_text(cell)) for cell in row))
        console.print(table)
        return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]

    def latex(self, *, label: str, caption: str) -> str:
        """Write a LaTeX float with booktabs rules, as wide as the page; everything is escaped.

        Args:
            label: of the float.
            caption: of the float, instead of the table's own.
        """
        import pandas as pd

        pairs = [heading if isinstance(heading, tuple) else (heading, "") for heading in self.headings]
        rows = [[_text(cell) for cell in row] for row in self.rows]
        frame = pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(pairs), dtype=str)
        styled: Any = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
        text = styled.to_latex(
            hrules=True,
            multicol_align="c",
            column_format="l" * frame.shape[1],
            position_float="centering",
            environment="table*",
            label=label,
        )
        fitted = text.replace("\\begin{tabular}", "\\resizebox{\\textwidth}{!}{%\n\\begin{tabular}")
        fitted = fitted.replace("\\end{tabular}", "\\end{tabular}}")
        return f"{LATEX_NEEDS}\n" + fitted.replace("\\label{", f"\\caption{{{latex_text(caption)}}}\n\\label{{", 1)


def latex_text(text: str) -> str:
    """Escape a text for LaTeX, as pandas escapes cells."""
    import pandas as pd

    styled: Any = pd.DataFrame([[text]]).style.hide(axis="index").hide(axis="columns").format(escape="latex")
    return styled.to_latex().split("\n", 1)[1].rsplit(" \\\\", 1)[0]


def console_page(title: str, tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """Write a title, tables and then sentences for a console; each may be empty."""
    parts = [*([f"{visible(title)}\n"] if title else []), *(table.console() for table in tables)]
    return "".join([*parts, *(f"{visible(sentence)}\n" for sentence in sentences)]).rstrip("\n")


def markdown_page(title: str, tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """Write a title, sentences and then tables as Markdown."""
    parts = [escaped(title) + "\n", "".join(f"- {escaped(sentence)}\n" for sentence in sentences)]
    return "\n".join([*parts, *(table.markdown() for table in tables)])


def table_place(name: str) -> Place:
    """Return a table's folder and its file name without the ending. Raises: ValueError for another ending."""
    folder, file = split_file(name)
    stem, dot, ending = file.rpartition(".")
    if not stem or dot + ending not in (".md", ".csv"):
        raise ValueError(f"table {name} must end in .md or .csv; both are written")
    return folder, stem


def write_pages(place: Place, markdown: str, table: Table) -> list[str]:
    """Write a page as Markdown and its numbers as CSV beside each other; return their paths or URIs.

    Args:
        place: as `table_place` returns it.
        markdown: the page.
        table: all numbers of it.
    """
    folder, stem = place
    texts = {f"{stem}.md": markdown, f"{stem}.csv": table.csv()}
    for name, text in texts.items():
        folder.write_bytes(name, text.encode())
    return [folder.child(name).uri for name in texts]


def _joined(headings: Sequence[str | tuple[str, str]]) -> list[str]:
    return [heading if isinstance(heading, str) else ", ".join(filter(None, heading)) for heading in headings]


def _text(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _console() -> rich.console.Console:
    return rich.console.Console(file=io.StringIO(), width=CONSOLE_WIDTH, markup=False, highlight=False, emoji=False)
