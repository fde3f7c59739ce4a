"""Tables of text with a title and sentences, for a console and as Markdown."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cluster.errors import visible
from evaluate.format.markdown import SUMMARY_WIDTH, escaped, markdown_table

Grid = tuple[str, list[str], list[list[str]]]  # title, headings, rows


def console_grids(title: str, grids: Sequence[Grid], sentences: Sequence[str]) -> str:
    """Write the title, the tables and then the sentences, for a console."""
    console = Console(file=io.StringIO(), width=SUMMARY_WIDTH, markup=False, highlight=False, emoji=False)
    console.print(visible(title), soft_wrap=True)
    for caption, heads, rows in grids:
        table = Table(title=visible(caption), title_justify="left")
        for k, heading in enumerate(heads):
            table.add_column(visible(heading), justify="right" if k else "left")
        for row in rows:
            table.add_row(*map(visible, row))
        console.print(table)
    for line in sentences:
        console.print(visible(line), soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n")


def markdown_grids(title: str, grids: Sequence[Grid], sentences: Sequence[str]) -> str:
    """Write the title, the sentences and then the tables, as Markdown."""
    lines = [escaped(title), "", *(f"- {escaped(sentence)}" for sentence in sentences)]
    for caption, heads, rows in grids:
        lines += ["", f"{escaped(caption)}:", "", *markdown_table(heads, rows)]
    return "\n".join(lines) + "\n"
