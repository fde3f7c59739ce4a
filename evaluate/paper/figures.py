"""The paper's figures 5 and 6 as PNG files: its map's parts and product, and the methods side by side.

The images are chosen by the report's rule, never by eye.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluate.config import PaperConfig
from evaluate.format.figures import png_of
from evaluate.paper.published import METHODS
from evaluate.paper.scores import DataSet
from evaluate.report.gallery import LONG_SIDE_PX, choose, ranking
from evaluate.scored_images import open_scored_images, openable_maps, read_image
from explain.maps import maps_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = {"ml_grad_cam": "ML-Grad-CAM", "matt": "MATT"}  # of figure 5, before their product
OVERLAY_SHARE = 0.6  # of the map's colors over the gray image
SIDE_INCHES = 1.5


def figures(data_set: DataSet, config: PaperConfig) -> dict[str, bytes]:
    """Draw both figures of a data set: "figure5" and "figure6" -> PNG; empty where MAL-Grad-CAM has no score.

    Args:
        data_set: its scores; the maps are read from where they were scored, where that may be opened.
        config: number of rows, whether the inputs are shown, and what may be opened.
    """
    results = data_set.results
    picks = choose(ranking(results, results.main), config.num_images) if results.main else []
    if results.main is None or not picks:
        return {}
    inputs = _read_inputs(data_set, [image_id for image_id, _ in picks], config) if config.photographs else None
    folders, _ = openable_maps(results.methods, config.locations)
    parts = {title: next((s for s in results.methods if s.method == name), None) for name, title in PARTS.items()}
    sides = {METHODS.get(key, key): scored for key, scored in data_set.columns.items()}
    drawn = {"figure5": parts | {METHODS[results.main.method]: results.main}, "figure6": sides}
    return {
        name: draw(picks, {title: scored and folders.get(scored.label) for title, scored in columns.items()}, inputs)
        for name, columns in drawn.items()
    }


def _read_inputs(data_set: DataSet, image_ids: Sequence[str], config: PaperConfig) -> dict[str, np.ndarray]:
    """Read images as uint8 (H, W, 3), without those that cannot be read any more."""
    images, _ = open_scored_images(data_set.results, config.locations, config.data)
    inputs = {image_id: read_image(images, image_id, (LONG_SIDE_PX, LONG_SIDE_PX)) for image_id in image_ids}
    return {image_id: pixels for image_id, pixels in inputs.items() if pixels is not None}


def draw(
    picks: Sequence[tuple[str, str]],
    columns: Mapping[str, str | None],
    inputs: Mapping[str, np.ndarray] | None,
) -> bytes:
    """Draw a grid, images (image_id, place) by methods, as a PNG; what is missing stays empty.

    Args:
        picks: The rows.
        columns: Heading -> folder of maps; None where the method was not scored, or its maps are not opened.
        inputs: The images, for a first column and under the maps; None leaves them out.
    """
    from matplotlib.figure import Figure

    ids = [image_id for image_id, _ in picks]
    maps = {title: {} if folder is None else maps_of(folder, ids) for title, folder in columns.items()}
    titles = [*([] if inputs is None else ["Input"]), *maps]
    size = (SIDE_INCHES * len(titles) + 0.4, SIDE_INCHES * len(picks) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(picks), len(titles), squeeze=False)
    for row, (image_id, place) in zip(grid, picks, strict=True):
        pixels = None if inputs is None else inputs.get(image_id)
        found = {title: own.get(image_id) for title, own in maps.items()}
        height, width = next((saliency.shape for saliency in found.values() if saliency is not None), (1, 1))
        for axes, title in zip(row, titles, strict=True):
            axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0), aspect="equal")
            axes.spines[:].set_visible(False)
            if title in maps:
                _draw_map(axes, pixels, found[title], (0, width, height, 0))
            elif pixels is not None:
                axes.imshow(pixels, extent=(0, width, height, 0))
        row[0].set_ylabel(place, fontsize=7)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8, parse_math=False)
    return png_of(figure)


def _draw_map(
    axes: "Axes", pixels: np.ndarray | None, saliency: np.ndarray | None, extent: tuple[float, float, float, float]
) -> None:
    """Draw a map from its minimum to its maximum, over the image in gray where there is one."""
    if saliency is None or not np.isfinite(saliency).all():
        return
    if pixels is not None:
        axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=extent)
    alpha = None if pixels is None else OVERLAY_SHARE
    axes.imshow(saliency, cmap="inferno", interpolation="bilinear", alpha=alpha, extent=extent)
