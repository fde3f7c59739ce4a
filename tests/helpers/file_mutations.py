"""Image files as an enemy or a bad disk makes them: real ones, damaged at random from a seed, and bombs.

`python tests/helpers/file_mutations.py FOLDER NUM SEED` writes them; with `--decode` it then decodes each, and prints
what
came of them and what that took as one line of JSON.
"""

import io
import json
import random
import resource
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPHS = Path(__file__).parents[2] / ".." / "shared" / "data" / "imagenette" / "val"
ENDINGS = ("jpg", "png", "webp", "gif", "tif")
TEXT = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
Mutation = Callable[[random.Random, bytes, bytes], bytes]


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pictures(num: int, side: int) -> list[Image.Image]:
    """Take photographs where there are some, else render colored waves; none is square."""
    size = (side, side * 3 // 4)
    found = sorted(PHOTOGRAPHS.glob("*/*"))[::97][:num]
    if found:
        return [Image.open(path).convert("RGB").resize(size) for path in found]
    y, x = np.mgrid[: size[1], : size[0]] / side
    waves = [[np.sin(9 * (k + 1) * (x + c * y)) for c in range(3)] for k in range(num)]
    return [Image.fromarray((127 * np.stack(wave, axis=2) + 128).astype(np.uint8)) for wave in waves]


def originals(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Yield a picture in every format, mode and compression that people keep: ending and bytes."""
    turned = Image.Exif()
    for orientation in (3, 6, 8):
        turned[0x0112] = orientation
        yield "jpg", encode(image, "JPEG", exif=turned)
    wide = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    mask = image.convert("RGBA")
    mask.putalpha(image.convert("L"))
    frames = {"save_all": True, "append_images": [image.rotate(90)]}
    yield "jpg", encode(image, "JPEG", progressive=True)
    yield "jpg", encode(image.convert("CMYK"), "JPEG")
    yield "jpg", encode(image, "MPO", **frames)
    for mode in ("RGB", "L", "P", "1"):
        yield "png", encode(image.convert(mode), "PNG")
    yield "png", encode(wide, "PNG")
    yield "png", encode(mask, "PNG")
    yield "webp", encode(image, "WEBP")
    yield "webp", encode(mask, "WEBP", lossless=True)
    yield "webp", encode(image, "WEBP", **frames)
    yield "gif", encode(image, "GIF", **frames)
    for compression in (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        yield "tif", encode(image, "TIFF", compression=compression)
    yield "tif", encode(image.convert("CMYK"), "TIFF")
    yield "tif", encode(wide, "TIFF")


def truncated(rng: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def flipped(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    changed, reach = bytearray(data), rng.choice([64, 700, len(data)])
    for _ in range(rng.randint(1, 20)):
        changed[rng.randrange(min(reach, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def with_other_header(rng: random.Random, data: bytes, other: bytes) -> bytes:
    length = rng.choice([4, 12, 30, 200])
    return other[:length] + data[length:]


def zeroed(rng: random.Random, data: bytes, _: bytes) -> bytes:
    start = rng.randrange(len(data))
    length = min(rng.choice([4, 100, 5000]), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def with_large_number(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Put a number that overflows, or nearly so, into the headers: sizes, offsets, counts."""
    start = rng.randrange(min(200, len(data) - 4))
    number = rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
    order = rng.choice("<>") + ("I" if number > 0xFFFF else "H")
    packed = struct.pack(order, number)
    return data[:start] + packed + data[start + len(packed) :]


def doubled(rng: random.Random, data: bytes, _: bytes) -> bytes:
    first, last = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:last] + data[first:last] + data[last:]


def spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def untouched(_rng: random.Random, data: bytes, _other: bytes) -> bytes:
    return data


MUTATIONS: tuple[Mutation, ...] = (
    truncated, flipped, flipped, with_other_header, zeroed, with_large_number, doubled, spliced, untouched,
)  # fmt: skip


def mutated(num: int, seed: int, *, side: int = 120) -> Iterator[tuple[str, bytes]]:
    """Yield files of many kinds, `num` damaged ones and then the bombs: name and bytes; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - repeatable damage
    goods = [good for image in pictures(6, side) for good in originals(image)]
    for number in range(num):
        mutation = rng.choice(MUTATIONS)
        (ending, data), (_, other) = rng.choice(goods), rng.choice(goods)
        shown = rng.choice(ENDINGS) if rng.random() < 0.2 else ending
        yield f"{number:05d}-{mutation.__name__}.{shown}", mutation(rng, data, other)
    yield from bombs()


def bombs() -> Iterator[tuple[str, bytes]]:
    """Yield what is small on disk, and large, slow or nothing at all when it is opened."""
    yield "empty.jpg", b""
    yield "text.png", TEXT
    yield "zeros.gif", bytes(5000)
    for name, size in {"pixel": (1, 1), "wide": (20_000, 1), "tall": (1, 20_000)}.items():
        for kind, ending in (("PNG", "png"), ("JPEG", "jpg"), ("TIFF", "tif"), ("GIF", "gif")):
            yield f"{name}.{ending}", encode(Image.new("RGB", size, "red"), kind)
    yield "longest.png", encode(Image.new("L", (9_000_000, 1)), "PNG")
    for width, height in ((100_000, 100_000), (9000, 9000), (7000, 7000), (0, 7), (2**31 - 1, 1)):
        yield f"claims-{width}x{height}.png", png_that_claims(width, height)
    yield "claims.webp", b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\x0f\0\0\0\0\0\0\0\0"
    yield "scans.jpg", jpeg_of_scans(1000, 3000)
    yield "tiles.tif", tiff_of_tiles(9000)
    yield "text-bomb.png", png_that_claims(8, 8, chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(2**24))))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_that_claims(width: int, height: int, before: bytes = b"") -> bytes:
    """Make a PNG that claims a size and has next to no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + before + rows + chunk(b"IEND", b"")


def jpeg_of_scans(side: int, num: int) -> bytes:
    """Make a progressive JPEG whose last scan, a few bytes, comes again and again."""
    data = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * num + b"\xff\xd9"


def tiff_of_tiles(side: int) -> bytes:
    """Make a TIFF of 16 x 16 pixels in one tile of `side` x `side`, zeros that are packed small."""
    packer = zlib.compressobj(9)
    tile = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    tags |= {324: 8 + 2 + 12 * (len(tags) + 2) + 4, 325: len(tile)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + tile


def write(folder: Path, num: int, seed: int) -> list[Path]:
    """Write the files; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, data in mutated(num, seed):
        made.append(folder / name)
        made[-1].write_bytes(data)
    return made


def decode_all(files: list[Path]) -> dict:
    """Decode and resize each file; say which failed and why, the slowest, and what memory was added at most."""
    from distill.data.decode import ImageError, decode, resize

    warnings.simplefilter("ignore")  # Pillow's remarks on broken metadata
    decode(encode(Image.new("RGB", (8, 8)), "PNG"))
    before, errors, seconds = peak_mb(), {}, {}
    for file in files:
        started_s = time.perf_counter()
        try:
            assert resize(decode(file.read_bytes()), (48, 64)).shape == (48, 64, 3)
        except ImageError as error:
            errors[file.name] = str(error)
        seconds[file.name] = time.perf_counter() - started_s
    slowest = max(seconds, key=seconds.__getitem__)
    return {"errors": errors, "slowest": slowest, "seconds": seconds[slowest], "mb": peak_mb() - before}


def peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    files = write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    if "--decode" in sys.argv:
        print(json.dumps(decode_all(files)))
