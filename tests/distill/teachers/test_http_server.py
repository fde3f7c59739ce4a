"""Black boxes behind the Open Inference Protocol: a real server in a process of its own, and all that it can do wrong.

The server is written from the protocol's text and shares no code with what is tested (`inference_server`). Where
MLServer is installed, in this environment or where MLSERVER says, it serves the same black box.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from box_teacher import SIZE, Box
from inference_client import Server, running_server
from project_paths import HELPERS

from cluster.errors import WorkError
from distill.teachers import RefusedImageError, TeacherError, load_teacher
from distill.teachers.http.client import TOKEN_VARIABLE
from distill.teachers.http.protocol import read_reply, write_request
from distill.teachers.http.rate_limit import RateLimit
from distill.teachers.http.response_cache import ResponseCache
from distill.teachers.kinds.http_server import WAITS_S
from distill.teachers.top_k import fill_remaining, one_hot

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
SECRET = "s3cr3t-t0ken"  # noqa: S105 - of the test


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.reset()
    return running


@pytest.fixture(autouse=True)
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Wait for nothing between attempts, and note for how long; a long reply is one of a megabyte."""
    noted: list[float] = []
    monkeypatch.setattr("distill.teachers.http.client.MAX_REPLY_BYTES", 2**20)
    monkeypatch.setattr("distill.teachers.retry.time.sleep", noted.append)
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    return noted


