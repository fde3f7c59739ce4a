"""An explain job uses no result of an image or model that has been replaced, and keeps no error that has gone."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from explain_jobs import TEACHER, made_rows, rows_of
from PIL import Image

import explain.job
import explain.plan
import explain.targets
import explain.worker
from cluster.errors import WorkError
from cluster.storage import Folder
from distill.data.frames import without_image_ids
from distill.student.checkpoint import load_student, save_student
from distill.student.model import ResCBAM
from distill.teachers import Teacher
from explain.__main__ import main
from explain.job import explain as run
from explain.methods.registry import METHODS
from explain.plan import make_plan
from explain.readout.checkpoint import new_readout, save_readout
from explain.runners.query_cache import Responses, open_responses, read_responses, write_responses
from explain.targets import TargetTask, TargetWorker
from explain.worker import MapTask, MapWorker


@pytest.fixture
def photos(data: str, tmp_path: Path) -> Path:
    """Copy the images, which these tests replace."""
    return Path(shutil.copytree(data, tmp_path / "photos"))


@pytest.fixture
def queried(monkeypatch) -> list[int]:
    """Count the frames of each query to a black box, those when it is loaded apart."""
    frames: list[int] = []
    forward = Teacher.forward
    monkeypatch.setattr(Teacher, "forward", lambda self, pixels: frames.append(len(pixels)) or forward(self, pixels))
    return frames


def paint(path: Path, level: int, side: int = 60) -> None:
    """Write another image under a name, a second later."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (level, level, level)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def few_rise(job, out: str, photos: Path):
    options = METHODS["rise"].options(num_masks=16)
    return job("rise", out, data=str(photos), student=None, options=options)


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize("out", ["maps", "other"])
def test_a_replaced_image_gets_a_new_target_new_responses_and_a_new_map(job, photos, queried, out):
    run("rise", few_rise(job, "maps", photos))
    before = {row["image_id"]: row for row in rows_of(few_rise(job, "maps", photos).out)}
    paint(photos / "c0" / "whole.png", 250)
    queried.clear()
    again = few_rise(job, out, photos)
    run("rise", again)
    after = {row["image_id"]: row for row in rows_of(again.out)}
    changed = {name for name, row in after.items() if row["saliency"] != before[name]["saliency"]}
    assert changed == {"c0/whole.png"}
    assert after["c0/whole.png"]["target"] != before["c0/whole.png"]["target"]
    assert sum(queried) < 2 * 64, "responses to the other images are still used"


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize("out", ["maps", "other"])
@pytest.mark.parametrize("name", ["c3/cut.png", "c5/empty.jpg"])
def test_a_repaired_image_is_explained_whatever_folder_the_maps_go_to(job, photos, name, out):
    first = job("grad_cam", "maps", data=str(photos))
    assert run("grad_cam", first).errors == 2
    paint(photos / name, 90)
    again = job("grad_cam", out, data=str(photos))
    assert run("grad_cam", again).errors == 1
    assert {row["image_id"]: row["error"] for row in rows_of(again.out)}[name] is None
    assert (Folder(again.out).finished() or {})["errors"] == 1


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize("target", ["teacher", "label", "3", "student"])
def test_an_error_that_went_without_a_trace_in_the_file_is_not_kept(job, photos, monkeypatch, target):
    """As where a disk or its permissions were at fault: the file is what it was."""
    right = explain.targets.read_frame

    def refuse(images, image_id, size):
        return (None, "PermissionError: denied") if image_id == "c1/whole.png" else right(images, image_id, size)

    with monkeypatch.context() as patch:
        for module in (explain.targets, explain.worker, explain.plan):
            patch.setattr(module, "read_frame", refuse)
        first = job("grad_cam", data=str(photos), target=target)
        assert run("grad_cam", first).errors == 3
        assert run("grad_cam", first).errors == 3
    for again in (first, job("grad_cam", "other", data=str(photos), target=target)):
        assert run("grad_cam", again).errors == 2
        assert {row["image_id"] for row in rows_of(again.out) if row["error"]} == {"c3/cut.png", "c5/empty.jpg"}


def task_of(job, name: str, **changed) -> MapTask:
    plan = make_plan(name, job(name, **changed))
    assert plan.method.name == name
    return MapTask(
        method=plan.method,
        options=plan.job.options,
        config=plan.config,
        images=without_image_ids(plan.images),
        size=plan.size,
        batch_size=8,
        responses=plan.folder.beside("answers"),
    )


def other_student(student: str, to: Path) -> str:
    """Copy a student that is about to be replaced."""
    return str(shutil.copytree(student, to))


def replace_student(run_dir: str) -> None:
    loaded = load_student(run_dir)
    torch.manual_seed(7)
    save_student(Folder(run_dir), replace(loaded, model=ResCBAM(18, 10).eval().requires_grad_(False)))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("grad_cam", {}),
        ("rise", {"ask": "student"}),
        ("gp_regression", {"options": METHODS["gp_regression"].options(prior="student")}),
    ],
)
def test_a_worker_refuses_a_student_that_was_replaced_while_the_job_started(job, student, tmp_path, name, changed):
    run_dir = other_student(student, tmp_path / "student")
    task = task_of(job, name, student=run_dir, **changed)
    before = load_student(run_dir).fingerprint
    MapWorker(task)
    replace_student(run_dir)
    now = load_student(run_dir).fingerprint
    with pytest.raises(WorkError, match=rf"student .* has fingerprint {now}, but this job started with {before}"):
        MapWorker(task)


