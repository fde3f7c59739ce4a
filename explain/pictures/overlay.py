"""Overlays: a saliency map drawn over its photograph, alone or beside those of other methods.

The colormap is matplotlib's `inferno`: perceptually uniform, and readable with every kind of color blindness and in
gray. The photograph under it is dimmed and gray where the map is low, so that color means saliency alone.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from distill.data.decode import check_size

COLORMAP = "inferno"
OPACITY = 0.7
"""Share of the colormap's color where the map is highest."""
LOWEST_SHARE = 0.15
"""Of that, the part that is left where the map is lowest."""
LONG_SIDE_PX = 448
PERCENTILES = (1.0, 99.5)
"""Values of the map that become the lowest and the highest color: single pixels do not set the scale."""
GAP_PX, CAPTION_PX, FONT_PX = 8, 44, 15
PAPER, INK, MUTED = (255, 255, 255), (20, 20, 20), (90, 90, 90)


def unit_map(saliency: np.ndarray) -> np.ndarray:
    """Scale a map (h, w) linearly to [0, 1] between its 1st and 99.5th percentile; a constant map becomes zero.

    Raises:
        ValueError: the map is not (h, w), or holds a value that is not finite.
    """
    if saliency.ndim != 2 or saliency.size == 0 or not np.isfinite(saliency).all():
        raise ValueError(f"a map to draw is (height, width) of finite values, got {saliency.shape} {saliency.dtype}")
    low, high = np.percentile(saliency.astype(np.float64), PERCENTILES)
    if high <= low:  # most values are alike: the range of all values
        low, high = float(saliency.min()), float(saliency.max())
    if high <= low:
        return np.zeros(saliency.shape, dtype=np.float32)
    return ((saliency - low) / (high - low)).clip(0, 1).astype(np.float32)


def overlay(
    photograph: Image.Image,
    saliency: np.ndarray,
    *,
    opacity: float = OPACITY,
    colormap: str = COLORMAP,
    long_side_px: int = LONG_SIDE_PX,
) -> Image.Image:
    """Draw a saliency map over its photograph.

    Args:
        photograph: RGB, of any size.
        saliency: (h, w) over the whole photograph; it is resized bilinearly to the picture.
        opacity: share of the map's color where the map is highest, 0 to 1; it falls with the map.
        colormap: of matplotlib.
        long_side_px: longer side of the picture; smaller photographs are enlarged.

    Returns:
        RGB, with the photograph's aspect ratio.

    Raises:
        ValueError: as `unit_map`, or for an opacity out of range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity} is not allowed; give 0 to 1")
    picture = fit(photograph, long_side_px)
    resized = Image.fromarray(unit_map(saliency)).resize(picture.size, Image.Resampling.BILINEAR)
    unit = np.asarray(resized, dtype=np.float32).clip(0, 1)
    colors = _palette(colormap)[(unit * 255).round().astype(np.uint8)]  # (H, W, 3)
    pixels = np.asarray(picture, dtype=np.float32)
    gray = 0.75 * pixels.mean(axis=2, keepdims=True) + 20
    under = gray + (pixels - gray) * unit[..., None]  # the photograph's own colors where the map is high
    share = (opacity * (LOWEST_SHARE + (1 - LOWEST_SHARE) * unit**1.5))[..., None]
    base = under if opacity else pixels
    return Image.fromarray((base * (1 - share) + colors * share).round().clip(0, 255).astype(np.uint8))


def fit(photograph: Image.Image, long_side_px: int) -> Image.Image:
    """Resize a photograph to RGB whose longer side is `long_side_px`. Raises: ImageError as `check_size`."""
    scale = long_side_px / max(photograph.size)
    width, height = (max(1, round(side * scale)) for side in photograph.size)
    check_size(width, height)
    return photograph.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def side_by_side(panels: Mapping[str, Image.Image], *, heading: str = "") -> Image.Image:
    """Place pictures of one size beside each other, each with its caption above it.

    Args:
        panels: caption (a second line behind a line break) -> picture.
        heading: a line over all of them, such as the class and its probability.
    """
    width, height = next(iter(panels.values())).size
    top = CAPTION_PX + (CAPTION_PX if heading else 0)
    sheet = Image.new("RGB", ((width + GAP_PX) * len(panels) + GAP_PX, height + top + GAP_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    if heading:
        draw.text((GAP_PX, 12), shorten(heading, sheet.width - 2 * GAP_PX, FONT_PX + 3), INK, font=font(FONT_PX + 3))
    for k, (caption, picture) in enumerate(panels.items()):
        left = GAP_PX + k * (width + GAP_PX)
        for row, line in enumerate(caption.split("\n")[:2]):
            size = FONT_PX if row == 0 else FONT_PX - 2
            text = shorten(line, width, size)
            draw.text((left, top - CAPTION_PX + 3 + 19 * row), text, INK if row == 0 else MUTED, font=font(size))
        sheet.paste(picture, (left, top))
    return sheet


def columns_of(columns: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Place columns of pictures beside each other, each column under its heading and cut to one common shape."""
    side = min(min(picture.size) for _, pictures in columns for picture in pictures)
    squares = [(heading, [_square(picture, side) for picture in pictures]) for heading, pictures in columns]
    rows = max(len(pictures) for _, pictures in squares)
    sheet = Image.new("RGB", ((side + GAP_PX) * len(squares) + GAP_PX, (side + GAP_PX) * rows + CAPTION_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    for k, (heading, pictures) in enumerate(squares):
        left = GAP_PX + k * (side + GAP_PX)
        draw.text((left, 12), shorten(heading, side, FONT_PX), INK, font=font(FONT_PX))
        for row, picture in enumerate(pictures):
            sheet.paste(picture, (left, CAPTION_PX + row * (side + GAP_PX)))
    return sheet


def _square(picture: Image.Image, side_px: int) -> Image.Image:
    """Cut the middle square out of a picture and resize it."""
    cut = min(picture.size)
    left, top = (picture.width - cut) // 2, (picture.height - cut) // 2
    return picture.crop((left, top, left + cut, top + cut)).resize((side_px, side_px), Image.Resampling.BILINEAR)


def rows_of(sheets: Sequence[Image.Image]) -> Image.Image:
    """Stack pictures on top of each other, aligned at the left."""
    whole = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), PAPER)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def shorten(text: str, width_px: int, size_px: int) -> str:
    """Cut a line to a width, with an ellipsis where something is cut off."""
    if font(size_px).getlength(text) <= width_px:
        return text
    while text and font(size_px).getlength(f"{text}…") > width_px:
        text = text[:-1]
    return f"{text.rstrip()}…"


@functools.lru_cache(maxsize=8)
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which comes with matplotlib."""
    import matplotlib as mpl

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px)


@functools.lru_cache(maxsize=4)
def _palette(colormap: str) -> np.ndarray:
    """Return a colormap's 256 colors, (256, 3) float32 in levels. Raises: ValueError for an unknown one."""
    from matplotlib import colormaps

    if colormap not in colormaps:
        raise ValueError(
            f"unknown colormap {colormap!r}; perceptually uniform: inferno, viridis, magma, plasma, cividis"
        )
    return (colormaps[colormap](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.float32)
