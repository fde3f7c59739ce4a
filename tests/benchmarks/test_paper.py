"""The paper's chain on tiny official copies: all data sets in this process, one by its commands on a real Ray."""

import contextlib
import csv
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import ray.train
import tyro
from accelerate.state import AcceleratorState
from dataset_layouts import MAKERS
from PIL import Image
from project_paths import HELPERS, ROOT

import cluster.sharded_job
import distill.__main__
import distill.training.launch
import evaluate.__main__
import explain.__main__
from benchmarks.paper.__main__ import Execute, main, report, run
from benchmarks.paper.stages import MAPS, PAPER, Settings, stages
from cluster.storage import Folder
from distill.data import open_images
from distill.data.layouts.imagenette import CLASSES
from distill.training.recipes import FINE_TUNING_RECIPES, RECIPES
from evaluate.paper.published import PRINTED
from explain.__main__ import parse
from explain.methods.registry import METHODS

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's and MLflow's own

NETWORK = "python:small_network:tiny"
TEACHERS = {"imagenet": "python:box_teacher:make", "imagenette": "python:tiny_teacher:bright"}
METHOD_OF = dict.fromkeys(TEACHERS, "rise")
FINE_GRAINED = tuple(name for name in PAPER if name != "imagenet")
NUM_IMAGES = {"imagenet": 4, "imagenette": 20, "cub": 20, "cars": 7} | dict.fromkeys(FINE_GRAINED[2:], 8)
TINY = "--epochs=1 --batch-size=8 --input-size 32 32 --precision=float32 --loader-workers=0"
COMMANDS = {
    "distill": distill.__main__.main,
    "explain": lambda: explain.__main__.main(sys.argv[1:]),
    "evaluate": evaluate.__main__.main,
}


class HereTrainer:
    """Ray Train's part of a job, in this process: one worker."""

    def __init__(self, loop: Callable[[dict[str, Any]], None], *, train_loop_config: dict[str, Any], **_: Any) -> None:
        self.loop, self.config = loop, train_loop_config

    def fit(self) -> SimpleNamespace:
        AcceleratorState._reset_state(True)
        self.loop(self.config)
        return SimpleNamespace(metrics={})


