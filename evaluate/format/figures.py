"""The report's pictures: mean curves as paths for the page to draw, and pictures as data URIs."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from evaluate.scored_method import MeanCurve, ScoredMethod

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette without black and yellow, which vanish on a dark or a light page.
PALETTE = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A68C4")
MAIN_COLOUR = "#D55E00"
CONTROL_COLOUR = "#8A8F98"
DASHES = ("", "7 3", "2 2", "9 3 2 3")
INK = {"light": "#3a414b", "dark": "#c3c9d2"}
MAX_POINTS = 113  # of a curve as drawn: every other one of 225
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)  # between two lines of a plot's grid
MAX_LINES = 6
PLOT_WIDTH, PLOT_HEIGHT = 1000, 640  # of the plotted area, in the units of the paths
JPEG_QUALITY = 82
DOTS_PER_INCH = 150  # of a figure that is a file of its own


@dataclass(frozen=True, kw_only=True)
class LineStyle:
    """How a method is drawn, in the plots and beside its name."""

    color: str
    """Hex color."""
    dashes: str
    """SVG dash pattern in points; empty for a solid line."""
    width: float
    """Line width in points."""


def line_styles(methods: Sequence[ScoredMethod], main: ScoredMethod | None) -> dict[str, LineStyle]:
    """Give each method its own line: MAL-Grad-CAM stands out, controls are gray and dashed."""
    others = [scored for scored in methods if scored is not main and not scored.is_control]
    controls = [scored for scored in methods if scored.is_control]
    styles = {} if main is None else {main.label: LineStyle(color=MAIN_COLOUR, dashes="", width=2.6)}
    for i, scored in enumerate(others):
        dashes = DASHES[i // len(PALETTE) % len(DASHES)]
        styles[scored.label] = LineStyle(color=PALETTE[i % len(PALETTE)], dashes=dashes, width=1.7)
    for i, scored in enumerate(controls):
        styles[scored.label] = LineStyle(color=CONTROL_COLOUR, dashes=DASHES[1 + i % 3], width=1.7)
    return styles


@dataclass(frozen=True, kw_only=True)
class CurvePlot:
    """Mean curves as SVG paths in an area of `PLOT_WIDTH` x `PLOT_HEIGHT`, y downwards."""

    top: float
    """What the upper edge stands for; the lower one is 0."""
    lines: tuple[float, ...]
    """Values with a horizontal line of the grid."""
    series: Mapping[str, tuple[str, str]]
    """By label: the curve, and the outline of its band."""


def plot_curves(curves: Mapping[str, MeanCurve]) -> CurvePlot:
    """Lay out mean curves with their bands over the share of pixels, 0 to 1."""
    highest = max(float((curve.mean + curve.half_width).max()) for curve in curves.values())
    step = next((step for step in STEPS if step * MAX_LINES >= highest), STEPS[-1])
    top = step * max(1, math.ceil(highest / step))
    lines = tuple(step * k for k in range(round(top / step) + 1))
    return CurvePlot(top=top, lines=lines, series={label: _paths(curve, top) for label, curve in curves.items()})


def _paths(curve: MeanCurve, top: float) -> tuple[str, str]:
    mean, half = curve.mean, curve.half_width
    keep = np.unique(np.linspace(0, mean.size - 1, min(mean.size, MAX_POINTS)).round().astype(int))
    x = PLOT_WIDTH * keep / max(mean.size - 1, 1)
    low, middle, high = (PLOT_HEIGHT * (1 - values[keep] / top) for values in (mean - half, mean, mean + half))
    band = _path(np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]]))
    return _path(x, middle), f"{band}z"


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Join points to a path in whole units, by the steps between them: short, and no error adds up."""
    points = np.stack([x, y], axis=1).round().astype(int)
    steps = " ".join(f"{dx} {dy}" for dx, dy in np.diff(points, axis=0))
    return f"M{points[0, 0]} {points[0, 1]}" + (f"l{steps}" if steps else "")


@contextmanager
def svg_figure(size: tuple[float, float] = (4.9, 3.5)) -> "Iterator[tuple[Figure, list[str]]]":
    """Lend a figure of `size` (width, height in inches); its SVG data URI is in the list when the block has ended."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    uri: list[str] = []
    # A fixed salt and no date: the same scores give the same bytes.
    with mpl.rc_context(
        {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "report", "font.size": 10}
    ):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, uri
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    uri.append(data_uri(buffer.getvalue(), "image/svg+xml"))


def png_of(figure: "Figure") -> bytes:
    """Return a figure as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def encode(picture: Image.Image, kind: str, **options: Any) -> str:
    """Encode a picture as a PNG or JPEG data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_uri(buffer.getvalue(), f"image/{kind.lower()}")


def data_uri(data: bytes, media_type: str) -> str:
    """Wrap bytes into a data URI, which a page shows without asking any server."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
