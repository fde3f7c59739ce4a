"""Keep a stage's output in one folder on any file system that pyarrow opens.

Every stage leaves the same three things: `_config.json` first (what was asked for), parts written aside and
renamed (a part that exists is whole), `_manifest.json` last (a folder with one is finished). Names that begin
with `_` or `.` are ignored by the dataset readers of pyarrow and pandas. Credentials are left to the
environment, as pyarrow reads them.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

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


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Folder:
    """Read and write whole files in one folder: a local path, or a URI such as `s3://bucket/run`.

    Opens its file system at the first use, so it is cheap to make and to send to another process. URIs that
    pyarrow does not know (`memory://`, `az://`) are opened through fsspec.
    """

    def __init__(self, uri: str) -> None:
        """Name the folder `uri`; nothing is opened or made yet."""
        if not uri:
            raise ValueError("folder '' has no name; give a local path or a URI such as s3://bucket/run")
        if "://" in uri and urlsplit(uri).password is not None:
            raise ValueError(
                f"the URI of a folder in {urlsplit(uri).hostname} holds a password, and URIs are stored and shown; "
                "give it in the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if uri.startswith("file://"):
            uri = uri.removeprefix("file://")
        self.uri = uri if "://" in uri else str(Path(uri).expanduser().absolute())

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
        return self.uri.partition("?")[0].rstrip("/").rpartition("/")[2]

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
        filesystem, path = _open(self.uri)
        return filesystem, path.rstrip("/")

    def child(self, name: str) -> "Folder":
        """Return the folder `name` inside this one."""
        base, mark, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return Folder(f"{base.rstrip('/')}/{name}{mark}{query}")

    def local_path(self) -> Path | None:
        """Return the folder's path on this machine, or None where it lies elsewhere."""
        return None if "://" in self.uri else Path(self.uri)

    def exists(self, name: str) -> bool:
        """Tell whether a file or folder `name` is in here."""
        return bool(self.filesystem.get_file_info(self._inside(name)).type)

    def names(self) -> list[str]:
        """List the files directly inside, sorted, without hidden ones; a folder that is missing has none."""
        return [name for name in self._all_names() if not name.startswith(".")]

    def read_bytes(self, name: str) -> bytes:
        """Read the whole file `name`. Raises: FileNotFoundError."""
        with self.filesystem.open_input_stream(self._inside(name), compression=None) as stream:
            return stream.read()

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write the file `name` so that readers see all of it or nothing; replaces what was there."""
        target = self._inside(name)
        if self.filesystem.type_name in OBJECT_STORES:
            self._put(target, data)
            return
        parent, _, base = target.rpartition("/")
        aside = f"{parent}/.{base}.{uuid.uuid4().hex[:8]}{ASIDE_SUFFIX}"
        self.filesystem.create_dir(parent, recursive=True)
        self._put(aside, data)
        self.filesystem.move(aside, target)

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

    def _put(self, path: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    def _all_names(self) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == FileType.File)


def _open(uri: str) -> tuple["FileSystem", str]:
    from pyarrow import ArrowInvalid, fs

    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    try:
        return fs.FileSystem.from_uri(uri)
    except ArrowInvalid as refusal:
        opened = _open_by_fsspec(uri)
        if opened is None:
            raise ValueError(
                f"cannot open folder {uri!r} ({refusal}); give a local path, an s3://, gs:// or hdfs:// URI, "
                "or install the fsspec package of its scheme"
            ) from refusal
        return opened


def _open_by_fsspec(uri: str) -> tuple["FileSystem", str] | None:
    from fsspec.core import url_to_fs
    from pyarrow import fs

    try:
        opened, path = url_to_fs(uri)
    except (ValueError, ImportError):
        return None
    return fs.PyFileSystem(fs.FSSpecHandler(opened)), path


def _shown(config: dict[str, Any], key: str) -> str:
    return _canonical(config[key]) if key in config else MISSING


def _cut(config: dict[str, Any], key: str) -> str:
    text = _shown(config, key)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
