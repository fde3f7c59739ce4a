"""Teachers behind the Open Inference Protocol: a real server in a process of its own, and all that it can do wrong.

The server is written from the protocol's text and shares no code with what is tested (`inference_server`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from box_teacher import SIZE, Box
from inference_client import Server, running_server, some_images

from distill.teachers import RefusedImageError, TeacherError, load_teacher
from distill.teachers.http.client import TOKEN_VARIABLE
from distill.teachers.kinds.http_server import WAITS_S

LABELS = {"output": "labels", "num_classes": 3}


TOP = {"output": "top_k", "k": 2, "num_classes": 3, "output_tensor": "scores", "class_tensor": "classes"}


BARE = {"layout": "NCHW", "datatype": "FP32", "input_tensor": "image", "output_tensor": "probs"}


MODELS = {
    "probs": {},
    "logits": {"output": "logits"},
    "bytes": {},
    "levels": {},
    "halves": {},
    "doubles": {},
    "four": {},
    "bare": BARE,
    "top": TOP,
}


@pytest.mark.parametrize("root", ["", "/plain"])
@pytest.mark.parametrize("model", MODELS)
def test_answers_are_the_black_boxs_own(server: Server, tmp_path: Path, model: str, root: str) -> None:
    teacher = load_teacher(server.spec(tmp_path, model, root, **MODELS[model]))
    images = some_images()
    found = teacher.probabilities(images)
    atol = 2e-3 if model == "halves" else 1e-6
    np.testing.assert_allclose(found, Box(6.0)(images), atol=atol)
    assert teacher.num_classes == 3
    assert server.get("binary") == (0 if root else server.get("requests")), "binary where the server offers it"
    assert server.get("largest") == (4 if model == "four" else 8)


def test_a_label_is_a_one_hot_row_and_the_engine_says_so(server: Server, tmp_path: Path) -> None:
    images = some_images()
    expected = np.eye(3)[Box(6.0)(images).argmax(axis=1)]
    for model, fields in (("label", LABELS), ("name", {"output": "labels", "classes": ["red", "green", "blue"]})):
        for root in ("", "/plain"):
            teacher = load_teacher(server.spec(tmp_path, model, root, **fields))
            np.testing.assert_array_equal(teacher.probabilities(images), expected)
            assert (teacher.engine, teacher.num_ranked) == ("open-inference-labels", 1)


def test_metadata_need_not_be_repeated_and_must_not_be_contradicted(server: Server, tmp_path: Path) -> None:
    assert load_teacher(server.spec(tmp_path, input_size=None)).input_size == SIZE
    with pytest.raises(ValueError, match=r"says input_size = \(18, 12\), the model itself \(12, 18\)"):
        load_teacher(server.spec(tmp_path, input_size=[18, 12]))
    with pytest.raises(ValueError, match=r"missing fields .*layout"):
        load_teacher(server.spec(tmp_path, "bare"))
    with pytest.raises(ValueError, match=r"missing fields .*output_tensor"):
        load_teacher(server.spec(tmp_path, "top", **{**TOP, "output_tensor": None}))
    with pytest.raises(ValueError, match="returns 3 classes, but its num_classes says 4"):
        load_teacher(server.spec(tmp_path, num_classes=4))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"output": "labels"}, "num_classes is None"),
        ({"output": "top_k", "num_classes": 3}, "class_tensor is None"),
        ({"k": 2}, "k is 2"),
        ({"transfer": "grpc"}, "transfer is 'grpc'"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"queries_per_second": -1.0}, "queries_per_second is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"keep_answers": 1}, "keep_answers is 1"),
        ({"identity": 3}, "identity is 3"),
        ({"token": "x"}, r"unknown fields \['token'\]"),
    ],
)
def test_a_wrong_description_says_what_is_allowed(server: Server, tmp_path: Path, fields: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){complaint}.*allowed.*For example"):
        load_teacher(server.spec(tmp_path, **fields))


@pytest.mark.parametrize("fault", ["500", "503", "reset", "half", "busy"])
def test_what_passes_is_asked_again(server: Server, tmp_path: Path, waits: list[float], fault: str) -> None:
    teacher = load_teacher(server.spec(tmp_path))
    server.set(fault=fault, times=3)
    images = some_images(5)
    np.testing.assert_allclose(teacher.probabilities(images), Box(6.0)(images), atol=1e-6)
    if fault == "busy":
        assert waits == [7.0] * 3, "the server asked to be left alone for seven seconds"
    else:
        assert waits == [pytest.approx(wait, rel=0.5) for wait in WAITS_S[:3]]


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("404", "status 404: 'out of order'|status 404: .*out of order"),
        ("redirect", "redirect to 'http://.*/v2/models/other/infer', which is not followed"),
        ("401", rf"status 401: the token in \${TOKEN_VARIABLE} is not set"),
        ("huge", "more than 1048576 bytes"),
        ("not json", "the reply is not JSON"),
        ("deep", "the reply is not JSON"),
        ("nan", "NaN or infinity"),
        ("more classes", r"returned shape \(2, 4\)"),
        ("too many rows", r"output 'probs' has shape \(4, 3\) for 2 images"),
    ],
)
@pytest.mark.parametrize("root", ["", "/plain"])
def test_a_wrong_reply_is_an_error_and_kept_nowhere(
    server: Server, tmp_path: Path, fault: str, complaint: str, root: str
) -> None:
    teacher = load_teacher(server.spec(tmp_path, root=root))
    server.set(fault=fault, times=10**6)
    with pytest.raises(TeacherError, match=complaint) as caught:
        teacher.probabilities(some_images(2))
    assert not isinstance(caught.value, RefusedImageError), "what it knows from before does not tell that it answers"
    server.set(fault="", times=0)
    np.testing.assert_allclose(teacher.probabilities(some_images(2)), Box(6.0)(some_images(2)), atol=1e-6)


def test_an_image_that_is_refused_is_told_from_a_server_that_is_gone(server: Server, tmp_path: Path) -> None:
    teacher = load_teacher(server.spec(tmp_path))
    server.set(fault="picky")
    with pytest.raises(RefusedImageError, match=r"status 400: .*too bright"):
        teacher.probabilities(np.full((1, *SIZE, 3), 255, np.uint8))
    with running_server() as other:
        mortal = load_teacher(other.spec(tmp_path / "other"))
    with pytest.raises(TeacherError, match="gave no reply: ConnectError") as caught:
        mortal.probabilities(some_images(1))
    assert not isinstance(caught.value, RefusedImageError)


def test_a_server_that_comes_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server() as server:
        spec = server.spec(tmp_path)
    with pytest.raises(TeacherError, match="gave no reply"):
        load_teacher(spec)


def test_a_url_that_serves_nothing_of_the_kind_is_an_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"status 404: .*no model nothing"):
        load_teacher(server.spec(tmp_path, "nothing"))
    toml = server.spec(tmp_path).partition("#")[2]
    with pytest.raises(ValueError, match=r"write http://.*probs#path/to/teacher\.toml.*(?s:.*)For example"):
        load_teacher(f"{server.root}/v2/models/probs")
    with pytest.raises(FileNotFoundError, match=r"no .*/absent\.toml"):
        load_teacher(f"{server.root}/v2/models/probs#{tmp_path}/absent.toml")
    for wrong in ("http://x", "http://x/v2/models/", "http://x/v2/models/a/b", "http://x/v2/models/a b", "https:x"):
        with pytest.raises(ValueError, match="URL is http://HOST:PORT/v2/models/NAME"):
            load_teacher(f"{wrong}#{toml}")
