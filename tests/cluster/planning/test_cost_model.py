"""Plans of full-size runs: scaled by hand, from manifests and files, and the recipes' sizes against the recipes."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from project_paths import SHARED_DATA

from cluster.__main__ import main
from cluster.planning.cost_model import WORKLOADS, costs, find_workload, plan_text, read_rates
from cluster.planning.throughput import Meter, Rate
from cluster.storage import Folder
from distill.data import open_images
from distill.training.recipes import RECIPES

TRAINING: dict[str, Any] = {
    "job": "distill imagenet",
    "kind": "training",
    "items": 5_000,
    "worker_seconds": 10.0,
    "num_workers": 2,
    "cpus": 16,
    "gpus": 1,
    "machine": "Imaginary 9000",
    "settings": {"depth": 50, "input_size": [224, 224], "compile": True},
}
RISE: dict[str, Any] = {
    **{name: TRAINING[name] for name in ("num_workers", "cpus", "gpus", "machine")},
    "job": "rise",
    "kind": "images",
    "items": 20,
    "worker_seconds": 40.0,
    "num_bytes": 4_000_000,
    "queries": 80_000,
}
GAMES = RISE | {"job": "games", "items": 60, "worker_seconds": 30.0, "per_image": 3, "queries": 27_000, "num_bytes": 0}
IMAGENETTE = SHARED_DATA / "imagenette"


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def cells(text: str) -> dict[str, dict[str, str]]:
    """Read the plan's Markdown table back: job -> heading -> text."""
    lines = [[cell.strip() for cell in line[1:-1].split(" | ")] for line in text.splitlines() if line.startswith("|")]
    heads, _, *rows = lines
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def test_the_sizes_are_the_recipes():
    sizes = tomllib.loads(WORKLOADS.read_text())
    assert {"imagenet", "cub", "cars", "aircraft-variant", "imagenette"} < set(sizes) <= set(RECIPES)
    for name, size in sizes.items():
        recipe = RECIPES[name][1]
        assert size["epochs"] == recipe.epochs, name
        assert size["settings"] == {"depth": recipe.depth, "input_size": list(recipe.input_size)}, name


@pytest.mark.skipif(not IMAGENETTE.is_dir(), reason="the real Imagenette is not there")
def test_imagenette_has_the_training_images_that_its_plan_counts():
    found = open_images(str(IMAGENETTE), split="train")
    assert len(found.image_ids) == find_workload("imagenette").num_train


def test_a_plan_is_the_measured_job_at_full_size(tmp_path: Path):
    places = [write(tmp_path / "gpu.json", [TRAINING, RISE]), write(tmp_path / "games.json", GAMES)]
    workload = find_workload("imagenet")
    text = plan_text(workload, costs(workload, places), (1, 8))
    # 500 images/s a GPU; 2 s and 4,000 queries and 200 kB a RISE map; 0.5 s and 450 frames a game, 3 maps an image
    hours = {"distill imagenet": 100 * 1_281_167 / 500 / 3600, "rise": 50_000 * 2 / 3600, "games": 150_000 * 0.5 / 3600}
    found = cells(text)
    for job, expected in hours.items():
        assert float(found[job]["hours on 1 GPU"]) == pytest.approx(expected, rel=0.01)
        assert float(found[job]["hours on 8 GPUs"]) == pytest.approx(expected / 8, rel=0.01)
    assert float(found["all"]["hours on 1 GPU"]) == pytest.approx(sum(hours.values()), rel=0.01)
    queries = {job: row["queries"] for job, row in found.items()}
    assert queries == {"distill imagenet": "", "rise": "200,000,000", "games": "67,500,000", "all": "267,500,000"}
    assert (found["rise"]["storage"], found["games"]["storage"]) == ("10 GB", "")
    assert found["distill imagenet"]["items"] == "128,116,700"
    for what in ("Imaginary 9000", "500 items/s a worker", *places):
        assert what in text


