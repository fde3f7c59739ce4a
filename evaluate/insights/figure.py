"""Figure of an insights job: the mean evidence of each class, with what was confirmed outlined; no photograph in it."""

from typing import TYPE_CHECKING

import numpy as np

from evaluate.format.figures import png_of
from evaluate.insights.classes import MIN_IMAGES
from evaluate.insights.result import Insights
from explain.pictures.overlay import COLORMAP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 40
"""Classes drawn: those with most images, `MIN_IMAGES` or more."""
NUM_COLUMNS = 5
TILE_INCHES = (1.55, 1.8)
PX_PER_CELL = 8
NAME_CHARS = 22


def draw_classes(insights: Insights) -> bytes:
    """Draw the mean evidence of each class on one scale, and outline the places of confirmed suspicions, as a PNG."""
    from matplotlib.figure import Figure

    images = insights.images
    counts = {target: len(images.members(target)) for target in images.classes}
    large = [target for target in counts if counts[target] >= MIN_IMAGES] or list(counts)
    shown = sorted(sorted(large, key=lambda target: -counts[target])[:MAX_CLASSES])
    means = {target: images.evidence[images.members(target)].mean(axis=0) for target in shown}
    columns = min(NUM_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(TILE_INCHES[0] * columns, TILE_INCHES[1] * rows), layout="constrained")
    tiles = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in tiles:
        axes.set_axis_off()
    highest = max(float(mean.max()) for mean in means.values())
    for axes, target in zip(tiles, shown, strict=False):
        axes.imshow(means[target], cmap=COLORMAP, vmin=0, vmax=highest)
        axes.set_title(f"{insights.names[target][:NAME_CHARS]} ({counts[target]})", fontsize=8)
        for one in insights.suspicions:
            region = one.candidate.region
            if one.status == "confirmed" and one.candidate.target == target and region is not None:
                _outline(axes, region)
    return png_of(figure)


def _outline(axes: "Axes", region: np.ndarray) -> None:
    """Draw the edges of a region, bool (GRID, GRID)."""
    fine = np.pad(np.kron(region, np.ones((PX_PER_CELL, PX_PER_CELL))), 1)
    places = (np.arange(len(fine)) - 0.5) / PX_PER_CELL - 0.5  # of the fine cells' middles, in cells
    axes.contour(places, places, fine, levels=[0.5], colors="white", linewidths=1.2)
