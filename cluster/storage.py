"""Keep a stage's output in one folder on any file system that pyarrow opens.

Every stage leaves the same three things: `_config.json` first (what was asked for), parts written aside and
renamed (a part that exists is whole), `_manifest.json` last (a folder with one is finished). Names that begin
with `_` or `.` are ignored by the dataset readers of pyarrow and pandas. On an object store, which has no renames, a
part is put: it too appears when it is whole.
"""

import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cluster.filesystems import OF_A_FILE, open_filesystem, store_errors
from cluster.locations import check_uri, local_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo, FileSystem

CONFIG = "_config.json"
MANIFEST = "_manifest.json"
PART_SUFFIX = ".parquet"
ASIDE_SUFFIX = ".aside"
# A put is all or nothing on these, and a rename is a copy: nothing is written aside.
OBJECT_STORES = ("s3", "gcs", "abfs")
SHOWN_CHARS = 80  # of a value in an error message
MISSING = "nothing"


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash a configuration: 12 hex digits of the SHA-256 of its JSON, whatever the order of its keys."""
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:12]


def as_stored(settings: "DataclassInstance") -> dict[str, Any]:
    """Return a dataclass as a configuration that was read again holds it: a tuple is a list there."""
    return json.loads(json.dumps(asdict(settings)))


def unlike_defaults(values: Mapping[str, Any], defaults: "DataclassInstance | None") -> dict[str, Any]:
    """Keep what differs in stored `values` from the defaults; without any, everything."""
    known = {} if defaults is None else as_stored(defaults)
    return {name: value for name, value in values.items() if name not in known or value != known[name]}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Folder:
    """Read and write whole files in one folder: a local path, or a URI such as `s3://bucket/run`.

    Opens its file system at the first use, so it is cheap to make and to send to another process. Its methods raise
    WorkError where a disk or store refuses (it is full, read-only, away), and say what to do.
    """

    def __init__(self, uri: str) -> None:
        """Name the folder `uri`; nothing is opened or made yet."""
        if not uri:
            raise ValueError("folder '' has no name; give a local path or a URI such as s3://bucket/run")
        check_uri(uri)
        path = local_path(uri)
        self.uri = uri if path is None else str(path)

    def __repr__(self) -> str:
        """Show the URI."""
        return f"Folder({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        """Compare by URI."""
        return isinstance(other, Folder) and other.uri == self.uri

    def __hash__(self) -> int:
        """Hash the URI."""
        return hash(self.uri)

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Pickle the URI alone: the receiver opens the file system for itself."""
        return type(self), (self.uri,)

    @property
    def name(self) -> str:
        """Return the last component of the path."""
        return split_file(self.uri)[1]

    @property
    def filesystem(self) -> "FileSystem":
        """Return the open pyarrow file system. Raises: ValueError for a URI that nothing here opens."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """Return the folder's path inside `filesystem`, without a slash at its end."""
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple["FileSystem", str]:
        filesystem, path = open_filesystem(self.uri)
        return filesystem, path.rstrip("/")

    def child(self, name: str) -> "Folder":
        """Return the folder `name` inside this one."""
        base, query = _split_query(self.uri)
        return Folder(f"{base}/{name}{query}")

    def beside(self, name: str) -> "Folder":
        """Return the folder `name` beside this one."""
        return split_file(self.uri)[0].child(name)

    def local_path(self) -> Path | None:
        """Return the folder's path on this machine, or None where it lies elsewhere."""
        return None if "://" in self.uri else Path(self.uri)

    def exists(self, name: str) -> bool:
        """Tell whether a file or folder `name` is in here."""
        return bool(self._info(name).type)

    def holds_folder(self, name: str) -> bool:
        """Tell whether `name` in here is a folder."""
        from pyarrow.fs import FileType

        return self._info(name).type == FileType.Directory

    def names(self) -> list[str]:
        """List the files directly inside, sorted, without hidden ones; a folder that is missing has none."""
        return [name for name in self._all_names() if not name.startswith(".")]

    def read_bytes(self, name: str) -> bytes:
        """Read the whole file `name`. Raises: FileNotFoundError."""
        with self.open(name) as stream:
            return stream.read()

    @contextmanager
    def open(self, name: str) -> "Iterator[NativeFile]":
        """Open the file `name` for reading from any place in it. Raises: FileNotFoundError."""
        with (
            store_errors(f"read {name} in {self.uri}", passed=OF_A_FILE),
            self.filesystem.open_input_file(self._inside(name)) as file,
        ):
            yield file

    @contextmanager
    def on_this_machine(self, names: Iterable[str]) -> Iterator[Path]:
        """Give a local folder that holds the files `names`, for what reads paths alone: a copy, where this is none.

        Raises:
            FileNotFoundError: one of them is missing.
        """
        local = self.local_path()
        if local is not None:
            yield local
            return
        with tempfile.TemporaryDirectory() as path:
            for name in names:
                (Path(path) / name).write_bytes(self.read_bytes(name))
            yield Path(path)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write the file `name` so that readers see all of it or nothing; replaces what was there."""
        write = self._put if self.filesystem.type_name in OBJECT_STORES else self._put_aside
        with store_errors(f"write {name} in {self.uri}"):
            write(self._inside(name), data)

    def read_json(self, name: str) -> Any:
        """Read the JSON file `name`. Raises: FileNotFoundError, or ValueError where it is not JSON."""
        try:
            return json.loads(self.read_bytes(name))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{self.uri}/{name} is not JSON: {error}") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as the JSON file `name`, indented for people."""
        self.write_bytes(name, (json.dumps(value, indent=2) + "\n").encode())

    def delete(self, name: str) -> None:
        """Delete the file `name`; it may be missing."""
        if self.exists(name):
            with store_errors(f"delete {name} in {self.uri}"):
                self.filesystem.delete_file(self._inside(name))

    def sweep(self) -> None:
        """Delete what killed writers left aside."""
        for name in self._all_names():
            if name.startswith(".") and name.endswith(ASIDE_SUFFIX):
                self.delete(name)

    def claim(self, config: Mapping[str, Any], *, what: str) -> None:
        """Reserve this folder for the work that `config` describes; the same config again is a rerun.

        Args:
            config: Everything that decides the content, as JSON values.
            what: The content's name in messages, such as "maps".

        Raises:
            ValueError: The folder holds another configuration's work, or parts that nobody claimed.
        """
        asked = json.loads(_canonical(config))
        if self.exists(CONFIG):
            self._refuse_other(asked, what)
        elif any(name.endswith(PART_SUFFIX) for name in self.names()):
            raise ValueError(
                f"{self.uri} holds Parquet files but no {CONFIG}; give an empty folder for the {what} (--out)"
            )
        else:
            self.write_json(CONFIG, asked)

    def _refuse_other(self, asked: dict[str, Any], what: str) -> None:
        stored = self.config()
        keys = [key for key in sorted({*asked, *stored}) if _shown(asked, key) != _shown(stored, key)]
        if _canonical(asked) == _canonical(stored):
            return
        changes = "; ".join(f"{key}: got {_cut(asked, key)}, stored {_cut(stored, key)}" for key in keys)
        raise ValueError(
            f"{self.uri} holds {what} of another configuration ({changes}); "
            f"give another --out, or the stored configuration to go on with these {what}"
        )

    def config(self) -> dict[str, Any]:
        """Return what `claim` stored. Raises: ValueError where nothing was claimed."""
        if not self.exists(CONFIG):
            raise ValueError(f"{self.uri} has no {CONFIG}; give the --out folder of a command that has run")
        found = self.read_json(CONFIG)
        if not isinstance(found, dict):
            raise ValueError(f"{self.uri}/{CONFIG} holds no configuration; give the --out folder of a command")
        return found

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, which says that the work is complete; call it last."""
        self.write_json(MANIFEST, dict(manifest))

    def finished(self) -> dict[str, Any] | None:
        """Return the manifest, or None while the work is not complete."""
        return self.read_json(MANIFEST) if self.exists(MANIFEST) else None

    def _inside(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _info(self, name: str) -> "FileInfo":
        with store_errors(f"look for {name} in {self.uri}"):
            return self.filesystem.get_file_info(self._inside(name))

    def _put(self, path: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    def _put_aside(self, path: str, data: bytes) -> None:
        parent, _, name = path.rpartition("/")
        aside = f"{parent}/.{name}.{uuid.uuid4().hex[:8]}{ASIDE_SUFFIX}"
        self.filesystem.create_dir(parent, recursive=True)
        try:
            self._put(aside, data)
            self._rename(aside, path, data)
        except OSError:
            with suppress(OSError):
                self.filesystem.delete_file(aside)  # half a part, on a full disk
            raise

    def _rename(self, aside: str, path: str, data: bytes) -> None:
        """Rename what was written aside; once more where another job, at its end, has swept it away just now."""
        try:
            self.filesystem.move(aside, path)
        except FileNotFoundError:
            self._put(aside, data)
            self.filesystem.move(aside, path)

    def _all_names(self) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        with store_errors(f"list {self.uri}"):
            found = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == FileType.File)


def split_file(file: str) -> tuple[Folder, str]:
    """Split the path or URI of a file into its folder and its name."""
    base, query = _split_query(Folder(file).uri)
    folder, _, name = base.rpartition("/")
    return Folder((folder or "/") + query), name


def _split_query(uri: str) -> tuple[str, str]:
    base, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return base.rstrip("/"), mark + query


def _shown(config: dict[str, Any], key: str) -> str:
    return _canonical(config[key]) if key in config else MISSING


def _cut(config: dict[str, Any], key: str) -> str:
    text = _shown(config, key)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
