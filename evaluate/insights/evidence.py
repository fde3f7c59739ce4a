"""Evidence of an image: where the highest values of its map lie, as a distribution over a coarse grid.

Methods scale their maps as they like, and rank maps hold no scale at all. So only what stands out is counted: the
excess over the value that four fifths of the cells do not reach.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

GRID = 14
"""Rows and columns of cells: 16 px each at 224 px, about the finest detail of maps from few queries."""
BACKGROUND = 0.8
"""Share of the cells that count as background."""
CORNER = 3
"""Cells along each side of a corner."""
CORE = 0.5
"""Share of the evidence that a core holds."""


def _places() -> dict[str, np.ndarray]:
    border = np.ones((GRID, GRID), dtype=bool)
    border[1:-1, 1:-1] = False
    places = {"border": border}
    for down, rows in (("upper", slice(None, CORNER)), ("lower", slice(-CORNER, None))):
        for side, columns in (("left", slice(None, CORNER)), ("right", slice(-CORNER, None))):
            places[f"{down} {side} corner"] = np.zeros((GRID, GRID), dtype=bool)
            places[f"{down} {side} corner"][rows, columns] = True
    return places


PLACES: Mapping[str, np.ndarray] = _places()
"""Name -> cells, bool (GRID, GRID), of the places where a data set's artifacts are common."""


def evidence(saliency: np.ndarray) -> np.ndarray | None:
    """Compute the evidence of a map: `max(m - q, 0)`, divided by its sum.

    `m` is the map's mean over each cell (adaptive average pooling), `q` the `BACKGROUND` quantile of `m`, or its
    minimum where no cell is above the quantile.

    Args:
        saliency: (h, w), finite.

    Returns:
        (GRID, GRID) float64, at least 0, with sum 1; None for a constant map, which points nowhere.
    """
    cells = F.adaptive_avg_pool2d(torch.from_numpy(saliency.astype(np.float64))[None], GRID)[0].numpy()
    for background in (np.quantile(cells, BACKGROUND), cells.min()):
        excess = np.maximum(cells - background, 0)
        if excess.sum() > 1e-9 * np.abs(cells).max():
            return excess / excess.sum()
    return None


def core(weights: np.ndarray, share: float = CORE) -> np.ndarray:
    """Choose the smallest set of cells that holds a share of the evidence, the heaviest first: bool, as `weights`."""
    order = np.argsort(-weights, axis=None, kind="stable")
    num = int(np.searchsorted(np.cumsum(weights.ravel()[order]), share * weights.sum() - 1e-12)) + 1
    chosen = np.zeros(weights.size, dtype=bool)
    chosen[order[:num]] = True
    return chosen.reshape(weights.shape)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute Hellinger distances `sqrt(sum_i (sqrt(p_i) - sqrt(q_i))^2 / 2)` of evidence (..., GRID, GRID).

    Returns:
        (...): 0 for the same evidence, 1 for evidence without a cell in common.
    """
    roots = np.sqrt(np.asarray(first, dtype=np.float64)) - np.sqrt(np.asarray(second, dtype=np.float64))
    return np.sqrt((roots**2).sum(axis=(-2, -1)) / 2)


def image_facts(weights: np.ndarray, frame: np.ndarray, inside: np.ndarray | None) -> dict[str, object]:
    """Describe the evidence of one image.

    Args:
        weights: its evidence.
        frame: the image, uint8 (GRID, GRID, 3).
        inside: share of each cell that is the object; None where the data set does not say.

    Returns:
        Share of the evidence in each place and outside the object, `size` (share of the image that holds half of it),
        `row` and `column` of its center of mass (0 to 1), mean `color` under it and `image_color`.
    """
    centers = (np.arange(GRID) + 0.5) / GRID
    shares = {column_of(name): float(weights[cells].sum()) for name, cells in PLACES.items()}
    return {
        **shares,
        "outside": None if inside is None else float((weights * (1 - inside)).sum()),
        "size": float(core(weights).mean()),
        "row": float(weights.sum(axis=1) @ centers),
        "column": float(weights.sum(axis=0) @ centers),
        "color": np.einsum("yx,yxc->c", weights, frame.astype(np.float64)).tolist(),
        "image_color": frame.reshape(-1, 3).mean(axis=0).tolist(),
    }


def column_of(place: str) -> str:
    """Name the column with the share of a place."""
    return place.replace(" ", "_")


def place_text(region: np.ndarray) -> str:
    """Say where a region lies, bool (GRID, GRID): one of `PLACES`, an edge, the center, or a part of the image."""
    for name, cells in PLACES.items():
        if (region & cells).sum() >= 0.6 * region.sum() and (name != "border" or _surrounds(region)):
            return name
    rows, columns = np.nonzero(region)
    down, right = (rows.mean() + 0.5) / GRID, (columns.mean() + 0.5) / GRID
    vertical = "upper" if down < 1 / 3 else "lower" if down > 2 / 3 else ""
    horizontal = "left" if right < 1 / 3 else "right" if right > 2 / 3 else ""
    if not vertical and not horizontal:
        return "center"
    return f"{vertical} {horizontal} part".replace("  ", " ").strip()


def _surrounds(region: np.ndarray) -> bool:
    """Tell whether a region touches at least three edges."""
    return sum(bool(edge.any()) for edge in (region[0], region[-1], region[:, 0], region[:, -1])) >= 3


COLORS: Mapping[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "white": (255, 255, 255),
    "red": (220, 30, 30),
    "orange": (240, 140, 30),
    "yellow": (240, 230, 50),
    "green": (50, 160, 60),
    "cyan": (40, 200, 210),
    "blue": (40, 70, 210),
    "purple": (130, 50, 180),
    "magenta": (230, 40, 200),
    "brown": (130, 80, 40),
}
"""Basic names of colors, in sRGB levels."""


def hue(colors: np.ndarray) -> np.ndarray:
    """Compute the opponent colors of levels (..., 3): red less green, and yellow less blue; (..., 2), 0 for gray."""
    red, green, blue = np.moveaxis(np.asarray(colors, dtype=np.float64), -1, 0)
    return np.stack([red - green, (red + green) / 2 - blue], axis=-1)


def contrast_text(color: np.ndarray, around: np.ndarray) -> str:
    """Name the hue of mean levels (3,) that their surroundings do not have, at full saturation."""
    difference = color - around - (color - around).mean()
    return color_text(128 + 110 * difference / max(float(np.abs(difference).max()), 1e-9))


def color_text(color: np.ndarray) -> str:
    """Name the basic color that is nearest to mean levels (3,)."""
    return min(COLORS, key=lambda name: float(((np.asarray(COLORS[name]) - color) ** 2).sum()))
