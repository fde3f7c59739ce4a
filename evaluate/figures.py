"""The report's pictures as data URIs: mean curves, and heat maps alone or over the image."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from evaluate.protocol import is_deletion
from evaluate.scored import MeanCurve, Scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without black and yellow, which vanish on a dark or a light page.
PALETTE = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A68C4")
MAIN_COLOUR = "#D55E00"
CONTROL_COLOUR = "#8A8F98"
DASHES = ("", "7 3", "2 2", "9 3 2 3")
INK = {"light": "#3a414b", "dark": "#c3c9d2"}
MAX_POINTS = 113  # of a curve as drawn: every other one of 225
OVERLAY_SHARE = 0.62  # of the heat map's colour where the map is at its maximum
JPEG_QUALITY = 86


@dataclass(frozen=True, kw_only=True)
class LineStyle:
    """How a method is drawn, in the plots and beside its name."""

    colour: str
    """Hex colour."""
    dashes: str
    """SVG dash pattern in points; empty for a solid line."""
    width: float
    """Line width in points."""


def line_styles(methods: Sequence[Scored], main: Scored | None) -> dict[str, LineStyle]:
    """Give each method its own line: MAL-Grad-CAM stands out, controls are grey and dashed."""
    others = [scored for scored in methods if scored is not main and not scored.is_control]
    controls = [scored for scored in methods if scored.is_control]
    styles = {} if main is None else {main.label: LineStyle(colour=MAIN_COLOUR, dashes="", width=2.6)}
    for i, scored in enumerate(others):
        dashes = DASHES[i // len(PALETTE) % len(DASHES)]
        styles[scored.label] = LineStyle(colour=PALETTE[i % len(PALETTE)], dashes=dashes, width=1.7)
    for i, scored in enumerate(controls):
        styles[scored.label] = LineStyle(colour=CONTROL_COLOUR, dashes=DASHES[1 + i % 3], width=1.7)
    return styles


def plot_curves(game: str, curves: Mapping[str, MeanCurve], styles: Mapping[str, LineStyle], *, theme: str) -> str:
    """Plot mean curves with their bands as an SVG data URI; names stay in the page's own legend.

    Args:
        game: Says what the horizontal axis counts.
        curves: By label.
        styles: By label.
        theme: "light" or "dark", for the ink of the axes.
    """
    with svg_figure() as (figure, uri):
        axes = figure.subplots()
        for label, curve in reversed(list(curves.items())):
            _draw(axes, curve, styles[label])
        _dress(axes, game, INK[theme])
    return uri[0]


@contextmanager
def svg_figure(size: tuple[float, float] = (4.9, 3.5)) -> "Iterator[tuple[Figure, list[str]]]":
    """Lend a figure of `size` (width, height in inches); its SVG data URI is in the list when the block has ended."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    uri: list[str] = []
    # A fixed salt and no date: the same scores give the same bytes.
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "report", "font.size": 10}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, uri
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    uri.append(data_uri(buffer.getvalue(), "image/svg+xml"))


def _draw(axes: "Axes", curve: MeanCurve, style: LineStyle) -> None:
    mean, half = curve.mean, curve.half_width
    keep = np.unique(np.linspace(0, mean.size - 1, min(mean.size, MAX_POINTS)).round().astype(int))
    x = keep / max(mean.size - 1, 1)
    axes.fill_between(x, (mean - half)[keep], (mean + half)[keep], color=style.colour, alpha=0.13, linewidth=0)
    (line,) = axes.plot(x, mean[keep], color=style.colour, linewidth=style.width)
    if style.dashes:
        line.set_dashes([float(part) for part in style.dashes.split()])


def _dress(axes: "Axes", game: str, ink: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    changed = "deleted" if is_deletion(game) else "inserted"
    axes.set_xlabel(f"share of pixels {changed}", color=ink)
    axes.set_ylabel("mean probability of the target", color=ink)
    axes.tick_params(colors=ink)
    axes.grid(color=ink, alpha=0.18, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)


def heat_colours(saliency: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Turn a map into colours: min to max of this map, up-sampled bilinearly to `size` (H, W).

    Returns:
        Colours (H, W, 3) in 0..255 float32, and the map in [0, 1] (H, W); a constant map is 0 everywhere.
    """
    from matplotlib import colormaps

    low, high = float(saliency.min()), float(saliency.max())
    unit = (saliency - low) / (high - low) if high > low else np.zeros_like(saliency)
    resized = Image.fromarray(unit.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = np.asarray(resized).clip(0, 1)
    return (colormaps["inferno"](values)[..., :3] * 255).astype(np.float32), values


def draw_map(saliency: np.ndarray, size: tuple[int, int]) -> str:
    """Draw a map alone as a PNG data URI of `size` (H, W)."""
    return encode(heat_colours(saliency, size)[0].round().astype(np.uint8), "PNG")


def draw_overlay(saliency: np.ndarray, image: np.ndarray) -> str:
    """Draw a map over its image, uint8 (H, W, 3), as a JPEG data URI; the image is grey, so that colour is the map."""
    colours, values = heat_colours(saliency, (image.shape[0], image.shape[1]))
    grey = image.astype(np.float32).mean(axis=2, keepdims=True) * 0.75 + 20
    alpha = (OVERLAY_SHARE * (0.35 + 0.65 * values))[..., None]
    return encode((grey * (1 - alpha) + colours * alpha).clip(0, 255).round().astype(np.uint8), "JPEG")


def encode(pixels: np.ndarray, kind: str) -> str:
    """Encode uint8 pixels (H, W, 3) as a PNG or JPEG data URI."""
    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return data_uri(buffer.getvalue(), f"image/{kind.lower()}")


def data_uri(data: bytes, media_type: str) -> str:
    """Wrap bytes into a data URI, which a page shows without asking any server."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
