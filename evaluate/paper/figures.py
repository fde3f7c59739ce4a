"""The paper's figures 5 and 6 as PNG files: its map's parts and product, and the methods side by side.

The images are chosen by the report's rule, never by eye.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cluster.errors import WorkError
from distill.data import ImageSet, open_images
from distill.data.decode import resize
from evaluate.format.figures import png_of
from evaluate.paper.published import METHODS
from evaluate.paper.scores import DataSet
from evaluate.report.gallery import LONG_SIDE_PX, choose, ranking
from evaluate.scored_method import ScoredMethod
from explain.maps import maps_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = {"ml_grad_cam": "ML-Grad-CAM", "matt": "MATT"}  # of figure 5, before their product
OVERLAY_SHARE = 0.6  # of the map's colours over the grey image
SIDE_INCHES = 1.5


def figures(data_set: DataSet, *, num_images: int, photographs: bool) -> dict[str, bytes]:
    """Draw both figures of a data set: "figure5" and "figure6" -> PNG; empty where MAL-Grad-CAM has no score.

    Args:
        data_set: Its scores; the maps are read from where they were scored.
        num_images: Rows of each figure.
        photographs: False leaves out the input, also under the maps.
    """
    results = data_set.results
    picks = choose(ranking(results, results.main), num_images) if results.main else []
    if results.main is None or not picks:
        return {}
    inputs = read_inputs(data_set, [image_id for image_id, _ in picks]) if photographs else None
    parts = {title: next((s for s in results.methods if s.method == name), None) for name, title in PARTS.items()}
    sides = {METHODS.get(key, key): scored for key, scored in data_set.columns.items()}
    return {
        "figure5": draw(picks, parts | {METHODS[results.main.method]: results.main}, inputs),
        "figure6": draw(picks, sides, inputs),
    }


def read_inputs(data_set: DataSet, image_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Read images as uint8 (H, W, 3), without those that cannot be read any more."""
    config = data_set.results.config
    try:
        images = open_images(config["data"], split=config["split"])
    except (OSError, ValueError):
        return {}
    found = {image_id: _read(images, image_id) for image_id in image_ids}
    return {image_id: pixels for image_id, pixels in found.items() if pixels is not None}


def _read(images: ImageSet, image_id: str) -> np.ndarray | None:
    try:
        return resize(images.image(image_id), (LONG_SIDE_PX, LONG_SIDE_PX))
    except (OSError, ValueError, WorkError):
        return None


def draw(
    picks: Sequence[tuple[str, str]],
    columns: Mapping[str, ScoredMethod | None],
    inputs: Mapping[str, np.ndarray] | None,
) -> bytes:
    """Draw a grid, images (image_id, place) by methods, as a PNG; what is missing stays empty.

    Args:
        picks: The rows.
        columns: Heading -> method; None where it was not scored.
        inputs: The images, for a first column and under the maps; None leaves them out.
    """
    from matplotlib.figure import Figure

    ids = [image_id for image_id, _ in picks]
    maps = {title: {} if scored is None else maps_of(scored.maps, ids) for title, scored in columns.items()}
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
    """Draw a map from its minimum to its maximum, over the image in grey where there is one."""
    if saliency is None or not np.isfinite(saliency).all():
        return
    if pixels is not None:
        axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=extent)
    alpha = None if pixels is None else OVERLAY_SHARE
    axes.imshow(saliency, cmap="inferno", interpolation="bilinear", alpha=alpha, extent=extent)
