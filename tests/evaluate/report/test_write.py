"""The command: page, tables and MLflow runs that it writes, and what it refuses."""

import csv
import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_scores import SKILLS, World, make_world, write_metrics
from object_store import BUCKET, ObjectStore
from report_pages import LIMIT, FakeTracker, csv_of, report_of, row_of

from cluster.storage import Folder
from evaluate.config import ReportConfig
from evaluate.report.report_data import ReportData
from evaluate.report.texts import markdown
from evaluate.report.write import write_report
from evaluate.runs import RUNS_FILE, run_key
from explain.methods.titles import title_of


def test_write_report_keeps_page_and_tables(
    world: World, measured: str, tmp_path: Path, tracker: list[FakeTracker]
) -> None:
    out = tmp_path / "new" / "r.html"
    text = write_report(
        ReportConfig(
            scores=(world.scores,), out=str(out), measures=(measured,), num_gallery=2, table=str(tmp_path / "t.md")
        )
    )
    assert [one.run_name for one in tracker] == ["report"]  # the store has no run of the games
    assert tracker[0].experiment == "shapes"
    assert tracker[0].files == ["r.html", "t.md", "t.csv"]
    assert "Sim1): 0.800" in text
    assert f"They disagree on 4 of {LIMIT} explained images" in text
    assert "Energy" in text
    assert text.splitlines()[-2:] == [f"Report: {out}", f"MLflow: {tracker[0].page}"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert rows[0]["method"] == "mal_grad_cam"
    lines = [line for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("| MAL-Grad-CAM")]
    assert f"{float(rows[0]['deletion']):.4f}" in lines[0]


def test_page_and_tables_may_lie_in_an_object_store(
    world: World, store: ObjectStore, tmp_path: Path, tracker: list[FakeTracker]
) -> None:
    place = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    for folder in (place, Folder(str(tmp_path))):
        files: dict[str, Any] = {
            name: folder.child(file).uri for name, file in (("table", "t.csv"), ("query_plot", "q.png"))
        }
        text = write_report(
            ReportConfig(
                scores=(world.scores,), out=folder.child("r.html").uri, num_gallery=1, photographs=False, **files
            )
        )
        assert f"Report: {folder.child('r.html').uri}" in text
    assert tracker[0].files == ["r.html", "t.md", "t.csv", "q.png"]
    assert place.names() == ["q.png", "r.html", "t.csv", "t.md"]
    assert all(place.read_bytes(name) == (tmp_path / name).read_bytes() for name in ("t.csv", "t.md", "q.png"))
    assert b"<html" in place.read_bytes("r.html")


def test_the_runs_of_the_games_get_every_figure(
    world: World, measured: str, full: ReportData, tmp_path: Path, tracker: list[FakeTracker]
) -> None:
    """One run a method holds games, measures and comparisons, by one name in every run."""
    scores = tmp_path / "scores"
    shutil.copytree(world.scores, scores)
    entries = {entry["method"]: entry["config_hash"] for entry in full.results.config["maps"]}
    protocol_hash = full.results.config["protocol_hash"]
    noted = {run_key(own, protocol_hash): f"run of {name}" for name, own in entries.items() if name != "matt"}
    Folder(str(scores)).write_json(RUNS_FILE, noted | {"another store/x/y": "not this one"})
    out = str(tmp_path / "r.html")
    write_report(ReportConfig(scores=(str(scores),), out=out, measures=(measured,), num_gallery=0))
    found = {one.run_name: one for one in tracker[1:]}
    assert set(found) == set(SKILLS) - {"matt"}
    for name, one in found.items():
        assert (one.experiment, one.given["run_id"]) == ("shapes", f"run of {name}")
        row = row_of(full, name)
        for metric, column in (("deletion_auc", "deletion"), ("metrics/road_gap", "road_gap")):
            assert one.logged[metric] == row.values[column].mean
            assert (metric in {cells[0] for cells in one.tables["comparison"]}) == (name != "mal_grad_cam")
        assert all(np.isfinite(value) for value in one.logged.values())
    assert "metrics/max_sensitivity" not in found["random"].logged


def test_tables_agree(full: ReportData) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_of(full))))
    masses = [row.values["energy_inside"].mean for row in full.rows]
    assert [float(row["energy_inside"]) for row in rows] == pytest.approx(masses, rel=1e-4)
    wins = [row.against["energy_inside"].win_rate for row in full.rows if row.against]
    assert [float(row["energy_inside_win_rate"]) for row in rows if row["energy_inside_win_rate"]] == pytest.approx(
        wins, rel=1e-5
    )
    lines = [line for line in markdown(full).splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:8]] == [f"| {title_of(row['method'])}" for row in rows]
    assert len({line.count("|") for line in lines[:8]}) == 1
    assert len(lines) == 8 + 2 + 5 + 2 + len(full.strata) + 2 + len(full.student.agreements)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_gallery": -1}, "num_gallery -1"),
        ({"table": "t.xlsx"}, r"\.md or \.csv"),
        ({"query_plot": "q.html"}, r"q\.html must end in \.png"),
        ({"out": "."}, "is a folder"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(ReportConfig(scores=("no such scores",), **{"out": "r.html", **given}))


def test_scores_of_two_protocols_in_one_table_are_refused(world: World, four: tuple[World, ReportData]) -> None:
    with pytest.raises(ValueError, match=r"2 protocols.*write a report for each"):
        report_of(world.scores, four[0].scores)


@pytest.mark.parametrize(
    ("key", "what"), [("protocol_hash", "protocols"), ("teacher_fingerprint", "teachers"), ("data", "data sets")]
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, key: str, what: str) -> None:
    first = make_world(tmp_path / "a", num_images=4, skills={"random": 0.1})
    changes: dict[str, Any] = {"data": str(tmp_path / "a/shapes"), key: "x"}
    second = make_world(tmp_path / "b", num_images=4, skills={"matt": 0.1}, **changes)
    with pytest.raises(ValueError, match=f"2 {what}.*x in"):
        report_of(first.scores, second.scores)


def test_the_same_maps_scored_twice_are_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=4, skills={"random": 0.1})
    shutil.copytree(world.scores, tmp_path / "again")
    with pytest.raises(ValueError, match="came twice"):
        report_of(world.scores, str(tmp_path / "again"))
    assert report_of(world.scores, world.scores).results.num_images == 4


