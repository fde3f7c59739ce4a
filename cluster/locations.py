"""Check which files and folders a command may open: by the scheme of their URI, and by who named them.

A configuration (`_config.json`) may come from somebody else. Opening a URI sends credentials to a store, and a local
path may hold what its owner shows to nobody. So a stored location is opened only where the user named it too, or where
it lies on this machine and in the same run.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "az", "hdfs", "memory")
"""Schemes that are opened; `memory` is this process alone, for tests."""
HINT = "give a local path, or a URI of file://, s3://, gs://, gcs://, abfs://, abfss://, az:// or hdfs://"


def check_uri(uri: str) -> None:
    """Refuse a URI that nothing here may open; a local path passes.

    Raises:
        ValueError: its scheme is not in `SCHEMES`, it chains protocols (`a::b`), or it holds a password.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return
    if "::" in uri:
        raise ValueError(f"the URI {_shown(uri)} chains protocols with '::', which is not allowed; {HINT}")
    if scheme not in SCHEMES:
        raise ValueError(f"cannot open {_shown(uri)}: the scheme {scheme!r} is not allowed; {HINT}")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError(f"the URI {_shown(uri)} names a machine; give file:///PATH of this machine, or a path")
    parts = urlsplit(uri)
    if parts.password is not None:
        raise ValueError(
            f"the URI of a folder in {parts.hostname} holds a password, and URIs are stored and shown; "
            "give it in the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def local_path(uri: str) -> Path | None:
    """Return the absolute path of a location on this machine; None for a URI of another scheme than `file`."""
    path = uri.removeprefix("file://")
    return None if "://" in path else Path(path).expanduser().absolute()


@dataclass(frozen=True)
class Locations:
    """Locations that a command may open: those that its user named, and local ones in the same run.

    For what is read from files, such as `student` in a `_config.json`:

        locations = Locations((*scores, *measures))  # as they stand on the command line
        student = Folder(locations.check(config["student"], what="student"))

    A run is the folder that holds a named one: `runs/demo` where the user named `runs/demo/scores`. The home folder,
    the folder of temporary files and the root of the file system are no run. Links are followed before they are judged.
    """

    named: tuple[str, ...]
    """Paths and URIs that the user named, whole or a folder above them; never what a file names."""

    def check(self, stored: object, *, what: str) -> str:
        """Return a location that a file names, if it may be opened; with the options that the user gave its store.

        Args:
            stored: the location, as the file has it.
            what: its name in messages, such as "student".

        Raises:
            ValueError: it may not be opened, or it is no location.
        """
        if not isinstance(stored, str) or not stored or "\0" in stored:
            raise ValueError(f"{what} {_shown(stored)} of the configuration is not a path or URI; give it yourself")
        check_uri(stored)
        path = local_path(stored)
        allowed = self._remote(stored) if path is None else self._local(path)
        if allowed is None:
            raise ValueError(
                f"{what} {_shown(stored)} is named by a stored configuration only, and is not opened; "
                "if you trust it, name it on the command line too"
            )
        return allowed

    def allows(self, stored: object) -> bool:
        """Tell whether `check` would return."""
        try:
            self.check(stored, what="location")
        except ValueError:
            return False
        return True

    def _local(self, path: Path) -> str | None:
        named = [root for root in map(local_path, self.named) if root is not None]
        wanted = _resolved(path)
        inside = any(wanted.is_relative_to(root) for root in (*map(_resolved, named), *_runs(named)))
        return str(path) if inside else None

    def _remote(self, uri: str) -> str | None:
        base, _, query = uri.partition("?")
        if ".." in unquote(base).split("/"):
            return None
        for named in self.named:
            root, _, options = named.partition("?")
            same = base.rstrip("/") == root.rstrip("/") or base.startswith(root.rstrip("/") + "/")
            if "://" in root and not root.endswith("://") and same and query in ("", options):
                return f"{base}?{options}" if options else base
        return None


def _runs(named: Iterable[Path]) -> Iterator[Path]:
    """Return the folders that hold the named ones, before and after links are followed."""
    private = {_resolved(Path(place)) for place in (os.sep, os.path.expanduser("~"), tempfile.gettempdir(), "/tmp")}  # noqa: S108
    for path in named:
        for run in (_resolved(path.parent), _resolved(path).parent):
            if not any(place.is_relative_to(run) for place in private):
                yield run


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))  # a circle of links is no error here


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
