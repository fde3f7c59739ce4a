"""Image folders: which images, classes, splits and masks a set has, and where it reads them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from dataset_layouts import write_images
from file_mutations import encode
from object_store import BUCKET
from PIL import Image
from project_paths import SHARED_DATA

from cluster.errors import WorkError
from cluster.storage import Folder
from distill.data import ImageSet, open_images
from distill.data.decode import ImageError, decode, resize
from distill.data.layouts.imagenette import CLASSES

IMAGENETTE = SHARED_DATA / "imagenette"
needs_imagenette = pytest.mark.skipif(not IMAGENETTE.is_dir(), reason=f"{IMAGENETTE} is not on this machine")


def test_class_folders_and_splits(tmp_path):
    names = (
        "train/b/1.png",
        "train/a/2.PNG",
        "val/a/1.JPeG",
        "train/c/x.webp",
        "val/notes.txt",
        "val/a/.h.png",
    )
    write_images(tmp_path, *names)
    val, train = open_images(str(tmp_path)), open_images(str(tmp_path), split="train")
    assert (val.split, val.image_ids, val.class_ids) == ("val", ("val/a/1.JPeG",), (0,))
    assert train.image_ids == ("train/a/2.PNG", "train/b/1.png", "train/c/x.webp")
    assert train.class_ids == (0, 1, 2)
    assert val.class_names == train.class_names == ("a", "b", "c")


def test_a_class_has_the_same_number_in_each_split(tmp_path):
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "val/b/1.png")
    assert open_images(str(tmp_path), split="val").class_ids == (1,)


def test_without_val_the_test_split_is_explained_and_a_tenth_of_train_validates(tmp_path):
    write_images(tmp_path, *(f"train/a/{n}.png" for n in range(40)), "test/a/1.png")
    assert open_images(str(tmp_path)).image_ids == ("test/a/1.png",)
    val, train = (open_images(str(tmp_path), split=split).image_ids for split in ("val", "train"))
    assert len(val) == 4
    assert sorted(val + train) == sorted(f"train/a/{n}.png" for n in range(40))


def test_without_splits_all_or_a_held_out_tenth(tmp_path):
    write_images(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(10)))
    whole = open_images(str(tmp_path))
    assert (whole.split, len(whole.image_ids), whole.class_names) == (None, 20, ("a", "b"))
    val, train = (set(open_images(str(tmp_path), split=split).image_ids) for split in ("val", "train"))
    assert len(val) == 2
    assert val | train == set(whole.image_ids)
    assert not val & train
    assert val == set(open_images(str(tmp_path), split="val").image_ids)


def test_images_without_class_folders_have_no_label(tmp_path):
    images = open_images(str(write_images(tmp_path, "2.png", "10.png", "1.gif")))
    assert images.image_ids == ("1.gif", "10.png", "2.png")
    assert images.labels(5) == images.labels(1000) == (None, None, None)
    assert images.label_name(3, 5) == "class 3"


def test_limit_takes_the_first_in_sorted_order(tmp_path):
    write_images(tmp_path, "b/1.png", "a/9.png", "a/10.png")
    images = open_images(str(tmp_path), limit=2)
    assert images.image_ids == ("a/10.png", "a/9.png")
    assert images.class_names == ("a", "b")
    with pytest.raises(ValueError, match="limit 0"):
        open_images(str(tmp_path), limit=0)


def test_per_class_takes_the_first_of_each_class_in_sorted_order(tmp_path):
    write_images(tmp_path, *(f"{name}.png" for name in ("b/3", "b/1", "b/2", "a/9", "c/5", "c/4", "c/6")))
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
    write_images(tmp_path, "x.png")
    with pytest.raises(ValueError, match="have no classes; give a limit"):
        open_images(str(tmp_path), per_class=2)
    images = ImageSet(name="n", root="r", image_ids=("1", "2", "3"), class_ids=(None, 0, 0), class_names=("a",))
    assert images.first(per_class=1).image_ids == ("2",)


def test_uri_and_path_are_the_same_set(tmp_path, monkeypatch):
    root = write_images(tmp_path / "with space #1", "a/1.png")
    monkeypatch.chdir(tmp_path)
    sets = [open_images(uri) for uri in (root.as_uri(), str(root), "with space #1/", "./with space #1")]
    assert all(found == sets[0] for found in sets)
    assert sets[0].root == str(root)
    assert sets[0].read("a/1.png") == (root / "a/1.png").read_bytes()


@pytest.mark.parametrize("scheme", ["memory", "s3"])
def test_other_file_systems(store, tmp_path, scheme):
    root = Folder(f"s3://{BUCKET}/{tmp_path.name}/flowers" if scheme == "s3" else "memory://flowers")
    data = encode(Image.new("RGB", (40, 24)), "PNG")
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
    images = open_images(str(write_images(tmp_path, "a/1.png")))
    again = pickle.loads(pickle.dumps(images))  # noqa: S301 - our own bytes
    assert again == images
    assert again.fingerprint == images.fingerprint
    assert decode(again.read("a/1.png")).size == (40, 24)


def test_fingerprint_follows_ids_and_classes(tmp_path):
    def prints(*names):
        return open_images(str(write_images(tmp_path / str(len(list(tmp_path.iterdir()))) / "set", *names))).fingerprint

    one = prints("a/1.png", "b/2.png")
    assert one == prints("b/2.png", "a/1.png")
    assert len({one, prints("a/1.png", "b/3.png"), prints("a/1.png"), prints("1.png", "2.png")}) == 4


def test_masks(tmp_path):
    write_images(tmp_path, "a/1.jpg", "a/2.jpg")
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
    assert open_images(str(write_images(tmp_path, "faces/1.png", "masks/2.png"))).class_names == ("faces", "masks")


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "a/../../x"])
def test_reading_stays_inside_the_data_set(tmp_path, name):
    with pytest.raises(ValueError, match="outside"):
        open_images(str(write_images(tmp_path, "a/1.png"))).read(name)


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
    root = str(write_images(tmp_path / "set", "val/a/1.png"))
    with pytest.raises(ValueError, match="no split 'train'"):
        open_images(root, split="train")
    with pytest.raises(ValueError, match="'dev' is unknown"):
        open_images(root, split="dev")


# --- labels


def small_imagenette(root: Path) -> Path:
    return write_images(root, *(f"{split}/{wnid}/1.png" for split in ("train", "val") for wnid in CLASSES))


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
    images = open_images(str(write_images(tmp_path, "b/1.png", "a/1.png", "x.png")))
    assert images.labels(2) == (0, 1, None)
    with pytest.raises(ValueError, match="1000 classes"):
        images.labels(1000)


def test_a_folder_called_data_takes_its_parents_name(tmp_path):
    assert open_images(str(write_images(tmp_path / "demo" / "data", "a/1.png"))).name == "demo"
    assert open_images(str(write_images(tmp_path / "birds", "a/1.png"))).name == "birds"


@needs_imagenette
def test_real_imagenette():
    train, val = (open_images(str(IMAGENETTE), split=split) for split in ("train", "val"))
    assert (len(train.image_ids), len(val.image_ids)) == (9469, 1000)
    assert val.image_ids == tuple(sorted(val.image_ids))
    assert {val.class_ids.count(number) for number in range(10)} == {100}
    assert open_images(str(IMAGENETTE)) == val
    for image_id in val.image_ids[::97]:
        assert resize(decode(val.read(image_id)), (96, 112)).shape == (96, 112, 3)
