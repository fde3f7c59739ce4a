"""The paper's chain on tiny official copies: all data sets in this process, one by its commands on a real Ray."""

import contextlib
import csv
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
import ray.train
from accelerate.state import AcceleratorState
from PIL import Image

import distill.__main__
import distill.loop
import evaluate.__main__
import explain.__main__
from benchmarks.paper import MAPS, PAPER, Settings, Stage, main, report, run, stages
from cluster.storage import Folder
from distill.images import open_images
from distill.images.imagenette import CLASSES
from evaluate.paper import PRINTED
from explain.registry import METHODS
from tests.distill_layouts import MAKERS

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's and MLflow's own

ROOT = Path(__file__).parents[1]
NETWORK = "python:distill_network:tiny"
TEACHERS = {"imagenet": "python:evaluate_teacher:make", "imagenette": "python:explain_teacher:bright"}
TINY = "--epochs=1 --batch-size=8 --input-size 32 32 --precision=float32 --loader-workers=0"
COMMANDS = {"distill": distill.__main__.main, "explain": explain.__main__.main, "evaluate": evaluate.__main__.main}


class HereData:
    """Ray Data's part of a job, in this process."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records

    def map_batches(self, actor: type, *, fn_constructor_args: Sequence[Any], **_: Any) -> "HereData":
        self.actor = actor(*fn_constructor_args)
        return self

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        for record in self.records:
            answer = self.actor({name: [value] for name, value in record.items()})
            yield {name: values[0] for name, values in answer.items()}


class HereTrainer:
    """Ray Train's part of a job, likewise: one worker."""

    def __init__(self, loop: Callable[[dict[str, Any]], None], *, train_loop_config: dict[str, Any], **_: Any) -> None:
        self.loop, self.config = loop, train_loop_config

    def fit(self) -> None:
        AcceleratorState._reset_state(True)
        self.loop(self.config)


@pytest.fixture(scope="module")
def here() -> Iterator[Callable[[Sequence[str]], int]]:
    """Run commands in this process, with all that Ray would do in others."""

    def execute(command: Sequence[str]) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", list(command))
            return COMMANDS[command[0]](*([] if command[0] == "distill" else [list(command[1:])]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "is_initialized", lambda: True)
        patch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
        patch.setattr(ray.data, "from_items", lambda records, **_: HereData(records))
        patch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_size=lambda: 1))
        patch.setattr(ray.train, "get_checkpoint", lambda: None)
        patch.setattr(ray.train, "report", lambda *_, **__: None)
        patch.setattr(distill.loop, "TorchTrainer", HereTrainer)
        shown = SimpleNamespace(show=lambda *_, **__: None)
        patch.setattr(distill.loop, "remote_progress", lambda *_: contextlib.nullcontext(shown))
        yield execute
    AcceleratorState._reset_state(True)


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


@pytest.fixture(autouse=True)
def tracked(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.getbasetemp()}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")


def settings(data: Path, out: Path, *names: str, **changes: Any) -> Settings:
    tiny = {"network": NETWORK, "finetune": TINY, "distill": f"{TINY} --depth=18 --num-views=0", "step_px": 200}
    asked = {"methods": ("mal_grad_cam", "random"), "num_masks": 8}
    return Settings(data_sets=names, data=str(data), out=str(out), **tiny | asked | changes)


def rows(path: Path) -> dict[str, dict[str, str]]:
    """Read a table by its first column."""
    with path.open() as file:
        found = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {next(iter(row.values())): row for row in found}


def test_every_data_set_goes_through_the_chain(data, tmp_path, here, capsys):
    for name, teacher in TEACHERS.items():
        assert run(settings(data, tmp_path, name, teacher=teacher, methods=("rise", "matt")), here) == 0
    fine = [name for name in PAPER if name != "imagenet"]
    chain = settings(data, tmp_path, *fine)
    assert run(chain, here) == 0
    print(capsys.readouterr().out)
    for path in (tmp_path / "tables").glob("*.csv"):
        print(path, path.read_text())
