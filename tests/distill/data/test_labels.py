"""How a data set's classes are matched to a model's: by name, number, WordNet id or order, or refused."""

from pathlib import Path

import pytest
from dataset_layouts import write_images
from project_paths import SHARED_DATA
from torchvision.models import ResNet50_Weights

from distill.data import ImageSet, open_images
from distill.data.layouts.wordnet import wordnet_ids

IMAGENET_NAMES = ResNet50_Weights.DEFAULT.meta["categories"]
WIDE = SHARED_DATA / "imagenet_wide"


def folders(root: Path, *classes: str) -> ImageSet:
    return open_images(str(write_images(root, *(f"{name}/1.png" for name in classes))))


@pytest.mark.parametrize(
    "names", [("dog", "cat"), ("DOG", "Cat"), ("bird", "dog", "cat", "fish"), ("001.dog", "002.cat"), (" dog ", "cat")]
)
def test_classes_are_matched_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = folders(tmp_path, "cat", "dog")
    position = {name.strip().lower().rpartition(".")[2]: number for number, name in enumerate(names)}
    assert images.labels(len(names), names) == (position["cat"], position["dog"])
    assert images.describe(len(names), names).endswith("labels matched by name")


def test_underscores_and_hyphens_are_spaces(tmp_path: Path) -> None:
    images = folders(tmp_path, "001.Black_footed_Albatross", "002.Gull")
    assert images.labels(2, ("gull", "black-footed albatross")) == (1, 0)


def test_two_spellings_of_one_accent_are_one_name(tmp_path: Path) -> None:
    images = folders(tmp_path, "cafe\u0301", "bar")  # as some file systems keep it
    assert images.labels(3, ("x", "caf\u00e9", "bar")) == (2, 1)


def test_the_copies_that_packing_on_a_mac_adds_are_no_class(tmp_path: Path) -> None:
    write_images(tmp_path, "__MACOSX/cat/1.png", "cat/__MACOSX/2.png", "dog/1.png")
    images = folders(tmp_path, "cat")
    assert (images.class_names, images.image_ids) == (("cat", "dog"), ("cat/1.png", "dog/1.png"))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("cat", "wolf"), "1 of 2 classes .* such as .'dog'."),
        (("Katze", "Hund"), "2 of 2 classes .* such as .'cat'.*the model's: 'Katze', 'Hund'; name"),
        (("cat", "cats", "dogs"), "1 of 2 classes"),
        (("cat", "dog", "dog"), "1 of 2 classes"),  # two of one name
    ],
)
def test_names_that_differ_are_refused(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        folders(tmp_path, "cat", "dog").labels(len(names), names)


@pytest.mark.parametrize("names", [None, ("0", "1"), ("class 0", "class 1"), ("LABEL_0", "LABEL_1")])
def test_without_names_the_sorted_order_counts(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    images = folders(tmp_path, "dog", "cat")
    assert images.labels(2, names) == (0, 1)
    assert images.describe(2, names).endswith("labels matched by the sorted order of class folders")
    with pytest.raises(ValueError, match="the model has 3 classes"):
        images.labels(3)


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    images = folders(tmp_path, *map(str, range(120)))
    assert images.class_names == tuple(map(str, range(120)))
    for num_classes, names in ((120, None), (1000, None), (1000, IMAGENET_NAMES)):
        labels = images.labels(num_classes, names)
        assert labels == tuple(int(image_id.partition("/")[0]) for image_id in images.image_ids)
    assert images.describe(1000).endswith("matched by number")


def test_some_numbers_are_class_indices_and_counted_from_one_an_order(tmp_path: Path) -> None:
    assert folders(tmp_path / "some", "3", "17").labels(20) == (17, 3)  # in the order of the ids
    from_one = folders(tmp_path / "one", "1", "2", "10", *map(str, range(3, 10)))
    assert from_one.labels(10) == tuple(int(image_id.partition("/")[0]) - 1 for image_id in from_one.image_ids)
    with pytest.raises(ValueError, match="the model has 5 classes"):
        from_one.labels(5)


def test_wordnet_ids_are_imagenets_classes_whatever_their_number(tmp_path: Path) -> None:
    images = folders(tmp_path, "n01440764", "n02123159", "n07920052")  # tench, tiger cat, espresso
    assert images.class_names == ("tench", "tiger cat", "espresso")
    assert images.labels(1000) == images.labels(1000, IMAGENET_NAMES) == (0, 282, 967)
    assert images.labels(3) == (0, 1, 2)
    assert images.labels(2 + 1, ("n07920052", "n02123159", "n01440764")) == (2, 1, 0)
    assert images.label_name(282, 1000) == "tiger cat"


def test_the_table_of_wordnet_ids() -> None:
    ids = list(wordnet_ids())
    assert (len(ids), ids) == (1000, sorted(ids))
    assert [wordnet_ids()[name] for name in ("n01443537", "n03888257", "n15075141")] == [1, 701, 999]


@pytest.mark.skipif(not WIDE.is_dir(), reason=f"{WIDE} is not on this machine")
def test_half_of_imagenets_classes_fit_a_thousand() -> None:
    images = open_images(str(WIDE))
    assert images.labels(1000) == images.labels(1000, IMAGENET_NAMES)
    assert images.describe(1000, IMAGENET_NAMES) == (
        "500 images, 500 classes (goldfish, tiger shark, electric ray, ...), split val, labels matched by name"
    )


def test_images_without_a_class_are_counted(tmp_path: Path) -> None:
    images = open_images(str(write_images(tmp_path, "a/1.png", "b/1.png", "2.png")))
    assert images.describe(2) == (
        "3 images, 2 classes (a, b), 1 images without a class, no splits, "
        "labels matched by the sorted order of class folders"
    )
    plain = open_images(str(write_images(tmp_path / "plain", "1.png")))
    assert plain.describe(1000) == "1 image, no classes, no splits"
    assert plain.labels(1000, IMAGENET_NAMES) == (None,)
