"""Markdown tables that hold any text, and tables written as Markdown and CSV side by side."""

from collections.abc import Sequence

from cluster.errors import visible
from cluster.storage import Folder, split_file

SUMMARY_WIDTH = 220  # characters of a console table: wider than any, so that nothing is cut off


def table_stem(name: str) -> tuple[Folder, str]:
    """Return a table's folder and its file name without the ending. Raises: ValueError for another ending."""
    folder, file = split_file(name)
    stem, dot, ending = file.rpartition(".")
    if not stem or dot + ending not in (".md", ".csv"):
        raise ValueError(f"table {name} must end in .md or .csv; both are written")
    return folder, stem


def write_tables(place: tuple[Folder, str], as_markdown: str, as_csv: str) -> list[str]:
    """Write a table in both forms beside each other, at what `table_stem` gives; return their paths or URIs."""
    folder, stem = place
    texts = {f"{stem}.md": as_markdown, f"{stem}.csv": as_csv}
    for name, text in texts.items():
        folder.write_bytes(name, text.encode())
    return [folder.child(name).uri for name in texts]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table, one string per line; cells may hold any text."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(escaped(text) for text in line) + " |" for line in lines]


def escaped(text: str) -> str:
    """Write any text as one line of Markdown that holds no mark of a table, no HTML and no hidden character."""
    return visible(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")