@pytest.fixture(scope="module")
def here() -> Iterator[Execute]:
    """Run commands in this process, with all that Ray would do in others."""

    def execute(command: Sequence[str]) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", list(command))
            return COMMANDS[command[0]]()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "is_initialized", lambda: True)
        patch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
        patch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_size=lambda: 1))
        patch.setattr(ray.train, "get_checkpoint", lambda: None)
        patch.setattr(ray.train, "report", lambda *_, **__: None)
        patch.setattr(distill.training.launch, "TorchTrainer", HereTrainer)
        patch.setattr(cluster.sharded_job, "has_ray", lambda: False)
        patch.setattr(distill.training.launch, "remote_progress", lambda *_: contextlib.nullcontext(Mock()))
        yield execute


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make every data set in its official layout, where the chain looks for it."""
    root = tmp_path_factory.mktemp("data")
    for name, make in MAKERS.items():
        make(root / name)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 2, 40, 30, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for number, wnid in enumerate(CLASSES):
            folder = root / "imagenette" / split / wnid
            folder.mkdir(parents=True)
            for k in range(2):
                Image.fromarray(pixels[number, k]).save(folder / f"{wnid}_{k}.JPEG")
    return root


def settings(data: Path, out: Path, *names: str, **changes: Any) -> Settings:
    tiny = {"finetune": TINY, "distill": f"{TINY} --depth=18 --num-views=0", "num_masks": 8, "step_px": 200}
    asked = {
        "teacher": TEACHERS.get(names[0]),
        "network": NETWORK,
        "methods": (METHOD_OF.get(names[0], "mal_grad_cam"),),
    }
    return Settings(data_sets=names, data=str(data), out=str(out), **tiny | asked | changes)


@pytest.fixture(scope="module")
def made(data: Path, here: Execute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Take every data set through the chain."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{out}/mlflow.db")
        for names in (("imagenet",), ("imagenette",), FINE_GRAINED):
            assert run(settings(data, out, *names), here) == 0
    return out


def test_every_data_set_has_a_row_in_the_tables(made, data):
    found, sims = {}, {}
    for place, method in (("imagenet", "rise"), ("imagenette", "rise"), ("", "mal_grad_cam")):
        for number in (2, 3):
            with (made / place / f"tables/table{number}.csv").open() as file:
                rows = [row for row in csv.DictReader(file) if row["num_images"]]
            found |= {row["data_set"]: int(row[f"{method}_num_images"]) for row in rows}
            assert all(0 <= float(row[method]) <= 1 for row in rows)
        with (made / place / "tables/table1.csv").open() as file:
            sims |= {row["data_set"]: int(row["sim1_num_images"]) for row in csv.DictReader(file) if row["sim1"]}
    assert found == sims == NUM_IMAGES
    assert (made / "tables/figure5-cub.png").is_file()


@pytest.mark.parametrize("name", NUM_IMAGES)
def test_each_link_holds(made, data, name):
    """The student is of the data set's own black box and classes, and its maps are of the labelled images."""
    folder = Folder(str(made / name / "student"))
    student, config = folder.read_json("student.json"), folder.config()
    source = f"{data}/{name}" if "aircraft" not in name else f"{data}/aircraft#{name.removeprefix('aircraft-')}"
    images = open_images(source)
    teacher = TEACHERS.get(name, f"torch:{made}/{name}/teacher/model.pt2")
    assert (student["teacher"], student["num_classes"]) == (teacher, len(images.class_names))
    started_from = Folder(str(made / "imagenet/student")).read_json("student.json")["fingerprint"]
    assert config.get("init") == (None if name in TEACHERS else started_from)
    maps = pq.read_table(made / name / "maps" / METHOD_OF.get(name, "mal_grad_cam"))
    assert dict(zip(maps["image_id"].to_pylist(), maps["label"].to_pylist(), strict=True)) == dict(
        zip(images.image_ids, images.class_ids, strict=True)
    )
    assert maps["error"].null_count == len(maps) == NUM_IMAGES[name]


def test_what_is_done_is_not_done_again_and_what_is_left_goes_on(made, data, here, capsys):
    chain, ran = settings(data, made, "imagenette"), []

    def execute(command: Sequence[str]) -> int:
        ran.append(tuple(command[:2]))
        return here(command)

    assert run(chain, execute) == 0
    assert ran == [("evaluate", "tables")]
    maps = made / "imagenette/maps/rise"
    before = pq.read_table(maps, columns=["image_id", "target", "saliency"])
    for name in ("_manifest.json", "part-00001.parquet"):  # as if killed
        (maps / name).unlink()
    assert "imagenette: maps of rise    12 of 20 rows\n" in report(chain)
    assert "3 of 4 stages done, 1 left\nnext: python -m explain rise --data " in report(chain)
    ran.clear()
    assert run(chain, execute) == 0
    assert ran == [("explain", "rise"), ("evaluate", "tables")]
    assert pq.read_table(maps, columns=["image_id", "target", "saliency"]).equals(before)
    assert "4 of 4 stages done, 0 left" in capsys.readouterr().out


def test_a_stage_that_fails_stops_the_chain(data, tmp_path, capsys):
    ran: list[Sequence[str]] = []
    assert run(settings(data, tmp_path, "cub"), lambda command: ran.append(command) or 3) == 3
    assert [command[:2] for command in ran] == [("distill", "imagenet")]
    assert "stopped at imagenet: student (1/" in capsys.readouterr().err


