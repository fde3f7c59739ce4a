"""Official layouts in small: read as torchvision reads them where it does, found incomplete, boxes and masks."""

import io
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from dataset_layouts import (
    BIRDS,
    CAR_BOX,
    HEIGHT,
    LEVELS,
    NUM_CLASSES,
    SYNSETS,
    WIDTH,
    lines,
    make_aircraft,
    make_cars,
    make_cub,
    make_imagenet,
    photograph,
)
from PIL import Image
from project_paths import SHARED_DATA
from torchvision import datasets
from torchvision.datasets import imagenet as torchvision_imagenet

from distill.config import DistillConfig
from distill.data import ImageSet, open_images
from distill.data.decode import ImageError
from distill.data.frames import read_frame, without_image_ids
from distill.data.root import Root
from distill.training.job import DistillationJob
from distill.training.recipes import RECIPES, recipe_data
from evaluate.map_sets import Source, open_played_images
from evaluate.metrics.objects import Objects
from explain.config import Job
from explain.methods.options import NoOptions
from explain.plan import make_plan

TEACHER = "python:box_teacher:make"  # three classes
CARS_40 = SHARED_DATA / "stanford_cars_40"
needs_cars = pytest.mark.skipif(not CARS_40.is_dir(), reason=f"{CARS_40} is not on this machine")


