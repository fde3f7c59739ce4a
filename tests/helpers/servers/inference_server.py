"""A server that speaks the Open Inference Protocol v2 with and without binary tensors, and fails on demand.

Run as a process of its own, with a certificate and its key for HTTPS; it prints its port. Written from the protocol's
text, without the project's own code. Its black box is `box_teacher.Box`.
Below `/plain` it offers no binary tensors.
"""

import json
import os
import socket
import ssl
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np
from box_teacher import SIZE, Box

NAMES = ("red", "green", "blue")
BOX = Box(6.0)
DTYPES = {"FP64": "<f8", "FP32": "<f4", "FP16": "<f2", "UINT8": "u1", "INT64": "<i8"}
NCHW, NHWC = [-1, 3, *SIZE], [-1, *SIZE, 3]
# name -> datatype and shape of the input, names, datatypes and shapes of the outputs
MODELS: dict[str, tuple[list, list]] = {
    "probs": (["FP32", NCHW], [["probs", "FP32", [-1, 3]]]),
    "other": (["FP32", NCHW], [["probs", "FP32", [-1, 3]]]),
    "logits": (["FP32", NCHW], [["logits", "FP32", [-1, 3]]]),
    "bytes": (["UINT8", NHWC], [["probs", "FP32", [-1, 3]]]),
    "levels": (["UINT8", NCHW], [["probs", "FP64", [-1, 3]]]),
    "halves": (["FP16", NHWC], [["probs", "FP16", [-1, 3]]]),
    "doubles": (["FP64", NHWC], [["probs", "FP64", [-1, 3]]]),
    "four": (["FP32", [4, 3, *SIZE]], [["probs", "FP32", [4, 3]]]),
    "label": (["UINT8", NHWC], [["label", "INT64", [-1, 1]]]),
    "name": (["UINT8", NHWC], [["label", "BYTES", [-1]]]),
    "top": (["FP32", NCHW], [["scores", "FP32", [-1, 2]], ["classes", "INT64", [-1, 2]]]),
}


