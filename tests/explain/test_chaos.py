"""Jobs whose driver, actors, raylets and nodes are killed at random: one row per image, and the undisturbed maps."""

import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.reliability import storm
from benchmarks.reliability.chaos import Settings, differences, doubled_runs, rounds
from benchmarks.reliability.storm import KINDS, Chaos
from cluster.storage import Folder

NUM_IMAGES = 2000
TWO_GAMES = 2
# A job without Ray: a driver, and a child that makes what is missing of eight files.
JOB = """
import pathlib, subprocess, sys, time
out = pathlib.Path(sys.argv[1])
if sys.argv[2:]:
    for place in map(out.joinpath, "01234567"):
        time.sleep(0.0 if place.exists() else 0.2)
        place.touch()
else:
    sys.exit(abs(subprocess.run([sys.executable, __file__, out, "MapBatches"]).returncode))
"""


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")  # Ray's and MLflow's own, at their start and end
@pytest.mark.parametrize("kills", [10, 60])
def test_whatever_is_killed_every_image_has_its_row(
    kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLOW_BOX_S", "MLFLOW_TRACKING_URI", "RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    found = list(rounds(Settings(images=NUM_IMAGES, kills=kills), tmp_path))
    assert [one.wrong for one in found] == [[]] * len(found)
    assert {one.rows for one in found} == {NUM_IMAGES, NUM_IMAGES * TWO_GAMES}
    assert sum(len(one.storm.kills) for one in found) == kills
    assert doubled_runs(tmp_path, 1 + sum(one.job == "evaluate" for one in found)) == 0
    if kills >= 50:
        assert {kind for one in found for kind, _ in one.storm.kills} == set(KINDS)


def test_a_lost_a_doubled_and_another_row_and_a_stray_file_are_seen(tmp_path: Path) -> None:
    def make(name: str, *parts: list[int], stray: str | None = None) -> list[str]:
        folder = tmp_path / name
        folder.mkdir()
        for k, values in enumerate(parts):
            ids = [f"{value // 10}.png" for value in values]
            rows = {"image_id": ids, "method": ["rise"] * len(ids), "saliency": [[float(v)] for v in values]}
            rows["seconds"] = [len(name) * 1.0] * len(ids)
            parquet.write_table(pa.table(rows), folder / f"part-{k}.parquet")
        if stray is not None:
            (folder / stray).touch()
        Folder(str(folder)).finish({"rows": sum(map(len, parts)), "errors": 0, "num_parts": len(parts)})
        return differences("explain", folder, tmp_path / "undisturbed")

    assert make("undisturbed", [10, 20], [30]) == []
    assert make("same", [10, 20], [30]) == []
    assert make("lost", [10, 20], []) != []
    assert "1 rows twice" in make("twice", [10, 20], [30, 30])
    assert make("other", [10, 20], [31]) == ["3 rows, of 3, or other values in them"]
    assert make("stray", [10, 20], [30], stray=".part-1.parquet.aside") == ["files ['.part-1.parquet.aside']"]


class OneNode:
    """All children of the driver are its node."""

    name = "one node"

    def environment(self) -> dict[str, str]:
        return {}

    def nodes(self, driver: psutil.Process) -> list[list[psutil.Process]]:
        return [found] if (found := driver.children(recursive=True)) else []

    def mend(self) -> None:
        pass


def test_a_job_is_killed_and_started_again_until_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "LONGEST_WAIT_S", 0.5)
    (tmp_path / "out").mkdir()
    (tmp_path / "job.py").write_text(JOB)
    command = [sys.executable, str(tmp_path / "job.py"), str(tmp_path / "out")]
    done = Chaos(1, 4).run(command, OneNode())
    assert (done.starts, len(done.kills), done.failed) == (5, 4, 0)
    assert len(list((tmp_path / "out").iterdir())) == 8
    (tmp_path / "job.py").write_text("raise SystemExit(1)")
    with pytest.raises(RuntimeError, match="failed though nothing was killed"):
        Chaos(1, 4).run(command, OneNode())
