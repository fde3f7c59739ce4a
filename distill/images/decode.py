"""Make RGB pixels of an image file's bytes, whatever the file, and cut the views that models see.

Colour profiles are ignored, as torchvision and the models trained with it do.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

MAX_PIXELS = 64_000_000
"""Largest image that is decoded, in pixels (192 MB as RGB); the header is asked before any pixel is."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What Pillow may try: no format that starts a program (EPS) or is rarely fuzzed."""

CROP_MARGIN = 256 / 224
"""Shorter side before the centre crop over the crop's side: the paper's 256 and 224."""

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

# What Pillow's parsers raise on bytes that are not what they claim; a test changes random bytes to see.
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError,
    NotImplementedError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class ImageError(ValueError):
    """An image file that cannot be used; the message says why."""


def decode(data: bytes, *, draft_px: int | None = None) -> Image.Image:
    """Decode an image file to RGB: upright by EXIF, first frame, transparency over white, 16-bit scaled to 8.

    Args:
        data: the file's bytes.
        draft_px: allow a JPEG to be decoded at 1/2, 1/4 or 1/8, with both sides still at least so many
            pixels; several times faster for large photographs, not quite the same pixels after a resize.

    Raises:
        ImageError: if the file is empty, broken, of an unknown format, or larger than `MAX_PIXELS`.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image)
            if draft_px is not None:
                image.draft(None, (draft_px, draft_px))
            image.load()
            turn = _TURNS.get(_orientation(image))
            rgb = _to_rgb(image)
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


def resize(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize the whole image to `size` (height, width), bilinear with antialiasing, without a crop.

    Returns:
        uint8 (height, width, 3): the view that is explained and scored.
    """
    height, width = size
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def centre_crop(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize the shorter side to 256/224 of the crop and cut the centre: the paper's validation view.

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


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"the image is too large: {width} x {height} pixels; allowed: {MAX_PIXELS} pixels")
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels: {width} x {height}")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except _BROKEN:  # a broken EXIF block does not spoil the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ImageError("pixels are 32-bit floats, whose white is not defined; convert the image to 8 or 16 bit")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scale 0 ... 65535 to 0 ... 255; Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"pixels run from {values.min()} to {values.max()}; allowed: 8 or 16 bit, without a sign")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _centre_strip(image: Image.Image, height: int, width: int) -> Image.Image:
    """Cut the far ends off a very long image, which scaled by its short side would not fit into memory."""
    longest_w = max(1, round(8 * image.height * max(1.0, width / height)))
    longest_h = max(1, round(8 * image.width * max(1.0, height / width)))
    if image.width <= longest_w and image.height <= longest_h:
        return image
    wide, tall = min(image.width, longest_w), min(image.height, longest_h)
    left, top = (image.width - wide) // 2, (image.height - tall) // 2
    return image.crop((left, top, left + wide, top + tall))
