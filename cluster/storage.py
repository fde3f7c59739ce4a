"""Keep a stage's output in one folder on any file system that pyarrow opens.

Every stage leaves the same three things: `_config.json` first (what was asked for), parts written aside and
renamed (a part that exists is whole), `_manifest.json` last (a folder with one is finished). Names that begin
with `_` or `.` are ignored by the dataset readers of pyarrow and pandas. On an object store, which has no renames, a
part is put: it too appears when it is whole.
"""

import hashlib
import json
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cluster import command_line
from cluster.filesystems import ASIDE_SUFFIX, OF_A_FILE, create_file, is_regular, open_filesystem, store_errors
from cluster.locations import check_uri, local_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo, FileSystem

CONFIG = "_config.json"
MANIFEST = "_manifest.json"
PART_SUFFIX = ".parquet"
PART_NAME = re.compile(r"part-[A-Za-z0-9]+\.parquet")  # no copy beside a part, such as "part-00000 (1).parquet"
CLAIM = ".claim-"  # a store's file while a job claims the folder
CLAIM_S = 600.0  # after so long the job that wrote it is dead
MAX_JSON_BYTES = 2**26
MAX_FILE_BYTES = 2**32  # read at once: no student, read-out or part is near
# A put is all or nothing on these, and a rename is a copy: nothing is written aside.
OBJECT_STORES = ("s3", "gcs", "abfs")
SHORT_FINGERPRINT = 12  # digits that version 0.1 kept of a fingerprint
SHOWN_CHARS = 80  # of a value in an error message
MISSING = "nothing"


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash a configuration: 12 hex digits of the SHA-256 of its JSON, whatever the order of its keys."""
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:12]


def same_fingerprint(stored: str | None, other: str | None) -> bool:
    """Compare two fingerprints: SHA-256 in hex, of which version 0.1 stored the first 12 digits."""
    if stored is None or other is None or len(stored) == len(other):
        return stored == other
    short, full = sorted((stored, other), key=len)
    return len(short) == SHORT_FINGERPRINT and full.startswith(short)


def as_stored(settings: "DataclassInstance") -> dict[str, Any]:
    """Return a dataclass as a configuration that was read again holds it: a tuple is a list there."""
    return json.loads(json.dumps(asdict(settings)))


def unlike_defaults(values: Mapping[str, Any], defaults: "DataclassInstance | None") -> dict[str, Any]:
    """Keep what differs in stored `values` from the defaults; without any, everything."""
    known = {} if defaults is None else as_stored(defaults)
    return {name: value for name, value in values.items() if name not in known or value != known[name]}


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


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

    def parts(self) -> list[str]:
        """List the files that hold rows, `part-00000.parquet` and on, sorted; any other file is no part."""
        return [name for name in self._all_names() if PART_NAME.fullmatch(name)]

    def part_paths(self) -> list[str]:
        """List the paths of `parts` in `filesystem`, for pyarrow's readers of data sets."""
        return [self._inside(name) for name in self.parts()]

    def read_bytes(self, name: str, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Read the whole file `name`. Raises: FileNotFoundError, or ValueError for more than `max_bytes`."""
        with self.open(name) as stream:
            if stream.size() > max_bytes:
                raise ValueError(f"{self.uri}/{name} has {stream.size()} bytes; at most {max_bytes} are read")
            return stream.read()

    @contextmanager
    def open(self, name: str) -> "Iterator[NativeFile]":
        """Open the file `name` for reading from any place in it.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is no regular file: a pipe would be waited for.
        """
        if self.filesystem.type_name == "local" and not is_regular(path := self._inside(name)):
            raise ValueError(f"{path} is no regular file")
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
        data = self.read_bytes(name, max_bytes=MAX_JSON_BYTES)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.uri}/{name} is not JSON: {error}") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as the JSON file `name`, indented for people."""
        self.write_bytes(name, _as_json(value))

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

        Of several jobs that claim at the same time with different configurations, at most one succeeds.

        Args:
            config: Everything that decides the content, as JSON values.
            what: The content's name in messages, such as "maps".

        Raises:
            ValueError: The folder holds another configuration's work, or parts that nobody claimed.
        """
        wanted = json.loads(_canonical(config))
        if not self.exists(CONFIG):
            if self.parts():
                raise ValueError(
                    f"{self.uri} holds Parquet files but no {CONFIG}; give an empty folder for the {what} (--out)"
                )
            self._create_config(wanted, what)
            command_line.store(self)
        self._require_config(wanted, what)

    def _create_config(self, wanted: dict[str, Any], what: str) -> None:
        """Write the configuration unless another job is quicker: exclusively, or announced on a store."""
        data = _as_json(wanted)
        if self.filesystem.type_name == "local":
            with store_errors(f"write {CONFIG} in {self.uri}"):
                create_file(Path(self._inside(CONFIG)), data)
            return
        # A store has no exclusive create that pyarrow knows. Whoever sees another announcement gives way, and the
        # winner's is deleted after its configuration is there: two that differ never both get to the write.
        digest = hashlib.sha256(data).hexdigest()
        own = f"{CLAIM}{digest}-{uuid.uuid4().hex}"
        self.write_bytes(own, b"claim")
        try:
            if others := self._announced(own, digest):
                raise ValueError(
                    f"another job claims {self.uri} for other {what} just now ({others[0]}); give another --out, or "
                    "the same command again in some minutes"
                )
            if not self.exists(CONFIG):
                self.write_bytes(CONFIG, data)
        finally:
            self.delete(own)

    def _announced(self, own: str, digest: str) -> list[str]:
        """List other configurations' announcements, without those that a killed job left."""
        infos = {info.base_name: info for info in self._files() if info.base_name.startswith(CLAIM)}
        since_s = (infos[own].mtime_ns or 0) / 1e9 - CLAIM_S if own in infos else 0.0
        others = {name: info.mtime_ns for name, info in infos.items() if not name.startswith(CLAIM + digest)}
        return sorted(name for name, mtime_ns in others.items() if mtime_ns is None or mtime_ns / 1e9 > since_s)

    def _require_config(self, wanted: dict[str, Any], what: str) -> None:
        stored = self.config()
        if _canonical(wanted) == _canonical(stored):
            return
        keys = [key for key in sorted({*wanted, *stored}) if _shown(wanted, key) != _shown(stored, key)]
        changes = "; ".join(f"{key}: got {_cut(wanted, key)}, stored {_cut(stored, key)}" for key in keys)
        raise ValueError(
            f"{self.uri} holds {what} of another configuration ({changes}); "
            f"give another --out, or the stored configuration to go on with these {what}"
        )

    def config(self, required: Mapping[str, type | tuple[type, ...]] | None = None) -> dict[str, Any]:
        """Return what `claim` stored.

        Args:
            required: keys that must be there, and the types of their values, such as `{"student": (str, NoneType)}`.

        Raises:
            ValueError: nothing was claimed, or the file holds no configuration, or lacks one of these.
        """
        if not self.exists(CONFIG):
            raise ValueError(f"{self.uri} has no {CONFIG}; give the --out folder of a command that has run")
        config = self.read_json(CONFIG)
        if not isinstance(config, dict):
            raise ValueError(f"{self.uri}/{CONFIG} holds no configuration; give the --out folder of a command")
        check_fields(config, required or {}, where=f"{self.uri}/{CONFIG}")
        return config

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, which says that the work is complete; call it last."""
        self.write_json(MANIFEST, dict(manifest))

    def finished(self) -> dict[str, Any] | None:
        """Return the manifest, or None while the work is not complete. Raises: ValueError where it is none."""
        manifest = self.read_json(MANIFEST) if self.exists(MANIFEST) else None
        if manifest is not None and not isinstance(manifest, dict):
            raise ValueError(f"{self.uri}/{MANIFEST} holds no manifest; give the --out folder of a command")
        return manifest

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
        return sorted(info.base_name for info in self._files())

    def _files(self) -> "list[FileInfo]":
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self.path, allow_not_found=True)
        with store_errors(f"list {self.uri}"):
            try:
                infos = self.filesystem.get_file_info(selector)
            except FileNotFoundError:  # made, or a file in it deleted, while it was listed
                infos = self.filesystem.get_file_info(selector)
        return [info for info in infos if info.type == FileType.File]


def check_fields(fields: Mapping[str, Any], required: Mapping[str, type | tuple[type, ...]], *, where: str) -> None:
    """Refuse JSON from a file that lacks a key, or holds another type under it.

    Args:
        fields: the JSON object.
        required: its keys, and the types of their values; `bool` is no `int` here.
        where: the file, for messages.

    Raises:
        ValueError: a key is missing, or its value is of another type.
    """
    for key, types in required.items():
        allowed = types if isinstance(types, tuple) else (types,)
        if key not in fields:
            raise ValueError(f"{where} has no {key!r}; give the --out folder of the command that writes it")
        value = fields[key]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            names = " or ".join("null" if one is type(None) else one.__name__ for one in allowed)
            raise ValueError(f"{where} has {key} {_cut(dict(fields), key)}; allowed: {names}")


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
