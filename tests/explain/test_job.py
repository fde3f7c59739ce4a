"""Explain jobs with an untrained small student and images of which some are broken; once on Ray, else without."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch
from explain_jobs import BROKEN, SIZE, TEACHER, rows_of
from PIL import Image
from project_paths import HELPERS
from torchvision.models import resnet18

import explain.job
import explain.targets
from cluster.storage import Folder
from distill.student.checkpoint import load_student
from distill.teachers import load_teacher
from distill.teachers.kinds.torch_module import EagerTeacher
from evaluate.map_sets import Source, open_played_images
from explain.__main__ import main
from explain.job import explain as run
from explain.maps import read_maps, saliency_maps
from explain.methods.registry import METHODS
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.rank_maps import compact
from explain.targets import TargetWorker


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    for module in (explain.job, explain.targets):
        monkeypatch.setattr(module, "SHARD_IMAGES", 5)


@pytest.fixture
def two_cores():
    """Start Ray with two cores, whose workers can import this folder's black boxes."""
    import ray

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HELPERS), *([before] if before else [])])
    ray.init(address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def test_one_row_per_image_with_errors_for_the_broken(serial, job):
    asked = job()
    summary = run("mal_grad_cam", asked)
    rows = rows_of(asked.out)
    assert (summary.rows, summary.errors, summary.skipped_rows) == (12, 2, 0)
    ids = [row["image_id"] for row in rows]
    assert ids == sorted(ids)
    assert len(set(ids)) == 12
    assert {row["image_id"] for row in rows if row["error"]} == BROKEN
    for row in rows:
        assert row["label"] == int(row["image_id"][1])
        assert (row["saliency"] is None) == (row["error"] is not None)
        if row["error"] is None:
            assert (row["map_height"], row["map_width"]) == SIZE
            assert (row["teacher_queries"], row["student_passes"]) == (0, 1)
            assert len(row["saliency"]) == SIZE[0] * SIZE[1]
    assert [p["rows"] for p in [Folder(asked.out).finished() or {}]] == [12]


def test_targets_are_the_teachers_and_are_stored_once(serial, job, data, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("explain.targets.TargetWorker", lambda task: made.append(task) or TargetWorker(task))
    run("grad_cam", job("grad_cam"))
    run("random", job("random", out="random"))
    assert len(made) == 1
    assert len(list(tmp_path.glob("targets-*"))) == 1
    teacher = load_teacher(TEACHER)
    for row in rows_of(job("random", out="random").out):
        if row["image_id"] in BROKEN:
            assert (row["target"], row["saliency"]) == (None, None)
            continue
        image = Image.open(Path(data) / row["image_id"]).resize((56, 40), Image.Resampling.BILINEAR)
        probs = teacher.probabilities(np.array(image)[None])[0]
        assert row["target"] == int(probs.argmax())
        assert row["target_prob"] == pytest.approx(float(probs.max()))


def test_maps_are_the_methods_own_on_the_resized_image(serial, job, data, student):
    asked = job(target="3")
    run("mal_grad_cam", asked)
    loaded = load_student(student)
    table = read_maps(asked.out)
    for row, saliency in zip(table.to_pylist(), saliency_maps(table), strict=True):
        assert row["target"] == (3 if saliency is not None or row["image_id"] in BROKEN else None)
        if saliency is not None:
            image = Image.open(Path(data) / row["image_id"]).resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR)
            expected = mal_grad_cam(loaded.model, loaded.normalize(np.array(image)[None]), torch.tensor([3]))
            np.testing.assert_allclose(saliency, expected[0].numpy(), rtol=1e-3)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets and files of Ray's processes
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")  # what Ray says of its own next versions
def test_on_ray_same_bytes_whatever_the_workers_and_batches_and_a_rerun_fills_gaps(job, two_cores):
    one, two = job(out="one"), job(out="two", num_workers=2, batch_size=1)
    summaries = [run("mal_grad_cam", asked) for asked in (one, two)]
    assert [(summary.rows, summary.errors, summary.skipped_rows) for summary in summaries] == [(12, 2, 0)] * 2
    columns = ["image_id", "target", "saliency", "error"]
    first, second = (read_maps(asked.out, columns).to_pylist() for asked in (one, two))
    assert first == second
    part = Path(one.out) / "part-00001.parquet"
    part.unlink()
    assert run("mal_grad_cam", one).skipped_rows == 7
    assert read_maps(one.out, columns).to_pylist() == second


def test_without_ray_same_bytes_whatever_the_batches(serial, job):
    one, two = job("ml_grad_cam", out="one"), job("ml_grad_cam", out="two", batch_size=1)
    for asked in (one, two):
        run("ml_grad_cam", asked)
    first, second = (read_maps(asked.out, ["image_id", "saliency"]).to_pylist() for asked in (one, two))
    assert first == second


def test_rerun_leaves_what_is_there(serial, job):
    asked = job("matt")
    run("matt", asked)
    times = {path.name: path.stat().st_mtime_ns for path in Path(asked.out).iterdir()}
    assert run("matt", asked).skipped_rows == 12
    assert {path.name: path.stat().st_mtime_ns for path in Path(asked.out).iterdir()} == times


def test_reads_with_pyarrow_pandas_and_duckdb(serial, job):
    asked = job("centre_gaussian", student=None, teacher=None, limit=7)
    run("centre_gaussian", asked)
    table = ds.dataset(asked.out).to_table()
    frame = pd.read_parquet(asked.out)
    query = f"select image_id, saliency, error from '{asked.out}/*.parquet' order by image_id"  # noqa: S608
    duck = duckdb.execute(query).fetchall()
    assert table.num_rows == len(frame) == len(duck) == 7
    assert set(table["target"].to_pylist()) == {None}
    assert table["map_height"].to_pylist() == [224 if row[2] is None else None for row in duck]
    for row, (image_id, saliency, error) in zip(frame.to_dict("records"), duck, strict=True):
        assert row["image_id"] == image_id
        if error is None:
            assert len(saliency) == 224 * 224
            assert np.array_equal(np.asarray(saliency, np.float32), row["saliency"])


def test_small_maps_are_float16_and_every_reader_reads_them(serial, job):
    whole, small = job("ml_grad_cam", "whole"), job("ml_grad_cam", "small", map_cells=4)
    for one in (whole, small):
        run("ml_grad_cam", one)
    tables = [read_maps(one.out) for one in (whole, small)]
    assert tables[1].schema.field("saliency").type.value_type == pa.float16()
    maps = [list(saliency_maps(table)) for table in tables]
    for row, expected, found in zip(rows_of(small.out), *maps, strict=True):
        assert (found is None) == (row["image_id"] in BROKEN) == (row["error"] is not None)
        if found is not None and expected is not None:
            assert (row["map_height"], row["map_width"], found.dtype) == (4, 4, np.float32)
            np.testing.assert_array_equal(found, compact(expected, 4).astype(np.float32))
    hashes = {row["config_hash"] for one in (whole, small) for row in rows_of(one.out)}
    assert len(hashes) == 2
    frame = pd.read_parquet(small.out)
    duck = duckdb.execute(f"select saliency from '{small.out}/*.parquet' order by image_id").fetchall()  # noqa: S608
    for read, (also,) in zip(frame["saliency"], duck, strict=True):
        assert (read is None) == (also is None)
        if read is not None:
            assert np.array_equal(np.asarray(also, np.float16), read)


def test_targets_without_a_teacher_are_the_students(serial, job, student):
    asked = job("matt", teacher=None)
    run("matt", asked)
    rows = [row for row in rows_of(asked.out) if row["error"] is None]
    assert len(rows) == 10
    assert all(0 <= row["target"] < 10 and 0.1 <= row["target_prob"] <= 1 for row in rows)


def test_label_as_target(serial, job):
    asked = job("grad_cam", target="label", limit=5)
    run("grad_cam", asked)
    assert [(row["target"], row["target_prob"]) for row in rows_of(asked.out)] == [
        (row["label"], None) for row in rows_of(asked.out)
    ]


def test_another_configuration_is_refused(serial, job):
    run("random", job("random"))
    with pytest.raises(ValueError, match=r"another configuration.*seed"):
        run("random", job("random", seed=1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher": "python:tiny_teacher:dark"}, "was distilled from python:tiny_teacher:bright"),
        ({"student": "/nowhere"}, "holds no student"),
        ({"student": None}, "cannot be looked into; give --student RUN"),
        ({"student": None, "teacher": None}, "looks into a student; give --student RUN"),
        ({"data": "/nowhere"}, "/nowhere"),
        ({"options": METHODS["grad_cam"].options(target_layer="layer9")}, "'layer9' is not in the model"),
        ({"target": "10"}, r"classes: 0\.\.9"),
    ],
)
def test_says_what_is_wrong_before_anything_is_written(changed, message, job, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run("grad_cam", job("grad_cam", **changed))
    assert not list(tmp_path.glob("maps*"))


def test_the_command_says_errors_without_a_traceback(data, student, tmp_path, capsys):
    assert main(["nope"]) == 2
    assert main(["matt", "--data", data, "--out", str(tmp_path / "maps")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(";")[0] for line in said] == [
        "error: unknown method 'nope'",
        "error: method 'matt' looks into a student",
    ]


def test_the_command_reaches_every_option(serial, data, student, tmp_path, capsys):
    out = str(tmp_path / "maps")
    args = ["matt", "--data", data, "--student", student, "--out", out, "--sign", "negative", "--collapse", "mean"]
    assert main([*args, "--limit", "3", "--normalise", "min_max"]) == 0
    assert Folder(out).config()["options"] == {"sign": "negative", "collapse": "mean", "normalise": "min_max"}
    first, *following = capsys.readouterr().out.splitlines()
    assert first == f"3 maps and 0 images without one (column error) in {out}"
    assert following[0].startswith("next: python -m explain show ")  # a command that can be copied
    assert main(shlex.split(following[0])[4:]) == 0


def test_the_first_of_each_class_are_maps_of_their_own(serial, job, data):
    chosen = job("centre_gaussian", student=None, teacher=None, per_class=1)
    run("centre_gaussian", chosen)
    first = [f"c{i}/{ {3: 'cut.png', 5: 'empty.jpg'}.get(i, 'whole.png') }" for i in range(10)]
    assert [row["image_id"] for row in rows_of(chosen.out)] == first
    folder = Folder(chosen.out)
    assert open_played_images(data, Source(uri=chosen.out, config=folder.config())).image_ids == tuple(first)
    with pytest.raises(ValueError, match=r"another configuration.*per_class: got 2, stored 1"):
        run("centre_gaussian", replace(chosen, per_class=2))
    run("centre_gaussian", job("centre_gaussian", "all", student=None, teacher=None))
    assert "per_class" not in folder.beside("all").config()  # maps that were made before there was such a choice


def test_a_job_that_came_to_nothing_says_so(serial, tmp_path, data, student, capsys):
    """The black box answers for the mean color when it is loaded, and for no image of the data set."""
    words = ["--teacher", "python:tiny_teacher:blind", "--data", data, "--out", str(tmp_path / "maps")]
    for _ in range(2):  # the second start finds everything done
        assert main(["centre_gaussian", *words]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: all 12 maps have an error, the first: teacher 'python:tiny_teacher:blind'")
        assert f"move {tmp_path / 'maps'} and {tmp_path / 'targets-'}" in error
    assert Folder(str(tmp_path / "maps")).finished() is not None


def test_without_a_student_a_torch_teacher_is_looked_into(serial, job, monkeypatch):
    torch.manual_seed(0)
    net = resnet18(num_classes=10).eval().requires_grad_(False)
    view = {"input_size": (64, 48), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    teacher = EagerTeacher(net, device="cpu", spec=TEACHER, fingerprint="net", output="logits", **view).finish()
    for module in ("plan", "worker", "targets"):
        monkeypatch.setattr(f"explain.{module}.load_teacher", lambda *_, **__: teacher)
    asked = job("layer_cam", student=None, limit=5)
    run("layer_cam", asked)
    rows = [row for row in rows_of(asked.out) if row["error"] is None]
    assert {(row["teacher_queries"], row["student_passes"], row["map_height"]) for row in rows} == {(1, 0, 64)}
    assert Folder(asked.out).config()["explains"] == "teacher"
