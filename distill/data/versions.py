"""Tell whether images were replaced under their names since results were computed from them, and delete such results.

Each folder of results holds `_images.pq`: size, modification time and, for small local data sets, a hash of each
image's content. A file of another size has changed. One of the same size and another time has changed unless its hash
is the same, as in a copy of the data set on another machine; without a hash it counts as changed. Sizes and times come
with the listing of the data set, so that no image costs a request of its own.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.parquet import read_parquet
from cluster.storage import MANIFEST, PART_SUFFIX, Folder
from distill.data.decode import ImageError
from distill.data.root import Stamp

if TYPE_CHECKING:
    from distill.data.image_set import ImageSet

VERSIONS_FILE = "_images.pq"

HASHED_BYTES = 2**28
"""Largest local data set whose content is hashed, in bytes: about 0.2 s on a core."""


@dataclass(frozen=True, kw_only=True)
class FileVersion:
    """An image's file, as it was when results were computed from it."""

    stamp: Stamp
    sha256: str = ""
    """Of its content, in hex; empty where it was not hashed."""


def changed_images(folder: Folder, images: ImageSet) -> frozenset[str]:
    """Name the images whose files differ from those from which the results in `folder` were computed.

    Images that the folder's record does not list count as unchanged, as do all of a folder without a record.
    """
    stored = read_versions(folder)
    return frozenset(
        image_id
        for image_id, stamp in images.versions.items()
        if image_id in stored and not _is_same(stored[image_id], stamp, images, image_id)
    )


def require_unchanged(folder: Folder, images: ImageSet, *, what: str) -> None:
    """Check that results in `folder` are of the images as they are now.

    Args:
        folder: the results.
        images: the images.
        what: what the folder holds, for the message, such as "maps".

    Raises:
        ValueError: an image was replaced since.
    """
    changed = sorted(changed_images(folder, images))
    if changed:
        raise ValueError(
            f"{len(changed)} of {len(images.image_ids)} images have changed since the {what} in {folder.uri} were "
            f"made, such as {changed[0]!r}; give the images that they were made of, or make the {what} anew in another "
            "folder"
        )


def record_versions(folder: Folder, images: ImageSet) -> None:
    """Write down the size, modification time and, where it is cheap, the hash of each image, for `changed_images`."""
    stored = read_versions(folder)
    versions = {**stored, **{name: FileVersion(stamp=stamp) for name, stamp in images.versions.items()}}
    for image_id in images.versions.keys() & stored.keys():
        if _is_same(stored[image_id], images.versions[image_id], images, image_id):
            versions[image_id] = FileVersion(stamp=images.versions[image_id], sha256=stored[image_id].sha256)
    versions |= _hashed(images, {name: versions[name] for name in images.versions if not versions[name].sha256})
    if versions != stored:
        _write(folder, versions)


def update_versions(folder: Folder, images: ImageSet, *, whole_parts: bool) -> frozenset[str]:
    """Delete results of images that have changed, then record the images as they are now; call it before work starts.

    Args:
        folder: claimed, with Parquet parts that have a column `image_id`.
        images: the images that the work is about to read.
        whole_parts: delete each part that holds such an image, and the manifest, so that the part is made anew; else
            only the images' rows.

    Returns:
        The images that have changed.
    """
    changed = changed_images(folder, images)
    if changed:
        delete_results(folder, changed, whole_parts=whole_parts)
    record_versions(folder, images)
    return changed


def delete_results(folder: Folder, image_ids: Collection[str], *, whole_parts: bool) -> None:
    """Delete the stored rows of some images, or each part that holds one of them; as `update_versions`."""
    import pyarrow.parquet as pq

    changed = frozenset(image_ids)
    for name in (name for name in folder.names() if name.endswith(PART_SUFFIX) and not name.startswith("_")):
        kept = [name not in changed for name in read_parquet(folder, name, ["image_id"])["image_id"].to_pylist()]
        if all(kept):
            continue
        folder.delete(MANIFEST)  # first: while a part is missing, the work is not complete
        if whole_parts or not any(kept):
            folder.delete(name)
            continue
        sink = io.BytesIO()
        pq.write_table(read_parquet(folder, name).filter(kept), sink)
        folder.write_bytes(name, sink.getvalue())


def read_versions(folder: Folder) -> dict[str, FileVersion]:
    """Read a folder's record: image id -> file version; empty where it has none."""
    if not folder.exists(VERSIONS_FILE):
        return {}
    columns = read_parquet(folder, VERSIONS_FILE, ["image_id", "size_bytes", "modified_ns", "sha256"]).to_pydict()
    rows = zip(*columns.values(), strict=True)
    return {name: FileVersion(stamp=Stamp(size, time), sha256=sha256) for name, size, time, sha256 in rows}


def _write(folder: Folder, versions: Mapping[str, FileVersion]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted(versions)
    table = pa.table(
        {
            "image_id": pa.array(names, pa.string()),
            "size_bytes": pa.array([versions[name].stamp.size_bytes for name in names], pa.int64()),
            "modified_ns": pa.array([versions[name].stamp.modified_ns for name in names], pa.int64()),
            "sha256": pa.array([versions[name].sha256 for name in names], pa.string()),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    folder.write_bytes(VERSIONS_FILE, sink.getvalue())


def _is_same(version: FileVersion, stamp: Stamp, images: ImageSet, image_id: str) -> bool:
    if version.stamp.size_bytes == stamp.size_bytes and _is_same_time(version.stamp, stamp):
        return True
    if version.stamp.size_bytes != stamp.size_bytes or not version.sha256:
        return False
    return _content_hash(images, image_id) == version.sha256


def _is_same_time(one: Stamp, other: Stamp) -> bool:
    """Compare modification times, to the second where one of them has been cut to it, as archives do."""
    if one.modified_ns == other.modified_ns:
        return True
    (second, rest), (other_second, other_rest) = divmod(one.modified_ns, 10**9), divmod(other.modified_ns, 10**9)
    return second == other_second and 0 in (rest, other_rest)


def _hashed(images: ImageSet, versions: Mapping[str, FileVersion]) -> dict[str, FileVersion]:
    """Hash the content of a small local data set."""
    if not images.is_local or sum(stamp.size_bytes for stamp in images.versions.values()) > HASHED_BYTES:
        return {}
    with ThreadPoolExecutor() as threads:  # hashing a file leaves Python's lock
        hashes: Iterable[str] = threads.map(lambda name: _content_hash(images, name), versions)
        return {
            name: FileVersion(stamp=version.stamp, sha256=sha256)
            for (name, version), sha256 in zip(versions.items(), hashes, strict=True)
        }


def _content_hash(images: ImageSet, image_id: str) -> str:
    """Hash an image's file; empty where it cannot be read, which the work itself will say."""
    try:
        return images.content_hash(image_id)
    except (ImageError, FileNotFoundError, PermissionError):
        return ""
