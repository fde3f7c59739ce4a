"""A job over damaged images, on a real Ray: each file is a map or an error row, and no worker is lost."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from file_mutations import decode_all, write
from project_paths import HELPERS, ROOT

from explain.maps import read_maps, saliency_maps

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's remarks on broken metadata


def explain(method: str, data: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "explain", method, "--data", str(data), "--out", str(out), *options]
    path = os.pathsep.join([str(ROOT), str(HELPERS)])
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=550)


@pytest.mark.parametrize(
    ("num", "seed"), [(200, 2), pytest.param(2000, 3, marks=[pytest.mark.slow, pytest.mark.chaos])]
)
def test_each_damaged_image_is_a_map_or_an_error_row(tmp_path: Path, num: int, seed: int) -> None:
    files = write(tmp_path / "data", num, seed)
    os.mkfifo(tmp_path / "data" / "pipe.png")
    done = explain("edges", tmp_path / "data", tmp_path / "maps")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not re.search(r"Traceback|SIGSEGV|died|oom", done.stdout + done.stderr), done.stderr[-3000:]
    table = read_maps(str(tmp_path / "maps"))
    names = [file.name for file in files]
    assert table["image_id"].to_pylist() == sorted([*names, "pipe.png"])
    refused = decode_all(files)["errors"]
    for image_id, error, saliency in zip(
        table["image_id"].to_pylist(), table["error"].to_pylist(), saliency_maps(table), strict=True
    ):
        assert (error is None) == (image_id not in refused and image_id != "pipe.png"), image_id
        assert (saliency is None) == (error is not None)
        assert saliency is None or (saliency.shape == (224, 224) and np.isfinite(saliency).all())
    manifest = json.loads((tmp_path / "maps" / "_manifest.json").read_text())
    assert (manifest["rows"], manifest["errors"]) == (len(names) + 1, len(refused) + 1)
