"""Make RGB pixels of an image file's bytes, whatever the file, and cut the views that models see.

Color profiles are ignored, as torchvision and the models trained with it do.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from distill.data.headers import ImageError, check_headers, check_tags

MAX_PIXELS = 64_000_000
"""Largest image that is decoded, in pixels (192 MB as RGB); the header is asked before any pixel is."""

MAX_SIDE = 65_535
"""Longest side that is decoded, JPEG's own limit: a resize weighs each pixel of a side for each new one."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What Pillow may try: no format that starts a program (EPS) or is rarely fuzzed (AVIF)."""

CROP_MARGIN = 256 / 224
"""Shorter side before the center crop over the crop's side: the paper's 256 and 224."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_TIFF_TILE = (322, 323)  # tags of a tile's width and height, which may be larger than the image
_BAND_PIXELS = 4_000_000  # composed at once

# What Pillow's parsers raise on bytes that are not what they claim; a test changes random bytes to see.
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError,
    NotImplementedError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


__all__ = ["ImageError", "center_crop", "check_size", "decode", "resize", "resized_view", "stored_view", "to_rgb"]


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB: upright by EXIF, first frame, transparency over white, 16-bit scaled to 8.

    Args:
        data: the file's bytes.

    Raises:
        ImageError: if the file is empty, broken, of an unknown format, or larger than `MAX_PIXELS`, `MAX_SIDE` or
            `check_headers` allow.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        check_headers(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(*image.size)
            _check_tiles(image)
            image.load()
            turn = _TURNS.get(_orientation(image))
            rgb = to_rgb(image)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image is too large; allowed: {MAX_PIXELS} pixels") from error
    except _BROKEN as error:
        detail = " ".join(str(error).split())
        if isinstance(error, Image.UnidentifiedImageError):
            detail = f"not an image of a known format ({', '.join(FORMATS)})"
        raise ImageError(f"the file cannot be decoded: {detail or type(error).__name__}") from error
    return rgb if turn is None else rgb.transpose(turn)


def stored_view(data: bytes) -> tuple[tuple[int, int], int]:
    """Return height and width of an image as its file stores it, and how EXIF says that is: 1 (upright) to 8.

    Raises:
        ImageError: if the file is of an unknown format.
    """
    try:
        check_headers(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return (image.height, image.width), _orientation(image)
    except ImageError:
        raise
    except _BROKEN as error:
        raise ImageError(f"the file cannot be decoded: {' '.join(str(error).split())}") from error


def resize(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize the whole image to `size` (height, width), bilinear with antialiasing, without a crop.

    Returns:
        uint8 (height, width, 3): the view that is explained and scored.
    """
    height, width = size
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def resized_view(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode an image file that is of no data set, and resize it as `resize` does.

    Raises:
        ImageError: as `decode`.
    """
    return resize(decode(data), size)


def center_crop(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize the shorter side to 256/224 of the crop and cut the center: the paper's validation view.

    For a `size` (height, width) that is not square, the image is scaled so that both sides have that margin.

    Returns:
        uint8 (height, width, 3); for 224 x 224 the same pixels as torchvision's Resize(256), CenterCrop(224).
    """
    height, width = size
    image = _centre_strip(image, height, width)
    tall, wide = round(height * CROP_MARGIN), round(width * CROP_MARGIN)
    if tall * image.width >= wide * image.height:
        wide = tall * image.width // image.height
    else:
        tall = wide * image.height // image.width
    left, top = round((wide - width) / 2), round((tall - height) / 2)
    scaled = image.resize((wide, tall), Image.Resampling.BILINEAR)
    return np.array(scaled.crop((left, top, left + width, top + height)))


def check_size(width: int, height: int) -> None:
    """Refuse an image of more pixels, or a longer side, than is decoded, and one without pixels. Raises: ImageError."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"the image is too large: {width} x {height} pixels; allowed: {MAX_PIXELS} pixels")
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels: {width} x {height}")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"the image is too long: {width} x {height} pixels; allowed: {MAX_SIDE} a side")


def _check_tiles(image: Image.Image) -> None:
    """Refuse a small image in huge tiles."""
    if isinstance(image, TiffImageFile):
        wide, tall = (int(image.tag_v2.get(tag, 0)) for tag in _TIFF_TILE)
        if wide * tall > MAX_PIXELS:
            raise ImageError(f"the image's tiles are too large: {wide} x {tall} pixels; allowed: {MAX_PIXELS} pixels")


def _orientation(image: Image.Image) -> int:
    try:
        check_tags(image.info.get("exif", b"").removeprefix(b"Exif\0\0"))
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except _BROKEN:  # a broken EXIF block does not spoil the pixels
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into RGB, as `decode` does. Raises: ImageError where white is not defined."""
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ImageError("pixels are 32-bit floats, whose white is not defined; convert the image to 8 or 16 bit")
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Compose band by band, since the whole image in four copies would take a gigabyte."""
    rgb, rows = Image.new("RGB", image.size), max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        rgb.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return rgb


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scale 0 ... 65535 to 0 ... 255; Pillow's own conversion would clip everything above 255 to white."""
    values = image.convert("I")
    lowest, highest = values.getextrema()
    if lowest < 0 or highest > 65535:  # pyright: ignore[reportOperatorIssue]
        raise ImageError(f"pixels run from {lowest} to {highest}; allowed: 8 or 16 bit, without a sign")
    return values.point(_eight_bits(), "L").convert("RGB")


@functools.cache
def _eight_bits() -> list[int]:
    return [(value + 128) // 257 for value in range(65536)]


def _centre_strip(image: Image.Image, height: int, width: int) -> Image.Image:
    """Cut the far ends off a very long image, which scaled by its short side would not fit into memory."""
    longest_w = max(1, round(8 * image.height * max(1.0, width / height)))
    longest_h = max(1, round(8 * image.width * max(1.0, height / width)))
    if image.width <= longest_w and image.height <= longest_h:
        return image
    wide, tall = min(image.width, longest_w), min(image.height, longest_h)
    left, top = (image.width - wide) // 2, (image.height - tall) // 2
    return image.crop((left, top, left + wide, top + tall))