def test_counts_can_be_given(tmp_path: Path):
    place = write(tmp_path / "gpu.json", TRAINING)
    workload = find_workload("folder", num_train=1_000, epochs=3)
    (cost,) = costs(workload, [place])
    assert cost.items == 3_000
    assert cost.hours(2) == pytest.approx(3_000 / 500 / 2 / 3600)
    with pytest.raises(ValueError, match="fits data sets of any size; give --num-train"):
        costs(find_workload("folder"), [place])
    with pytest.raises(ValueError, match="num_images 0 is too small"):
        find_workload("imagenet", num_images=0)
    with pytest.raises(ValueError, match="recipe 'imagnet' is unknown; choose one of imagenet"):
        find_workload("imagnet")
    with pytest.raises(ValueError, match="gpus 1 0 is not allowed"):
        plan_text(workload, [cost], (1, 0))


def test_training_is_never_planned_from_another_resolution(tmp_path: Path):
    small = TRAINING | {"settings": TRAINING["settings"] | {"input_size": [96, 96]}}
    place = write(tmp_path / "small.json", small)
    with pytest.raises(ValueError, match=r"measured with input_size \[96, 96\], recipe imagenet has \[224, 224\]"):
        costs(find_workload("imagenet"), [place])
    assert len(costs(find_workload("imagenette"), [place])) == 1
    workload = find_workload("imagenet", settings={"depth": None, "input_size": [96, 96]})
    assert costs(workload, [place])[0].items == 100 * 1_281_167


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"worker_seconds": 0}, "worker_seconds of the rate of 'rise' is 0"),
        ({"kind": "maps"}, "kind 'maps' of the rate of 'rise' is unknown"),
        ({"item": 1}, "missing or unknown: item$"),
        ({"items": "many"}, "not supported"),
    ],
)
def test_a_file_that_holds_no_rate_is_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    place = write(tmp_path / "rates.json", RISE | changes)
    with pytest.raises(ValueError, match=message.removesuffix("$")) as refusal:
        read_rates(place)
    assert place in str(refusal.value)
    with pytest.raises(ValueError, match="missing or unknown: items"):
        read_rates(write(tmp_path / "rates.json", {k: v for k, v in RISE.items() if k != "items"}))


def test_a_folder_without_a_finished_job_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no finished job has left a rate there"):
        read_rates(str(tmp_path))
    Folder(str(tmp_path)).finish({"rows": 3})
    with pytest.raises(ValueError, match="no finished job has left a rate there"):
        read_rates(str(tmp_path))


def test_the_command_reads_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    Folder(str(tmp_path / "rise")).finish({"rows": 20, "rate": dataclasses.asdict(Rate(**RISE))})
    monkeypatch.setattr("sys.argv", ["cluster", "plan", "cars", "--rates", str(tmp_path / "rise"), "--gpus", "4"])
    main()
    found = cells(capsys.readouterr().out)
    assert found["rise"]["queries"] == f"{8_041 * 4_000:,}"
    assert float(found["rise"]["hours on 4 GPUs"]) == pytest.approx(8_041 * 2 / 4 / 3600, rel=0.01)
    small = write(tmp_path / "small.json", TRAINING | {"settings": {"depth": 18, "input_size": [112, 96]}})
    sized = ["--depth", "18", "--input-size", "112", "96"]
    monkeypatch.setattr("sys.argv", ["cluster", "plan", "cars", "--rates", small, *sized])
    main()
    assert cells(capsys.readouterr().out)["distill imagenet"]["items"] == "814,400"
    monkeypatch.setattr("sys.argv", ["cluster", "plan", "cars", "--rates", str(tmp_path)])
    assert main() == 2


def test_a_meter_leaves_out_the_first_step(monkeypatch: pytest.MonkeyPatch):
    now = iter([100.0, 106.0])
    monkeypatch.setattr("cluster.planning.throughput.time.monotonic", lambda: next(now))
    meter = Meter()
    assert meter.measured() == (0, 0.0)
    for _ in range(4):
        meter.count(32)
    assert meter.measured() == (96, 6.0)
