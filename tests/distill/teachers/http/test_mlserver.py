"""MLServer, where it is installed here or where MLSERVER says, serves the same black box."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from box_teacher import SIZE, Box
from inference_client import Server, some_images
from project_paths import HELPERS

from distill.teachers import TeacherError, load_teacher

MODEL_CODE = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from box_teacher import Box

class Served(MLModel):
    async def predict(self, payload):
        images = NumpyCodec.decode_input(payload.inputs[0])
        x = images.transpose(0, 2, 3, 1).astype(np.float64) * Box.std + Box.mean
        logits = Box(6.0).logits(x).astype(np.float32)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)])
"""


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = os.environ.get("MLSERVER") or shutil.which("mlserver")
    if command is None:
        pytest.skip("MLServer is not installed here; MLSERVER names its command")
    folder = tmp_path_factory.mktemp("mlserver")
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        ports = []
        for found in (one, two, three):
            found.bind(("127.0.0.1", 0))
            ports.append(found.getsockname()[1])
    http, grpc, metrics = ports
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
    model = {
        "name": "box",
        "implementation": "served.Served",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, *SIZE]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "served.py").write_text(MODEL_CODE)
    path = os.pathsep.join([str(folder), str(HELPERS)])
    with (folder / "log").open("w") as log:
        words = [command, "start", str(folder)]
        process = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log, cwd=folder)
    root = f"http://127.0.0.1:{http}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{root}/v2/health/ready").close()  # noqa: S310 - our own
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield root
    finally:
        process.terminate()
        process.wait()


def test_mlserver_answers_as_the_black_box_does(mlserver: str, tmp_path: Path) -> None:
    spec = Server(0).spec(tmp_path, output="logits", input_size=None).partition("#")[2]
    teacher = load_teacher(f"{mlserver}/v2/models/box#{spec}")
    images = some_images(21)
    np.testing.assert_allclose(teacher.probabilities(images), Box(6.0)(images), atol=1e-6)
    assert (teacher.input_size, teacher.num_classes, teacher.engine) == (SIZE, 3, "open-inference")
    with pytest.raises(TeacherError, match="status 404"):
        load_teacher(f"{mlserver}/v2/models/nothing#{spec}")