class State:
    """What tests set and read by `/control`."""

    fault: ClassVar[str] = ""
    scale: ClassVar[float] = 6.0  # of the model's logits: another one is another model
    healthy: ClassVar[int] = 0  # requests that are still answered before the fault
    times: ClassVar[int] = 0  # requests that still fail
    requests: ClassVar[int] = 0
    queries: ClassVar[int] = 0
    connections: ClassVar[int] = 0
    binary: ClassVar[int] = 0
    largest: ClassVar[int] = 0  # images in one request
    started: ClassVar[list[float]] = []


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        State.connections += 1
        super().setup()

    def log_message(self, *args: Any) -> None:
        pass

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, status: int, value: Any, **headers: str) -> None:
        self.send(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def do_GET(self) -> None:
        path = self.path.removeprefix("/plain")
        if path == "/control":
            shown = ("requests", "queries", "connections", "binary", "largest", "started")
            return self.send_json(200, {name: getattr(State, name) for name in shown})
        if path == "/v2":
            extensions = [] if self.path.startswith("/plain") else ["classification", "binary_tensor_data"]
            return self.send_json(200, {"name": "test", "version": "1", "extensions": extensions})
        name = path.removeprefix("/v2/models/").partition("/versions/")[0]
        if name not in (*MODELS, "bare"):
            return self.send_json(404, {"error": f"no model {name}"})
        found: dict[str, Any] = {"name": name, "versions": ["1"], "platform": "test"}
        if name in MODELS:
            (datatype, shape), outputs = MODELS[name]
            found["inputs"] = [{"name": "image", "datatype": datatype, "shape": shape}]
            found["outputs"] = [{"name": n, "datatype": d, "shape": s} for n, d, s in outputs]
        return self.send_json(200, found)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/control":
            for name, value in json.loads(body).items():
                setattr(State, name, value)
            return self.send_json(200, {})
        State.requests += 1
        State.started.append(time.time())
        if State.healthy:
            State.healthy -= 1
        elif State.times and not self.fails():
            return None
        return self.infer(body)

    def fails(self) -> bool:
        """Do what the fault is; tell whether the request is answered all the same."""
        State.times -= 1
        fault, token = State.fault, self.headers.get("Authorization", "")
        redirect = f"http://{self.headers['Host']}/v2/models/other/infer"
        replies: dict[str, Any] = {
            "redirect": lambda: self.send(307, b"", Location=redirect),
            "huge": lambda: self.send(200, b" " * (2**21)),
            "not json": lambda: self.send(200, b"<html>hello</html>"),
            "deep": lambda: self.send(200, b"[" * 100_000),
            "echo": lambda: self.send_json(400, {"error": f"bad header {token!r} <script>\n\x1b[31m"}),
            "busy": lambda: self.send_json(429, {"error": "later"}, Retry_After="7"),
            "reset": self.hang_up,
            "half": lambda: self.drip(1),
            "drip": lambda: self.drip(30),
            "slow": lambda: time.sleep(3),
        }
        if fault.isdecimal():
            self.send_json(int(fault), {"error": "out of order"})
        elif fault in replies:
            replies[fault]()
        return fault not in replies and not fault.isdecimal()

    def hang_up(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        raise SystemExit  # of this thread: nobody is there any more

    def drip(self, count: int) -> None:
        """Send the first bytes of a reply, ten a second, and no more."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(count):
            self.wfile.write(b" ")
            time.sleep(0.1)
        self.close_connection = True

    def infer(self, body: bytes) -> None:
        length = self.headers.get("Inference-Header-Content-Length")
        head = json.loads(body[: int(length)] if length else body)
        (given,) = head["inputs"]
        name = self.path.removeprefix("/plain").removeprefix("/v2/models/").removesuffix("/infer").split("/")[0]
        (datatype, shape), outputs = MODELS.get(name, (["FP32", NCHW], [["probs", "FP32", [-1, 3]]]))
        size = given.get("parameters", {}).get("binary_data_size")
        if size is None:
            images = np.array(given["data"], dtype=DTYPES[datatype]).reshape(given["shape"])
        else:
            State.binary += 1
            assert size == len(body) - int(length or 0)
            images = np.frombuffer(body[int(length or 0) :], dtype=DTYPES[datatype]).reshape(given["shape"])
        if given["datatype"] != datatype or any(w not in (-1, g) for w, g in zip(shape, images.shape, strict=True)):
            return self.send_json(400, {"error": f"wrong input {given['datatype']} {given['shape']}"})
        State.queries += len(images)
        State.largest = max(State.largest, len(images))
        x = images.astype(np.float64)
        x = x if shape[3] == 3 else x.transpose(0, 2, 3, 1)
        x = x / 255 if datatype == "UINT8" else x * BOX.std + BOX.mean
        if State.fault in ("picky", "echo bright") and (x.mean((1, 2, 3)) > 0.5).any():
            token = self.headers.get("Authorization") if State.fault == "echo bright" else ""
            return self.send_json(400, {"error": f"too bright {token}"})
        found = self.columns(x)
        wanted = {one["name"]: one.get("parameters", {}).get("binary_data") for one in head["outputs"]}
        listed, tail = [], b""
        for output, kind, _ in outputs:
            if output not in wanted:
                continue
            values = found[output]
            entry: dict[str, Any] = {"name": output, "datatype": kind, "shape": list(values.shape)}
            if wanted[output]:
                data = values.astype(DTYPES[kind]).tobytes() if kind != "BYTES" else texts(values)
                entry["parameters"], tail = {"binary_data_size": len(data)}, tail + data
            else:
                entry["data"] = values.ravel().tolist()
            listed.append(entry)
        answer = json.dumps({"model_name": name, "outputs": listed}).encode()
        if tail:
            return self.send(200, answer + tail, Inference_Header_Content_Length=str(len(answer)))
        return self.send(200, answer)

    def columns(self, x: np.ndarray) -> dict[str, np.ndarray]:
        logits = BOX.logits(x) * State.scale / BOX.scale
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        if State.fault == "nan":
            probs = probs * np.nan
        if State.fault == "more classes":
            probs = np.pad(probs, ((0, 0), (0, 1)))
        if State.fault == "too many rows":
            probs = np.concatenate([probs, probs])
        order = np.argsort(-probs, axis=1, kind="stable")
        labels = order[:, :1]
        is_name = self.path.endswith("/name/infer")
        return {
            "probs": probs,
            "logits": logits,
            "label": np.array(NAMES, dtype=object)[labels[:, 0]] if is_name else labels,
            "scores": np.take_along_axis(probs, order[:, :2], axis=1),
            "classes": order[:, :2],
        }


def texts(values: np.ndarray) -> bytes:
    """Write texts, each behind its length."""
    return b"".join(struct.pack("<I", len(text)) + text.encode() for text in values.ravel())


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if sys.argv[1:]:  # a certificate and its key
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*sys.argv[1:])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    sys.exit(server.serve_forever())
