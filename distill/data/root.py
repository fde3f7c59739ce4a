"""Open the folder that holds a data set, on this machine or behind any URI that pyarrow.fs reads.

Listing and reading live here and nowhere else, so that a data set's layout never cares where its bytes are.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.errors import WorkError
from cluster.filesystems import OF_A_FILE, store_errors
from cluster.storage import Folder
from distill.data.decode import ImageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm"})
"""File name endings, in lower case, that count as an image."""

OTHER_EXTENSIONS = frozenset(
    {
        *("avif", "heic", "heif", "jp2", "j2k", "jpf", "jxl", "svg", "svgz", "psd", "xcf", "ico", "icns", "tga", "pbm"),
        *(
            "pnm",
            "pfm",
            "exr",
            "hdr",
            "dds",
            "eps",
            "pdf",
            "dcm",
            "npy",
            "dng",
            "cr2",
            "cr3",
            "nef",
            "arw",
            "orf",
            "rw2",
        ),
    }
)
"""Endings of images that are not read; such files are skipped, and counted."""

MAX_BYTES = 2**29
"""Largest image file that is read: the largest that is decoded, with four channels of 16 bit, not compressed."""

COPIES = "__MACOSX/"
"""Folder that packing on a Mac adds: a copy of each name, and no class."""

MAX_TABLE_BYTES = 2**26
"""Largest file of a data set that is no image: the largest that the layouts here bring has 3 MB."""

GENERIC_NAMES = frozenset({"data", "dataset", "images"})
"""Folder names that say nothing; the parent's name stands for the data set instead."""

# Errors of a name that leads to no file, or of a socket: such an image is broken, and the disk is not.
OF_A_NAME = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENXIO, errno.ENODEV})

LABELS = ("variant", "family", "manufacturer")
"""Kinds of labels of which a data set may have several; `DIR#family` chooses one, wherever data are named."""


@dataclass(frozen=True)
class Stamp:
    """Size and modification time of a file, as a listing tells them: another stamp means that it was written again."""

    size_bytes: int
    modified_ns: int
    """Since 1970; 0 where the file system does not tell."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images below a folder."""

    names: tuple[str, ...]
    """Paths relative to the root, sorted."""
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    """By name, where the listing tells them; a local listing does not, since it would ask for each file."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Ending of images that are not read -> number of files."""


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

    def read_table(self, name: str, max_bytes: int = MAX_TABLE_BYTES) -> bytes:
        """Read the bytes of a file that is no image, such as a list of labels.

        Raises:
            ValueError: as `read`; the message names the file.
            FileNotFoundError, WorkError: as `read`.
        """
        try:
            return self.read(name, max_bytes)
        except ImageError as error:
            raise ValueError(f"{name} of the data set {self.uri!r} cannot be read: {error}") from error

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """Read the bytes of the file `name`, a path relative to the root.

        Raises:
            ValueError: if `name` leaves the root.
            FileNotFoundError: if there is no such file.
            WorkError: if the disk or store that it is on fails.
            ImageError: if it is a pipe, a device or a circle of links, or has more than `max_bytes`.
        """
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"file {name!r} is outside of the data set {self.uri!r}; give a path relative to it")
        fs, path = _open(self.folder)
        with store_errors(f"read {name} of the data set {self.uri}", passed=OF_A_FILE):
            if fs.type_name == "local":  # a third of pyarrow's time
                return _read_regular(f"{path}/{name}", max_bytes)
            with fs.open_input_stream(f"{path}/{name}", compression=None) as stream:
                data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ImageError(f"the file is too large; allowed: {max_bytes} bytes")
        return data

    def stamp(self, name: str) -> Stamp | None:
        """Return a file's size and modification time; None where there is no such file."""
        fs, path = _open(self.folder)
        with store_errors(f"look for {name} of the data set {self.uri}"):
            if fs.type_name == "local":  # a tenth of pyarrow's time
                try:
                    status = os.stat(f"{path}/{name}")
                except (FileNotFoundError, NotADirectoryError):
                    return None
                return Stamp(status.st_size, status.st_mtime_ns)
            info = fs.get_file_info(f"{path}/{name}")
        return _stamp(info) if info.type else None

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

    def list_images(self, under: str = "") -> Listing:
        """List the images anywhere below `under`, in one listing.

        Hidden files and folders (a leading dot, as the copies that some systems leave) are left out.

        Raises:
            ValueError: if a name is no UTF-8, in which maps and scores are stored.
        """
        fs, path = _open(self.folder)
        if fs.type_name == "local":
            files = dict.fromkeys(_walk(f"{path}/", f"{path}/{under}"))
        else:
            infos = self._list(under, recursive=True)
            files = {info.path[len(path) :].lstrip("/"): _stamp(info) for info in infos if info.is_file}
        endings = {name: _ending(name) for name in files}
        names = tuple(sorted(_storable(name) for name, ending in endings.items() if ending in EXTENSIONS))
        skipped = Counter(ending for ending in endings.values() if ending in OTHER_EXTENSIONS)
        stamps = {name: stamp for name in names if (stamp := files[name]) is not None}
        return Listing(names=names, stamps=stamps, skipped=dict(sorted(skipped.items())))

    def holds_images(self, under: str) -> bool:
        """Tell whether there is any image below `under`."""
        fs, path = _open(self.folder)
        if fs.type_name == "local":
            return any(_ending(name) in EXTENSIONS for name in _walk(f"{path}/", f"{path}/{under}"))
        inside = self._list(under, recursive=False)
        return any(_ending(info.base_name) in EXTENSIONS for info in inside if info.is_file) or bool(
            any(not info.is_file for info in inside) and self.list_images(under).names
        )

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
    """List files by the folders' entries alone: a million files are not asked for their sizes, as pyarrow does.

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
                else:
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


def _read_regular(path: str, max_bytes: int) -> bytes:
    """Read a local file that has an end. Raises: OSError; ImageError for a folder, pipe, device, or a large file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for
    except OSError as error:
        if error.errno in OF_A_NAME:
            raise ImageError(f"the file cannot be read: {error.strerror}") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("the file is no regular one, but a folder, a pipe or a device")
        if status.st_size > max_bytes:
            raise ImageError(f"the file is too large: {status.st_size} bytes; allowed: {max_bytes} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def _stamp(info: Any) -> Stamp:
    return Stamp(int(info.size or 0), int(info.mtime_ns or 0) if info.mtime is not None else 0)


def skipped_text(skipped: Mapping[str, int]) -> str:
    """Say how many files were skipped because images of their ending are not read; empty where none was."""
    if not skipped:
        return ""
    counts = ", ".join(f"{number} .{ending}" for ending, number in skipped.items())
    return f"; skipped, since such images are not read: {counts}"


def _ending(name: str) -> str:
    """Return the ending of a file's name in lower case; empty for hidden files and those without one."""
    if name.startswith((".", COPIES)) or "/." in name or f"/{COPIES}" in name:
        return ""
    stem, dot, ending = name.rpartition(".")
    return ending.lower() if stem and dot else ""
