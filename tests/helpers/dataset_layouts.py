"""Tiny copies of the data sets in their official layouts, for tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

HEIGHT, WIDTH = 40, 30  # of every image
LIGHT, DARK = 250, 10


def photograph(path: Path, *, banner_px: int = 0) -> None:
    """Write a dark image, with a light banner at its bottom."""
    pixels = np.full((HEIGHT, WIDTH, 3), DARK, np.uint8)
    pixels[HEIGHT - banner_px :] = LIGHT
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def write_images(root: Path, *names: str) -> Path:
    """Write a small image under each name, as PNG whatever its ending."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 24), "teal").save(path, "PNG")
    return root


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


# --- ImageNet

SYNSETS = {1: ("n02119789", "kit fox, Vulpes macrotis"), 2: ("n02100735", "English setter"), 3: ("n01440764", "tench")}
"""The devkit's order, which is not that of the WordNet ids."""
TRUTH = (2, 3, 1, 3)
BOX_XML = """<annotation><size><width>30</width><height>40</height><depth>3</depth></size><object><name>n</name>
<bndbox><xmin>5</xmin><ymin>10</ymin><xmax>20</xmax><ymax>25</ymax></bndbox></object></annotation>"""


def write_devkit(devkit: Path) -> None:
    rows = [(number, wnid, words, "a gloss", 0, [], 0, 1300) for number, (wnid, words) in SYNSETS.items()]
    rows.append((4, "n00001740", "entity", "a parent", 3, [1, 2, 3], 1, 0))
    names = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    synsets = np.array(rows, dtype=[(name, object) for name in names])[:, None]
    devkit.mkdir(parents=True)
    savemat(devkit / "meta.mat", {"synsets": synsets})
    lines(devkit / "ILSVRC2012_validation_ground_truth.txt", *map(str, TRUTH))


def make_imagenet(root: Path, *, flat: bool = True) -> Path:
    write_devkit(root / "ILSVRC2012_devkit_t12/data")
    for wnid, _ in SYNSETS.values():
        for number in (3, 12):
            photograph(root / f"train/{wnid}/{wnid}_{number}.JPEG")
    for number, truth in enumerate(TRUTH, start=1):
        name = f"ILSVRC2012_val_{number:08d}"
        photograph(root / "val" / ("" if flat else SYNSETS[truth][0]) / f"{name}.JPEG")
        lines(root / "val" / f"{name}.xml", BOX_XML)
    return root


# --- CUB-200-2011

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


def make_cub(root: Path, *, segmentations: bool = False) -> Path:
    base = root / "CUB_200_2011"
    rows = [(number, BIRDS[number % 2], number > 20) for number in range(1, 25)]  # the last four are for training
    paths = {number: f"{bird}/{bird[4:]}_{number:04d}.jpg" for number, bird, _ in rows}
    for path in paths.values():
        photograph(base / "images" / path)
        if segmentations:
            counts = np.zeros((HEIGHT, WIDTH), np.uint8)
            counts[4:20, 6:] = 153  # three of five people
            counts[20:, 6:] = 102
            mask = (base / "segmentations" / path).with_suffix(".png")
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(counts).save(mask)
    lines(base / "images.txt", *(f"{number} {path}" for number, path in paths.items()))
    lines(base / "image_class_labels.txt", *(f"{number} {BIRDS.index(bird) + 1}" for number, bird, _ in rows))
    lines(base / "train_test_split.txt", *(f"{number} {int(train)}" for number, _, train in rows))
    lines(base / "bounding_boxes.txt", *(f"{number} 6.0 4.0 10.0 16.0" for number, _, _ in rows))
    lines(base / "classes.txt", *(f"{number} {bird}" for number, bird in enumerate(BIRDS, start=1)))
    return root


# --- Stanford Cars

CARS = ("AM General Hummer SUV 2000", "Acura Integra Type R 2001", "Ferrari FF Coupe 2012")
CAR_BOX = (6, 5, 20, 25)


def annotations(names: list[str]) -> dict[str, np.ndarray]:
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    rows = [(*CAR_BOX, 1 + k % 3, name) for k, name in enumerate(names)]
    return {"annotations": np.array(rows, dtype=[(field, object) for field in fields])[None]}


def make_cars(root: Path) -> Path:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = {"train": [f"{k:05d}.jpg" for k in range(30, 0, -1)], "test": [f"{k:05d}.jpg" for k in range(1, 8)]}
    for part, own in names.items():
        for name in own:
            photograph(base / f"cars_{part}" / name)
    savemat(base / "devkit/cars_meta.mat", {"class_names": np.array(CARS, dtype=object)[None]})
    savemat(base / "devkit/cars_train_annos.mat", annotations(names["train"]))
    savemat(base / "cars_test_annos_withlabels.mat", annotations(names["test"]))
    return root


# --- FGVC-Aircraft

AIRCRAFT = {
    "707-320": ("Boeing 707", "Boeing"),
    "737-200": ("Boeing 737", "Boeing"),
    "737-300": ("Boeing 737", "Boeing"),
    "F-16A/B": ("F-16", "Lockheed Martin"),
}
"""Variant -> family, manufacturer."""
LEVELS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
NUM_CLASSES = {"variant": 4, "family": 3, "manufacturer": 2}


def make_aircraft(root: Path) -> Path:
    data = root / "fgvc-aircraft-2013b/data"
    rows = {f"{1_000_000 - 7 * k:07d}": name for k, name in enumerate(list(AIRCRAFT) * 6)}
    for key in rows:
        photograph(data / f"images/{key}.jpg", banner_px=20)
    lines(data / "images_box.txt", *(f"{key} 6 5 20 30" for key in rows))
    for position, (level, file) in enumerate(LEVELS.items()):
        named = {key: (name, *AIRCRAFT[name])[position] for key, name in rows.items()}
        lines(data / file, *dict.fromkeys(named.values()))
        for part, start in (("train", 0), ("val", 8), ("test", 16)):
            own = list(named.items())[start : start + 8]
            lines(data / f"images_{level}_{part}.txt", *(f"{key} {name}" for key, name in own))
    return root


MAKERS: dict[str, Callable[..., Path]] = {
    "imagenet": make_imagenet,
    "cub": make_cub,
    "cars": make_cars,
    "aircraft": make_aircraft,
}
