"""Image folders of every shape, and every kind of file that people keep in them."""

import io
import pickle
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from object_store import BUCKET
from PIL import Image
from project_paths import SHARED_DATA
from torchvision.transforms import CenterCrop, Resize

from cluster.errors import WorkError
from cluster.storage import Folder
from distill.data import ImageSet, open_images
from distill.data.decode import MAX_PIXELS, ImageError, center_crop, decode, resize
from distill.data.layouts.imagenette import CLASSES

IMAGENETTE = SHARED_DATA / "imagenette"
needs_imagenette = pytest.mark.skipif(not IMAGENETTE.is_dir(), reason=f"{IMAGENETTE} is not on this machine")

RAMP = np.linspace(0, 255, 24 * 40 * 3).reshape(24, 40, 3).astype(np.uint8)  # (H, W, C)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(root: Path, *names: str) -> Path:
    data = encode(Image.fromarray(RAMP), "PNG")
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


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
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
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
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
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


# --- folders


def test_class_folders_and_splits(tmp_path):
    names = (
        "train/b/1.png",
        "train/a/2.PNG",
        "val/a/1.JPeG",
        "train/c/x.webp",
        "val/notes.txt",
        "val/a/.h.png",
    )
    write(tmp_path, *names)
    val, train = open_images(str(tmp_path)), open_images(str(tmp_path), split="train")
    assert (val.split, val.image_ids, val.class_ids) == ("val", ("val/a/1.JPeG",), (0,))
    assert train.image_ids == ("train/a/2.PNG", "train/b/1.png", "train/c/x.webp")
    assert train.class_ids == (0, 1, 2)
    assert val.class_names == train.class_names == ("a", "b", "c")


def test_a_class_has_the_same_number_in_each_split(tmp_path):
    write(tmp_path, "train/a/1.png", "train/b/1.png", "val/b/1.png")
    assert open_images(str(tmp_path), split="val").class_ids == (1,)


def test_without_val_the_test_split_is_explained_and_a_tenth_of_train_validates(tmp_path):
    write(tmp_path, *(f"train/a/{n}.png" for n in range(40)), "test/a/1.png")
    assert open_images(str(tmp_path)).image_ids == ("test/a/1.png",)
    val, train = (open_images(str(tmp_path), split=split).image_ids for split in ("val", "train"))
    assert len(val) == 4
    assert sorted(val + train) == sorted(f"train/a/{n}.png" for n in range(40))


def test_without_splits_all_or_a_held_out_tenth(tmp_path):
    write(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(10)))
    whole = open_images(str(tmp_path))
    assert (whole.split, len(whole.image_ids), whole.class_names) == (None, 20, ("a", "b"))
    val, train = (set(open_images(str(tmp_path), split=split).image_ids) for split in ("val", "train"))
    assert len(val) == 2
    assert val | train == set(whole.image_ids)
    assert not val & train
    assert val == set(open_images(str(tmp_path), split="val").image_ids)


def test_images_without_class_folders_have_no_label(tmp_path):
    images = open_images(str(write(tmp_path, "2.png", "10.png", "1.gif")))
    assert images.image_ids == ("1.gif", "10.png", "2.png")
    assert images.labels(5) == images.labels(1000) == (None, None, None)
    assert images.label_name(3, 5) == "class 3"


def test_limit_takes_the_first_in_sorted_order(tmp_path):
    write(tmp_path, "b/1.png", "a/9.png", "a/10.png")
    images = open_images(str(tmp_path), limit=2)
    assert images.image_ids == ("a/10.png", "a/9.png")
    assert images.class_names == ("a", "b")
    with pytest.raises(ValueError, match="limit 0"):
        open_images(str(tmp_path), limit=0)


def test_per_class_takes_the_first_of_each_class_in_sorted_order(tmp_path):
    write(tmp_path, *(f"{name}.png" for name in ("b/3", "b/1", "b/2", "a/9", "c/5", "c/4", "c/6")))
    images = open_images(str(tmp_path), per_class=2)
    assert images.image_ids == ("a/9.png", "b/1.png", "b/2.png", "c/4.png", "c/5.png")
    assert images.class_ids == (0, 1, 1, 2, 2)
    assert images.class_names == ("a", "b", "c")
    assert images.fingerprint != open_images(str(tmp_path)).fingerprint
    with pytest.raises(ValueError, match="per_class 0 is too small"):
        open_images(str(tmp_path), per_class=0)
    with pytest.raises(ValueError, match="limit 3 and per_class 2 do not go together"):
        open_images(str(tmp_path), limit=3, per_class=2)


def test_per_class_needs_classes_and_leaves_out_images_without_one(tmp_path):
    write(tmp_path, "x.png")
    with pytest.raises(ValueError, match="have no classes; give a limit"):
        open_images(str(tmp_path), per_class=2)
    images = ImageSet(name="n", root="r", image_ids=("1", "2", "3"), class_ids=(None, 0, 0), class_names=("a",))
    assert images.first(per_class=1).image_ids == ("2",)


def test_uri_and_path_are_the_same_set(tmp_path, monkeypatch):
    root = write(tmp_path / "with space #1", "a/1.png")
    monkeypatch.chdir(tmp_path)
    sets = [open_images(uri) for uri in (root.as_uri(), str(root), "with space #1/", "./with space #1")]
    assert all(found == sets[0] for found in sets)
    assert sets[0].root == str(root)
    assert sets[0].read("a/1.png") == (root / "a/1.png").read_bytes()


