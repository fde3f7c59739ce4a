"""A cluster of several nodes, one of which goes away, or joins, in the middle of work and of training."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from project_paths import HELPERS
from pyarrow import dataset
from recording_teacher import NOTES, world_sizes

import distill.training.launch
from benchmarks.reliability.nodes import AUTH, Nodes, several_nodes
from cluster.session import ray_session, worker_resources
from cluster.sharded_job import make_shards, run_shards
from cluster.storage import Folder
from distill.config import DistillConfig
from distill.training.recipes import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore")]

NUM_ITEMS, SHARD = 140, 2
EPOCHS, STEPS = 6, 4
RECIPE = Recipe(
    depth=18, input_size=(32, 32), epochs=EPOCHS, batch_size=6, lr=0.01, precision="float32", num_views=2,
    loader_workers=0, checkpoint_steps=1, log_steps=1,
)  # fmt: skip


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Run a head and two nodes of a core each, and let this process be the driver."""
    import ray

    for name in AUTH:
        monkeypatch.setenv(name, "")
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv(NOTES, str(tmp_path / "notes"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", str(HELPERS), prepend=os.pathsep)
    with several_nodes(2) as running:
        monkeypatch.setenv("RAY_ADDRESS", running.environment()["RAY_ADDRESS"])
        ray.shutdown()
        with ray_session():
            yield running


@contextmanager
def at_work(work: Callable[[], Any]) -> Iterator[Future]:
    """Work on another thread: nodes come from the main one, whose end is theirs, and which alone may handle signals."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def wait_for(what: Callable[[], bool], work: Future) -> None:
    deadline = time.monotonic() + 400
    while not what():
        assert not work.done(), work.result()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lose_a_node(nodes: Nodes, work: Future) -> None:
    left = len(nodes.nodes()) - 1
    for process in nodes.nodes()[0]:
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: len(nodes.nodes()) == left, work)


def noting(config: dict[str, Any]) -> Any:
    """Make a worker that says on which node it ran."""
    import ray

    node = ray.get_runtime_context().get_node_id()

    def run(items: list[dict[str, Any]]) -> pa.Table:
        time.sleep(1)
        return pa.table({"i": [item["i"] for item in items], "node": [node] * len(items)})

    return run


def test_work_goes_on_when_a_node_goes_and_another_joins(nodes: Nodes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shards, resources = make_shards(({"i": i} for i in range(NUM_ITEMS)), SHARD), worker_resources(2)
    options: dict[str, Any] = {"resources": resources, "description": "note"}
    with at_work(lambda: run_shards(noting, {}, shards, Folder(str(out)), **options)) as work:
        wait_for(lambda: len(list(out.glob("*.parquet"))) >= 6, work)
        lose_a_node(nodes, work)
        nodes.mend()
        summary = work.result()
    assert (resources.num_workers, resources.cpus) == (2, 1)
    assert (summary.rows, summary.skipped_rows) == (NUM_ITEMS, 0)
    rows = dataset.dataset(out).to_table()
    assert sorted(rows["i"].to_pylist()) == list(range(NUM_ITEMS))
    assert len(set(rows["node"].to_pylist())) == 3  # the two first ones, and the one that joined


def test_training_goes_on_with_fewer_workers_and_takes_the_node_that_joins(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for c in range(3):
            (tmp_path / "data" / split / f"class{c}").mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 130, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / f"data/{split}/class{c}/{i}.png")
    monkeypatch.setattr(distill.training.launch, "RESIZE_S", 2.0)
    out, notes = tmp_path / "student", tmp_path / "notes"
    box = "python:recording_teacher:make"
    config = DistillConfig(
        recipe=RECIPE, data=str(tmp_path / "data"), teacher=box, out=str(out), num_workers=2, min_workers=1
    )
    with at_work(lambda: distill.training.launch.distill(config, name="folder")) as work:
        wait_for(lambda: len(list(out.glob("checkpoints/checkpoint_2*"))) >= 2, work)
        lose_a_node(nodes, work)
        wait_for(lambda: world_sizes(notes)[-2:] == [2, 1], work)
        nodes.mend()
        metrics = work.result()
    assert world_sizes(notes)[:2] == [2, 1]
    assert world_sizes(notes)[-1] == 2
    assert {"val_sim1", "val_kl"} <= set(metrics)
    assert len(list(out.glob("checkpoints/checkpoint_2*"))) <= 2
    assert taken_steps(tmp_path) == set(range(1, EPOCHS * STEPS + 1))


def taken_steps(folder: Path) -> set[int]:
    """List the steps whose loss MLflow has."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {metric.step for run in runs for metric in client.get_metric_history(run.info.run_id, "train_loss")}
