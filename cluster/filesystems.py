"""Open the file system behind a path or URI, patient with a store that is slow or away for a while.

Credentials, region and endpoint are left to the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...) and to the
URI's query, as pyarrow reads them.
"""

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cluster.errors import WorkError
from cluster.locations import HINT, check_uri

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# Waits between them grow to 20 s, and come to about a minute in all. pyarrow gives up after 6 s.
S3_ATTEMPTS = 10
S3_ANSWER_S = 60  # until a store that is busy begins to answer; pyarrow takes it for dead after 3 s
S3_CONNECT_S = 10
# About one file, and not about the store.
OF_A_FILE = (FileNotFoundError, PermissionError)
ASIDE_SUFFIX = ".aside"  # of a file that is being written
FSSPEC_SCHEMES = ("az", "memory")  # pyarrow does not know them; all others are never given to fsspec
IN_URIS = "/:?#[]@!$&'()*+,;=%"  # what stands for itself in a URI


def open_filesystem(uri: str) -> tuple["FileSystem", str]:
    """Open a local path or a URI of an allowed scheme.

    Returns:
        The file system, and the path in it.

    Raises:
        ValueError: the URI is not allowed, or nothing here opens it.
    """
    from pyarrow import ArrowInvalid, fs

    check_uri(uri)
    scheme, mark, _ = uri.partition("://")
    if not mark:
        return fs.LocalFileSystem(), uri
    try:
        if scheme in FSSPEC_SCHEMES:
            return _open_by_fsspec(uri)
        filesystem, path = fs.FileSystem.from_uri(quote(uri, safe=IN_URIS))
    except (ArrowInvalid, ValueError, ImportError, OSError) as refusal:
        reason = str(refusal).partition("\n")[0]
        raise ValueError(f"cannot open the folder {uri!r}: {reason}; {HINT}") from refusal
    return (_patient(filesystem) if filesystem.type_name == "s3" else filesystem), path


def _open_by_fsspec(uri: str) -> tuple["FileSystem", str]:
    from fsspec.core import url_to_fs
    from pyarrow import fs

    opened, path = url_to_fs(uri)
    return fs.PyFileSystem(fs.FSSpecHandler(opened)), path


def _patient(filesystem: Any) -> "FileSystem":
    """Open S3 once more, for what no URI can say. A small file becomes one put instead of three requests."""
    from pyarrow.fs import AwsStandardS3RetryStrategy

    make, (options,) = filesystem.__reduce__()
    waits = {"request_timeout": S3_ANSWER_S, "connect_timeout": S3_CONNECT_S}
    retries = {"retry_strategy": AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)}
    return make({**options, **waits, **retries, "allow_delayed_open": True})


@contextmanager
def store_errors(doing: str, *, passed: tuple[type[OSError], ...] = ()) -> Iterator[None]:
    """Say what a disk or store refuses.

    Args:
        doing: What is done in the block, such as "write s3://bucket/maps/part-00000.parquet".
        passed: Errors that the caller judges.

    Raises:
        WorkError: any other OSError; no work can go on before somebody sees to it.
    """
    try:
        yield
    except passed:
        raise
    except OSError as error:
        raise WorkError(
            f"cannot {doing}: {error}; see to it, then give the same command again (distill: with --resume): "
            "it goes on where it stopped"
        ) from error


def create_file(path: Path, data: bytes) -> None:
    """Create a local file with all its bytes at once, unless it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{ASIDE_SUFFIX}")
    try:
        aside.write_bytes(data)
        os.link(aside, path)  # a rename would replace what another job wrote
    except FileExistsError:
        pass
    except PermissionError:  # a file system without links
        with suppress(FileExistsError), path.open("xb") as file:
            file.write(data)
    finally:
        aside.unlink(missing_ok=True)


def is_regular(path: str) -> bool:
    """Tell whether a local path is a regular file, or is missing."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # opening it says why
