"""What tests of explain jobs share: the black box, the student's size, the broken images, and rows of maps."""

from explain.maps import read_maps

TEACHER = "python:tiny_teacher:bright"
SIZE = (64, 48)
BROKEN = {"c3/cut.png", "c5/empty.jpg"}


def rows_of(out: str) -> list[dict]:
    return read_maps(out).to_pylist()


def made_rows(out: str) -> list[dict]:
    """Read the rows with a map."""
    return [row for row in rows_of(out) if row["error"] is None]
