"""HTTP to a black box that is not trusted: bounded in time and size, one place, and no word of the token.

Connections stay open between requests. A URL is asked as it was given: no redirect is followed, no proxy of the
environment is used. The time of a request is one deadline for all of it, since a server that sends a byte now and then
would keep to a timeout of each read for ever; and a reply is read as it comes, packed or not, and refused if packed.
"""

from __future__ import annotations

import functools
import os
import re
import ssl
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from distill.teachers.errors import NoReplyError, TeacherError

TOKEN_VARIABLE = "MALGRADCAM_TEACHER_TOKEN"  # noqa: S105 - the name of where the token is
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_REPLY_BYTES = 2**26  # 64 MiB: 8 rows of a million classes as JSON
WRITE_BYTES = 2**14  # at once: between two of them the deadline counts
MAX_QUOTED = 200  # characters of what a server says, in an error
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses after which another attempt may succeed


_ssl_context = functools.cache(httpx.create_ssl_context)  # reading the certificates takes longer than a request


@dataclass(frozen=True)
class Reply:
    """A reply that was read to its end."""

    status: int
    headers: httpx.Headers
    content: bytes


class Client:
    """Client of one black box."""

    def __init__(self, url: str) -> None:
        """Prepare to query the black box at a URL, which errors name; nothing is sent yet.

        Raises:
            ValueError: there is a token that cannot be sent, or would be sent where anybody can read it.
        """
        self.url = url
        self.timeout_s = 30.0
        """Seconds for one request, from the connection to the end of the reply."""
        self._token = _token(url)
        self._network = _Network()
        self._pool = httpcore.ConnectionPool(ssl_context=_ssl_context(), network_backend=self._network)
        weakref.finalize(self, self._pool.close)

    def get(self, url: str) -> bytes:
        """Return what lies at a URL of the server. Raises: as `post`."""
        return self._request("GET", url, None, {}).content

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """Send a body; return the reply's and its headers.

        Raises:
            NoReplyError: there was none in time, or a status that may pass.
            TeacherError: the server refuses, points elsewhere, or replies at great length.
        """
        reply = self._request("POST", url, body, headers)
        return reply.content, reply.headers

    def _request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        parsed = httpx.URL(url)
        target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
        own = {"Host": parsed.netloc.decode("ascii"), "Accept": "*/*", "Accept-Encoding": "identity"}
        own |= {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        own |= {} if body is None else {"Content-Length": str(len(body))}
        deadline_s = time.monotonic() + self.timeout_s
        try:
            with (
                self._network.until(deadline_s),
                self._pool.stream(
                    method,
                    target,
                    headers={**own, **headers},
                    content=body,
                    extensions={"timeout": {"pool": self.timeout_s}},
                ) as response,
            ):
                reply_headers = httpx.Headers(response.headers)
                content = self._read(response.iter_stream(), reply_headers, deadline_s)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise NoReplyError(f"teacher {self.url!r} gave no reply: {self._name(error)}") from None
        except (httpcore.UnsupportedProtocol, ValueError) as error:
            raise TeacherError(f"teacher {self.url!r} gave no reply that can be read: {self._name(error)}") from None
        reply = Reply(response.status, reply_headers, content)
        self._check(reply)
        return reply

    def _read(self, stream: Iterable[bytes], headers: httpx.Headers, deadline_s: float) -> bytes:
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise TeacherError(
                f"teacher {self.url!r} replied with Content-Encoding {self._quoted(encoding)}; allowed: identity, as "
                "was asked for. Switch compression off in the server"
            )
        parts: list[bytes] = []
        num_bytes = 0
        for part in stream:
            parts.append(part)
            num_bytes += len(part)
            if num_bytes > MAX_REPLY_BYTES:
                raise TeacherError(f"teacher {self.url!r} replied with more than {MAX_REPLY_BYTES} bytes")
            if time.monotonic() > deadline_s:
                raise NoReplyError(f"teacher {self.url!r} gave no whole reply within {self.timeout_s:g} s")
        return b"".join(parts)

    def _check(self, reply: Reply) -> None:
        status = reply.status
        if 200 <= status < 300:
            return
        said = f"teacher {self.url!r} replied with status {status}"
        if 300 <= status < 400 and "Location" in reply.headers:
            raise TeacherError(
                f"{said}, a redirect to {self._quoted(reply.headers['Location'])}, which is not followed; give that "
                "URL itself if you trust it"
            )
        if status in (401, 403):
            given = "was refused" if self._token else "is not set"
            raise TeacherError(f"{said}: the token in ${TOKEN_VARIABLE} {given}")
        said = f"{said}: {self._quoted(reply.content.decode('utf-8', 'replace'))}"
        if status in PASSING:
            wait = reply.headers.get("Retry-After", "")
            raise NoReplyError(said, wait_s=float(wait) if wait.isascii() and wait.isdigit() else 0.0)
        raise TeacherError(said)

    def _name(self, error: Exception) -> str:
        return f"{type(error).__name__}: {self._quoted(str(error))}"

    def _quoted(self, text: str) -> str:
        """Return the start of what a server said, on one line, without the token should it repeat that."""
        if self._token:
            text = text.replace(self._token, "***")
        return repr(" ".join(re.sub(r"[^\x20-\x7e]+", " ", text).split())[:MAX_QUOTED])


def _token(url: str) -> str | None:
    """Return the token of the environment. Raises: ValueError, which does not repeat it."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return None
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError(f"${TOKEN_VARIABLE} holds spaces or other characters that no token has; correct it")
    parsed = httpx.URL(url)
    if parsed.scheme != "https" and parsed.host not in LOOPBACK:
        raise ValueError(
            f"${TOKEN_VARIABLE} is set, but {url} would carry it in clear through the network; use https, or unset it"
        )
    return token


class _Network(httpcore.NetworkBackend):
    """Sockets whose every operation ends at the deadline of the request that the thread is about."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()
        self._deadline = threading.local()

    @contextmanager
    def until(self, deadline_s: float) -> Iterator[None]:
        """Give all of the block's operations one deadline (of `time.monotonic`)."""
        self._deadline.at_s = deadline_s
        yield

    def left_s(self) -> float:
        """Return the seconds that are left. Raises: httpcore.ReadTimeout where none are."""
        left_s = self._deadline.at_s - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout("the time for one request is over")
        return left_s

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:
        del timeout
        return _Stream(self._sockets.connect_tcp(host, port, timeout=self.left_s(), **options), self)

    def sleep(self, seconds: float) -> None:
        self._sockets.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """A connection whose every operation ends at the request's deadline."""

    def __init__(self, stream: httpcore.NetworkStream, network: _Network) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._stream.read(max_bytes, timeout=self._network.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        view = memoryview(buffer)
        for start in range(0, len(view), WRITE_BYTES):
            self._stream.write(bytes(view[start : start + WRITE_BYTES]), timeout=self._network.left_s())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        del timeout
        left_s = self._network.left_s()
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout=left_s), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
