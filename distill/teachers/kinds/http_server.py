"""`http://host:port/v2/models/NAME#teacher.toml` (or https): a server that speaks the Open Inference Protocol v2."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from distill.teachers.base import Teacher
from distill.teachers.errors import TeacherError
from distill.teachers.http.client import TOKEN_VARIABLE, Client
from distill.teachers.http.protocol import EXTENSION, read_json, read_reply, read_tensors, write_request
from distill.teachers.http.rate_limit import RateLimit
from distill.teachers.http.response_cache import ResponseCache
from distill.teachers.load_options import LoadOptions
from distill.teachers.model_history import ModelHistory
from distill.teachers.outputs import problem_of
from distill.teachers.retry import retry
from distill.teachers.teacher_toml import EXAMPLE, read_toml, require
from distill.teachers.tensor_model import Tensor, TensorDescription, TensorTeacher, metadata_fields

URL = re.compile(r"(?P<root>https?://[^/?#@\s]+(?:/[^?#@\s]+)?)/v2/models/[^/?#@\s]+(?P<version>/versions/[^/?#@\s]+)?")
# A server that is started again is back within half a minute; one that is busy gets time to recover.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
Transfer = Literal["auto", "json", "binary"]


@dataclass(frozen=True, kw_only=True)
class Endpoint(TensorDescription):
    """A served model behind a URL."""

    transfer: Transfer = "auto"
    """how tensors travel; auto takes binary where the server lists that extension"""
    timeout_s: float = 60.0
    """seconds for one request"""
    queries_per_second: float | None = None
    """at most so many images a second, over all workers of a machine"""
    keep_answers: bool = True
    """whether answers are kept by content in this machine's cache, so that a rerun asks nothing"""
    identity: str | None = None
    """names the model behind the URL; without it the URL does, with the versions that it lists"""

    def __post_init__(self) -> None:
        """Refuse what no request can be made with."""
        super().__post_init__()
        require(self.transfer in get_args(Transfer), "transfer", self, " or ".join(get_args(Transfer)))
        for name in ("timeout_s", "queries_per_second"):
            number = getattr(self, name)
            fits = isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < float("inf")
            require(fits or (number is None and name == "queries_per_second"), name, self, "a number above 0")
        require(isinstance(self.keep_answers, bool), "keep_answers", self, "true or false")
        require(self.identity is None or isinstance(self.identity, str), "identity", self, "a text")


class OpenInferenceTeacher(TensorTeacher):
    """A model on a network, each image of which may cost: nothing is padded, and nothing asked twice."""

    costs_queries = True
    retry_waits_s = WAITS_S

    def __init__(self, url: str, described: Endpoint, client: Client, *, binary: bool, **description: Any) -> None:
        """Take what speaks with the server; the other arguments are `TensorTeacher`'s."""
        super().__init__(described, **description)
        self._url, self._client, self._binary = url, client, binary
        client.timeout_s = described.timeout_s
        self._rate_limit = (
            None if described.queries_per_second is None else RateLimit(url, described.queries_per_second)
        )
        self.caches_responses = described.keep_answers

    def finish(self, num_classes: int | None = None) -> Any:
        """Check the model as every teacher, then open its cache. Raises: as `Teacher.finish`, and WorkError."""
        super().finish(num_classes)
        if self.caches_responses:
            _ = self._cache
        return self

    @functools.cached_property
    def _cache(self) -> ResponseCache:
        """Return the responses of the model that was found when this one was loaded."""
        return ResponseCache(self.fingerprint, self._is_valid)

    def _is_valid(self, scores: np.ndarray) -> bool:
        finite = scores.shape == (self.num_classes,) and bool(np.isfinite(scores).all())
        return finite and problem_of(torch.from_numpy(scores.copy())[None], self.output) is None

    def _respond(self, pixels: torch.Tensor) -> torch.Tensor:
        if not self.caches_responses:
            return self._query(pixels)

        def query(places: list[int]) -> np.ndarray:
            return self._query(pixels[places]).cpu().numpy()

        return torch.from_numpy(self._cache.get_or_query(pixels.cpu().numpy(), query)).to(pixels.device)

    def _predict(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        described = self.described
        names = [name for name in (described.output_tensor, described.class_tensor) if name is not None]
        body, headers = write_request(
            images, described.datatype, name=described.input_tensor, outputs=names, binary=self._binary
        )
        if self._rate_limit is not None:
            self._rate_limit.wait(len(images))
        reply, said = self._client.post(f"{self._url}/infer", body, headers)
        try:
            return read_reply(reply, said)
        except ValueError as error:
            raise TeacherError(f"teacher {self.spec!r} cannot be read: {error}") from error


def open_teacher(where: str, options: LoadOptions) -> Teacher:
    """Ask the server what it serves, read the `teacher.toml` behind `#`; `load_teacher` says how."""
    del where
    url, _, toml = options.spec.partition("#")
    matched = URL.fullmatch(url)
    if matched is None:  # it is not repeated: it may hold a password
        raise ValueError(
            "a teacher's URL is http://HOST:PORT/v2/models/NAME, or https, with /versions/VERSION or not, and without "
            f"user, password or query; a token is read from ${TOKEN_VARIABLE}"
        )
    if not toml:
        raise ValueError(
            f"nothing says how {url} takes its images; write {url}#path/to/teacher.toml. For example:\n\n{EXAMPLE}"
        )
    path = Path(toml).expanduser().absolute()
    client = Client(url)
    metadata = _metadata(client, url)
    described = read_toml(path, Endpoint, _known(metadata, url))
    binary = described.transfer == "binary"
    if described.transfer == "auto":
        binary = EXTENSION in _extensions(client, f"{matched['root']}/v2")
    served = [] if matched["version"] else [metadata.get("versions"), metadata.get("platform")]
    teacher = OpenInferenceTeacher(
        url,
        described,
        client,
        binary=binary,
        spec=f"{url}#{path}",
        fingerprint=described.fingerprint(model=described.identity or [url, *served]),
        engine=f"open-inference{described.precision_note}",
    )
    teacher.history = ModelHistory(teacher.fingerprint, name=teacher.spec, expected=options.expected_fingerprint)
    return teacher.finish(described.num_known)


def _metadata(client: Client, url: str) -> dict[str, Any]:
    found = retry(lambda: client.get(url), WAITS_S)
    try:
        return read_json(found)
    except ValueError as error:
        raise TeacherError(f"{url} serves no model of the Open Inference Protocol: {error}") from error


def _known(metadata: dict[str, Any], url: str) -> dict[str, Any]:
    inputs, outputs = ([Tensor(*one) for one in read_tensors(metadata.get(key))] for key in ("inputs", "outputs"))
    return metadata_fields(inputs, outputs, url)


def _extensions(client: Client, url: str) -> list[Any]:
    """List the server's extensions; none where it does not say."""
    try:
        found = read_json(client.get(url)).get("extensions")
    except (TeacherError, ValueError):
        return []
    return found if isinstance(found, list) else []