def box(left: int, top: int, right: int, bottom: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Mark the pixels from edge to edge."""
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def object_of(images: ImageSet, image_id: str) -> np.ndarray:
    """Read an object as `python -m evaluate measures` does without --boxes."""
    Objects(images=images).check()
    return Objects(images=pickle.loads(pickle.dumps(without_image_ids(images)))).mask(image_id, (HEIGHT, WIDTH))  # noqa: S301


# --- ImageNet


def test_flat_imagenet_is_labelled_as_torchvision_labels_it(tmp_path, monkeypatch):
    root = make_imagenet(tmp_path / "set")
    monkeypatch.setattr(torchvision_imagenet, "_verify_archive", lambda *_: None)
    with tarfile.open(tmp_path / "devkit.tar.gz", "w:gz") as archive:
        archive.add(root / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    torchvision_imagenet.parse_devkit_archive(tmp_path, "devkit.tar.gz")
    names, val_wnids = torchvision_imagenet.load_meta_file(tmp_path)
    images = open_images(str(root))
    wnids = sorted(wnid for wnid, _ in SYNSETS.values())
    assert (images.name, images.split) == ("imagenet", "val")
    assert images.image_ids == tuple(f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3, 4))
    assert images.class_ids == tuple(wnids.index(wnid) for wnid in val_wnids)
    assert images.class_names == tuple(names[wnid][0] for wnid in wnids) == ("tench", "English setter", "kit fox")


def test_imagenet_trains_on_torchvisions_folders(tmp_path):
    root = make_imagenet(tmp_path)
    images, peer = open_images(str(root), split="train"), datasets.ImageFolder(str(root / "train"))
    found = [
        (str(root / image_id), class_id) for image_id, class_id in zip(images.image_ids, images.class_ids, strict=True)
    ]
    assert found == peer.samples


def test_sorted_imagenet_has_the_flat_ones_labels(tmp_path):
    flat, tidy = (
        open_images(str(make_imagenet(tmp_path / "a"))),
        open_images(str(make_imagenet(tmp_path / "b", flat=False))),
    )
    labels = dict(zip((image_id.rpartition("/")[2] for image_id in tidy.image_ids), tidy.class_ids, strict=True))
    assert [labels[image_id.rpartition("/")[2]] for image_id in flat.image_ids] == list(flat.class_ids)
    assert tidy.image_ids[0] == "val/n01440764/ILSVRC2012_val_00000002.JPEG"
    assert tidy.class_names == flat.class_names


def test_a_later_devkits_table_stands_in_for_the_mat_file(tmp_path):
    root = make_imagenet(tmp_path)
    before = open_images(str(root))
    (root / "ILSVRC2012_devkit_t12").rename(root / "devkit")
    (root / "devkit/data/meta.mat").unlink()
    rows = (f"{wnid} {number} {words.partition(',')[0].replace(' ', '_')}" for number, (wnid, words) in SYNSETS.items())
    lines(root / "devkit/data/map_clsloc.txt", *rows)
    assert open_images(str(root)) == before


@pytest.mark.parametrize("flat", [True, False])
def test_imagenets_boxes_are_found(tmp_path, flat):
    root = make_imagenet(tmp_path, flat=flat)
    images = open_images(str(root))
    assert Objects(images=images).kind == "boxes"
    np.testing.assert_array_equal(object_of(images, images.image_ids[0]), box(5, 10, 20, 25))
    elsewhere = root / "Annotations/CLS-LOC/val"
    elsewhere.mkdir(parents=True)
    for path in (root / "val").glob("*.xml"):
        path.rename(elsewhere / path.name)
    images = open_images(str(root))
    np.testing.assert_array_equal(object_of(images, images.image_ids[0]), box(5, 10, 20, 25))
    shutil.rmtree(elsewhere)
    with pytest.raises(ValueError, match=r"no object boxes \(such as ILSVRC2012_val_0000000\d\.xml\)"):
        Objects(images=open_images(str(root))).check()


def test_imagenet_without_a_devkit_is_told_by_its_thousand_folders(tmp_path):
    for number in range(1000):
        photograph(tmp_path / f"val/n{number:08d}/x.JPEG") if number == 7 else lines(
            tmp_path / f"val/n{number:08d}/x.JPEG"
        )
    images = open_images(str(tmp_path))
    assert (images.name, images.class_ids) == ("imagenet", tuple(range(1000)))
    assert images.label_name(0, 1000) == "tench"
    assert images.label_name(569, 1000) == "garbage truck"
    shutil.rmtree(tmp_path / "val/n00000999")
    assert open_images(str(tmp_path)).class_names[0] == "n00000000"  # any folder of images


def test_no_image_is_opened_to_list_imagenet(tmp_path, monkeypatch):
    root, read = make_imagenet(tmp_path), []
    monkeypatch.setattr(
        Root, "read", lambda self, name, *_: read.append(name) or (Path(self.folder) / name).read_bytes()
    )
    for split in ("train", "val"):
        open_images(str(root), split=split)
    assert {Path(name).name for name in read} == {"meta.mat", "ILSVRC2012_validation_ground_truth.txt"}


def test_images_that_are_not_imagenets_are_refused(tmp_path):
    root = make_imagenet(tmp_path)
    photograph(root / "train/n99999999/1.JPEG")
    with pytest.raises(ValueError, match="train/n99999999"):
        open_images(str(root), split="train")
    with pytest.raises(ValueError, match="no split 'test'"):
        open_images(str(root), split="test")
    photograph(root / "test/ILSVRC2012_test_00000001.JPEG")
    assert open_images(str(root), split="test").labels(3) == (None,)


# --- CUB-200-2011


@pytest.mark.parametrize("inside", ["", "CUB_200_2011"])
def test_cub(tmp_path, inside):
    root = make_cub(tmp_path) / inside
    test = open_images(str(root))
    assert (test.name, test.split, len(test.image_ids)) == ("cub", "test", 20)
    assert test.class_names == ("Black footed Albatross", "Laysan Albatross")
    assert list(test.image_ids) == sorted(test.image_ids)
    for image_id, class_id in zip(test.image_ids, test.class_ids, strict=True):
        assert BIRDS[class_id or 0] in image_id
        assert (root / image_id).is_file()
    val, train = (open_images(str(root), split=split) for split in ("val", "train"))
    assert (len(val.image_ids), len(train.image_ids)) == (1, 3)
    numbers = {int(image_id[-8:-4]) for image_id in val.image_ids + train.image_ids}
    assert numbers == {21, 22, 23, 24}
    assert len({val.fingerprint, train.fingerprint, test.fingerprint}) == 3


def test_cubs_boxes_and_segmentations(tmp_path):
    boxes = open_images(str(make_cub(tmp_path / "a")), limit=2)
    assert Objects(images=boxes).kind == "boxes"
    np.testing.assert_array_equal(object_of(boxes, boxes.image_ids[0]), box(6, 4, 16, 20))
    for place in ("", "CUB_200_2011"):
        masks = open_images(str(make_cub(tmp_path / f"b{place}", segmentations=True)))
        if not place:  # some unpack them beside the data set
            shutil.move(tmp_path / "b/CUB_200_2011/segmentations", tmp_path / "b/segmentations")
            masks = open_images(str(tmp_path / "b"))
        assert Objects(images=masks).kind == "masks"
        np.testing.assert_array_equal(object_of(masks, masks.image_ids[0]), box(6, 4, WIDTH, 20))


# --- Stanford Cars


def pairs(images: ImageSet) -> list[tuple[str, int | None]]:
    return [(f"{Root(images.root).folder}/{i}", c) for i, c in zip(images.image_ids, images.class_ids, strict=True)]


def check_cars(root: Path) -> None:
    test, train, val = (open_images(str(root), split=split) for split in (None, "train", "val"))
    peers = {part: datasets.StanfordCars(str(root), part) for part in ("train", "test")}
    assert (test.name, test.split) == ("cars", "test")
    assert pairs(test) == sorted(peers["test"]._samples)
    assert sorted(pairs(train) + pairs(val)) == sorted(peers["train"]._samples)
    assert len(val.image_ids) == -(-len(peers["train"]) // 10)
    assert list(test.class_names) == peers["test"].classes


def test_cars_are_torchvisions(tmp_path):
    check_cars(make_cars(tmp_path))


def test_cars_inside_and_with_the_test_labels_in_the_devkit(tmp_path):
    base = make_cars(tmp_path) / "stanford_cars"
    before = open_images(str(tmp_path))
    name = "cars_test_annos_withlabels.mat"
    (base / name).rename(base / "devkit" / name)
    assert open_images(str(tmp_path)) == before
    assert open_images(str(base)).class_ids == before.class_ids


def test_a_car_lies_between_the_first_and_the_last_pixel_counted_from_one(tmp_path):
    images = open_images(str(make_cars(tmp_path)))
    left, top, right, bottom = CAR_BOX
    np.testing.assert_array_equal(object_of(images, images.image_ids[3]), box(left - 1, top - 1, right, bottom))


def test_a_broken_image_does_not_hide_the_boxes_of_the_others(tmp_path):
    images = open_images(str(make_cars(tmp_path)), limit=1)
    (tmp_path / images.image_ids[0]).write_bytes(b"broken")
    Objects(images=images).check()
    with pytest.raises(ImageError):
        images.mask(images.image_ids[0])


@needs_cars
def test_real_cars():
    check_cars(CARS_40.resolve())
    test = open_images(str(CARS_40))
    assert (len(test.image_ids), len(test.class_names), len(set(test.class_ids))) == (396, 40, 40)
    for image_id in test.image_ids[::79]:
        frame, error = read_frame(test, image_id, (HEIGHT, WIDTH))
        assert (error, None if frame is None else frame.shape) == (None, (HEIGHT, WIDTH, 3))
        assert object_of(test, image_id).all()  # here, the boxes are the whole images


# --- FGVC-Aircraft


@pytest.mark.parametrize("labels", LEVELS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_aircraft_are_torchvisions(tmp_path, labels, split):
    root = make_aircraft(tmp_path)
    images = open_images(f"{root}#{labels}", split=split)
    peer = datasets.FGVCAircraft(str(root), split, labels)
    assert pairs(images) == sorted(zip(peer._image_files, peer._labels, strict=True))
    assert list(images.class_names) == peer.classes
    assert (images.name, images.split) == (f"aircraft-{labels}", split)


def test_the_labels_are_part_of_the_datas_name(tmp_path):
    root = make_aircraft(tmp_path)
    sets = {labels: open_images(f"{root}#{labels}") for labels in LEVELS}
    assert len({images.fingerprint for images in sets.values()}) == 3
    for labels, images in sets.items():
        assert images.root == f"{tmp_path}#{labels}"
        assert open_images(images.root) == images  # as a command does that reads what another stored
        assert len(images.labels(NUM_CLASSES[labels])) == 8
    assert (
        open_images(str(root))
        == open_images(f"{root}/#variant")
        == open_images(f"file://{root}#variant")
        == sets["variant"]
    )
    with pytest.raises(ValueError, match=r"3 classes.*fit a model with 4.*#family"):
        sets["variant"].labels(3)


def test_labels_that_a_data_set_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="leave #family out"):
        open_images(f"{make_cub(tmp_path)}#family")
    with pytest.raises(FileNotFoundError, match="#species"):
        open_images(f"{tmp_path}#species")


def test_a_recipes_name_chooses_the_labels():
    for name in RECIPES:
        kind = name.removeprefix("aircraft-")
        assert recipe_data(name, "s3://b/d/") == ("s3://b/d/" if kind == name else f"s3://b/d#{kind}")
    assert recipe_data("aircraft-family", "d#family") == "d#family"
    assert recipe_data("folder", "d#family") == "d#family"
    with pytest.raises(ValueError, match="leave #variant out"):
        recipe_data("aircraft-family", "d#variant")


@pytest.mark.parametrize("labels", ["variant", "manufacturer"])
def test_distilling_reads_the_labels_of_the_recipe(tmp_path, labels):
    root, name = make_aircraft(tmp_path / "data"), f"aircraft-{labels}"
    problem = rf"has 3 classes.*data#{labels}\) fit a model with {NUM_CLASSES[labels]}"
    with pytest.raises(ValueError, match=problem):
        DistillationJob.open(
            DistillConfig(recipe=RECIPES[name][1], data=str(root), teacher=TEACHER, out=str(tmp_path / "out")), name
        )


def test_maps_and_scores_keep_the_labels(tmp_path):
    root = make_aircraft(tmp_path)
    out = str(tmp_path / "maps")
    plan = make_plan("random", Job(options=NoOptions(), data=f"{root}#family", teacher=TEACHER, out=out))
    assert plan.config["data"] == f"{root}#family"
    assert plan.config["data_name"] == "aircraft-family"
    families = dict(
        line.split(" ", 1)
        for line in (root / "fgvc-aircraft-2013b/data/images_family_val.txt").read_text().splitlines()
    )
    names = [families[Path(image_id).stem] for image_id in plan.images.image_ids]
    assert [plan.images.label_name(label, 3) for label in plan.labels] == names
    source = Source(uri="maps", config=plan.config)
    assert open_played_images(f"{root}#family", source, None) == plan.images
    with pytest.raises(ValueError, match="is not what the maps"):
        open_played_images(str(root), source, None)


def test_nobody_sees_the_banner(tmp_path):
    images = open_images(str(make_aircraft(tmp_path)))
    image_id = images.image_ids[0]
    assert np.asarray(Image.open(io.BytesIO(images.read(image_id)))).max() > 240
    assert images.image(image_id).size == (WIDTH, HEIGHT - 20)
    assert np.asarray(images.image(image_id)).max() < 20
    frame, error = read_frame(without_image_ids(images), image_id, (64, 64))
    assert error is None
    assert frame is not None
    assert frame.max() < 20
    mask = images.mask(image_id)
    assert mask is not None
    np.testing.assert_array_equal(mask, box(5, 4, 20, 20, (20, WIDTH)))  # the box goes on below the picture
    full = object_of(images, image_id)  # stretched to a frame of twice its height
    np.testing.assert_array_equal(full, mask.repeat(2, axis=0))
