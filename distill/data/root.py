"""Open the folder that holds a data set, on this machine or behind any URI that pyarrow.fs reads.

Listing and reading live here and nowhere else, so that a data set's layout never cares where its bytes are.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import WorkError
from cluster.filesystems import OF_A_FILE, store_errors
from cluster.storage import Folder
from distill.data.decode import ImageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
"""File name endings, in lower case, that count as an image."""

MAX_BYTES = 2**29
"""Largest file that is read: the largest image that is decoded, with four channels of 16 bit, not compressed."""

GENERIC_NAMES = frozenset({"data", "dataset", "images"})
"""Folder names that say nothing; the parent's name stands for the data set instead."""

LABELS = ("variant", "family", "manufacturer")
"""Kinds of labels of which a data set may have several; `DIR#family` chooses one, wherever data are named."""


@dataclass(frozen=True)
class Root:
    """A data set's folder."""

    uri: str
    """Absolute local path or URI, with `#labels` behind it where a kind of labels is chosen."""

    @property
    def folder(self) -> str:
        """Return the path or URI of the folder itself."""
        return split_labels(self.uri)[0]

    @property
    def labels(self) -> str | None:
        """Return the kind of labels that is chosen, one of `LABELS`; None where none is."""
        return split_labels(self.uri)[1]

    @property
    def name(self) -> str:
        """Name the data set after its folder, or after the parent where the folder is just called "data"."""
        parts = [part for part in self.folder.split("?")[0].split("/") if part]
        if len(parts) > 1 and parts[-1].lower() in GENERIC_NAMES:
            return parts[-2]
        return parts[-1] if parts else "root"

    def read(self, name: str) -> bytes:
        """Read the bytes of the file `name`, a path relative to the root.

        Raises:
            ValueError: if `name` leaves the root.
            FileNotFoundError: if there is no such file.
            WorkError: if the disk or store that it is on fails.
            ImageError: if it is a pipe, a device or a circle of links, or has more than `MAX_BYTES`.
        """
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"file {name!r} is outside of the data set {self.uri!r}; give a path relative to it")
        fs, path = _open(self.folder)
        if fs.type_name == "local":
            _check_regular(f"{path}/{name}")
        with (
            store_errors(f"read {name} of the data set {self.uri}", passed=OF_A_FILE),
            fs.open_input_stream(f"{path}/{name}", compression=None) as stream,
        ):
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ImageError(f"the file has more than {MAX_BYTES} bytes, as no image that is decoded")
        return data

    def require_folder(self, name: str) -> None:
        """Check, of a file that is missing, that the folder which it was in still holds something.

        Raises:
            WorkError: if it does not, as where a disk is no longer mounted: then no file was looked for where it is.
        """
        folder = name.rpartition("/")[0]
        if not self.has(folder) or not self._list(folder, recursive=False):
            raise WorkError(
                f"the folder {folder or '.'!r} of the data set {self.uri} is gone, or empty; bring it back, then give "
                "the same command again (distill: with --resume): it goes on where it stopped"
            )

    def child(self, name: str) -> str:
        """Return the path or URI of the folder `name` inside."""
        return Folder(self.folder).child(name).uri

    def has(self, name: str) -> bool:
        """Tell whether there is a file or folder `name`, a path relative to the root."""
        fs, path = _open(self.folder)
        with store_errors(f"look for {name} of the data set {self.uri}"):
            return bool(fs.get_file_info(f"{path}/{name}").type)

    def folders(self, under: str = "") -> tuple[str, ...]:
        """List the names of the folders directly in `under`, sorted; hidden ones are left out."""
        from pyarrow.fs import FileType

        infos = self._list(under, recursive=False)
        names = (info.base_name for info in infos if info.type == FileType.Directory)
        return tuple(sorted(name for name in names if not name.startswith((".", "_"))))

    def images(self, under: str = "") -> tuple[str, ...]:
        """List the images anywhere below `under` as sorted paths relative to the root.

        Hidden files and folders (a leading dot, as the copies that some systems leave) are left out.

        Raises:
            ValueError: if a name is no UTF-8, in which maps and scores are stored.
        """
        fs, path = _open(self.folder)
        if fs.type_name == "local":
            return tuple(sorted(_storable(name) for name in _walk(f"{path}/", f"{path}/{under}")))
        infos = self._list(under, recursive=True)
        names = (info.path[len(path) :].lstrip("/") for info in infos if info.is_file)
        return tuple(sorted(name for name in names if _is_image(name)))

    def _list(self, under: str, *, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        fs, path = _open(self.folder)
        selector = FileSelector(f"{path}/{under}" if under else path or "/", recursive=recursive)
        with store_errors(f"list {under or '.'} of the data set {self.uri}", passed=OF_A_FILE):
            return fs.get_file_info(selector)


def open_root(data: str) -> Root:
    """Open the data set's folder `data`: a path, `file://` or another URI, and `#labels` where it has several kinds.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if `data` is a file, or a URI of an unknown kind.
    """
    from pyarrow.fs import FileType

    advice = "give a folder of images (class folders or none) or a data set's official layout"
    if not data:
        raise ValueError(f"data is empty; {advice}")
    place, labels = split_labels(data.rstrip("/") or "/")
    uri = place.rstrip("/") if "://" in place else os.path.abspath(os.path.expanduser(place))
    fs, path = _open(uri)
    if fs.type_name == "local":
        uri = os.path.abspath(path)
    with store_errors(f"look for the data set {uri}"):
        info = fs.get_file_info(path or "/")
    if info.type == FileType.NotFound:
        raise FileNotFoundError(f"data folder {data!r} does not exist (looked at {uri!r}); {advice}")
    if info.type == FileType.File:
        raise ValueError(f"data {data!r} is a file, not a folder; {advice}")
    return Root(uri if labels is None else f"{uri}#{labels}")


def split_labels(data: str) -> tuple[str, str | None]:
    """Split `DIR#family` into the folder and the kind of labels, one of `LABELS`; None where none is chosen."""
    folder, _, labels = data.rpartition("#")
    return (folder, labels) if folder and labels in LABELS else (data, None)


@functools.cache
def _open(uri: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    if uri.startswith("file://"):  # pyarrow decodes its %20
        fs, path = FileSystem.from_uri(uri)
        return fs, path.rstrip("/")
    folder = Folder(uri)
    return folder.filesystem, folder.path


def _walk(root: str, folder: str) -> Iterator[str]:
    """List images by the folders' entries alone: a million files are not asked for their sizes, as pyarrow does.

    A link back to a folder that it lies in is not followed: two of them would never come to an end.
    """
    left: list[tuple[str, tuple[str, ...]]] = [(folder, ())]
    while left:
        where, above = left.pop()
        real, inside = os.path.realpath(where), os.path.join(where, "")[len(root) :]
        if real in above:
            continue
        with os.scandir(where) as entries:
            for entry in entries:
                if _is_folder(entry):
                    left.append((entry.path, (*above, real)))
                elif _is_image(inside + entry.name):
                    yield inside + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links: reading it will say so
        return False


def _storable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the file name {os.fsencode(name)!r} is no UTF-8, and cannot be stored; rename it") from None
    return name


def _check_regular(path: str) -> None:
    """Refuse what would be read without end. Raises: FileNotFoundError, PermissionError; ImageError."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise ImageError(f"the file cannot be read: {error.strerror}") from error
    if not regular:
        raise ImageError("the file is no regular one, but a folder, a pipe or a device")


def _is_image(name: str) -> bool:
    if name.startswith(".") or "/." in name:
        return False
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and ending.lower() in EXTENSIONS