def test_a_worker_refuses_a_read_out_that_was_replaced_while_the_job_started(job, student, tmp_path):
    run_dir = other_student(student, tmp_path / "student")
    loaded = load_student(run_dir)
    save_readout(run_dir, new_readout(loaded.model), loaded, {})
    options = METHODS["gp_regression"].options(prior="readout")
    tasks = [task_of(job, "readout", student=run_dir), task_of(job, "gp_regression", student=run_dir, options=options)]
    save_readout(run_dir, new_readout(loaded.model), loaded, {})
    for task in tasks:
        with pytest.raises(WorkError, match=r"the read-out in .* but this job started with"):
            MapWorker(task)


@pytest.mark.parametrize("name", ["rise", "gp_regression"])
def test_a_worker_refuses_a_black_box_that_was_replaced_while_the_job_started(job, name):
    task = task_of(job, name, student=None)
    config = {**task.config, "teacher_fingerprint": "of-before"}
    with pytest.raises(WorkError, match="but this job started with of-before"):
        MapWorker(replace(task, config=config))
    with pytest.raises(WorkError, match="but this job started with of-before"):
        TargetWorker(TargetTask(teacher=TEACHER, images=task.images, fingerprint="of-before"))


@pytest.mark.usefixtures("serial")
def test_a_broken_read_out_stops_only_the_methods_that_need_it(job, student, tmp_path, capsys):
    run_dir = other_student(student, tmp_path / "student")
    Folder(run_dir).write_bytes("readout.safetensors", b"half a file")
    asked = job("grad_cam", student=run_dir, limit=2)
    assert run("grad_cam", asked).errors == 0
    words = ["--data", asked.data, "--student", run_dir, "--out", str(tmp_path / "read")]
    assert main(["readout", *words]) == 2
    assert "the read-out in" in (error := capsys.readouterr().err.splitlines()[-1])
    assert "fit it again" in error


def test_responses_that_no_black_box_gives_are_not_used(job, data):
    plan = make_plan("rise", job("rise", student=None, limit=2))
    folder = open_responses(plan, 8)
    names = plan.images.image_ids
    good = Responses(probs=np.linspace(0, 1, 5, dtype=np.float32), seconds=1.0)
    for wrong in ([0.5, float("nan")], [2.0], [-0.1, 0.3], [float("inf")]):
        bad = Responses(probs=np.array(wrong, dtype=np.float32), seconds=1.0)
        write_responses(folder, names, {names[0]: good, names[1]: bad})
        assert set(read_responses(folder, names)) == {names[0]}


@pytest.mark.usefixtures("serial")
def test_parts_and_manifest_say_what_the_worker_computed_with(job, monkeypatch, tmp_path):
    asked = job("rise", student=None, limit=5, options=METHODS["rise"].options(num_masks=8))
    run("rise", asked)
    manifest = Folder(asked.out).finished() or {}
    assert manifest["device"] == "cpu"
    assert manifest["engine"] == plan_engine()
    part = pq.read_schema(Path(asked.out) / "part-00000.parquet")
    assert b"computed_by" in (part.metadata or {})
    (targets,) = tmp_path.glob("targets-*")
    assert (Folder(str(targets)).finished() or {})["engine"] == plan_engine()
    assert len(made_rows(asked.out)) == 4


def plan_engine() -> str:
    from distill.teachers import load_teacher

    return load_teacher(TEACHER).engine


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize("damage", ["cut", "gone", "no class", "no probability", "many rows"])
def test_stored_targets_that_are_damaged_are_queried_again(job, tmp_path, damage):
    run("grad_cam", job("grad_cam"))
    expected = rows_of(job("grad_cam").out)
    (folder,) = tmp_path.glob("targets-*")
    part = folder / "part-00000.parquet"
    table = pq.read_table(part)
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-40])
    elif damage == "gone":
        part.unlink()
    else:
        column, value = {"no class": ("target", 10**6), "no probability": ("target_prob", 7.0)}.get(
            damage, ("error", None)
        )
        changed = pa.array([value] * len(table), table.schema.field(column).type)
        table = table.set_column(table.column_names.index(column), column, changed)
        pq.write_table(pa.concat_tables([table] * (3 if damage == "many rows" else 1)), part)
    again = job("grad_cam", "again")
    run("grad_cam", again)
    same = ("image_id", "target", "target_prob", "error", "saliency")
    assert [[row[key] for key in same] for row in rows_of(again.out)] == [
        [row[key] for key in same] for row in expected
    ]


@pytest.mark.usefixtures("serial")
def test_a_broken_part_of_maps_or_responses_stops_no_rerun(job, photos, capfd):
    first = few_rise(job, "maps", photos)
    run("rise", first)
    expected = rows_of(first.out)
    folder = Path(first.out)
    (cache,) = folder.parent.glob("answers-*")
    for part in (*folder.glob("part-*.parquet"), *cache.glob("part-*.parquet")):
        part.write_bytes(part.read_bytes()[:-30])
    again = few_rise(job, "other", photos)
    run("rise", again)
    assert [row["saliency"] for row in rows_of(again.out)] == [row["saliency"] for row in expected]
    assert "stored responses cannot be read, and are queried again" in capfd.readouterr().err


@pytest.mark.usefixtures("serial")
def test_the_data_set_is_said_in_one_line(job, capfd):
    run("random", job("random", student=None, teacher=None, limit=3))
    assert "3 images, 10 classes (c0, c1, c2, ...), no splits" in capfd.readouterr().err
