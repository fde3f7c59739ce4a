"""Open the folder that holds a data set, on this machine or behind any URI that pyarrow.fs reads.

Listing and reading live here and nowhere else, so that a data set's layout never cares where its bytes are.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
"""File name endings, in lower case, that count as an image."""

GENERIC_NAMES = frozenset({"data", "dataset", "images"})
"""Folder names that say nothing; the parent's name stands for the data set instead."""


@dataclass(frozen=True)
class Root:
    """A data set's folder: `uri` is an absolute local path or a URI."""

    uri: str

    @property
    def name(self) -> str:
        """Name the data set after its folder, or after the parent where the folder is just called "data"."""
        parts = [part for part in self.uri.split("?")[0].split("/") if part]
        if len(parts) > 1 and parts[-1].lower() in GENERIC_NAMES:
            return parts[-2]
        return parts[-1] if parts else "root"

    def read(self, name: str) -> bytes:
        """Read the bytes of the file `name`, a path relative to the root.

        Raises:
            ValueError: if `name` leaves the root.
            FileNotFoundError: if there is no such file.
        """
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"file {name!r} is outside of the data set {self.uri!r}; give a path relative to it")
        fs, path = _open(self.uri)
        with fs.open_input_stream(f"{path}/{name}", compression=None) as stream:
            return stream.read()

    def folders(self, under: str = "") -> tuple[str, ...]:
        """List the names of the folders directly in `under`, sorted; hidden ones are left out."""
        from pyarrow.fs import FileType

        infos = self._list(under, recursive=False)
        names = (info.base_name for info in infos if info.type == FileType.Directory)
        return tuple(sorted(name for name in names if not name.startswith((".", "_"))))

    def images(self, under: str = "") -> tuple[str, ...]:
        """List the images anywhere below `under` as sorted paths relative to the root.

        Hidden files and folders (a leading dot, as the copies that some systems leave) are left out.
        """
        from pyarrow.fs import FileType

        _, path = _open(self.uri)
        infos = self._list(under, recursive=True)
        names = (info.path[len(path) :].lstrip("/") for info in infos if info.type == FileType.File)
        return tuple(sorted(name for name in names if _is_image(name)))

    def _list(self, under: str, *, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        fs, path = _open(self.uri)
        selector = FileSelector(f"{path}/{under}" if under else path or "/", recursive=recursive)
        return fs.get_file_info(selector)


def open_root(data: str) -> Root:
    """Open the data set's folder `data`: a path, `file://` or another URI.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if `data` is a file, or a URI of an unknown kind.
    """
    from pyarrow.fs import FileType

    advice = "give a folder of images (class folders or none) or a data set's official layout"
    if not data:
        raise ValueError(f"data is empty; {advice}")
    uri = data.rstrip("/") if "://" in data else os.path.abspath(os.path.expanduser(data))
    fs, path = _open(uri)
    if fs.type_name == "local":
        uri = os.path.abspath(path)
    info = fs.get_file_info(path or "/")
    if info.type == FileType.NotFound:
        raise FileNotFoundError(f"data folder {data!r} does not exist (looked at {uri!r}); {advice}")
    if info.type == FileType.File:
        raise ValueError(f"data {data!r} is a file, not a folder; {advice}")
    return Root(uri)


@functools.cache
def _open(uri: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    from cluster.storage import Folder

    if uri.startswith("file://"):  # pyarrow decodes its %20
        fs, path = FileSystem.from_uri(uri)
        return fs, path.rstrip("/")
    folder = Folder(uri)
    return folder.filesystem, folder.path


def _is_image(name: str) -> bool:
    if any(part.startswith(".") for part in name.split("/")):
        return False
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and ending.lower() in EXTENSIONS
