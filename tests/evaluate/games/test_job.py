"""The games' job on a real local Ray with maps written by hand: rows, reruns, MLflow, and what is refused."""

import dataclasses
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import box_teacher
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from played_maps import (
    BROKEN,
    CONSTANT,
    NOT_FINITE,
    NUM_IMAGES,
    TEACHER,
    check,
    frame,
    make_saliency,
    make_worker,
    maps_config,
    play,
    write_images,
    write_maps,
)
from project_paths import HELPERS, ROOT

from cluster.planning.throughput import rate_from
from cluster.session import ray_session
from cluster.storage import Folder, config_hash
from distill.teachers import load_teacher
from evaluate.__main__ import main
from evaluate.analysis.specificity import BOTH, compare_teachers
from evaluate.games.baselines import BASELINES, image_rng
from evaluate.games.job import _ahead
from evaluate.games.protocol import GAMES, Baseline, Protocol
from evaluate.runs import RUNS_FILE, stored_page

pytestmark = [
    # Ray, MLflow and their dependencies deprecate each other's interfaces and leave sockets and SQLite
    # connections to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def read_table(uri: str) -> Any:
    return pd.read_parquet(uri)


def runs_of(place: SimpleNamespace) -> tuple[Any, list[Any]]:
    from mlflow.tracking import MlflowClient

    client: Any = MlflowClient(place.uri)
    experiment = client.get_experiment_by_name("photos")
    return client, client.search_runs([experiment.experiment_id])


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{HELPERS}")  # the workers import the black box too
        patch.setattr(
            "evaluate.games.job.SHARD_FRAMES", 16 * 2 * 13
        )  # 16 maps, with 13 points a game on 12 x 18 pixels
        with ray_session():
            yield


@pytest.fixture(scope="module")
def played(place: SimpleNamespace, ray_here: None) -> SimpleNamespace:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", place.uri)
        place.scores = str(place.root / "scores")
        place.result = play(place, place.scores)
    return place


def plain_auc(place: SimpleNamespace, method: str, k: int, game: str, target: int) -> float:
    """Play one game frame by frame through the uint8 interface; no map has ties here."""
    height, width = box_teacher.SIZE
    teacher = load_teacher(TEACHER)
    image = teacher.normalize(frame(place.data, f"{k:02d}.png")[None])[0]
    name: Baseline = "mean" if game == "deletion" else "blur"
    rng = image_rng(0, "unused")
    baseline = BASELINES[name](image, mean=teacher.mean, std=teacher.std, rng=rng)
    shown, finish = (image.clone(), baseline) if game == "deletion" else (baseline.clone(), image)
    saliency = torch.from_numpy(make_saliency(method, k)).double()
    values = torch.nn.functional.interpolate(saliency[None, None], (height, width), mode="bilinear")[0, 0]
    order = torch.argsort(values.flatten(), descending=True)
    scores = []
    for i in range(height + 1):
        pixels = (shown * torch.tensor(teacher.std)[:, None, None] + torch.tensor(teacher.mean)[:, None, None]) * 255
        levels = pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        scores.append(box_teacher.make()(levels[None])[0, target])
        for index in order[i * width : (i + 1) * width].tolist():
            shown[:, index // width, index % width] = finish[:, index // width, index % width]
    return float((np.sum(scores) - scores[0] / 2 - scores[-1] / 2) / height)


def test_every_image_method_and_game_is_one_row(played):
    table = read_table(played.scores)
    keys = table[["image_id", "method", "game"]]
    assert len(table) == NUM_IMAGES * 2 * 2
    assert not keys.duplicated().any()
    assert set(table["game"]) == set(GAMES)
    failed = table[table["error"].notna()]
    assert set(failed["image_id"]) == {f"{BROKEN:02d}.png", f"{NOT_FINITE:02d}.png"}
    assert len(failed) == 2 * 2 * 2
    assert failed["auc"].isna().all()
    assert (failed["teacher_queries"] == 0).all()
    scored = table[table["error"].isna()]
    assert (scored["teacher_queries"] == 13).all()
    assert (scored["curve"].map(len) == 13).all()
    assert (scored["protocol_hash"] == Protocol().hash).all()
    assert (scored["map_seconds"] == 0.5).all()
    assert played.result.counts.errors == len(failed)


def test_the_manifest_says_how_fast_it_went(played):
    manifest = Folder(played.scores).finished()
    assert manifest is not None
    rate = rate_from(manifest["rate"])
    assert (rate.job, rate.kind, rate.per_image) == ("games", "images", 2)
    assert rate.items == 2 * (NUM_IMAGES - 2)  # maps, without the two images that have none
    assert rate.queries == rate.items * 2 * 13
    assert rate.num_bytes == sum(path.stat().st_size for path in Path(played.scores).glob("*.parquet"))


def test_errors_say_why(played):
    table = read_table(played.scores).dropna(subset="error").set_index("image_id")["error"]
    assert set(table[f"{BROKEN:02d}.png"]) == {"the file cannot be decoded"}
    assert set(table[f"{NOT_FINITE:02d}.png"].str.contains("not finite")) == {True}


def test_areas_are_those_of_a_plain_game(played):
    table = read_table(played.scores).set_index(["method", "image_id", "game"])
    for method in ("first", "second_one"):
        for k in (0, 11, 19):
            for game in GAMES:
                row = table.loc[(method, f"{k:02d}.png", game)]
                assert row["auc"] == pytest.approx(plain_auc(played, method, k, game, int(row["target"])), abs=1e-4)
                assert row["tied_share"] == 0


def test_a_constant_map_ties_everywhere_and_has_a_score(played):
    table = read_table(played.scores)
    rows = table[table["image_id"] == f"{CONSTANT:02d}.png"]
    assert (rows["tied_share"] == 1).all()
    assert rows["auc"].between(0, 1).all()


def test_other_readers_read_the_scores(played):
    import duckdb

    query = f"select method, game, avg(auc) from '{played.scores}/*.parquet' group by all order by all"  # noqa: S608
    found = duckdb.execute(query).fetchall()
    assert [row[:2] for row in found] == [(m, g) for m in ("first", "second_one") for g in GAMES]
    summaries = {outcome.source.method: outcome for outcome in played.result.summaries}
    assert found[0][2] == pytest.approx(summaries["first"].auc["deletion"].mean)
    metadata = pq.read_schema(f"{played.scores}/part-00000.parquet").metadata
    assert metadata[b"schema_version"] == b"1"
    assert Protocol().hash.encode() in metadata[b"config"]


def test_mlflow_has_one_run_per_method_with_curves(played):
    client, runs = runs_of(played)
    assert sorted(run.data.tags["method"] for run in runs) == ["first", "second_one"]
    run = next(run for run in runs if run.data.tags["method"] == "first")
    metrics = run.data.metrics
    file = client.download_artifacts(run.info.run_id, "games.json")
    table = pd.read_json(file, orient="split").set_index("name")
    for game in GAMES:
        row = table.loc[f"{game}_auc"]
        assert row["low"] < metrics[f"{game}_auc"] < row["high"]
        assert metrics[f"auc/{game}_auc"] == metrics[f"{game}_auc"] == pytest.approx(row["mean"])
        curve = client.get_metric_history(run.info.run_id, f"{game}_curve")
        assert sorted(point.step for point in curve) == list(range(13))
    assert metrics["cost/seconds_per_map"] == 0.5
    assert metrics["cost/teacher_queries_per_map"] == 2
    assert table.loc[["num_images", "num_errors"], "mean"].tolist() == [NUM_IMAGES - 2, 2]
    assert [one.dataset.name for one in run.inputs.dataset_inputs] == [Path(played.data).name, "black box"]


def test_mlflow_shows_the_same_photographs_under_every_method(played, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", played.uri)
    client, runs = runs_of(played)
    keys = [
        {Path(item.path).name.split("+")[0] for item in client.list_artifacts(run.info.run_id, "images")}
        for run in runs
    ]
    assert keys[0] == keys[1]
    assert 8 <= len(keys[0]) <= 12  # without the images that cannot be read
    assert str(stored_page(Folder(played.scores))).endswith("/runs?compareRunsMode=CHART")


def test_a_rerun_restores_what_is_missing_and_makes_no_second_run(played, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", played.uri)
    part = Path(played.scores) / "part-00001.parquet"
    before, others = part.read_bytes(), {p: p.stat().st_mtime_ns for p in part.parent.glob("part-*")}
    runs = Folder(played.scores).read_json(RUNS_FILE)
    part.unlink()
    result = play(played, played.scores)
    assert part.read_bytes() == before
    assert {p for p, at in others.items() if p.stat().st_mtime_ns != at} == {part}
    assert result.counts.skipped_rows == result.counts.rows - 2 * 16
    assert len(runs_of(played)[1]) == 2
    assert Folder(played.scores).read_json(RUNS_FILE) == runs


def test_maps_are_read_a_few_ahead_of_the_black_box_and_in_their_order(monkeypatch):
    monkeypatch.setattr("evaluate.games.job.MAPS_AHEAD", 3)
    read = []
    with ThreadPoolExecutor(1) as pool:
        for place, found in enumerate(_ahead(pool, lambda item: read.append(item) or item, range(20))):
            assert found == place
            assert len(read) <= place + 1 + 3
    assert read == list(range(20))


def test_another_protocol_needs_another_folder(played):
    with pytest.raises(ValueError, match=r"another configuration.*protocol"):
        play(played, played.scores, protocol=Protocol(deletion_substrate="black"))


def test_scores_are_the_same_in_any_shard(played):
    """A worker without Ray, other items beside them, another order: the same rows."""
    places = [(1, "part-00001.parquet", 8, "17.png"), (0, "part-00000.parquet", 0, "00.png")]
    items: list[Any] = [dict(zip(("source", "part", "row", "image_id"), place, strict=True)) for place in places]
    alone = make_worker(played, Protocol())(items).to_pandas().set_index(["method", "image_id", "game"])
    together = read_table(played.scores).set_index(["method", "image_id", "game"])
    for key, row in alone.iterrows():
        assert row["auc"] == together.loc[key]["auc"]
        assert row["curve"].tolist() == together.loc[key]["curve"].tolist()


@pytest.mark.parametrize("change", [{"data_fingerprint": "0" * 12}, {"target": "label"}])
def test_maps_that_do_not_belong_together_are_refused(place, tmp_path, change):
    other = write_maps(place.data, tmp_path / "other", "third", **change)
    with pytest.raises(ValueError, match=r"must belong together.*explain them with the same"):
        check([place.maps[0], other])


def test_maps_of_another_teacher_are_refused(place):
    with pytest.raises(ValueError, match="play them on their own teacher"):
        check(place.maps, teacher="python:box_teacher:make_other")


OTHER = "python:box_teacher:make_other"


def test_crossed_maps_must_be_of_one_other_teacher(place, tmp_path):
    third = {"teacher": "python:third:make", "teacher_fingerprint": "third"}
    other = write_maps(place.data, tmp_path / "other", "third", **third)
    assert [source.method for source in check([place.maps[0]], OTHER, cross_teacher=True)] == ["first"]
    with pytest.raises(ValueError, match="leave --cross-teacher out"):
        check(place.maps, cross_teacher=True)
    nobody = write_maps(place.data, tmp_path / "nobody", "third", teacher=None, teacher_fingerprint=None)
    with pytest.raises(ValueError, match="made for no teacher"):
        check([nobody], OTHER, cross_teacher=True)
    with pytest.raises(ValueError, match="different teachers; cross one at a time"):
        check([place.maps[0], other], OTHER, cross_teacher=True)


def test_maps_are_played_on_another_teacher_where_that_is_asked_for(played, tmp_path, monkeypatch):
    """The class stays the map's own, and configuration, rows and MLflow say whose maps they were."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", played.uri)
    out = str(tmp_path / "crossed")
    play(played, out, teacher=OTHER, cross_teacher=True)
    config = Folder(out).config()
    own = load_teacher(TEACHER)
    assert config["made_for"] == {"teacher": TEACHER, "teacher_fingerprint": own.fingerprint}
    assert config["teacher_fingerprint"] == load_teacher(OTHER).fingerprint
    assert "made_for" not in Folder(played.scores).config()
    found = read_table(out)
    assert set(found["protocol_hash"]) == {config["protocol_hash"]} != {Protocol().hash}
    targets = read_table(played.scores).set_index("image_id")["target"]
    for _, row in found[found["error"].isna()].iterrows():
        assert row["target"] == targets[row["image_id"]].iloc[0]
        probs = box_teacher.make_other()(frame(played.data, row["image_id"])[None])[0]
        whole = row["curve"][0 if row["game"] == "deletion" else -1]
        assert whole == pytest.approx(probs[int(row["target"])], abs=1e-6)
    _, runs = runs_of(played)
    crossed = [run for run in runs if run.data.tags["stage"] == "cross_teacher_games"]
    assert sorted(run.data.tags["method"] for run in crossed) == ["first", "second_one"]
    assert {run.data.params["made_for.teacher"] for run in crossed} == {TEACHER}
    with pytest.raises(ValueError, match="another configuration"):
        play(played, out)
    assert_specific(played, tmp_path, out)


def assert_specific(played: SimpleNamespace, root: Path, crossed: str) -> None:
    """Maps that are the same for both teachers are specific to neither, and every image counts that has a score."""
    names = {"teacher": OTHER, "teacher_fingerprint": load_teacher(OTHER).fingerprint}
    maps = [write_maps(played.data, root / "of_other" / name, name, **names) for name in ("first", "second_one")]
    others = SimpleNamespace(data=played.data, maps=maps)
    play(others, str(root / "own"), teacher=OTHER)
    play(others, str(root / "back"), cross_teacher=True)
    found = compare_teachers([played.scores, crossed, str(root / "own"), str(root / "back")])
    assert len(found.comparisons) == 2 * 2
    for one in found.comparisons:
        assert (one.num_images, one.num_scored) == (NUM_IMAGES - 2, NUM_IMAGES - 2)
        assert one.aucs["A", "A"].mean != one.aucs["A", "B"].mean
        assert one.differences[BOTH].mean == pytest.approx(0, abs=1e-6)


def test_the_same_maps_twice_are_refused(place):
    with pytest.raises(ValueError, match="same method with the same settings"):
        check([*place.maps, place.maps[0]])


def test_maps_that_are_not_complete_are_refused(place, tmp_path):
    shutil.copytree(place.maps[0], tmp_path / "half")
    Folder(str(tmp_path / "half")).delete("_manifest.json")
    with pytest.raises(ValueError, match="not complete"):
        check([str(tmp_path / "half")])


def test_maps_without_a_target_are_refused(place, tmp_path):
    nobody = {"target": None, "teacher": None, "teacher_fingerprint": None}
    with pytest.raises(ValueError, match="name no class"):
        check([write_maps(place.data, tmp_path / "nobody", "random", **nobody)])


def test_source_hash_is_the_rows_hash(place):
    (source, _) = check(place.maps)
    assert source.config_hash == config_hash(maps_config(place.data, "first"))
    assert set(read_table(place.maps[0])["config_hash"]) == {source.config_hash}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--teacher": "magic:box"}, "unknown teacher kind"),
        ({"--data": "nowhere"}, "nowhere"),
        ({"--maps": "nowhere"}, "_config.json"),
        ({"--step-px": "0"}, "step_px 0"),
        ({"--patches": "13"}, "does not fit the teacher's input of 12 x 18"),
        ({"--patches": "4", "--step-px": "9"}, "do not go together"),
        ({"--limit": "0"}, "limit"),
    ],
)
def test_the_command_says_what_is_wrong(place, tmp_path, capsys, change, message):
    given = {"--maps": place.maps[0], "--data": str(place.data), "--teacher": TEACHER, "--out": str(tmp_path / "out")}
    words = [word for pair in {**given, **change}.items() for word in pair]
    assert main(["games", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_other_images_than_the_maps_are_refused(place, tmp_path, capsys):
    data = write_images(tmp_path / "photos")
    (data / "00.png").unlink()
    words = ["--maps", *place.maps, "--data", str(data), "--teacher", TEACHER, "--out", str(tmp_path / "out")]
    assert main(["games", *words]) == 2
    assert "is not what the maps in" in capsys.readouterr().err


def test_protocol_of_maps_for_labels_is_another(place):
    assert dataclasses.replace(Protocol(), target="label").hash != Protocol().hash
