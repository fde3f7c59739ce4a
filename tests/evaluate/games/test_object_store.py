"""Every command with its data, black box, run, maps, scores and report on an S3 server, and nothing on the disk."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from object_store import BUCKET, ObjectStore

from cluster.session import ray_session
from cluster.storage import Folder
from distill.__main__ import main as distill_main
from distill.demo.build import main as demo_main
from evaluate.__main__ import main as evaluate_main
from explain.__main__ import main as explain_main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chaos,
    pytest.mark.filterwarnings("ignore"),  # Ray's, MLflow's and the exporter's own
]

NUM_IMAGES = 16


def test_every_command_works_on_an_object_store(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    data, student, scores, measures = (place.child(name).uri for name in ("data", "student", "scores", "measures"))
    judged = ["--data", data, "--teacher", f"onnx:{place.uri}/teacher/model.onnx"]
    maps = {method: place.child("maps").child(method).uri for method in ("mal_grad_cam", "rise", "random")}
    options = {"rise": ["--num-masks", "40"]}
    assert demo_main(["--out", place.uri, "--num-train", "64", "--num-val", str(NUM_IMAGES), "--epochs", "1"]) == 0
    with ray_session():
        words = ["demo", *judged, "--out", student, "--epochs", "1"]
        monkeypatch.setattr(sys, "argv", ["distill", *words])
        assert distill_main() == 0
        assert distill_main() == 2  # it is finished
        for method, out in maps.items():
            words = [method, *judged, "--student", student, "--out", out, *options.get(method, [])]
            assert explain_main(words) == 0
            files = Folder(out).names()
            assert explain_main(words) == 0
            assert Folder(out).names() == files
            assert explain_main([*words, "--limit", "3"]) == 2  # another configuration
        played = ["games", "--maps", *maps.values(), *judged, "--out", scores, "--step-px", "2048"]
        assert evaluate_main(played) == 0
        assert evaluate_main(played) == 0
        assert evaluate_main(["similarity", *judged, "--student", student]) == 0
        wanted = ["--measures", "pointing", "fidelity", "--num-masks", "20", "--num-points", "3"]
        assert (
            evaluate_main(
                ["measures", "--maps", *maps.values(), *judged, "--student", student, "--out", measures, *wanted]
            )
            == 0
        )
    page, table = place.child("report.html").uri, place.child("report.md").uri
    shown = ["--scores", scores, "--data", data, "--maps", place.child("maps").uri, "--student", student]
    assert evaluate_main(["report", *shown, "--measures", measures, "--out", page, "--table", table]) == 0
    assert evaluate_main(["tables", *shown, "--out", place.child("paper").uri]) == 0
    # As a reader that is not ours sees them.
    for out, rows_per_image in ((maps["rise"], 1), (scores, 2 * len(maps))):
        rows = pq.read_table(out)
        assert rows.num_rows == NUM_IMAGES * rows_per_image
        assert rows["error"].null_count == rows.num_rows
    assert b"mal_grad_cam" in place.read_bytes("report.html")
    assert place.names() == ["report.csv", "report.html", "report.md"]
    assert not {path.name for path in tmp_path.iterdir()} & {"data", "student", "maps", "scores", "teacher"}
