"""The gallery of stored maps: one picture per image and method, every image on the page, and hostile names escaped."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.storage import Folder, config_hash
from distill.data.layouts.wordnet import imagenet_names
from explain.__main__ import main
from explain.maps import maps_table
from explain.pictures.class_names import class_title, name_classes
from explain.pictures.config import Show
from explain.pictures.show import MAX_NAME_BYTES, file_name

HOSTILE = "cat/<img src=x onerror=alert(1)>.png"
IDS = (HOSTILE, "cat/a.png", "dog/b.png", "dog/broken.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for image_id in IDS:
        (root / image_id).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(root / image_id)
    (root / IDS[3]).write_bytes(b"no image")
    return root


def write_maps(out: Path, method: str, **changes) -> dict:
    config = {"schema_version": 1, "method": method, "options": {}, "data_name": "pets", "split": None, **changes}
    Folder(str(out)).claim(config, what="maps")
    rows = [
        {
            "image_id": image_id,
            "label": k // 2,
            "target": 0,
            "target_prob": 0.5 + k / 10,
            "saliency": None if k == 3 else np.random.default_rng(k).random((8, 8), dtype=np.float32),
            "map_height": 8,
            "map_width": 8,
            "teacher_queries": 200,
            "student_passes": 0,
            "seconds": 0.1,
            "error": "the file cannot be decoded" if k == 3 else None,
        }
        for k, image_id in enumerate(IDS)
    ]
    for part in range(2):
        pq.write_table(maps_table(rows[2 * part : 2 * part + 2], config), out / f"part-0000{part}.parquet")
    return config


@pytest.fixture(scope="module")
def shown(data, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shown")
    config = write_maps(root / "gp", "gp_regression")
    write_maps(root / "rise", "rise")
    row = {"image_id": IDS[1], "config_hash": config_hash(config), "game": "insertion", "auc": 0.75}
    (root / "scores").mkdir()
    pq.write_table(
        pa.Table.from_pylist([row, {**row, "game": "deletion", "auc": 0.25}]), root / "scores" / "part-0.parquet"
    )
    command = ["show", "--maps", str(root / "gp"), str(root / "rise"), "--data", str(data), "--out", str(root / "out")]
    assert main([*command, "--scores", str(root / "scores"), "--size", "64"]) == 0
    return root / "out"


def rows(shown: Path) -> dict[str, dict]:
    text = (shown / "data.js").read_text()
    return {row["id"]: row for row in json.loads(text.removeprefix("const GALLERY = ").rstrip(";\n"))["images"]}


def test_every_map_is_a_picture_and_every_image_is_on_the_page(shown):
    assert set(rows(shown)) == set(IDS)
    for image_id in IDS[:3]:
        for method in ("gp_regression", "rise"):
            with Image.open(shown / method / f"{file_name(image_id)}.png") as picture:
                assert picture.size == (64, 48)
            assert (shown / "thumbnails" / method / f"{file_name(image_id)}.jpg").is_file()
        assert (shown / "sheets" / f"{file_name(image_id)}.png").is_file()
    assert (shown / "index.html").is_file()


def test_what_cannot_be_shown_says_why(shown):
    row = rows(shown)[IDS[3]]
    assert row["name"] == ""
    assert set(row["errors"]) == {"gp_regression", "rise"}


def test_classes_probabilities_and_scores_are_on_the_page(shown):
    row = rows(shown)[IDS[1]]
    assert (row["label"], row["target"], row["prob"]) == ("cat", "cat", 0.6)
    assert row["scores"] == {"gp_regression": {"insertion": 0.75, "deletion": 0.25}}
    assert rows(shown)[IDS[2]]["label"] == "dog"


def test_hostile_names_stay_text(shown):
    text = (shown / "data.js").read_text()
    assert "<" not in text
    assert text.isascii()
    assert HOSTILE in rows(shown)


def test_file_names_stay_inside_the_folder():
    assert file_name("a/b.jpg") == "a/b.jpg"
    names = [file_name(f"cat/{'x' * 250}{k}.jpg") for k in range(2)]
    assert names[0] != names[1]
    assert all(len(part.encode()) <= MAX_NAME_BYTES + 13 for name in names for part in name.split("/"))
    assert ".." not in file_name("a/../b").split("/")
    assert file_name("a?b.jpg") != file_name("a#b.jpg")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (["--maps", "{maps}", "{maps}"], "twice"),
        (["--maps", "{maps}", "{other}"], "different images"),
        (["--maps", "{maps}", "--data", "{empty}"], "no images|none of the images"),
        (["--maps", "{maps}", "--scores", "{maps}"], "holds no scores|has no column"),
    ],
)
def test_what_does_not_fit_is_refused(data, tmp_path, capsys, changes, match):
    write_maps(tmp_path / "gp", "gp_regression")
    write_maps(tmp_path / "other", "rise", data_name="birds")
    (tmp_path / "empty").mkdir()
    names = {"maps": tmp_path / "gp", "other": tmp_path / "other", "empty": tmp_path / "empty"}
    given = ["--data", str(data), "--out", str(tmp_path / "out"), *(one.format(**names) for one in changes)]
    assert main(["show", *given]) == 2
    assert re.search(match, capsys.readouterr().err)


def test_wrong_settings_are_refused():
    for wrong in ({"opacity": 2.0}, {"size": 8}, {"limit": 0}, {"maps": ()}):
        with pytest.raises(ValueError, match="give"):
            Show(**{"maps": ("a",), "data": "b", "out": "c", **wrong})


def test_class_names_come_from_the_teacher_then_the_data_then_imagenet():
    assert name_classes(None, ["cat", "dog"], 2) == ["cat", "dog"]
    assert name_classes(None, None, 1000)[285] == "Egyptian cat" == imagenet_names()[285]
    assert name_classes(None, None, 7) == [""] * 7
    assert class_title(["", "dog"], 0) == "class 0"
    assert class_title(["cat"], None) == "no class"
