"""This machine's cache of what is known about teachers: engine choices, responses, rate limits, identities.

Its folders are private to the user, since whoever can write there decides what is computed. What is read from them is
checked all the same.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path

CACHE_VARIABLE = "MALGRADCAM_CACHE"
MAX_ENTRY_BYTES = 64_000_000  # of one file: the responses to a few images, of a million classes


def cache_folder(name: str) -> Path:
    """Return the folder `name` in $MALGRADCAM_CACHE, else in malgradcam/ in $XDG_CACHE_HOME or ~/.cache."""
    if root := os.environ.get(CACHE_VARIABLE):
        return Path(root) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "malgradcam" / name


def private_folder(name: str) -> Path:
    """Return the cache folder `name`, made where it is missing, readable and writable by its owner alone (0700).

    Raises:
        ValueError: it cannot be made, or belongs to another user.
    """
    folder = cache_folder(name)
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError("it is not a folder of this user")
        if stat.S_IMODE(status.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise ValueError(
            f"the cache folder {folder} cannot be used: {error}; set {CACHE_VARIABLE} to a folder of your own"
        ) from error
    return folder


def write_entry(file: Path, text: str, *, replace: bool) -> None:
    """Write a file of the cache so that readers see all of it or nothing.

    Args:
        file: in a folder that `private_folder` returned.
        text: its new content.
        replace: False keeps what another process has written in the meantime.

    Raises:
        OSError: it cannot be written.
    """
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}.aside")
    aside.write_text(text, encoding="utf-8")
    if replace:
        aside.replace(file)
        return
    with contextlib.suppress(FileExistsError):
        os.link(aside, file)  # a rename would overwrite the first writer's file
    aside.unlink()


def read_small(path: Path, max_bytes: int = MAX_ENTRY_BYTES) -> bytes:
    """Read a whole file of bounded size; neither a pipe nor a device is opened for good.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no regular file, or has more than `max_bytes`.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would be waited for otherwise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file; give a file")
        if status.st_size > max_bytes:
            raise ValueError(f"{path} has {status.st_size} bytes; allowed: {max_bytes}")
        return file.read(max_bytes)