@pytest.mark.parametrize("scheme", ["memory", "s3"])
def test_other_file_systems(store, tmp_path, scheme):
    root = Folder(f"s3://{BUCKET}/{tmp_path.name}/flowers" if scheme == "s3" else "memory://flowers")
    data = encode(Image.fromarray(RAMP), "PNG")
    for name in ("val/a/1.png", "train/b/1.png", "masks/val/a/1.png"):
        root.write_bytes(name, data)
    images = open_images(root.uri)
    assert (images.name, images.image_ids, images.class_ids) == ("flowers", ("val/a/1.png",), (0,))
    assert images.read("val/a/1.png") == data
    assert images.mask("val/a/1.png") is not None
    with pytest.raises(FileNotFoundError):
        images.image("val/a/2.png")
    root.delete("val/a/1.png")
    with pytest.raises(WorkError, match=r"the folder 'val/a' of the data set .* is gone, or empty"):
        images.image("val/a/1.png")


def test_pickles_small_and_reads_again(tmp_path):
    images = open_images(str(write(tmp_path, "a/1.png")))
    again = pickle.loads(pickle.dumps(images))  # noqa: S301 - our own bytes
    assert again == images
    assert again.fingerprint == images.fingerprint
    assert decode(again.read("a/1.png")).size == (40, 24)


def test_fingerprint_follows_ids_and_classes(tmp_path):
    def prints(*names):
        return open_images(str(write(tmp_path / str(len(list(tmp_path.iterdir()))) / "set", *names))).fingerprint

    one = prints("a/1.png", "b/2.png")
    assert one == prints("b/2.png", "a/1.png")
    assert len({one, prints("a/1.png", "b/3.png"), prints("a/1.png"), prints("1.png", "2.png")}) == 4


def test_masks(tmp_path):
    write(tmp_path, "a/1.jpg", "a/2.jpg")
    mask = np.zeros((24, 40), bool)
    mask[3:9, 5:30] = True
    (tmp_path / "masks/a").mkdir(parents=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks/a/1.png")
    images = open_images(str(tmp_path))
    assert images.image_ids == ("a/1.jpg", "a/2.jpg")  # a mask is no image of the set
    np.testing.assert_array_equal(images.mask("a/1.jpg"), mask)
    assert images.mask("a/2.jpg") is None
    (tmp_path / "masks/a/1.png").write_bytes(b"broken")
    with pytest.raises(ImageError):
        images.mask("a/1.jpg")


def test_a_class_may_be_called_masks(tmp_path):
    assert open_images(str(write(tmp_path, "faces/1.png", "masks/2.png"))).class_names == ("faces", "masks")


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "a/../../x"])
def test_reading_stays_inside_the_data_set(tmp_path, name):
    with pytest.raises(ValueError, match="outside"):
        open_images(str(write(tmp_path, "a/1.png"))).read(name)


def test_bad_folders_are_clear_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_images(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_images((tmp_path / "nowhere").as_uri())
    with pytest.raises(ValueError, match="no images"):
        open_images(str(tmp_path))
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(ValueError, match="is a file"):
        open_images(str(tmp_path / "x.txt"))
    with pytest.raises(ValueError, match="cannot open"):
        open_images("carrier-pigeon://loft/3")
    with pytest.raises(ValueError, match="empty"):
        open_images("")
    root = str(write(tmp_path / "set", "val/a/1.png"))
    with pytest.raises(ValueError, match="no split 'train'"):
        open_images(root, split="train")
    with pytest.raises(ValueError, match="'dev' is unknown"):
        open_images(root, split="dev")


# --- labels


def small_imagenette(root: Path) -> Path:
    return write(root, *(f"{split}/{wnid}/1.png" for split in ("train", "val") for wnid in CLASSES))


def test_imagenette_fits_ten_and_a_thousand_classes(tmp_path):
    images = open_images(str(small_imagenette(tmp_path)))
    assert images.name == "imagenette"
    assert images.labels(10) == tuple(range(10))
    assert images.labels(1000) == (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
    assert images.label_name(569, 1000) == images.label_name(6, 10) == "garbage truck"
    assert images.label_name(6, 1000) == "class 6"
    with pytest.raises(ValueError, match=r"7 classes.*10 or 1000"):
        images.labels(7)


def test_other_sets_fit_their_own_number_of_classes(tmp_path):
    images = open_images(str(write(tmp_path, "b/1.png", "a/1.png", "x.png")))
    assert images.labels(2) == (0, 1, None)
    with pytest.raises(ValueError, match="1000 classes"):
        images.labels(1000)


def test_a_folder_called_data_takes_its_parents_name(tmp_path):
    assert open_images(str(write(tmp_path / "demo" / "data", "a/1.png"))).name == "demo"
    assert open_images(str(write(tmp_path / "birds", "a/1.png"))).name == "birds"


@needs_imagenette
def test_real_imagenette():
    train, val = (open_images(str(IMAGENETTE), split=split) for split in ("train", "val"))
    assert (len(train.image_ids), len(val.image_ids)) == (9469, 1000)
    assert val.image_ids == tuple(sorted(val.image_ids))
    assert {val.class_ids.count(number) for number in range(10)} == {100}
    assert open_images(str(IMAGENETTE)) == val
    for image_id in val.image_ids[::97]:
        assert resize(decode(val.read(image_id)), (96, 112)).shape == (96, 112, 3)
