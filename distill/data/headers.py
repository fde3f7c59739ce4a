"""Bound what an image file's headers cost before Pillow reads them: it walks segments, chunks and tags in Python.

A file of some megabytes may hold millions of comments, or thousands of tags that share their bytes, which take minutes
and gigabytes. Real files stay far below each limit here.
"""

from __future__ import annotations

import re
import struct

MAX_SEGMENTS = 10_000
"""Parts of a header: JPEG's segments before the pixels, blocks of a GIF; photographs have some tens."""

MAX_CHUNKS = 300_000
"""Chunks of a PNG: 64 million pixels of noise in chunks of 8 kB, as encoders write them, are 25,000."""

MAX_PADDING = 65_536
"""Bytes between JPEG's segments, or before a GIF's first frame, that mean nothing."""

MAX_HEADER_BYTES = 2**26
"""Segments of a JPEG before its pixels, in bytes: depth maps and previews of phones have some millions."""

MAX_STRIPS = 2**20
"""Strips or tiles of a TIFF: 64 million pixels in tiles of 16 x 16, each color apart."""

MAX_SHARED_BYTES = 2**26
"""What a TIFF's or EXIF's tags may hold beyond the file's own length, as they do where they overlap."""

MAX_SLOW_PIXELS = 2**20
"""Pixels of a PPM or PGM whose values Pillow scales or parses one by one."""

MAX_SCANS = 100
"""Passes over a progressive JPEG's pixels: encoders make about ten, a hostile file of 60 kB thousands (a minute)."""

_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
_START_OF_SCAN = bytes((0xFF, _SOS))
_PADDING = b"\xff" * MAX_PADDING
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # stuffed bytes, padding and restarts are part of a scan
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_GIF_BLOCK = re.compile(rb"[!,;]")
_STRIP_TAGS = frozenset({273, 279, 324, 325})  # offsets and lengths of strips and tiles
_SPACE = rb"(?:\s|#[^\r\n]{0,1000}[\r\n])+"
_NETPBM = re.compile(rb"P([1-6])" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,9})?")


class ImageError(ValueError):
    """An image file that cannot be used; the message says why."""


def check_headers(data: bytes) -> None:
    """Check an image file's headers, of whatever format.

    Raises:
        ImageError: They are beyond a limit. Headers that are broken in another way are left to the decoder.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        check_tags(data)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        _check_gif(data)
    elif re.match(rb"P[0-6fy]", data[:2]):
        _check_netpbm(data)


def check_tags(data: bytes) -> None:
    """Check the first directory of a TIFF, or of an EXIF block without its name. Raises: ImageError."""
    if not data:
        return
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset_type, entry_type, entry_bytes = ("Q", "HHQ8x", 20) if big else ("I", "HHI4x", 12)
    try:
        (start,) = struct.unpack_from(f"{order}{offset_type}", data, 8 if big else 4)
        (num_tags,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    except struct.error:
        return
    first, total = start + (8 if big else 2), 0
    end = first + min(num_tags, 65_536, (len(data) - first) // entry_bytes) * entry_bytes
    for tag, kind, count in struct.iter_unpack(f"{order}{entry_type}", data[first:end]):
        if tag in _STRIP_TAGS and count > MAX_STRIPS:
            raise ImageError(f"the image has {count} strips or tiles; allowed: {MAX_STRIPS}")
        total += min(count * _TYPE_BYTES.get(kind, 1), len(data))
    if num_tags > 65_536 or total > len(data) + MAX_SHARED_BYTES:
        raise ImageError(f"the image's tags hold {total} bytes, in a block of {len(data)}")


def _check_jpeg(data: bytes) -> None:
    """Walk the segments before the pixels, then count the scans."""
    exif, place, padding = b"", 2, 0
    for _ in range(MAX_SEGMENTS):
        marker = _JPEG_MARKER.search(data, place, place + MAX_PADDING - padding)
        if marker is None or place > MAX_HEADER_BYTES:
            break
        body = marker.end()
        padding += body - 2 - place
        kind = data[body - 1]
        if kind == _SOS:
            check_tags(exif)
            _check_scans(data, body - 2)
            return
        if kind in _WITHOUT_LENGTH:
            place = body
            continue
        length = int.from_bytes(data[body : body + 2], "big")
        if kind == _APP1 and data[body + 2 : body + 6] == b"Exif":
            exif += data[body + 8 : body + length]
        place = body + max(2, length)
    if place < len(data):
        raise ImageError(
            f"more stands before the image's pixels than {MAX_SEGMENTS} segments, {MAX_HEADER_BYTES} bytes of them, or "
            f"{MAX_PADDING} of padding"
        )


def _check_scans(data: bytes, place: int) -> None:
    """Walk the scans up to the end of the image: phones put a video behind it, where anything may stand."""
    if len(data) <= MAX_PADDING and data.count(_START_OF_SCAN) <= MAX_SCANS:
        return  # too short for either limit: most files of a data set, and a walk takes a fiftieth of the decoding
    start, scans = place, 0
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER_IN_SCAN.search(data, place)
        kind = data[marker.end() - 1] if marker else _EOI
        if kind == _EOI:
            if data.find(_PADDING, start, marker.end() if marker else len(data)) >= 0:
                raise ImageError(f"more than {MAX_PADDING} bytes of padding stand among the image's pixels")
            return
        assert marker is not None
        scans += kind == _SOS
        if scans > MAX_SCANS:
            raise ImageError(f"the image has more than {MAX_SCANS} scans; allowed: {MAX_SCANS}")
        length = 0 if kind in _WITHOUT_LENGTH else int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        place = marker.end() + length
    raise ImageError(f"the image has more than {MAX_SEGMENTS} segments among its pixels")


def _check_png(data: bytes) -> None:
    place = 8
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            return
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"IEND":
            return
        if kind == b"eXIf":
            check_tags(data[place + 8 : place + 8 + length])
        place += 12 + length
    raise ImageError(f"the image has more than {MAX_CHUNKS} chunks; allowed: {MAX_CHUNKS}")


def _check_gif(data: bytes) -> None:
    """Walk the extensions before the first frame."""
    place = 13 + (3 * 2 ** ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    for _ in range(MAX_SEGMENTS):
        block = _GIF_BLOCK.search(data, place, place + MAX_PADDING)
        if block is None:
            break
        if block.group() != b"!":
            return
        place = _skip_extension(data, block.end() + 1)
        if place is None:
            break
    if place is None or place < len(data):
        raise ImageError(f"more than {MAX_SEGMENTS} blocks, or {MAX_PADDING} bytes of padding, before the first frame")


def _skip_extension(data: bytes, place: int) -> int | None:
    """Return where a GIF's extension ends; None where it has too many blocks."""
    for _ in range(MAX_SEGMENTS):
        if place >= len(data) or not data[place]:
            return place + 1
        place += 1 + data[place]
    return None


def _check_netpbm(data: bytes) -> None:
    header = _NETPBM.match(data[:65_536])
    if header is None:
        raise ImageError("the image's header is broken, longer than 64 kB, or of an unusual kind of PPM")
    kind, width, height, highest = (int(text or 0) for text in header.groups())
    slow = kind < 4 or (kind == 6 and highest != 255) or (kind == 5 and highest not in (255, 65_535))
    if slow and width * height > MAX_SLOW_PIXELS:
        raise ImageError(
            f"the image has {width} x {height} pixels as text or of unusual depth; allowed so: {MAX_SLOW_PIXELS}; "
            "write it with 8 or 16 bit, in binary"
        )
