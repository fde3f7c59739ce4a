"""The measures' job: its worker without Ray, what is refused before work, and once the whole command on Ray."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import box_teacher
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from measured_maps import (
    BROKEN,
    CONSTANT,
    METHODS,
    NAMES,
    NO_MASK,
    NOT_FINITE,
    NUM_IMAGES,
    SETTINGS,
    TEACHER,
    frame,
    items_of,
    make_saliency,
    target_of,
    value,
    work_of,
)
from project_paths import HELPERS, ROOT

from cluster.session import ray_session
from cluster.storage import Folder
from distill.data import open_images
from distill.perturb.curves import rank_pixels
from distill.student.checkpoint import load_student
from distill.teachers import load_teacher
from evaluate.__main__ import main
from evaluate.games.baselines import image_rng
from evaluate.metrics.job import MetricsWorker
from evaluate.metrics.mu_fidelity import draw_subsets, mu_fidelity, subset_frames, subset_sums
from evaluate.metrics.objects import Objects
from evaluate.metrics.pointing import mass_inside
from evaluate.metrics.road import road_frames
from evaluate.metrics.settings import FIELDS, HIGHER_IS_BETTER, METRICS, ROWS, Settings, settings_hash
from evaluate.metrics.student_passes import check_student
from evaluate.metrics.summary import mlflow_metrics, summarize_metrics
from evaluate.statistics import mean_interval

pytestmark = [
    # Ray, MLflow and their dependencies deprecate each other's interfaces and leave sockets and SQLite
    # connections to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_every_image_method_and_measure_is_one_row(table):
    keys = table[["image_id", "method", "measure"]]
    assert len(table) == NUM_IMAGES * sum(map(len, NAMES.values())) == NUM_IMAGES * (14 + 6)
    assert not keys.duplicated().any()
    assert (table["value"].isna() == table["error"].notna()).all()
    assert set(table["measure"]) == set(HIGHER_IS_BETTER)
    for measure in METRICS:
        wanted = settings_hash(SETTINGS.fields(measure, target="teacher", objects="masks"))
        assert set(table[table["measure"].isin(ROWS[measure])]["protocol_hash"]) == {wanted}
    assert table.groupby("method")["config_hash"].nunique().eq(1).all()


def test_rows_without_a_value_say_why(table):
    errors = table[table["error"].notna()].set_index(["image_id", "method", "measure"])["error"]
    assert set(errors[f"{BROKEN:02d}.png"]) == {"ImageError: the file cannot be decoded: not an image of a known "
        "format (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM)"}  # fmt: skip
    assert set(errors[f"{NOT_FINITE:02d}.png", "random"]) == {"the map holds values that are not finite"}
    constant = errors[f"{CONSTANT:02d}.png", "mal_grad_cam"]
    assert set(constant.index) == {"pointing_game", "energy_inside"}
    assert "constant" in constant["pointing_game"]
    assert set(errors[f"{NO_MASK:02d}.png", "mal_grad_cam"].index) == {"pointing_game", "energy_inside"}
    assert "no object mask" in errors[f"{NO_MASK:02d}.png", "mal_grad_cam", "energy_inside"]
    assert "00.png" not in errors.index


def test_what_asks_the_student_has_no_rows_of_other_maps(table):
    names = table.groupby("method")["measure"].agg(set)
    assert names.to_dict() == NAMES


def test_shared_frames_are_asked_once_and_every_query_is_counted(place, table):
    """Whole image and 16 subsets once an image, 4 frames of ROAD a map; for fidelity whole image and 8 masks once an
    image, 5 frames of each game a map of the student.
    """
    images = NUM_IMAGES - 1
    maps = images * 2 - 1
    assert sum(place.asked) == images * 17 + maps * 4 + images * 9 + images * 10
    assert table["teacher_queries"].sum() == pytest.approx(sum(place.asked))
    assert (table[table["error"].isna()]["seconds"] > 0).sum() > 0
    assert (table["seconds"] >= 0).all()


def test_values_are_those_of_the_formulas(place, table):
    teacher = load_teacher(TEACHER)
    for method in METHODS:
        for k in (0, 5):
            image_id, target = f"{k:02d}.png", target_of(place.data, k)
            pixels, saliency = teacher.normalize(frame(place.data, k)[None])[0], make_saliency(method, k)
            ranks = rank_pixels(torch.from_numpy(saliency), teacher.input_size).ranks
            frames = road_frames(pixels, ranks, percentages=(20, 60), rng=image_rng(0, image_id))
            probs = teacher.forward(frames)[:, target].numpy()
            assert value(table, method, k, "road_morf") == pytest.approx(probs[:2].mean(), abs=1e-6)
            assert value(table, method, k, "road_lerf") == pytest.approx(probs[2:].mean(), abs=1e-6)
            gap = probs[2:].mean() / 2 - probs[:2].mean() / 2
            assert value(table, method, k, "road_gap") == pytest.approx(gap, abs=1e-6)
            subsets = draw_subsets(image_rng(0, image_id), grid=4, num=16)
            shown = subset_frames(pixels, subsets, baseline=torch.zeros_like(pixels))
            drops = teacher.forward(pixels[None])[0, target] - teacher.forward(shown)[:, target]
            sums = subset_sums(torch.from_numpy(saliency), subsets, teacher.input_size)
            wanted = mu_fidelity(sums, drops.numpy())
            assert value(table, method, k, "mu_fidelity") == pytest.approx(wanted, abs=1e-4)
            mask = open_images(str(place.data)).mask(image_id)
            assert mask is not None
            assert value(table, method, k, "energy_inside") == pytest.approx(mass_inside(saliency, mask))
            assert value(table, method, k, "pointing_game") in (0, 1)


def test_an_image_alone_is_the_same_as_in_a_shard(place, table):
    worker = MetricsWorker(work_of(place, ("road", "mu_fidelity", "max_sensitivity", "fidelity")))
    alone = worker([items_of(place)[5]]).to_pandas()
    together = table.set_index(["image_id", "method", "measure"])["value"]
    for row in alone.to_dict("records"):
        other = together[row["image_id"], row["method"], row["measure"]]
        assert row["value"] == other or (np.isnan(row["value"]) and np.isnan(other))


def test_boxes_stand_in_for_masks(place, tmp_path):
    size = "<size><width>36</width><height>24</height></size>"
    box = "<bndbox><xmin>6</xmin><ymin>4</ymin><xmax>24</xmax><ymax>16</ymax></bndbox>"
    (tmp_path / "00.xml").write_text(f"<annotation>{size}<object>{box}</object></annotation>")
    images = open_images(str(place.data))
    objects = Objects(images=images, boxes=str(tmp_path))
    objects.check()
    worker = MetricsWorker(work_of(place, ("energy",), boxes=str(tmp_path)))
    rows = worker([item for item in items_of(place) if item["image_id"] in ("00.png", "05.png")]).to_pandas()
    mask = images.mask("00.png")
    assert mask is not None
    plain = objects.mask("00.png", box_teacher.SIZE)
    assert np.array_equal(plain, mask[1::2, 1::2])
    assert value(rows, "random", 0, "energy_inside") == mass_inside(make_saliency("random", 0), plain)
    assert set(rows[rows["image_id"] == "05.png"]["error"]) == {f"{tmp_path} has no 05.xml"}


def test_what_a_measure_needs_is_asked_for_before_work(place, tmp_path):
    sources = work_of(place, METRICS).sources
    teacher, asked = load_teacher(TEACHER), ("max_sensitivity", "fidelity")
    assert check_student(place.run, sources, teacher, asked) == load_student(place.run).fingerprint
    with pytest.raises(ValueError, match="give --student RUN"):
        check_student(None, sources, teacher, asked)
    of_teacher = dataclasses.replace(sources[0], config={**sources[0].config, "explains": "teacher"})
    for useless in (sources[1], of_teacher):
        with pytest.raises(ValueError, match="explains a student"):
            check_student(place.run, [useless], teacher, asked)
    other = dataclasses.replace(sources[0], config={**sources[0].config, "student_fingerprint": "0" * 12})
    with pytest.raises(ValueError, match="give that student"):
        check_student(place.run, [other], teacher, asked)
    stranger = load_teacher("python:box_teacher:make_other")
    with pytest.raises(ValueError, match="give its own teacher"):
        check_student(place.run, sources, stranger, asked)
    assert check_student(place.run, sources, stranger, ("max_sensitivity",))
    bare = tmp_path / "bare"
    shutil.copytree(place.data, bare, ignore=shutil.ignore_patterns("masks"))
    with pytest.raises(ValueError, match=r"no object masks.*--boxes"):
        Objects(images=open_images(str(bare))).check()
    with pytest.raises(ValueError, match=r"no annotation of any image.*00\.xml"):
        Objects(images=open_images(str(bare)), boxes=str(bare)).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--teacher", "magic:box"], "unknown teacher kind"),
        (["--measures", "max_sensitivity"], "give --student RUN"),
        (["--percentages", "0", "50"], "percentages (0, 50)"),
        (["--percentages", "50", "50"], "percentages (50, 50)"),
        (["--num-subsets", "1"], "num_subsets 1"),
        (["--measures", "fidelity"], "give --student RUN"),
        (["--num-masks", "7"], "num_masks 7"),
        (["--num-points", "1"], "num_points 1"),
        (["--boxes", "/nowhere", "--measures", "pointing"], "no annotation of any image"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_the_command_says_what_is_wrong(place, tmp_path, capsys, change, message):
    given = ["--maps", *place.maps, "--data", str(place.data), "--teacher", TEACHER, "--out", str(tmp_path / "out")]
    assert main(["measures", *given, *change]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_hashes_name_a_measures_own_settings():
    """A setting moves the hash of its own measure alone."""

    def hashes(settings: Settings, **changes: Any) -> dict[str, str]:
        given: dict[str, Any] = {"target": "teacher", "objects": "masks", **changes}
        return {name: settings_hash(settings.fields(name, **given)) for name in METRICS}

    before = hashes(Settings())
    assert hashes(Settings(tolerance_px=15.0, percentages=Settings().percentages[::-1])) == before
    assert len(set(before.values())) == len(METRICS)
    assert {name for names in FIELDS.values() for name in names} == {f.name for f in dataclasses.fields(Settings)}
    for after, moved in (
        (hashes(Settings(percentages=(50,))), {"road"}),
        (hashes(Settings(num_subsets=64)), {"mu_fidelity"}),
        (hashes(Settings(radius=0.1)), {"max_sensitivity"}),
        (hashes(Settings(num_masks=50)), {"fidelity"}),
        (hashes(Settings(num_points=5)), {"fidelity"}),
        (hashes(Settings(seed=1)), {"road", "mu_fidelity", "max_sensitivity", "fidelity"}),
        (hashes(Settings(), objects="boxes"), {"pointing", "energy"}),
        (hashes(Settings(), target="label"), set(METRICS)),
    ):
        assert {name for name in METRICS if after[name] != before[name]} == moved


def test_measured_is_a_mean_with_its_interval_and_its_errors(place, tmp_path, table):
    write_measured(place, tmp_path / "out", METRICS)
    found = {(one.label, one.metric): one for one in summarize_metrics([str(tmp_path / "out")])}
    assert set(found) == {(method, name) for method in METHODS for name in NAMES[method]}
    rows = table[(table["method"] == "random") & (table["measure"] == "mu_fidelity")]
    one = found["random", "mu_fidelity"]
    assert one.value == mean_interval(rows["value"].dropna().to_numpy())
    assert one.values.to_dict() == rows.dropna(subset="value").set_index("image_id")["value"].to_dict()
    assert (one.value.num, one.num_errors) == (int(rows["value"].notna().sum()), int(rows["value"].isna().sum()))
    nowhere = dataclasses.replace(one, metric="road_gap", values=one.values.iloc[:0], num_errors=NUM_IMAGES)
    assert nowhere.value.num == 0
    named = mlflow_metrics([one, nowhere])
    assert named == {"metrics/mu_fidelity": one.value.mean}


def test_folders_of_different_measures_come_together_and_the_same_twice_does_not(place, tmp_path):
    first = write_measured(place, tmp_path / "first", ("road",))
    second = write_measured(place, tmp_path / "second", ("energy",))
    assert {one.metric for one in summarize_metrics([first, second])} == {*ROWS["road"], *ROWS["energy"]}
    with pytest.raises(ValueError, match="stands in"):
        summarize_metrics([first, first])
    with pytest.raises(ValueError, match="holds no metrics"):
        summarize_metrics([place.maps[0]])
    others = {
        "the black box: t": {"teacher_fingerprint": "0" * 12},
        "road: settings .*, images d": {"data_fingerprint": "0" * 12},
        "road: settings": {"measures": {"road": Settings().fields("road", target="teacher", objects="masks")}},
    }
    for k, (message, changes) in enumerate(others.items()):
        other = write_measured(place, tmp_path / f"other-{k}", ("road",), **changes)
        with pytest.raises(ValueError, match=f"{message}.*cannot stand in one table"):
            summarize_metrics([first, other])
    fewer = write_measured(place, tmp_path / "fewer", ("energy",), data_fingerprint="0" * 12)  # --limit of its own
    assert len(summarize_metrics([first, fewer])) == 8


def write_measured(place: SimpleNamespace, out: Path, names: tuple[Any, ...], **changes: Any) -> str:
    """Write a folder as the job does, in this process."""
    work = work_of(place, names)
    records = [source.record() for source in work.sources]
    described = {"maps": records, "data": "photos", "data_fingerprint": "d", "teacher_fingerprint": "t"}
    folder = Folder(str(out))
    folder.claim({**work.stored, **described, **changes}, what="metrics")
    pq.write_table(MetricsWorker(work)(items_of(place)), out / "part-00000.parquet")
    return folder.uri


@pytest.fixture
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{HELPERS}")  # the workers import the black box too
        with ray_session():
            yield


@pytest.mark.slow
def test_the_command_writes_measures_on_ray_and_tells_mlflow(place, table, ray_here, monkeypatch, capsys):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{place.root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    out = str(place.root / "measures")
    words = ["--maps", *place.maps, "--data", str(place.data), "--teacher", TEACHER, "--out", out]
    words += ["--student", place.run, "--measures", *METRICS, "--percentages", "20", "60", "--num-subsets", "16"]
    words += ["--grid", "4", "--num-perturbations", "3", "--tolerance-px", "2", "--num-masks", "8", "--num-points", "5"]
    for _ in range(2):  # the second start finds everything done
        assert main(["measures", *words]) == 0
    assert f"{len(table)} rows" in capsys.readouterr().out
    found = pd.read_parquet(out)
    costs = ["seconds"]
    pd.testing.assert_frame_equal(
        found.drop(columns=["config_hash", *costs]), table.drop(columns=["config_hash", *costs]), rtol=1e-3
    )
    client: Any = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("photos").experiment_id])
    assert sorted(run.data.tags["method"] for run in runs) == sorted(METHODS)
    assert {run.data.tags["stage"] for run in runs} == {"measures"}
    for run in runs:
        file = client.download_artifacts(run.info.run_id, "metrics.json")
        table = pd.read_json(file, orient="split").set_index("name")
        assert set(table.index) == set(NAMES[run.data.tags["method"]])
        row = table.loc["road_gap"]
        assert row["low"] <= run.data.metrics["metrics/road_gap"] <= row["high"]
