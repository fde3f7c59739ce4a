"""Images of an enemy or a bad disk: decoded or refused, never a crash, in little time and memory."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from file_mutations import bombs, encode
from PIL import Image
from project_paths import HELPERS, ROOT

from distill.data import open_images
from distill.data.decode import MAX_PIXELS, MAX_SIDE, ImageError, decode
from distill.data.headers import MAX_SCANS
from distill.data.layouts.listing import read_lines, read_mat
from distill.data.objects import BoxFiles
from distill.data.root import Root

MUTATIONS = HELPERS / "file_mutations.py"


@pytest.mark.parametrize(
    ("num", "seed"), [(400, 0), pytest.param(4000, 1, marks=[pytest.mark.slow, pytest.mark.chaos])]
)
def test_damaged_images_are_decoded_or_refused(tmp_path: Path, num: int, seed: int) -> None:
    """In a process of its own, which a crash would end, and whose memory is measured."""
    command = [sys.executable, str(MUTATIONS), str(tmp_path), str(num), str(seed), "--decode"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["seconds"] < 20, found["slowest"]
    assert found["mb"] < 300
    assert 0.3 * num < len(found["errors"]) < 0.9 * num  # else nothing was damaged, or nothing could be read
    assert all(error == " ".join(error.split()) and len(error) < 300 for error in found["errors"].values())


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_the_largest_images_take_a_gigabyte_at_most(tmp_path: Path, kind: str, mode: str) -> None:
    if (kind, mode) == ("WEBP", "I;16"):
        pytest.skip("WebP has 8 bit only")
    size = (8000, MAX_PIXELS // 8000)
    image = Image.fromarray(np.zeros(size, np.uint16)) if mode == "I;16" else Image.new(mode, size)
    options = {"TIFF": {"compression": "tiff_deflate"}, "WEBP": {"lossless": True}}.get(kind, {})
    (tmp_path / "large").write_bytes(encode(image, kind, **options))
    script = f"from file_mutations import *; print(json.dumps(decode_all([Path({str(tmp_path / 'large')!r})])))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HELPERS, ROOT)))}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
    found = json.loads(done.stdout)
    assert found["errors"] == {}
    assert found["mb"] < 1100


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(bombs())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("longest.png", f"too long: 9000000 x 1 pixels; allowed: {MAX_SIDE}"),
        ("claims-9000x9000.png", f"allowed: {MAX_PIXELS} pixels"),
        ("claims-100000x100000.png", f"allowed: {MAX_PIXELS} pixels"),
        ("claims.webp", f"allowed: {MAX_PIXELS} pixels"),
        ("scans.jpg", f"scans; allowed: {MAX_SCANS}"),
        ("tiles.tif", "tiles are too large: 9000 x 9000 pixels"),
        ("text-bomb.png", "Decompressed data too large"),
    ],
)
def test_bombs_are_named(files: dict[str, bytes], name: str, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        decode(files[name])


@pytest.mark.parametrize("name", ["pixel.png", "wide.jpg", "tall.tif", "wide.gif"])
def test_what_is_only_unusual_is_decoded(files: dict[str, bytes], name: str) -> None:
    np.testing.assert_allclose(np.asarray(decode(files[name])).mean(axis=(0, 1)), [255, 0, 0], atol=3)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("RGBA", "WEBP")])
def test_bands_compose_as_the_whole_image_does(mode: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (37, 23, 4), np.uint8)
    image = Image.fromarray(levels).convert(mode) if mode != "P" else Image.fromarray(levels[:, :, 0]).convert("P")
    options = {"transparency": 7} if mode == "P" else {"lossless": True} if kind == "WEBP" else {}
    data = encode(image, kind, **options)
    stored = Image.open(io.BytesIO(data)).convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", stored.size, "white"), stored).convert("RGB")
    monkeypatch.setattr("distill.data.decode._BAND_PIXELS", 100)
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(whole))


# --- folders


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(Image.new("RGB", (8, 8), "red"), "PNG"))
    return path


def test_what_is_no_regular_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    images = open_images(str(tmp_path))
    assert images.image_ids == ("a.png", "circle.png", "device.png", "gone.png", "pipe.png")
    assert images.image("a.png").size == (8, 8)
    for name in ("pipe.png", "device.png", "circle.png"):
        with pytest.raises(ImageError, match=r"regular|symbolic links"):
            images.image(name)
    with pytest.raises(FileNotFoundError):
        images.image("gone.png")


def test_a_file_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    size = write(tmp_path / "a.png").stat().st_size
    assert len(Root(str(tmp_path)).read("a.png", size)) == size
    with pytest.raises(ImageError, match=f"too large: {size} bytes; allowed: {size - 1}"):
        Root(str(tmp_path)).read("a.png", size - 1)


def test_tables_are_regular_files_of_bounded_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "classes.txt")
    with (tmp_path / "meta.mat").open("wb") as sparse:
        sparse.truncate(2**40)
    root = Root(str(tmp_path))
    with pytest.raises(ValueError, match=r"classes\.txt .* is no regular one"):
        read_lines(root, "classes.txt")
    with pytest.raises(ValueError, match=r"meta\.mat .* too large: 1099511627776 bytes"):
        read_mat(root, "meta.mat", "synsets")
    os.mkfifo(tmp_path / "boxes.xml")
    write(tmp_path / "boxes.png")
    with pytest.raises(ValueError, match=r"boxes\.xml .* is no regular one"):
        BoxFiles(uri=str(tmp_path)).find(open_images(str(tmp_path)), "boxes.png")


def test_links_in_a_circle_come_to_an_end_and_others_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "data/a/1.png")
    write(tmp_path / "elsewhere/2.png")
    for name in ("x", "y", "z"):
        (tmp_path / "data/a" / name).symlink_to(tmp_path / "data")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/c").symlink_to(tmp_path / "elsewhere")
    assert open_images(str(tmp_path / "data")).image_ids == ("a/1.png", "b/2.png", "c/2.png")


def test_a_name_that_cannot_be_stored_is_said_before_any_work(tmp_path: Path) -> None:
    write(tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    with pytest.raises(ValueError, match=r"caf\\xe9.png' is no UTF-8.*rename it"):
        open_images(str(tmp_path))
