"""Which folders are splits and which are classes: by all names that data sets use, or refused where both may be."""

from pathlib import Path

import pytest
from dataset_layouts import write_images

from distill.data import open_images
from distill.data.splits import split_of_folder

TEN = range(10)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train training training_set train-set train_images trn"),
        ("val", "val valid validation VALIDATION validation_set val_split dev"),
        ("test", "test testing test_set Test test_images"),
        (None, "trains value tester airplane testament latest"),
    ],
)
def test_split_names(split: str | None, names: str) -> None:
    assert {split_of_folder(name) for name in names.split()} == {split}


@pytest.mark.parametrize("val", ["validation", "valid", "val_set"])
def test_a_validation_folder_of_any_name_is_read(tmp_path: Path, val: str) -> None:
    write_images(tmp_path, *(f"{part}/{c}/{n}.png" for part in ("training_set", val) for c in "ab" for n in TEN))
    images = open_images(str(tmp_path))
    assert images.split == "val"
    assert {image_id.split("/")[0] for image_id in images.image_ids} == {val}
    assert images.class_names == ("a", "b")
    train = open_images(str(tmp_path), split="train")
    assert {image_id.split("/")[0] for image_id in train.image_ids} == {"training_set"}
    assert len(train.image_ids) == len(images.image_ids) == 20


def test_held_out_images_keep_the_folders_own_name(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"training_set/{c}/{n}.png" for c in "ab" for n in TEN), "test_set/a/1.png")
    train, val = (open_images(str(tmp_path), split=split) for split in ("train", "val"))
    assert len(train.image_ids), len(val.image_ids) == (18, 2)
    assert open_images(str(tmp_path)).image_ids == ("test_set/a/1.png",)
    assert train.class_names == ("a", "b")


@pytest.mark.parametrize("name", ["train", "test", "valid"])
def test_a_class_may_be_named_like_a_split(tmp_path: Path, name: str) -> None:
    classes = sorted(["airplane", "bus", "car", name])
    write_images(tmp_path, *(f"{c}/{n}.png" for c in classes for n in TEN))
    images = open_images(str(tmp_path))
    assert (len(images.image_ids), images.class_names, images.split) == (40, tuple(classes), None)


def test_other_folders_beside_splits_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{part}/{c}/1.png" for part in ("train", "val", "samples") for c in "ab"))
    write_images(tmp_path, "masks/val/a/1.png")
    assert open_images(str(tmp_path)).image_ids == ("val/a/1.png", "val/b/1.png")


@pytest.mark.parametrize(
    "names",
    [
        ("train/a/1.png", "train/b/1.png", "car/1.png"),  # one split, or a class in folders?
        ("train/1.png", "test/1.png", "car/1.png"),  # two splits, or classes?
        ("train/a/1.png", "val/1.png", "car/1.png"),
    ],
)
def test_what_may_be_either_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"'train'.* beside 'car': these may be splits or classes; move"):
        open_images(str(write_images(tmp_path, *names)))


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"two folders for the split 'val': 'val' and 'validation'"):
        open_images(str(write_images(tmp_path, "val/a/1.png", "validation/a/1.png")))


def test_splits_one_folder_below_are_pointed_at(tmp_path: Path) -> None:
    write_images(tmp_path, "imagenette2/train/a/1.png", "imagenette2/val/a/1.png")
    with pytest.raises(ValueError, match=r"holds one folder, 'imagenette2', .* give .*/imagenette2 as the data"):
        open_images(str(tmp_path))


def test_layouts_on_a_store(store, tmp_path: Path) -> None:
    from object_store import BUCKET

    from cluster.storage import Folder

    for name in ("train", "bus"):
        write_images(tmp_path, f"{name}/1.png")
        Folder(f"s3://{BUCKET}/vehicles").write_bytes(f"{name}/1.png", (tmp_path / f"{name}/1.png").read_bytes())
    images = open_images(f"s3://{BUCKET}/vehicles")
    assert (images.image_ids, images.class_names) == (("bus/1.png", "train/1.png"), ("bus", "train"))
    assert {name: stamp.size_bytes for name, stamp in images.versions.items()} == {
        name: (tmp_path / name).stat().st_size for name in images.image_ids
    }


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPE", "ppm", "pgm"])
def test_rare_endings_are_read(tmp_path: Path, ending: str) -> None:
    assert open_images(str(write_images(tmp_path, f"a/1.{ending}"))).image_ids == (f"a/1.{ending}",)


def test_images_that_are_not_read_are_counted(tmp_path: Path) -> None:
    write_images(tmp_path, "a/1.png", "a/2.heic", "a/3.HEIC", "b/4.avif", "b/5.png")
    (tmp_path / "a/notes.txt").write_text("no image")
    images = open_images(str(tmp_path))
    assert images.skipped == {"avif": 1, "heic": 2}
    assert images.describe() == (
        "2 images, 2 classes (a, b), no splits; skipped, since such images are not read: 1 .avif, 2 .heic"
    )
    with pytest.raises(ValueError, match=r"no images; allowed endings.*1 \.heic"):
        open_images(str(write_images(tmp_path / "other", "1.heic")))
