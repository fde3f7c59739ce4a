"""A served model that many clients ask at the same time answers each as if it were alone."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cluster.storage import Folder
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # MLflow's own

CLIENTS = 16


def open_model(run: Path, method: str) -> Any:
    """Load a model as MLflow does."""
    from explain.serving.pyfunc import Maps  # MLflow warns when it is imported, which collecting takes for an error

    half = (0.5, 0.5, 0.5)
    torch.manual_seed(0)
    student = Student(
        model=ResCBAM(18, 5).eval(), input_size=(32, 48), mean=half, std=half, teacher="onnx:x", teacher_fingerprint="x"
    )
    save_student(Folder(str(run)), student)
    model = Maps()
    config = {"method": method, "options": {}}
    model.load_context(SimpleNamespace(model_config=config, artifacts={"student": str(run)}))
    return model


def request(k: int) -> pd.DataFrame:
    """Make a request of one to three images, of which every ninth is broken; every second names its target."""
    rng, images = np.random.default_rng(k), []
    for _ in range(k % 3 + 1):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(file, "PNG")
        images.append(file.getvalue()[: 100 if k % 9 == 0 else None])
    frame = pd.DataFrame({"image": images})
    return frame.assign(target=k % 5) if k % 2 else frame


@pytest.mark.parametrize("method", ["mal_grad_cam", "grad_cam"])
def test_sixteen_clients_get_the_bits_of_one_after_the_other(tmp_path, method):
    model = open_model(tmp_path, method)
    requests = [request(k) for k in range(3 * CLIENTS)]
    expected = [model.predict(None, one) for one in requests]
    with ThreadPoolExecutor(CLIENTS) as clients:
        answered = list(clients.map(lambda one: model.predict(None, one), requests))
    for one, other in zip(expected, answered, strict=True):
        for row, same in zip(one.to_dict("records"), other.to_dict("records"), strict=True):
            first, second = (answer.pop("saliency") for answer in (row, same))
            assert row == same
            assert (first is None) == (second is None)
            assert first is None or first.tobytes() == second.tobytes()
