"""The job with an untrained small student and images of which some are broken; once on Ray, else without."""

import io
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from project_paths import HELPERS
from serial_shards import Serial
from torchvision.models import resnet18

import explain.job
from cluster.storage import Folder
from distill.student.checkpoint import load_student, save_student
from distill.student.model import ResCBAM, Student
from distill.teachers import Teacher, load_teacher
from distill.teachers.kinds.torch_module import EagerTeacher
from evaluate.map_sets import Source, open_played_images
from explain.__main__ import main
from explain.compiled.select import EAGER
from explain.config import Job
from explain.job import MapWorker, TargetWorker
from explain.job import explain as run
from explain.maps import maps_of, read_maps, saliency_maps
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rise
from explain.methods.registry import METHODS
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.rank_maps import compact
from explain.readout.checkpoint import new_readout, save_readout
from explain.seeds import image_seed
from explain.surrogate import make_surrogate

TEACHER = "python:tiny_teacher:bright"
SIZE = (64, 48)
BROKEN = {"c3/cut.png", "c5/empty.jpg"}


@pytest.fixture
def serial(monkeypatch) -> Serial:
    """Leave Ray out."""
    runner = Serial()
    monkeypatch.setattr(explain.job, "run_shards", runner)
    monkeypatch.setattr(explain.job, "ray_session", nullcontext)
    monkeypatch.setattr(explain.job, "worker_resources", lambda _: None)
    return runner


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Ten class folders with 12 images, none of them square, two of them broken."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 25 * (i + 1), (50 + i, 70 - i, 3), dtype=np.uint8)
        (root / f"c{i}").mkdir()
        Image.fromarray(pixels).save(root / f"c{i}" / "whole.png")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    (root / "c3" / "cut.png").write_bytes(buffer.getvalue()[:200])
    (root / "c5" / "empty.jpg").write_bytes(b"")
    return str(root)


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> str:
    """An untrained 18-layer student of the first black box."""
    run_dir = tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    made = Student(
        model=ResCBAM(18, 10).eval().requires_grad_(False),
        input_size=SIZE,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        teacher=TEACHER,
        teacher_fingerprint=load_teacher(TEACHER).fingerprint,
    )
    save_student(Folder(str(run_dir)), made)
    return str(run_dir)


@pytest.fixture
def job(data, student, tmp_path):
    """Make jobs that differ from the plain one in what a test says."""

    def make(name="mal_grad_cam", out="maps", **changed):
        options = METHODS[name].options()
        defaults = {"options": options, "data": data, "student": student, "teacher": TEACHER, "num_workers": 1}
        return Job(**{**defaults, "out": str(tmp_path / out), **changed})

    return make


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


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(explain.job, "SHARD_IMAGES", 5)


def rows_of(out: str) -> list[dict]:
    return read_maps(out).to_pylist()


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


def test_targets_are_the_teachers_and_are_stored_once(serial, job, data, tmp_path):
    run("grad_cam", job("grad_cam"))
    run("random", job("random", out="random"))
    assert serial.workers == [TargetWorker, MapWorker, MapWorker]
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


def test_an_engine_makes_the_jobs_maps(serial, job):
    pytest.importorskip("openvino")
    eager, asked = (job("ml_grad_cam", engine, engine=engine) for engine in ("eager", "openvino"))
    for one in (eager, asked):
        run("ml_grad_cam", one)
    for expected, found in zip(rows_of(eager.out), rows_of(asked.out), strict=True):
        same = ("image_id", "target", "error", "student_passes", "config_hash")
        assert {key: expected[key] for key in same} == {key: found[key] for key in same}
        if expected["error"] is None:
            np.testing.assert_allclose(found["saliency"], expected["saliency"], atol=1e-3)
    engines = [(Folder(one.out).finished() or {})["engine"] for one in (eager, asked)]
    assert engines == ["eager-float32", "openvino-float32"]


def test_a_graph_is_for_many_images_and_for_methods_that_are_one(serial, job, monkeypatch):
    chosen = []
    monkeypatch.setattr(explain.job, "select_engine", lambda *_, name: chosen.append(name) or EAGER)
    monkeypatch.setattr(explain.job, "GRAPH_IMAGES", 13)
    run("grad_cam", job("grad_cam", "few"))
    assert chosen == []
    monkeypatch.setattr(explain.job, "GRAPH_IMAGES", 12)
    run("grad_cam", job("grad_cam", "enough"))
    run("random", job("random", "control"))
    assert chosen == ["grad_cam"]
    with pytest.raises(ValueError, match=r"no static graph for --engine openvino; these are: mal_grad_cam"):
        run("random", job("random", "refused", engine="openvino"))
    assert not Path(job(out="refused").out).exists()


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


