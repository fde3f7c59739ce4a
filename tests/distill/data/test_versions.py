"""Images replaced under their names: found by size, time and content, and their results deleted, nobody else's."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_layouts import write_images
from PIL import Image

from cluster.parquet import read_parquet
from cluster.storage import Folder
from distill.data import ImageSet, open_images
from distill.data import versions as versions_module
from distill.data.versions import changed_images, record_versions, require_unchanged, update_versions

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", *NAMES)


@pytest.fixture
def results(tmp_path: Path, data: Path) -> Folder:
    """Results of the images: a part of two, a part of one, and the manifest."""
    folder = Folder(str(tmp_path / "results"))
    folder.claim({"x": 1}, what="maps")
    record_versions(folder, open_images(str(data)))
    for number, names in enumerate((NAMES[:2], NAMES[2:])):
        path = tmp_path / f"results/part-0000{number}.parquet"
        pq.write_table(pa.table({"image_id": names, "score": [float(len(name)) for name in names]}), path)
    folder.finish({"images": 3})
    return folder


def later(path: Path, seconds: float = 5.0) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + int(seconds * 1e9)))


def replace_image(path: Path, color: str = "red") -> None:
    """Write other pixels, of the same number of bytes, at a later time."""
    size = path.stat().st_size
    Image.new("RGB", (40, 24), color).save(path, "PNG")
    data = path.read_bytes()
    path.write_bytes(data + b"\0" * (size - len(data)) if len(data) < size else data)
    later(path)


def opened(data: Path) -> ImageSet:
    return open_images(str(data))


@pytest.mark.parametrize("hashed", [True, False])
def test_replaced_images_are_found(data: Path, tmp_path: Path, hashed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hashed:
        monkeypatch.setattr(versions_module, "HASHED_BYTES", 0)
    folder = Folder(str(tmp_path / "out"))
    record_versions(folder, opened(data))
    assert changed_images(folder, opened(data)) == frozenset()
    replace_image(data / "b.png")
    assert changed_images(folder, opened(data)) == {"b.png"}
    assert opened(data).fingerprint == open_images(str(data)).fingerprint


def test_a_copy_with_other_times_is_the_same_data(data: Path, results: Folder, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / tmp_path.name / "data"  # the folder above names the data set
    shutil.copytree(data, place, copy_function=shutil.copyfile)
    for name in NAMES:
        later(place / name, 3600)
    copy = opened(place)
    assert changed_images(results, copy) == frozenset()
    assert copy.fingerprint == opened(data).fingerprint
    require_unchanged(results, copy, what="maps")


def test_without_hashes_times_decide_to_the_second_that_archives_keep(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions_module, "HASHED_BYTES", 0)
    os.utime(data / "a.png", ns=(0, 1_700_000_000_123_456_789))
    folder = Folder(str(tmp_path / "out"))
    record_versions(folder, opened(data))
    os.utime(data / "a.png", ns=(0, 1_700_000_000_000_000_000))
    assert changed_images(folder, opened(data)) == frozenset()
    os.utime(data / "a.png", ns=(0, 1_700_000_001_000_000_000))
    assert changed_images(folder, opened(data)) == {"a.png"}


def test_results_of_changed_images_are_deleted_part_by_part(data: Path, results: Folder) -> None:
    replace_image(data / "b.png")
    with pytest.raises(ValueError, match=r"1 of 3 images have changed since the maps in .* such as 'b.png'"):
        require_unchanged(results, opened(data), what="maps")
    assert update_versions(results, opened(data), whole_parts=True) == {"b.png"}
    assert [name for name in results.names() if name.startswith("part-")] == ["part-00001.parquet"]
    assert results.finished() is None
    assert update_versions(results, opened(data), whole_parts=True) == frozenset()


def test_rows_of_changed_images_are_deleted_alone(data: Path, results: Folder) -> None:
    replace_image(data / "b.png")
    replace_image(data / "c.png")
    assert update_versions(results, opened(data), whole_parts=False) == {"b.png", "c.png"}
    assert [name for name in results.names() if name.startswith("part-")] == ["part-00000.parquet"]
    assert read_parquet(results, "part-00000.parquet").to_pylist() == [{"image_id": "a.png", "score": 5.0}]


def test_a_folder_without_a_record_counts_as_unchanged(data: Path, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "old"))
    assert changed_images(folder, opened(data)) == frozenset()
    assert update_versions(folder, opened(data), whole_parts=True) == frozenset()
    replace_image(data / "a.png")
    assert changed_images(folder, opened(data)) == {"a.png"}


def test_records_of_several_subsets_add_up(data: Path, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "out"))
    for limit in (1, 3):
        record_versions(folder, open_images(str(data), limit=limit))
    (data / "c.png").write_bytes(b"broken")
    assert changed_images(folder, opened(data)) == {"c.png"}
    assert changed_images(folder, open_images(str(data), limit=2)) == frozenset()


def test_no_image_is_read_where_the_times_are_the_same(
    data: Path, results: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageSet, "read", lambda *_: pytest.fail("an image is read"))
    assert update_versions(results, opened(data), whole_parts=True) == frozenset()
