"""Decode every kind of image file that people keep, and cut the views that models see."""

import random
import struct
import zlib

import numpy as np
import pytest
from file_mutations import encode
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from distill.data.decode import MAX_PIXELS, ImageError, center_crop, decode, resize

RAMP = np.linspace(0, 255, 24 * 40 * 3).reshape(24, 40, 3).astype(np.uint8)  # (H, W, C)


def png_header(width: int, height: int) -> bytes:
    """Make a PNG that claims a size and has next to no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


# --- decoding


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"this is text, renamed to x.jpg", "known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "known format"),
        (encode(Image.fromarray(RAMP), "EPS"), "known format"),
        (encode(Image.fromarray(RAMP), "JPEG")[:400], "decoded"),
        (encode(Image.fromarray(RAMP), "JPEG")[:20], "decoded"),
        (encode(Image.fromarray(RAMP), "PNG")[:90], "decoded"),
        (png_header(100_000, 100_000), "too large"),
        (png_header(10_000, 10_000), "too large"),
        (png_header(8_000, 8_001), "too large: 8000 x 8001"),
        (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "32-bit floats"),
        (encode(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "70000"),
    ],
)
def test_unusable_files_say_why(data, says):
    with pytest.raises(ImageError, match=says):
        decode(data)


def test_size_is_checked_before_any_pixel_is_decoded():
    with pytest.raises(ImageError, match=str(MAX_PIXELS)):
        decode(png_header(60_000, 60_000))
    with pytest.raises(ImageError, match="decoded"):  # small enough, so its missing pixels are found
        decode(png_header(800, 800))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")]
    + [("TIFF", mode) for mode in ("L", "1", "RGB", "CMYK", "YCbCr")]
    + [("PNG", mode) for mode in ("L", "1", "RGB")],
)
def test_every_mode_becomes_rgb(kind, mode):
    image = Image.fromarray(RAMP).convert(mode)
    got = decode(encode(image, kind))
    assert got.mode == "RGB"
    assert got.size == (40, 24)
    np.testing.assert_allclose(np.asarray(got), np.asarray(image.convert("RGB")), atol=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_is_read(kind):
    got = decode(encode(Image.new("RGB", (7, 5), (10, 200, 30)), kind))
    assert got.size == (7, 5)
    np.testing.assert_allclose(np.asarray(got)[2, 3], (10, 200, 30), atol=3)


def test_multi_picture_jpeg_gives_its_first_picture():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(np.asarray(decode(data))[4, 4], (255, 0, 0), atol=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white_whatever_hides_below(mode):
    image = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    image.putpixel((5, 3), (0, 0, 0, 255))
    pixels = np.asarray(decode(encode(image.convert(mode), "PNG")))
    assert (pixels[0, 0] == 255).all()
    assert (pixels[3, 5] == 0).all()


def test_half_transparent_is_mixed_with_white():
    pixels = np.asarray(decode(encode(Image.new("RGBA", (2, 2), (0, 100, 255, 128)), "PNG")))
    np.testing.assert_allclose(pixels[0, 0], [127, 177, 255], atol=1)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])])
def test_palette_with_transparency(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([200, 0, 0, 0, 0, 0, 0, 0, 200])
    image.putdata([0, 1, 2])
    pixels = np.asarray(decode(encode(image, "PNG", transparency=transparency)))
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert pixels[0, 1].tolist() == [255, 255, 255]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(np.asarray(decode(data))[1, 1], (255, 0, 0), atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_scaled_not_clipped(kind):
    values = np.array([[0, 257, 32_896, 65_535]], np.uint16)
    pixels = np.asarray(decode(encode(Image.fromarray(values), kind)))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # a white corner top left, on an image that is not square
    swapped = upright.transpose(1, 0, 2)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: swapped,
        6: swapped[::-1],  # turned by a quarter to the left, shown turned to the right
        7: swapped[::-1, ::-1],
        8: swapped[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP"):
        got = np.asarray(decode(encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)))
        np.testing.assert_allclose(got.astype(int), upright, atol=40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_spoil_the_pixels():
    data = encode(Image.new("RGB", (8, 8), "red"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(data).size == (8, 8)


def test_one_pixel():
    image = decode(encode(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"))
    for view in (resize, center_crop):
        pixels = view(image, (5, 3))
        assert pixels.shape == (5, 3, 3)
        assert (pixels == [9, 8, 7]).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's remarks on broken metadata
def test_changed_bytes_decode_or_raise_image_error(kind):
    rng = random.Random(kind)  # noqa: S311 - repeatable damage
    good = encode(Image.fromarray(RAMP), kind)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            image = decode(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        except ImageError:
            continue
        assert image.mode == "RGB"


# --- views


def test_resize_keeps_height_and_width_apart():
    tall = np.zeros((60, 20, 3), np.uint8)
    tall[:30] = 255
    pixels = resize(Image.fromarray(tall), (12, 30))
    assert pixels.shape == (12, 30, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[:4] == 255).all()
    assert (pixels[8:] == 0).all()


def test_resize_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = resize(Image.fromarray(stripes), (8, 8))
    np.testing.assert_allclose(pixels, 127.5, atol=20)


@pytest.mark.parametrize("size", [(500, 375), (333, 517), (224, 224), (100, 640)])
def test_centre_crop_is_torchvisions(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    expected = np.asarray(CenterCrop(224)(Resize(256)(image)))
    np.testing.assert_array_equal(center_crop(image, (224, 224)), expected)


def test_centre_crop_of_a_very_long_image_stays_small():
    image = Image.new("RGB", (60_000, 3), "red")
    assert center_crop(image, (32, 48)).shape == (32, 48, 3)
    assert center_crop(image.transpose(Image.Transpose.TRANSPOSE), (32, 48)).shape == (32, 48, 3)


def test_centre_crop_that_is_not_square_keeps_the_centre():
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 140:160] = 255
    crop = center_crop(Image.fromarray(pixels), (40, 80))
    assert crop.shape == (40, 80, 3)
    np.testing.assert_array_equal(crop[20, :, 0], crop[20, ::-1, 0])
    assert crop[20, 39, 0] == 255