def test_folders_without_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no scores given"):
        report_of()
    with pytest.raises(ValueError, match=r"_config\.json"):
        report_of(str(tmp_path))


def test_scores_without_a_row_are_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=2, skills={"random": 0.1})
    part = Path(world.scores) / "part-00000.parquet"
    pq.write_table(pq.read_table(part).slice(0, 0), part)
    with pytest.raises(ValueError, match="holds no scores"):
        report_of(world.scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_fingerprint": "another"}, "measure the maps on that black box"),
        ({"maps": "others"}, "are of maps that have no scores, first random"),
        ({"images": 2}, "2 images without scores, first val/"),
    ],
)
def test_measures_of_something_else_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    skills = {"mal_grad_cam": 0.7, "random": 0.1}
    world = make_world(tmp_path / "a", num_images=6, skills=skills)
    more = dataclasses.replace(world, image_ids=(*world.image_ids, "val/new/0007.png", "val/new/0008.png"))
    given = {name: value for name, value in changes.items() if name == "teacher_fingerprint"}
    if "maps" in changes:
        maps = Folder(world.scores).config()["maps"]
        given["maps"] = [maps[0], {**maps[1], "config_hash": "f" * 12}]
    folder = write_metrics(more if "images" in changes else world, tmp_path / "m", ("energy",), **given)
    with pytest.raises(ValueError, match=message):
        report_of(world.scores, measures=(folder,))


def test_scores_are_no_metrics(world: World) -> None:
    with pytest.raises(ValueError, match="holds no metrics"):
        report_of(world.scores, measures=(world.scores,))
