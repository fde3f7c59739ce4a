"""The HTTP client: bounded in time and size, and silent about the token."""

from __future__ import annotations

import contextlib
import gzip
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from box_teacher import Box
from inference_client import Server, running_server, some_images

from distill.teachers import TeacherError, load_teacher
from distill.teachers.errors import NoReplyError
from distill.teachers.http.client import TOKEN_VARIABLE, Client

SECRET = "s3cr3t-t0ken"  # noqa: S105 - of the test


@pytest.mark.parametrize("fault", ["slow", "drip"])
def test_a_request_takes_no_longer_than_its_time(server: Server, tmp_path: Path, fault: str) -> None:
    teacher = load_teacher(server.spec(tmp_path, timeout_s=0.3))
    server.set(fault=fault, times=1)
    started = time.monotonic()
    teacher.probabilities(some_images(1))
    assert 0.3 <= time.monotonic() - started < 2, "the slow reply takes three seconds"
    assert server.get("requests") == 4, "two to load, one in vain, one answered"


def test_one_connection_serves_many_requests(server: Server, tmp_path: Path) -> None:
    teacher = load_teacher(server.spec(tmp_path, keep_answers=False))
    before = server.get("connections")
    for _ in range(5):
        teacher.probabilities(some_images(3))
    assert server.get("connections") == before + 1, "the one that asks for this number"


def test_a_limited_teacher_keeps_its_rate(server: Server, tmp_path: Path, waits: list[float]) -> None:
    teacher = load_teacher(server.spec(tmp_path, keep_answers=False, queries_per_second=0.1, batch_size=4))
    waits.clear()
    teacher.probabilities(some_images(12))
    assert waits == [pytest.approx(wait, abs=5) for wait in (50, 90, 130)], "1 + 4 queries to load, then four at a time"


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


# Servers that keep a client busy: written with sockets alone, since no server library would do this


def gzip_twice() -> bytes:
    return gzip.compress(gzip.compress(bytes(2**28)))


HEAD = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "dripped headers": (HEAD, b"X-A: b\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "dripped status": (b"HTTP/1.1 ", b"2"),
    "dripped body": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "dripped chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "one long header": (HEAD + b"X-A: ", b"a"),
}


@contextmanager
def raw_server(first: bytes, again: bytes = b"", *, pause_s: float = 0.02) -> Iterator[str]:
    """Send some bytes to whoever connects, and then others for ever."""
    listener, ended = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(2**16)
                    connection.sendall(first)
                    while again and not ended.wait(pause_s):
                        connection.sendall(again)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("name", ENDLESS)
def test_a_reply_that_never_ends_takes_no_longer_than_its_time(name: str) -> None:
    with raw_server(*ENDLESS[name]) as url:
        client = Client(url)
        client.timeout_s = 0.5
        started = time.monotonic()
        with pytest.raises(NoReplyError, match="gave no"):
            client.get(url)
        assert time.monotonic() - started < 20, "each byte came within the timeout of a read"


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip"])
def test_a_packed_reply_is_refused_before_it_is_unpacked(encoding: str) -> None:
    body = gzip_twice() if encoding == "gzip, gzip" else gzip.compress(b"{}")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with raw_server(head + body) as url, pytest.raises(TeacherError, match="Switch compression off") as caught:
        Client(url).get(url)
    assert not isinstance(caught.value, NoReplyError)


def test_a_server_that_reads_slowly_takes_no_longer_than_its_time() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = Client(url)
        client.timeout_s = 0.5
        with pytest.raises(NoReplyError, match="gave no reply"):
            client.post(url, bytes(2**26), {})  # nobody reads it