def some_images(count: int = 19, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


# What a server answers


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


def test_top_k_keeps_what_was_told_and_spreads_the_rest_evenly() -> None:
    probs, classes = np.array([[0.5, 0.3], [0.25, 0.25]]), np.array([[4, 0], [1, 3]])
    found = fill_remaining(probs, classes, 5)
    np.testing.assert_allclose(found[0], [0.3, 0.2 / 3, 0.2 / 3, 0.2 / 3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(found[1], [0.5 / 3, 0.25, 0.5 / 3, 0.25, 0.5 / 3], rtol=1e-6)
    np.testing.assert_array_equal(
        fill_remaining(np.array([[0.6, 0.4]]), np.array([[1, 0]]), 2), np.array([[0.4, 0.6]], np.float32)
    )


@pytest.mark.parametrize(
    ("probs", "classes", "complaint"),
    [
        ([0.5, 0.3], [0, 5], "class 5; classes: 0 to 4"),
        ([0.5, 0.3], [0, -1], "class -1"),
        ([0.5, 0.3], [1, 1], "a class twice"),
        ([0.7, 0.5], [0, 1], "cannot be the highest of 5: they sum to 1.2"),
        ([0.5, 0.01], [0, 1], "the least is 0.01"),
        ([0.5, float("nan")], [0, 1], "cannot be"),
    ],
)
def test_what_cannot_be_the_highest_is_refused(probs: list[float], classes: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        fill_remaining(np.array([probs]), np.array([classes]), 5)
    with pytest.raises(ValueError, match="classes: 0 to 4"):
        one_hot(np.array([5]), 5)


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


# Faults


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


@pytest.mark.parametrize("fault", ["slow", "drip"])
def test_a_request_takes_no_longer_than_its_time(server: Server, tmp_path: Path, fault: str) -> None:
    teacher = load_teacher(server.spec(tmp_path, timeout_s=0.3))
    server.set(fault=fault, times=1)
    started = time.monotonic()
    teacher.probabilities(some_images(1))
    assert 0.3 <= time.monotonic() - started < 2, "the slow reply takes three seconds"
    assert server.get("requests") == 3, "one to load, one in vain, one answered"


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


# Nothing asked twice, and nothing too fast


def test_a_question_is_asked_once_by_anybody(server: Server, tmp_path: Path) -> None:
    spec = server.spec(tmp_path)
    images = some_images(6)
    first = load_teacher(spec).probabilities(np.concatenate([images, images[:3]]))
    assert server.get("queries") == 1 + 6, "the one with which it is loaded, and each image once"
    again = load_teacher(spec)
    np.testing.assert_array_equal(again.probabilities(images[::-1]), first[:6][::-1])
    np.testing.assert_array_equal(again.probabilities(images[2:3]), first[2:3])
    assert server.get("queries") == 7
    again.probabilities(some_images(7, seed=4))
    assert server.get("queries") == 14
    other = load_teacher(server.spec(tmp_path, "other"))
    other.probabilities(images)
    assert server.get("queries") == 14 + 7, "another model's answers are its own"


def test_an_answer_is_of_its_description_and_identity(server: Server, tmp_path: Path) -> None:
    fields = [{}, {"mean": [0.5, 0.5, 0.5]}, {"identity": "a"}, {"identity": "b"}, {"classes": ["a", "b", "c"]}]
    assert len({load_teacher(server.spec(tmp_path, **one)).fingerprint for one in fields}) == len(fields)
    moved = [load_teacher(server.spec(tmp_path, name, identity="a")).fingerprint for name in ("probs", "other")]
    assert moved[0] == moved[1], "a model with a name is the same wherever it is served"
    how = [{}, {"batch_size": 4}, {"timeout_s": 5.0}, {"transfer": "json"}, {"keep_answers": False}]
    assert len({load_teacher(server.spec(tmp_path, **one)).fingerprint for one in how}) == 1


def test_answers_are_not_kept_where_that_is_not_wished(server: Server, tmp_path: Path) -> None:
    teacher = load_teacher(server.spec(tmp_path, keep_answers=False))
    for _ in range(2):
        teacher.probabilities(some_images(3))
    assert server.get("queries") == 1 + 6
    assert not (tmp_path / "cache" / "answers").exists()


def test_a_broken_store_ends_the_work_and_is_no_images_fault(server: Server, tmp_path: Path) -> None:
    spec = server.spec(tmp_path)
    fingerprint = load_teacher(spec).fingerprint
    path = tmp_path / "cache" / "answers" / f"{fingerprint}.sqlite"
    for file in path.parent.iterdir():
        file.unlink()
    path.write_bytes(b"no database" * 100)
    with pytest.raises(WorkError, match=r"answers cannot be kept in .*sqlite: file is not a database"):
        load_teacher(spec)


def test_workers_share_one_store(tmp_path: Path) -> None:
    mine, other = ResponseCache("abc"), ResponseCache("abc")
    rows = np.random.default_rng(0).random((600, 3)).astype(np.float32)
    asked: list[int] = []

    def ask(places: list[int]) -> np.ndarray:
        asked.extend(places)
        return rows[places]

    np.testing.assert_array_equal(mine.get_or_query(rows, ask), rows)
    np.testing.assert_array_equal(other.get_or_query(rows[::-1], ask), rows[::-1])
    assert asked == list(range(600))
    with sqlite3.connect(mine.path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM answers").fetchone() == (600,)
    connection.close()


def test_one_connection_serves_many_requests(server: Server, tmp_path: Path) -> None:
    teacher = load_teacher(server.spec(tmp_path, keep_answers=False))
    before = server.get("connections")
    for _ in range(5):
        teacher.probabilities(some_images(3))
    assert server.get("connections") == before + 1, "the one that asks for this number"


def test_a_rate_is_kept_by_all_who_ask() -> None:
    script = (
        "import time; from distill.teachers.http.rate_limit import RateLimit\n"
        "limit = RateLimit('http://x', 20.0)\n"
        "for k in range(4):\n"
        "    limit.wait(3); print(time.time())\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sent = sorted(float(line) for worker in workers for line in worker.communicate()[0].split())
    assert len(sent) == 8
    # twenty a second, three at once; however late a worker is waked, what comes after is never early for all before
    assert all(later - sent[0] >= 3 * k / 20 - 0.05 for k, later in enumerate(sent))


def test_a_limited_teacher_keeps_its_rate(server: Server, tmp_path: Path, waits: list[float]) -> None:
    teacher = load_teacher(server.spec(tmp_path, keep_answers=False, queries_per_second=0.1, batch_size=4))
    waits.clear()
    teacher.probabilities(some_images(12))
    assert waits == [pytest.approx(wait, abs=5) for wait in (10, 50, 90)], "one query to load, then four at a time"


def test_a_rate_limit_goes_on_after_the_clock_was_set_back(tmp_path: Path) -> None:
    limit = RateLimit("http://x", 1000.0)
    limit.wait(1)
    (file,) = (path for path in (tmp_path / "cache" / "pace").iterdir() if not path.name.endswith(".lock"))
    file.write_text(str(time.time() + 10**6), encoding="utf-8")
    started = time.monotonic()
    limit.wait(1)
    assert time.monotonic() - started < 1


# Nobody else reads along


def test_the_token_is_sent_and_shown_nowhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    caplog.set_level(logging.DEBUG)
    teacher = load_teacher(server.spec(tmp_path))
    server.set(fault="echo", times=10)
    with pytest.raises(TeacherError, match=r"bad header 'Bearer \*\*\*'|bad header .*\*\*\*") as caught:
        teacher.probabilities(some_images(1))
    shown = f"{caught.value!r} {teacher.spec} {teacher.engine} {teacher.fingerprint} {caplog.text}"
    assert SECRET not in shown
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_redirect_takes_the_token_nowhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    teacher = load_teacher(server.spec(tmp_path))
    server.set(fault="redirect", times=1, requests=0)
    with pytest.raises(TeacherError, match="not followed"):
        teacher.probabilities(some_images(1))
    assert server.get("requests") == 2, "the one that was sent on, and one image of the mean color"


@pytest.mark.parametrize("token", ["two words", "new\nline", "\u00fc"])
def test_a_token_that_cannot_be_sent_is_not_repeated(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(ValueError, match=rf"\${TOKEN_VARIABLE} holds spaces") as caught:
        load_teacher(server.spec(tmp_path))
    assert token not in str(caught.value)


def test_a_token_does_not_go_through_the_network_in_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    with pytest.raises(ValueError, match="in clear through the network; use https") as caught:
        load_teacher(f"http://example.invalid/v2/models/a#{tmp_path}/teacher.toml")
    assert SECRET not in str(caught.value)


def test_https_is_spoken_with_known_certificates_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subject = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-days", "2"]
    subprocess.run([*words, "-out", cert, "-keyout", key], check=True, capture_output=True)
    monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    with running_server(cert, key) as server:
        spec = server.spec(tmp_path).replace("http:", "https:")
        with pytest.raises(TeacherError, match="CERTIFICATE_VERIFY_FAILED"):
            load_teacher(spec)
        monkeypatch.setenv("SSL_CERT_FILE", cert)
        monkeypatch.setattr("distill.teachers.http.client._ssl_context", httpx.create_ssl_context)
        np.testing.assert_allclose(
            load_teacher(spec).probabilities(some_images(3)), Box(6.0)(some_images(3)), atol=1e-6
        )


@pytest.mark.parametrize("url", ["http://me:s3cr3t@x/v2/models/a", "http://x/v2/models/a?key=s3cr3t"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"without user, password or query; a token is read from \${TOKEN_VARIABLE}"
    ) as e:
        load_teacher(f"{url}#{tmp_path}/teacher.toml")
    assert "s3cr3t" not in str(e.value)


# The format


def test_a_binary_request_is_what_triton_documents() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    body, headers = write_request(images, "UINT8", name="x", outputs=["y"], binary=True)
    length = int(headers["Inference-Header-Content-Length"])
    assert json.loads(body[:length]) == {
        "inputs": [{"name": "x", "shape": [1, 2, 2, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 12}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    assert body[length:] == bytes(range(12))


def test_floats_survive_json_to_the_last_bit() -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    body, _ = write_request(images, "FP32", name="x", outputs=["y"], binary=False)
    (sent,) = json.loads(body)["inputs"]
    np.testing.assert_array_equal(np.array(sent["data"], dtype=np.float32).reshape(sent["shape"]), images)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ({"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0]}, r"1 values, but shape \(2,\)"),
        ({"name": "y", "datatype": "FP32", "shape": [-1], "data": [1.0]}, "has shape"),
        ({"name": "y", "datatype": "FP32", "shape": [10**12, 10**12], "data": [1.0]}, "1 values"),
        ({"name": "y", "datatype": "FP32", "shape": 3, "data": [1.0]}, "a tensor has"),
        ({"name": "y", "datatype": "FP32", "shape": [1], "data": ["a"]}, "could not convert"),
        ({"name": "y", "datatype": "FP32", "shape": [1], "data": [{}]}, "are no FP32"),
        ({"name": "y", "datatype": "INT8", "shape": [1], "data": [10**30]}, "are no INT8"),
        ({"name": "y", "datatype": "FP32", "shape": [1]}, "has no data"),
        ({"name": "y", "datatype": "BF16", "shape": [1], "data": [1]}, "datatype 'BF16'; allowed"),
        ({"name": 1, "datatype": "FP32", "shape": [1], "data": [1]}, "a tensor has"),
        ({"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}, "of which 0 came"),
        ({"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": -4}}, "of which 0 came"),
        ("y", "no list of outputs"),
    ],
)
def test_a_hostile_reply_is_an_error(output: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_reply(json.dumps({"outputs": [output]}).encode(), {})


def test_hostile_binary_parts_are_errors() -> None:
    head = json.dumps(
        {"outputs": [{"name": "y", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}]}
    ).encode()
    good = head + b"\x04\0\0\0frog"
    assert read_reply(good, {"Inference-Header-Content-Length": str(len(head))})["y"].tolist() == [b"frog"]
    for length, tail, complaint in (
        (str(len(head)), b"\xff\xff\xff\xfffrog", "longer than what came"),
        (str(len(head) + 100), b"", "in a reply of"),
        ("-1", b"", "in a reply of"),
        ("1e3", b"", "in a reply of"),
    ):
        with pytest.raises(ValueError, match=complaint):
            read_reply(head + tail, {"Inference-Header-Content-Length": length})


# MLServer

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
