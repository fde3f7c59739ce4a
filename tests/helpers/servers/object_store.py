"""A real S3 server on loopback for tests: moto's, a process of its own, that fails or dawdles when it is told to."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUCKET = "bucket"
TOLD = "/-told/"  # no bucket's name begins so
START_S = 60


class ObjectStore:
    """Talk to the server behind its users' back."""

    def __init__(self, port: int) -> None:
        """Name the server on `port` of this machine."""
        self.port, self.address = port, f"http://127.0.0.1:{port}"

    def tell(self, *, fail: bool = False, delay_s: float = 0.0) -> None:
        """Answer every request from now on by 500, or that much later."""
        self._request("PUT", f"{TOLD}{int(fail)}/{delay_s}")

    def counts(self) -> tuple[int, int]:
        """Return how many requests were answered as they should be, and how many by 500."""
        answered, failed = self._request("GET", TOLD).split()
        return int(answered), int(failed)

    def make_bucket(self) -> None:
        """Make the bucket."""
        self._request("PUT", f"/{BUCKET}")

    def _request(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)
        connection.request(method, path)
        with connection.getresponse() as answer:
            assert answer.status == 200, answer.status
            return answer.read()


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run a server with one empty bucket; this process and those it starts use it. `folder` takes its log."""
    log = folder / "object-store.log"
    with log.open("w") as output, subprocess.Popen([sys.executable, __file__], stdout=output, stderr=output) as server:
        try:
            store = ObjectStore(_port(server, log))
            store.make_bucket()
            with _environment(store.address):
                yield store
        finally:
            server.kill()


def _port(server: subprocess.Popen, log: Path) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = log.read_text().partition("http://127.0.0.1:")[2].split()
        if found:
            return int(found[0])
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


@contextmanager
def _environment(address: str) -> Iterator[None]:
    """Set what users of a store of their own set, and take it back."""
    wanted = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class _Obedient:
    """Pass requests on to moto's application, as told."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self.application, self.fail, self.delay_s = application, False, 0.0
        self.num_answered = self.num_failed = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        if path.startswith(TOLD):
            if environ["REQUEST_METHOD"] == "PUT":
                fail, delay_s = path.removeprefix(TOLD).split("/")
                self.fail, self.delay_s = bool(int(fail)), float(delay_s)
            start("200 OK", [])
            return [f"{self.num_answered} {self.num_failed}".encode()]
        time.sleep(self.delay_s)
        if self.fail:
            if environ["REQUEST_METHOD"] in ("PUT", "POST"):
                environ["wsgi.input"].read()  # a client that still sends does not see the answer
            self.num_failed += 1
            start("500 Internal Server Error", [])
            return [b""]
        self.num_answered += 1
        return self.application(environ, start)


def _serve() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", 0, _Obedient(DomainDispatcherApplication(create_backend_app)), threaded=True)


if __name__ == "__main__":
    _serve()
