"""Inputs at the edge of what is defined, from targets to measures: one class, one pixel, one color, no number."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from box_teacher import SIZE
from fake_scores import make_world
from PIL import Image

from cluster.storage import Folder
from distill.data import open_images
from distill.data.frames import without_image_ids
from distill.teachers import load_teacher
from evaluate.games.job import GamesWork, GamesWorker
from evaluate.games.protocol import Protocol
from evaluate.games.reader import load_results
from evaluate.map_sets import Source, map_items
from evaluate.metrics.job import MetricsWork, MetricsWorker, image_items
from evaluate.metrics.settings import Settings, check_metrics
from evaluate.scored_method import label_methods
from explain.methods.registry import METHODS
from explain.targets import TargetTask, TargetWorker
from explain.worker import MapTask, MapWorker

TEACHER = "python:box_teacher:make_single"
IDS = ["dot.png", "even.png", "photo.png"]
FEW: dict[str, dict[str, Any]] = {
    "rise": {"num_masks": 16},
    "lime": {"num_samples": 30},
    "kernel_shap": {"num_samples": 30},
    "gp_regression": {"num_samples": 24},
    "oracle": {"grid": 2, "num_queries": 8},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make an image of one pixel, one of one color, and one of noise."""
    data = tmp_path_factory.mktemp("corners")
    Image.new("RGB", (1, 1), (200, 30, 90)).save(data / "dot.png")
    Image.new("RGB", (30, 20), (10, 120, 60)).save(data / "even.png")
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(data / "photo.png")
    return open_images(str(data))


def explain(images: Any, root: Path, name: str) -> Source:
    """Make a method's maps, for the only class that the black box has."""
    options = METHODS[name].options(**FEW.get(name, {}))
    stored = {
        "method": name,
        "options": asdict(options),
        "seed": 0,
        "teacher": TEACHER,
        "student": None,
        "target": "teacher",
    }
    light = without_image_ids(images)
    task = MapTask(
        method=METHODS[name],
        options=options,
        config=stored,
        images=light,
        size=SIZE,
        batch_size=8,
        responses=Folder(str(root / "answers")),
    )
    worker = MapWorker(task)
    targets = TargetWorker(TargetTask(teacher=TEACHER, images=light))([{"image_id": image_id} for image_id in IDS])
    folder = Folder(str(root / name))
    folder.claim(stored, what="maps")
    pq.write_table(worker([{**row, "label": None} for row in targets.to_pylist()]), f"{folder.path}/part-00000.parquet")
    return Source(uri=folder.uri, config=stored)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.explains != "student"])
def test_a_black_box_of_one_class_has_maps_and_even_curves(images: Any, tmp_path: Path, name: str) -> None:
    source = explain(images, tmp_path, name)
    maps = pq.read_table(f"{source.uri}/part-00000.parquet").to_pandas()
    assert maps["error"].isna().all()
    assert maps["target"].tolist() == [0, 0, 0]
    assert maps["target_prob"].tolist() == [1, 1, 1]
    assert all(np.isfinite(saliency).all() and len(saliency) == SIZE[0] * SIZE[1] for saliency in maps["saliency"])
    stored = {"teacher": TEACHER, "teacher_fingerprint": load_teacher(TEACHER).fingerprint}
    work = GamesWork(stored=stored, protocol=Protocol(), sources=[source], images=images)
    scores = GamesWorker(work)(list(map_items([source], images))).to_pandas()
    assert scores["error"].isna().all()
    assert scores["auc"].tolist() == pytest.approx([1] * 6)
    assert scores["tied_share"].between(0, 1).all()
    if name in ("lime", "kernel_shap"):  # an image of one color is one superpixel
        assert (scores.loc[scores["image_id"] != "photo.png", "tied_share"] == 1).all()


def test_measures_of_one_class_have_a_value_or_say_why_not(images: Any, tmp_path: Path) -> None:
    source, settings = explain(images, tmp_path, "edges"), Settings(num_subsets=8)
    wanted = check_metrics(["road", "mu_fidelity"])
    measures = {name: settings.fields(name, target="teacher", objects=None) for name in wanted}
    stored = {"teacher": TEACHER, "teacher_fingerprint": load_teacher(TEACHER).fingerprint, "student": None}
    stored |= {"boxes": None, "measures": measures}
    worker = MetricsWorker(MetricsWork(stored=stored, settings=settings, sources=[source], images=images))
    found = worker(json.loads(json.dumps(image_items([source], images)))).to_pandas()
    assert (found["value"].isna() == found["error"].notna()).all()
    of_mu = found[found["measure"].str.startswith("mu_fidelity")]
    assert of_mu["error"].notna().all()  # no answer changes, so nothing goes along with anything


def test_a_map_that_is_not_finite_is_an_error_row(images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explain.methods.control.random.random", lambda *_, **__: torch.full((8, *SIZE), torch.nan))
    source = explain(images, tmp_path, "random")
    maps = pq.read_table(f"{source.uri}/part-00000.parquet").to_pandas()
    assert maps["saliency"].isna().all()
    assert set(maps["error"]) == {"the map has values that are not finite numbers"}


@pytest.mark.parametrize("column", ["protocol_hash", "game"])
def test_rows_of_a_protocol_or_game_that_the_folder_does_not_name_are_refused(tmp_path: Path, column: str) -> None:
    scores = Path(make_world(tmp_path, num_images=4).scores)
    part = min(scores.glob("part-*.parquet"))
    table = pq.read_table(part)
    values = ["unknown", *table[column].to_pylist()[1:]]
    changed = table.set_column(table.column_names.index(column), column, pa.array(values, table[column].type))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), part)
    with pytest.raises(ValueError, match=r"rows of other protocols \[.*\] or games \[.*\] than their configuration"):
        load_results([str(scores)])


def test_maps_of_one_method_and_the_same_options_are_told_apart_by_their_folders():
    entries = [
        {"method": "mal_grad_cam", "config_hash": f"{k}abcdef12345", "uri": uri, "config": {"options": {}}}
        for k, uri in enumerate(("maps/paper", "maps/faithful/", "maps/other"))
    ]
    assert [one.label for one in label_methods(entries[:1])] == ["mal_grad_cam"]
    assert [one.label for one in label_methods(entries)] == [
        f"mal_grad_cam ({name})" for name in ("paper", "faithful", "other")
    ]
    same = [*entries[:2], entries[2] | {"uri": "elsewhere/paper"}]
    assert [one.label for one in label_methods(same)] == [
        f"mal_grad_cam ({name})" for name in ("maps/paper", "faithful", "elsewhere/paper")
    ]
    moved = [*entries[:2], entries[2] | {"uri": "maps/paper"}]
    assert [one.label for one in label_methods(moved)] == [
        f"mal_grad_cam ({name})" for name in ("0abcde", "faithful", "2abcde")
    ]