@pytest.mark.parametrize(
    ("name", "engine", "said"),
    [
        ("random", "auto", "is for the student's passes on a CPU"),
        ("rise", "auto", "is for the student's passes on a CPU"),
        ("ml_grad_cam", "eager", "with --engine eager"),
        ("score_cam", "openvino", "with --engine openvino"),
        ("ml_grad_cam", "auto", "needs OpenVINO"),
    ],
)
def test_low_precision_is_refused_where_nothing_computes_it(job, monkeypatch, name, engine, said):
    monkeypatch.setattr(explain.job, "has_native_bfloat16", lambda: False)
    with pytest.raises(ValueError, match=said):
        run(name, job(name, precision="bfloat16", engine=engine))


def test_low_precision_is_another_configuration(serial, job, monkeypatch):
    """Where a CPU has no such units OpenVINO computes in float32; the maps say all the same what was asked for."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(explain.job, "has_native_bfloat16", lambda: True)
    plain, low = job("matt", "plain"), job("matt", "low", precision="bfloat16")
    for one in (plain, low):
        run("matt", one)
    assert "precision" not in Folder(plain.out).config()
    assert Folder(low.out).config()["precision"] == "bfloat16"
    assert (Folder(low.out).finished() or {})["engine"] == "openvino-bfloat16"
    for expected, found in zip(rows_of(plain.out), rows_of(low.out), strict=True):
        if expected["error"] is None:
            assert np.corrcoef(expected["saliency"], found["saliency"])[0, 1] > 0.9


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
    assert capsys.readouterr().out == f"3 maps and 0 images without one (column error) in {out}\n"


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


def test_a_student_that_is_asked_answers_from_an_engine(serial, job, monkeypatch, tmp_path):
    """In float32 but for the last bits; in bfloat16 it is other answers, which are kept apart."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(explain.job, "has_native_bfloat16", lambda: True)
    few = {"limit": 5, "options": METHODS["rise"].options(num_masks=32), "ask": "student"}
    eager, whole = (job("rise", engine, engine=engine, **few) for engine in ("eager", "openvino"))
    low = job("rise", "low", precision="bfloat16", **few)
    for one in (eager, whole, low):
        for folder in tmp_path.glob("answers-rise-*" if one is whole else "nothing"):
            shutil.rmtree(folder)  # torch's answers of the same questions
        run("rise", one)
    engines = [(Folder(one.out).finished() or {})["engine"] for one in (eager, whole, low)]
    assert engines == ["eager-float32", "openvino-float32", "openvino-bfloat16"]
    assert len(list(tmp_path.glob("answers-rise-*"))) == 2
    for expected, found, near in zip(rows_of(eager.out), rows_of(whole.out), rows_of(low.out), strict=True):
        if expected["error"] is None:
            assert np.allclose(found["saliency"], expected["saliency"], atol=1e-5)
            assert np.allclose(near["saliency"], expected["saliency"], atol=0.05)
            assert found["student_passes"] == near["student_passes"] == 32


@pytest.mark.parametrize(
    ("ask", "prior", "least", "chosen"),
    [
        ("student", "none", 17, []),
        ("student", "none", 16, ["logits"]),
        ("teacher", "student", 33, []),
        ("teacher", "student", 32, ["logits"]),
        ("teacher", "none", 1, []),
    ],
)
@pytest.mark.usefixtures("serial")
def test_an_engine_is_for_many_questions_to_a_student(*, job, monkeypatch, ask, prior, least, chosen):
    """Of two images; 8 questions each in the black box's place, 16 for a prior."""
    found = []
    monkeypatch.setattr(explain.job, "select_engine", lambda *_, name: found.append(name) or EAGER)
    monkeypatch.setattr(explain.job, "GRAPH_QUERIES", least)
    method = METHODS["gp_regression"].options(num_samples=8, prior=prior, prior_samples=16)
    run("gp_regression", job("gp_regression", limit=2, ask=ask, options=method))
    assert found == chosen


def test_who_asks_nobody_asks_no_student(job):
    with pytest.raises(ValueError, match="'cam' asks nobody; leave out --ask, which is for rise, lime, kernel_shap"):
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
    (part,) = (name for name in folder.names() if name.endswith(".parquet"))
    known = maps_of(folder.uri, ["nothing.png", *(row["image_id"] for row in rows_of(folder.uri))], "saliency_std")
    assert len(known) == 4
    before = pq.read_table(tmp_path / "maps" / part).drop_columns(["saliency_std"])
    pq.write_table(before, tmp_path / "maps" / "part-older.parquet")
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
    with pytest.raises(ValueError, match="asks the black box; give --teacher"):
        run("rise", job("rise", teacher=None))


def test_a_job_that_came_to_nothing_says_so(serial, tmp_path, data, student, capsys):
    """The black box answers for the mean colour when it is loaded, and for no image of the data set."""
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
    for module in ("plan", "job", "targets"):
        monkeypatch.setattr(f"explain.{module}.load_teacher", lambda *_, **__: teacher)
    asked = job("layer_cam", student=None, limit=5)
    run("layer_cam", asked)
    rows = [row for row in rows_of(asked.out) if row["error"] is None]
    assert {(row["teacher_queries"], row["student_passes"], row["map_height"]) for row in rows} == {(1, 0, 64)}
    assert Folder(asked.out).config()["explains"] == "teacher"
