"""Headers that would take minutes or gigabytes to read are refused at once; what real files bring is read."""

import io
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
from file_mutations import encode
from PIL import Image

from distill.data import headers
from distill.data.decode import ImageError, decode
from distill.data.headers import MAX_CHUNKS, MAX_HEADER_BYTES, MAX_PADDING, MAX_SEGMENTS, check_headers

NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
IMAGE = Image.fromarray(NOISE)
JPEG, PROGRESSIVE = encode(IMAGE, "JPEG"), encode(IMAGE, "JPEG", progressive=True)
PNG, GIF, TIFF = encode(IMAGE, "PNG"), encode(IMAGE, "GIF"), encode(IMAGE, "TIFF")
GIF_START = 13 + 3 * 256  # behind the palette


def segment(kind: int, body: bytes = b"") -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tags(number: int, size: int, *, order: str = "<", tag: int = 1000, kind: int = 1) -> bytes:
    """Make a TIFF whose tags all hold the same bytes."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, number)
    return start + struct.pack(f"{order}HHII", tag, kind, size, 16) * number + b"\0" * (4 + size)


def exif(block: bytes) -> bytes:
    ends = [*range(0, len(block), 65_000), len(block)]
    return b"".join(segment(0xE1, b"Exif\0\0" + block[start:end]) for start, end in pairwise(ends))


def behind_start(data: bytes, more: bytes, at: int = 2) -> bytes:
    return data[:at] + more + data[at:]


def among_scans(more: bytes) -> bytes:
    second = PROGRESSIVE.index(b"\xff\xda", PROGRESSIVE.index(b"\xff\xda") + 2)
    return behind_start(PROGRESSIVE, more, second)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (behind_start(JPEG, segment(0xFE) * 20_000), f"than {MAX_SEGMENTS} segments"),
        (behind_start(JPEG, segment(0xFE, b"x" * 65_000) * 1_040), f"{MAX_HEADER_BYTES} bytes"),
        (behind_start(JPEG, b"\xff" * 70_000), f"{MAX_PADDING} of padding"),
        (behind_start(JPEG, b"\xff\0" * 40_000), "of padding"),
        (behind_start(JPEG, (b"\0" * 100 + segment(0xFE)) * 1_000), "of padding"),
        (behind_start(JPEG, b"\xff\xd0" * 20_000), "segments"),
        (behind_start(JPEG, b"\xff" * 70_000, len(JPEG) - 2), "of padding stand among the image's pixels"),
        (among_scans(segment(0xFE) * 20_000), "segments among its pixels"),
        (among_scans(PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2] * 101), "scans; allowed: 100"),
        (behind_start(JPEG, exif(tags(4_000, 60_000))), "tags hold 240000000 bytes"),
        (tags(4_000, 100_000), "tags hold 400000000 bytes"),
        (tags(4_000, 100_000, order=">"), "tags hold 400000000 bytes"),
        (tags(1, 2**30, tag=273, kind=4), "1073741824 strips or tiles"),
        (behind_start(PNG, chunk(b"prVt") * (MAX_CHUNKS + 1), 33), "chunks"),
        (behind_start(PNG, chunk(b"eXIf", tags(4_000, 100_000)), 33), "tags hold"),
        (behind_start(GIF, b"!\xfe" + b"\1a" * 20_000 + b"\0", GIF_START), "blocks"),
        (behind_start(GIF, b"!\xfe\0" * 20_000, GIF_START), "blocks"),
        (behind_start(GIF, b"x" * 70_000, GIF_START), "of padding"),
        (b"P6\n#" + b"x" * 70_000 + b"\n2 2\n255\n" + b"\0" * 12, "header is broken, longer than 64 kB"),
        (b"P3\n8000 8000\n255\n1 2 3", "8000 x 8000 pixels as text"),
        (b"P6\n8000 8000\n254\n123", "or of unusual depth"),
        (b"Pf\n2 2\n-1.0\n" + b"\0" * 16, "unusual kind of PPM"),
    ],
)
def test_what_takes_long_is_refused_by_the_headers_alone(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        check_headers(data)
    with pytest.raises(ImageError, match=says):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        JPEG + NOISE.tobytes() * 100,  # a phone's video
        PROGRESSIVE + b"\xff\xda" * 1_000,
        JPEG + JPEG + b"\xff" * 100_000,
        behind_start(JPEG, segment(0xFE, b"hello") * 30 + b"\xff" * 50),
        behind_start(JPEG, segment(0xE2, b"depth map" * 7_000) * 300),  # 19 MB
        among_scans(segment(0xFE, b"hello")),
        encode(IMAGE, "JPEG", restart_marker_rows=1),
        PNG, GIF, TIFF, encode(IMAGE, "PPM"),
        behind_start(PNG, chunk(b"prVt") * 1_000, 33),
        behind_start(GIF, b"!\xfe" + (b"\xff" + b"a" * 255) * 400 + b"\0", GIF_START),
        b"P3\n#made by hand\n2 1\n255\n255 0 0  0 0 255\n",
        encode(IMAGE.convert("L"), "PPM"),
        encode(Image.fromarray(np.full((8, 8), 300, np.uint16)), "PPM"),
    ],
)  # fmt: skip
def test_what_real_files_bring_is_read(data: bytes) -> None:
    whole = Image.open(io.BytesIO(data))
    assert decode(data).size == whole.size
    if whole.mode == "RGB":
        np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(whole))


def test_no_photograph_is_near_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_SEGMENTS", "MAX_CHUNKS"):
        monkeypatch.setattr(headers, name, 100)
    for data in (JPEG, PROGRESSIVE, PNG, GIF, encode(IMAGE.resize((2_000, 1_500)), "JPEG", progressive=True)):
        check_headers(data)
