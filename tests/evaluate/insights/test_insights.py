"""The whole job on a black box with a planted shortcut: what is claimed, stored and shown, and what is refused."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy import stats

from cluster.errors import WorkError
from cluster.storage import Folder
from cluster.tracking.run_store import legal_name
from distill.data import open_images
from distill.data.versions import record_versions
from distill.teachers import load_teacher
from evaluate.config import InsightsConfig
from evaluate.insights.candidates import plan_trials
from evaluate.insights.evidence import GRID
from evaluate.insights.interventions import COLUMNS as TRIALS
from evaluate.insights.interventions import QUERIES, cells_mask, hidden, pasted
from evaluate.insights.summary import exit_status, insights_text, mlflow_metrics
from evaluate.insights.suspicions import COLUMNS, fewest_images
from tests.evaluate.insights.conftest import BOX, NUM_EACH, STAMPED, change_rows, write_images, write_maps

CLEAN = "python:box_teacher:make_clean"


def test_the_planted_shortcut_is_the_only_finding(found):
    (one,) = [row for row in found.rows if row["status"] == "confirmed"]
    assert found.rows[0] is one
    assert one["name"] == "apple"
    assert set(one["image_ids"]) == {f"apple/{k:02d}.png" for k in range(STAMPED)}
    assert one["class_share"] == STAMPED / NUM_EACH
    assert re.match(r"In 53 % of apple images \(16 of 30\) the evidence lies at one place", one["sentence"])
    for words in (
        "lower right corner",
        ", mostly ",
        "hiding it removes",
        "pasted into images",
        "16 images tested",
    ):
        assert words in one["sentence"]
    assert one["hide"] > 0.3 > one["hide_random"]
    assert one["paste"] > 0.3 > one["paste_random"]


def test_the_numbers_of_a_suspicion_are_those_of_its_trials(found):
    one = found.rows[0]
    trials = pq.read_table(f"{found.folder.uri}/trials").to_pandas()
    own = trials[trials["suspicion"] == one["suspicion"]]
    removed = own["prob"] - own["prob_region_hidden"]
    random = own["prob"] - own["prob_random_hidden"]
    assert one["hide"] == pytest.approx(removed.mean())
    assert one["hide_beyond"] == pytest.approx((removed - random).mean())
    assert one["hide_low"] < one["hide"] < one["hide_high"]
    gained = own["other_prob_region_pasted"] - own["other_prob"]
    peer: Any = stats.wilcoxon(gained, own["other_prob_random_pasted"] - own["other_prob"])
    tested = [row for row in found.rows if row["status"] != "not tested"]
    assert one["p_holm"] == pytest.approx(min(1, peer.pvalue * len(tested)))


def test_trials_are_what_the_black_box_says(found, world):
    trials = pq.read_table(f"{found.folder.uri}/trials").to_pylist()
    box = load_teacher(BOX)
    row, trial = trials[0], found.trials[0]
    images = [np.asarray(Image.open(f"{world.data}/{row[key]}").convert("RGB")) for key in ("image_id", "other_id")]
    changed = images[1].copy()
    for cell in trial.region:
        y, x = 2 * (cell // GRID), 2 * (cell % GRID)
        changed[y : y + 2, x : x + 2] = images[0][y : y + 2, x : x + 2]
    probs = box.probabilities(np.stack([*images, changed]))[:, row["target"]]
    stored = [row["prob"], row["other_prob"], row["other_prob_region_pasted"]]
    assert stored == pytest.approx(probs.tolist(), abs=1e-6)
    assert row["teacher_queries"] == QUERIES
    assert len(trial.region) == len(trial.random)
    assert trial.region != trial.random
    assert not set(trial.rest) & set(trial.region)
    assert found.names[trial.target] == "apple"
    assert not row["other_id"].startswith("apple")


def test_hiding_changes_the_region_alone():
    pixels = torch.randn(3, 28, 42, generator=torch.Generator().manual_seed(0))
    region = [0, 1, GRID]
    whole, one, nothing = hidden(pixels, [region, []])
    mask = cells_mask(region, (28, 42))
    assert mask.sum() == len(region) * 6
    assert torch.equal(whole, pixels)
    assert torch.equal(nothing, pixels)
    assert torch.equal(one[:, ~mask], pixels[:, ~mask])
    assert (one[:, mask] != pixels[:, mask]).all()
    other = -pixels
    assert torch.equal(pasted(pixels, other, [region])[1], torch.where(mask, pixels, other))


def test_a_black_box_that_does_not_rely_on_it_gives_no_finding(find, world):
    maps = write_maps(Path(world.data), world.root / "clean_maps", box=CLEAN)
    clean = find("clean", maps=maps, teacher=CLEAN)
    assert clean.rows  # the maps say the same, and the test refutes them
    assert [row["status"] for row in clean.rows if row["status"] == "confirmed"] == []
    assert "No suspicion is confirmed." in insights_text(clean)


def test_without_a_teacher_nothing_is_confirmed(find):
    untested = find("untested", teacher=None)
    assert {row["status"] for row in untested.rows} == {"not tested"}
    assert untested.rows[0]["sentence"].endswith("not tested on the black box.")
    assert any("--teacher" in note for note in untested.notes)


def test_one_row_an_image_one_a_suspicion_and_the_rest(found):
    folder = Path(found.folder.uri)
    images = pq.read_table(folder / "images").to_pandas()
    assert len(images) == 3 * NUM_EACH
    assert images["error"].dropna().tolist() == ["cut", "the map is constant and points nowhere"]
    assert np.allclose(np.stack(images["evidence"].dropna().tolist()).sum(axis=1), 1, atol=1e-5)
    assert any("2 images are left out, the first: cut" in note for note in found.notes)
    assert pq.read_table(folder / "suspicions").schema.names == COLUMNS.names
    assert pq.read_table(folder / "trials").schema.names == TRIALS.names
    classes = pq.read_table(folder / "classes").to_pandas().set_index("name")
    assert classes.loc["apple", "lower_right_corner"] > 0.3 > classes.loc["sky", "lower_right_corner"]
    assert classes.loc["apple", "lower_right_corner_p_holm"] < 0.001
    ids = (folder / "image_ids" / "suspicion-01.txt").read_text().split()
    assert len(ids) == STAMPED
    manifest = json.loads((folder / "_manifest.json").read_text())
    assert (manifest["rows"], manifest["errors"], manifest["confirmed"]) == (3 * NUM_EACH, 2, 1)
    assert "lower right corner" in (folder / "suspicions.md").read_text()
    with Image.open(folder / "classes.png") as figure:
        assert figure.width > figure.height, "three classes stand side by side"


def test_a_rerun_gives_the_same_rows_and_another_question_is_refused(found, find):
    before = pq.read_table(f"{found.folder.uri}/suspicions")
    assert find("found").rows == found.rows
    assert pq.read_table(f"{found.folder.uri}/suspicions").equals(before)
    with pytest.raises(ValueError, match="insights of another configuration"):
        find("found", num_tested=20)


def test_the_page_shows_suspicions_first_with_their_pictures(found):
    folder = Path(found.folder.uri)
    gallery = json.loads((folder / "data.js").read_text().removeprefix("const GALLERY = ").rstrip(";\n"))
    assert gallery["groups"][0]["sentence"] == found.rows[0]["sentence"]
    assert gallery["groups"][0]["status"] == "confirmed"
    assert (folder / gallery["groups"][0]["file"]).is_file()
    own = [image for image in gallery["images"] if image["group"] == 0]
    assert own
    for image in own:
        for key in ("map", "hidden", "pasted"):
            assert (folder / key / f"{image['name']}.png").is_file()
            assert (folder / "thumbnails" / key / f"{image['name']}.jpg").is_file()
            assert 0 <= image["scores"][key]["probability"] <= 1
    assert (folder / "sheets" / "suspicion-01.png").is_file()


@pytest.mark.parametrize("names", [["same"] * 3, ["a?", "a!", "b"], ["x" * 400, "x" * 300, "y"]])
def test_classes_of_one_name_are_told_apart(find, world, monkeypatch, names):
    monkeypatch.setattr("evaluate.insights.job.name_classes", lambda *_: names)
    out = f"named{len(names[0])}"
    compared = find(out, against=world.moved, teacher=None)
    metrics = mlflow_metrics(compared)
    assert len({legal_name(name) for name in metrics}) == len(metrics)
    changes = {name: value for name, value in metrics.items() if name.startswith("change_")}
    assert sorted(changes.values()) == pytest.approx(sorted(one.change.mean for one in compared.changes))


def test_metrics_for_mlflow(found):
    metrics = mlflow_metrics(found)
    assert metrics["num_confirmed"] == 1
    assert metrics["effect_apple"] == pytest.approx(found.rows[0]["paste_beyond"])
    assert all(np.isfinite(list(metrics.values())))


def test_another_model_that_looks_elsewhere_is_told_by_class(find, world):
    compared = find("against", against=world.moved, teacher=None)
    worst, *others = compared.changes
    assert compared.names[worst.target] == "apple"
    assert worst.change.low > 0.5
    assert all(one.change.mean < 1e-3 for one in others)
    images = pq.read_table(f"{compared.folder.uri}/images").to_pandas().set_index("image_id")
    assert images.loc["apple/00.png", "change"] > 0.9
    config = InsightsConfig(maps="", data="", out="", against="x", fail_above=0.5)
    assert exit_status(compared, config) == 1
    assert exit_status(compared, dataclasses.replace(config, fail_above=1.0)) == 0
    folder = Path(compared.folder.uri)
    gallery = json.loads((folder / "data.js").read_text().removeprefix("const GALLERY = ").rstrip(";\n"))
    assert gallery["groups"][-1]["status"] == "other model"
    for image in gallery["images"]:
        drawn = {key for key in gallery["methods"] if (folder / key / f"{image['name']}.png").is_file()}
        assert drawn == set(gallery["methods"]) - set(image["errors"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "lime"}, "explain both models by the same method"),
        ({"data_fingerprint": "0" * 12}, "explain both models with the same --data"),
        ({"target": "label"}, "explain both models with the same --target"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(find, world, tmp_path, changes, message):
    other = write_maps(Path(world.data), tmp_path / "other", **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        find("refused", against=other)


def test_too_many_queries_are_refused_before_any_is_sent(find, world):
    with pytest.raises(ValueError, match="more than --max-queries 3"):
        find("budget", max_queries=3)
    assert not Folder(f"{world.root}/budget/trials").parts()


def test_classes_with_few_images_are_named_and_left_out(find, world):
    few = find("few", per_class=None, limit=40)  # ten of the second class, none of the third
    assert {row["name"] for row in few.rows} <= {"apple", "leaf"}
    tiny = find("tiny", limit=33)
    assert any("leaf" in note and "fewer than 10 images" in note for note in tiny.notes)
    alone = find("alone", limit=20)
    assert alone.rows == []
    assert any("one class" in note for note in alone.notes)


@pytest.mark.parametrize("target", [-1, 3])
def test_a_map_of_a_class_that_the_black_box_lacks_has_an_error_and_no_number(find, world, tmp_path, target):
    maps = write_maps(Path(world.data), tmp_path / "maps")
    change_rows(maps, lambda row: {**row, "target": target if row["target"] == 0 else row["target"]})
    with pytest.raises(WorkError, match=f"target {target} is not a class of the teacher"):
        find(f"classes{target}", maps=maps)


def test_two_maps_of_an_image_are_refused(find, world, tmp_path):
    maps = write_maps(Path(world.data), tmp_path / "maps")
    change_rows(maps, lambda row: {**row, "image_id": row["image_id"].replace("/01.png", "/00.png")})
    with pytest.raises(ValueError, match=r"has two rows of 'apple/00\.png'"):
        find("twice", maps=maps)


def test_responses_to_another_plan_are_not_taken_for_those_of_this_one(find, monkeypatch):
    find("planned")
    monkeypatch.setattr(
        "evaluate.insights.job.plan_trials",
        lambda *given, **options: [dataclasses.replace(one, region=[0]) for one in plan_trials(*given, **options)],
    )
    with pytest.raises(ValueError, match="holds trials of another configuration"):
        find("planned")


def test_images_that_were_replaced_are_refused_until_they_are_explained_again(find, world, tmp_path):
    data = write_images(tmp_path / "photos")
    maps = write_maps(data, tmp_path / "maps")
    record_versions(Folder(maps), open_images(str(data)))
    before = pq.read_table(find(tmp_path / "out", maps=maps, data=str(data)).folder.child("images").uri)
    Image.new("RGB", (28, 28), "white").save(data / "apple" / "00.png")
    with pytest.raises(ValueError, match=r"1 of 90 images have changed since the maps .* 'apple/00.png'"):
        find(tmp_path / "out", maps=maps, data=str(data))
    record_versions(Folder(maps), open_images(str(data)))  # as `explain` does, which explains the image again
    with pytest.raises(ValueError, match="holds trials of another configuration"):
        find(tmp_path / "out", maps=maps, data=str(data))
    after = pq.read_table(tmp_path / "out" / "images").column("image_color").to_pylist()
    assert after[0] == [255, 255, 255]
    assert after[1:] == before.column("image_color").to_pylist()[1:]


@pytest.mark.parametrize(("num_tests", "num"), [(1, 10), (20, 10), (1000, 16)])
def test_the_fewest_images_are_those_that_a_signed_rank_test_needs(num_tests, num):
    assert fewest_images(num_tests) == num
    assert 2 * 0.5**num * num_tests < 0.05
    best: Any = stats.wilcoxon(np.arange(1.0, num + 1), method="exact")  # all differences have one sign
    assert best.pvalue * num_tests < 0.05


def test_settings_are_checked():
    fields: dict[str, Any] = {"maps": "m", "data": "d", "out": "o"}
    for changes in ({"fail_above": 0.5}, {"against": "x", "fail_above": 2.0}, {"num_tested": 3}, {"teacher": "x:y"}):
        with pytest.raises(ValueError, match=r"allowed|small|unknown"):
            InsightsConfig(**{**fields, **changes}).check()
    InsightsConfig(**fields, against="x", fail_above=0.3).check()


def test_a_job_without_another_model_ends_well():
    nothing: Any = SimpleNamespace(changes=[])
    assert exit_status(nothing, InsightsConfig(maps="m", data="d", out="o")) == 0