def test_a_student_that_was_stopped_is_begun_and_its_sim_n_is_not(data, tmp_path):
    (tmp_path / "imagenette/student/checkpoints").mkdir(parents=True)
    said = {
        line.rpartition("  ")[0].strip(): line.rpartition("  ")[2]
        for line in report(settings(data, tmp_path, "imagenette")).split("\n")
    }
    assert (said["imagenette: student"], said["imagenette: Sim N"]) == ("begun", "to do")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_masks": 9}, r"maps/rise was made with options.num_masks 8, not 9; .* delete the folder"),
        ({"limit": 3}, "maps/rise was made with limit None, not 3"),
        ({"per_class": 1}, "maps/rise was made with per_class None, not 1"),
        (
            {"precision": "bfloat16", "names": "cub"},
            "maps/mal_grad_cam was made with precision None, not bfloat16",
        ),
        ({"step_px": 100}, r"scores/rise was made with protocol.step_px 200, not 100"),
        ({"init": "none", "names": "cub"}, "cub/student was made with init [0-9a-f]{64}, not None"),
        ({"network": "lite:efficientnet-lite0", "names": "cub"}, f"was made with network {NETWORK}, not lite"),
    ],
)
def test_results_of_other_settings_are_never_taken_for_these(made, data, changes, says):
    changed = dict(changes)
    chain = settings(data, made, changed.pop("names", "imagenette"), **changed)
    with pytest.raises(ValueError, match=says):
        report(chain)


def test_maps_of_an_earlier_student_are_refused(made, data, tmp_path):
    shutil.copytree(made / "cub", tmp_path / "cub")
    folder = Folder(str(tmp_path / "cub/student"))
    folder.write_json("student.json", folder.read_json("student.json") | {"fingerprint": "retrained"})
    with pytest.raises(ValueError, match=r"maps/mal_grad_cam was made with student_fingerprint .* not retrained"):
        report(settings(data, tmp_path, "cub", init=str(made / "imagenet/student")))


def test_the_papers_stages_are_commands_that_parse(tmp_path):
    options = {"precision": "bfloat16", "num_workers": 2}
    everything = Settings(data_sets=("all", "imagenette", "cars_40"), data="s3://data/", out=str(tmp_path), **options)
    found = {stage.name: stage.command for stage in stages(everything)}
    assert [name for name in found if name.endswith("black box")] == [
        f"{name}: black box" for name in (*FINE_GRAINED, "imagenette", "cars_40")
    ]
    assert set(PAPER) == {printed.name for printed in PRINTED}
    assert {method for method, _ in MAPS.values()} == set(METHODS) - {"oracle", "readout"}
    for name, command in found.items():
        if command[0] == "explain" and name.startswith("cars_40"):  # the others' differ in paths
            parse(command[1:])
        elif command[0] == "evaluate" and name.startswith(("cars_40", "tables")):
            tyro.cli(evaluate.__main__.Command, args=command[1:])  # pyright: ignore[reportCallIssue, reportArgumentType]
        elif command[:2] == ("distill", "finetune"):
            assert command[2] in FINE_TUNING_RECIPES
        elif command[0] == "distill":
            assert command[1] in RECIPES
    assert "--keep-probability 0.1 --num-masks 4000" in " ".join(found["cub: maps of rise_8"])
    assert "--init" not in found["imagenet: student"]
    assert f"--init {tmp_path}/imagenette/student" in " ".join(found["cars_40: student"])


def test_the_command_says_what_it_does_not_know(capsys):
    for wrong in (["car", "--data=x"], ["cars", "--data=x", "--methods", "oracle"]):
        with pytest.raises(SystemExit) as end:
            main(wrong)
        assert end.value.code == 2
        assert f"got {wrong[-1] if len(wrong) > 2 else 'car'}; choose" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_the_commands_on_ray(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{HELPERS}")
    chain = settings(data, tmp_path, "cars", init="none")
    options = [f"--{name}={getattr(chain, name)}" for name in ("data", "out", "network", "init", "finetune", "distill")]
    command = [
        sys.executable,
        "-m",
        "benchmarks.paper.__main__",
        "cars",
        *options,
        "--methods",
        "mal_grad_cam",
        "--step-px",
        "200",
    ]
    on_ray = [sys.executable, "-m", "cluster", "run", "--", *command]
    ended = subprocess.run(on_ray, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "5 of 5 stages done, 0 left" in ended.stdout
    status = subprocess.run([*command, "--status"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "cars: scores of mal_grad_cam  done: 14 rows, 0 with an error" in status.stdout
