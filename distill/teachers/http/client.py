"""HTTP to a black box that is not trusted: bounded in time and size, one place, and no word of the token.

Connections stay open between requests. A URL is asked as it was given: no redirect is followed, no proxy of the
environment is used.
"""

from __future__ import annotations

import functools
import os
import re
import time
import weakref
from collections.abc import Mapping

import httpx

from distill.teachers.errors import NoReplyError, TeacherError

TOKEN_VARIABLE = "MALGRADCAM_TEACHER_TOKEN"  # noqa: S105 - the name of where the token is
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_REPLY_BYTES = 2**26  # 64 MiB: 8 rows of a million classes as JSON
MAX_QUOTED = 200  # characters of what a server says, in an error
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses after which another attempt may succeed


_ssl_context = functools.cache(httpx.create_ssl_context)  # reading the certificates takes longer than a request


class Client:
    """What speaks with one black box."""

    def __init__(self, url: str) -> None:
        """Prepare to speak with the black box at a URL, which errors name; nothing is sent yet.

        Raises:
            ValueError: there is a token that cannot be sent, or would be sent where anybody can read it.
        """
        self.url = url
        self.timeout_s = 30.0
        """Seconds for one request, its reply included."""
        self._token = _token(url)
        own = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        self._http = httpx.Client(
            headers={"Accept-Encoding": "identity", **own},
            follow_redirects=False,
            trust_env=False,
            verify=_ssl_context(),
        )
        weakref.finalize(self, self._http.close)

    def get(self, url: str) -> bytes:
        """Return what lies at a URL of the server. Raises: as `post`."""
        return self._ask("GET", url, None, {})[0]

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """Send a body; return the reply's and its headers.

        Raises:
            NoReplyError: there was none in time, or a status that may pass.
            TeacherError: the server refuses, points elsewhere, or replies at great length.
        """
        return self._ask("POST", url, body, headers)

    def _ask(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[bytes, Mapping[str, str]]:
        deadline_s = time.monotonic() + self.timeout_s
        try:
            with self._http.stream(method, url, content=body, headers=dict(headers), timeout=self.timeout_s) as reply:
                content = self._read(reply, deadline_s)
        except httpx.TransportError as error:
            raise NoReplyError(f"teacher {self.url!r} gave no reply: {self._name(error)}") from None
        except httpx.HTTPError as error:
            raise TeacherError(f"teacher {self.url!r} gave no reply that can be read: {self._name(error)}") from None
        self._check(reply, content)
        return content, reply.headers

    def _read(self, reply: httpx.Response, deadline_s: float) -> bytes:
        parts: list[bytes] = []
        num_bytes = 0
        for part in reply.iter_bytes():
            parts.append(part)
            num_bytes += len(part)
            if num_bytes > MAX_REPLY_BYTES:
                raise TeacherError(f"teacher {self.url!r} replied with more than {MAX_REPLY_BYTES} bytes")
            if time.monotonic() > deadline_s:
                raise NoReplyError(f"teacher {self.url!r} gave no whole reply within {self.timeout_s:g} s")
        return b"".join(parts)

    def _check(self, reply: httpx.Response, content: bytes) -> None:
        status = reply.status_code
        if reply.is_success:
            return
        said = f"teacher {self.url!r} replied with status {status}"
        if reply.is_redirect:
            raise TeacherError(
                f"{said}, a redirect to {self._quoted(reply.headers['Location'])}, which is not followed; give that "
                "URL itself if you trust it"
            )
        if status in (401, 403):
            given = "was refused" if self._token else "is not set"
            raise TeacherError(f"{said}: the token in ${TOKEN_VARIABLE} {given}")
        said = f"{said}: {self._quoted(content.decode('utf-8', 'replace'))}"
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
