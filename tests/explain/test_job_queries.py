"""Explain jobs of query-based methods: stored responses, surrogates and priors."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from explain_jobs import BROKEN, TEACHER, rows_of
from PIL import Image

import explain.job
import explain.targets
from cluster.storage import Folder
from distill.student.checkpoint import load_student
from distill.teachers import Teacher, load_teacher
from explain.job import explain as run
from explain.maps import maps_of, read_maps
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rise
from explain.methods.registry import METHODS
from explain.readout.checkpoint import new_readout, save_readout
from explain.seeds import image_seed
from explain.surrogate import make_surrogate


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    for module in (explain.job, explain.targets):
        monkeypatch.setattr(module, "SHARD_IMAGES", 5)


def asked_rise(job, out, num_masks=32, **changed):
    return job("rise", out, options=METHODS["rise"].options(num_masks=num_masks, **changed), limit=5, student=None)


def test_rise_is_the_methods_own_at_the_black_boxs_size(serial, job, data):
    asked = asked_rise(job, "maps")
    run("rise", asked)
    teacher = load_teacher(TEACHER)
    for row in rows_of(asked.out):
        if row["error"] is not None:
            assert row["image_id"] in BROKEN
            continue
        frame = np.asarray(
            Image.open(f"{data}/{row['image_id']}").convert("RGB").resize((56, 40), Image.Resampling.BILINEAR)
        )
        seeds = [image_seed(0, row["image_id"], "rise")]
        expected = rise(
            Queries(teacher.forward),
            teacher.normalize(frame[None]),
            torch.tensor([row["target"]]),
            seeds=seeds,
            num_masks=32,
        )
        assert np.allclose(row["saliency"], expected[0].numpy().ravel(), atol=1e-6)
        assert (row["map_height"], row["map_width"], row["teacher_queries"], row["student_passes"]) == (40, 56, 32, 0)


def test_a_larger_budget_and_another_estimator_ask_only_what_is_new(serial, job, tmp_path, monkeypatch):
    run("rise", asked_rise(job, "few"))
    asked = []
    forward = Teacher.forward
    monkeypatch.setattr(Teacher, "forward", lambda self, pixels: asked.append(len(pixels)) or forward(self, pixels))
    run("rise", asked_rise(job, "centred", centred=True))
    assert not asked
    run("rise", asked_rise(job, "many", num_masks=48))
    made = sum(row["error"] is None for row in rows_of(str(tmp_path / "many")))
    assert sum(asked) == 16 * made
    assert {row["teacher_queries"] for row in rows_of(str(tmp_path / "many")) if row["error"] is None} == {48}
    assert len(list(tmp_path.glob("answers-rise-*"))) == 1


@pytest.mark.parametrize("target", [None, "label"])
def test_more_images_ask_only_for_those_that_are_new(serial, job, tmp_path, monkeypatch, target):
    monkeypatch.setattr(explain.job, "QUERY_SHARD_IMAGES", 2)
    asked = []
    forward = Teacher.forward
    run("rise", replace(asked_rise(job, "few"), limit=3, target=target))
    monkeypatch.setattr(Teacher, "forward", lambda self, pixels: asked.append(len(pixels)) or forward(self, pixels))
    run("rise", replace(asked_rise(job, "all"), target=target))
    before, after = (
        {row["image_id"]: row for row in rows_of(str(tmp_path / name)) if row["error"] is None}
        for name in ("few", "all")
    )
    assert 0 < len(before) < len(after)
    kept = len(before) if target is None else 0  # a class's number may be another one among other images
    assert sum(asked) >= 32 * (len(after) - kept)
    assert sum(asked) < 32 * (len(after) - kept) + 32
    for image_id, row in before.items():
        assert np.array_equal(row["saliency"], after[image_id]["saliency"])


@pytest.mark.parametrize("frames_version", [1, 2])
def test_another_version_of_a_method_goes_into_another_folder_and_asks_anew_if_its_frames_are_others(
    serial, job, monkeypatch, tmp_path, frames_version
):
    run("rise", asked_rise(job, "before"))
    later = replace(METHODS["rise"], version=2, frames_version=frames_version)
    monkeypatch.setitem(METHODS, "rise", later)
    with pytest.raises(ValueError, match=r"another configuration.*version: got 2, stored nothing"):
        run("rise", asked_rise(job, "before"))
    run("rise", asked_rise(job, "after"))
    assert len(list(tmp_path.glob("answers-rise-*"))) == frames_version


def test_the_student_is_asked_in_the_black_boxs_place(serial, job, data, student, tmp_path):
    few = {"limit": 5, "options": METHODS["rise"].options(num_masks=32)}
    box, asked = job("rise", "box", **few), job("rise", "student", ask="student", **few)
    for one in (box, asked):
        run("rise", one)
    teacher = load_teacher(TEACHER)
    answers = make_surrogate(load_student(student), teacher).forward
    whole = [[row for row in rows_of(one.out) if row["error"] is None] for one in (asked, box)]
    for row, other in zip(*whole, strict=True):
        frame = np.array(Image.open(f"{data}/{row['image_id']}").resize((56, 40), Image.Resampling.BILINEAR))
        target, seeds = torch.tensor([row["target"]]), [image_seed(0, row["image_id"], "rise")]
        expected = rise(Queries(answers), teacher.normalize(frame[None]), target, seeds=seeds, num_masks=32)
        assert np.allclose(row["saliency"], expected[0].numpy().ravel(), atol=1e-6)
        assert not np.allclose(row["saliency"], other["saliency"], atol=1e-3)
        assert (row["teacher_queries"], row["student_passes"]) == (0, 32)
        assert (other["teacher_queries"], other["student_passes"]) == (32, 0)
        for same in ("image_id", "target", "target_prob", "map_height", "map_width"):
            assert row[same] == other[same]
    assert len(whole[0]) == 4
    assert Folder(asked.out).config()["explains"] == "student"
    assert len(list(tmp_path.glob("answers-rise-*"))) == 2


def test_who_asks_nobody_asks_no_student(job):
    with pytest.raises(
        ValueError, match="'cam' sends no queries; leave out --ask, which is for rise, lime, kernel_shap"
    ):
        run("cam", job("cam", ask="student"))
    with pytest.raises(ValueError, match="--ask student needs the student; give --student RUN"):
        run("rise", job("rise", ask="student", student=None))


def test_a_prior_asks_the_student_beside_the_black_box_and_shares_its_answers(serial, job, tmp_path):
    made = []
    for out, prior in (("none", "none"), ("student", "student")):
        options = METHODS["gp_regression"].options(num_samples=24, prior=prior, prior_samples=40)
        run("gp_regression", job("gp_regression", out, limit=5, options=options))
        made.append([row for row in rows_of(str(tmp_path / out)) if row["error"] is None])
    assert len(made[0]) == len(made[1]) == 4
    for alone, started in zip(*made, strict=True):
        assert (alone["teacher_queries"], alone["student_passes"]) == (24, 0)
        assert (started["teacher_queries"], started["student_passes"]) == (24, 40)
    assert len(list(tmp_path.glob("answers-gp_regression-*"))) == 1


def test_a_method_that_knows_its_doubt_stores_it_and_older_maps_are_read_beside_it(serial, job, tmp_path):
    options = METHODS["gp_regression"].options(num_samples=24)
    run("gp_regression", job("gp_regression", "maps", limit=5, options=options))
    for row in rows_of(str(tmp_path / "maps")):
        made = row["error"] is None
        assert (len(row["saliency_std"]) == len(row["saliency"])) if made else row["saliency_std"] is None
        assert not made or min(row["saliency_std"]) > 0
    folder = Folder(str(tmp_path / "maps"))
    (part,) = folder.parts()
    known = maps_of(folder.uri, ["nothing.png", *(row["image_id"] for row in rows_of(folder.uri))], "saliency_std")
    assert len(known) == 4
    before = pq.read_table(tmp_path / "maps" / part).drop_columns(["saliency_std"])
    pq.write_table(before, tmp_path / "maps" / "part-00001.parquet")
    assert read_maps(folder.uri)["saliency_std"].null_count == len(before) + 1
    run("gp_regression", job("gp_regression", "small", limit=5, options=options, map_cells=4))
    assert "saliency_std" not in read_maps(str(tmp_path / "small")).column_names
    run("lime", job("lime", "lime", limit=5, options=METHODS["lime"].options(num_samples=8)))
    assert "saliency_std" not in read_maps(str(tmp_path / "lime")).column_names


def with_readout(student: str, to: Path, seed: int = 0) -> str:
    """Copy a student and give it a read-out that nobody fitted."""
    shutil.copytree(student, to)
    torch.manual_seed(seed)
    loaded = load_student(str(to))
    save_readout(str(to), new_readout(loaded.model), loaded, {})
    return str(to)


def test_the_read_out_is_a_map_and_a_prior_and_asks_no_more_than_without(serial, job, student, tmp_path):
    reader = with_readout(student, tmp_path / "reader")
    run("readout", job("readout", "map", limit=5, student=reader))
    maps = [row for row in rows_of(str(tmp_path / "map")) if row["error"] is None]
    assert [(row["teacher_queries"], row["student_passes"]) for row in maps] == [(0, 1)] * 4
    assert {(row["map_height"], row["map_width"]) for row in maps} == {(28, 21)}
    for out, prior in (("none", "none"), ("started", "readout")):
        options = METHODS["gp_regression"].options(num_samples=24, prior=prior)
        run("gp_regression", job("gp_regression", out, limit=5, options=options, student=reader))
    found = [row for row in rows_of(str(tmp_path / "started")) if row["error"] is None]
    assert [(row["teacher_queries"], row["student_passes"]) for row in found] == [(24, 1)] * 4
    assert len(list(tmp_path.glob("answers-gp_regression-*"))) == 1


def test_another_read_out_is_another_configuration(serial, job, student, tmp_path):
    for seed in (0, 1):
        reader = with_readout(student, tmp_path / f"reader{seed}", seed)
        if seed == 0:
            run("readout", job("readout", limit=5, student=reader))
        else:
            with pytest.raises(ValueError, match="readout_fingerprint"):
                run("readout", job("readout", limit=5, student=reader))


@pytest.mark.parametrize(("name", "options"), [("readout", {}), ("gp_regression", {"prior": "readout"})])
def test_what_needs_a_read_out_is_refused_without_one(job, name, options):
    with pytest.raises(ValueError, match="no read-out; python -m explain fit"):
        run(name, job(name, options=METHODS[name].options(**options)))


def test_a_prior_needs_the_student_and_the_black_box(job):
    options = METHODS["gp_regression"].options(prior="student")
    for wrong in ({"student": None}, {"ask": "student"}):
        with pytest.raises(ValueError, match="--prior student needs --student RUN"):
            run("gp_regression", job("gp_regression", options=options, **wrong))


def test_rise_explains_no_student(job):
    with pytest.raises(ValueError, match="--target is teacher, label, or a class index"):
        run("rise", job("rise", target="student"))
    with pytest.raises(ValueError, match="queries the black box; give --teacher"):
        run("rise", job("rise", teacher=None))
