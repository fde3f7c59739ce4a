"""Ray Train's checkpoints of a run: which are whole, and the rest, which killed jobs have left, deleted."""

import re
from typing import TYPE_CHECKING

from cluster.filesystems import store_errors

if TYPE_CHECKING:
    from cluster.storage import Folder

SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's list of committed checkpoints
NAMES = re.compile(r"checkpoint_[\w.-]+")


def committed_checkpoints(folder: "Folder") -> list[str]:
    """Name the checkpoints that are whole, as Ray Train lists them. Raises: ValueError where the list is broken."""
    if not folder.exists(SNAPSHOT):
        return []
    return [result["checkpoint_dir_name"] for result in folder.read_json(SNAPSHOT)["checkpoint_results"]]


def delete_uncommitted(folder: "Folder") -> list[str]:
    """Delete the checkpoints in a folder that Ray Train does not list; no training may run there.

    A checkpoint is listed when it is whole, on all workers; training never goes on from another one.

    Returns:
        Their names.

    Raises:
        ValueError: the list is no JSON.
    """
    from pyarrow.fs import FileSelector, FileType

    listed = committed_checkpoints(folder)
    with store_errors(f"tidy {folder.uri}"):
        found = folder.filesystem.get_file_info(FileSelector(folder.path, allow_not_found=True))
        names = [info.base_name for info in found if info.type == FileType.Directory]
        left = sorted(name for name in names if NAMES.fullmatch(name) and name not in listed)
        for name in left:
            folder.filesystem.delete_dir(f"{folder.path}/{name}")
    return left
