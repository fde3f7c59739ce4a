"""Requests and replies of the Open Inference Protocol: as documented, and hostile ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distill.teachers.http.protocol import read_reply, write_request


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
