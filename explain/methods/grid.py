"""Grid of cells of maps that are coarser than pixels."""

LONGER_CELLS = 28
"""Cells along the longer side: 8 px each at 224 px. Twice as many predicted no response of a black box better."""


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Return rows and columns: `LONGER_CELLS` along the longer side, at most one for each pixel."""
    rows, columns = (max(1, round(LONGER_CELLS * side / max(height, width))) for side in (height, width))
    return min(rows, height), min(columns, width)
