"""The cache is private to its user, and neither pipes nor endless files are read."""

import os
import stat
from pathlib import Path

import pytest

from distill.teachers.cache import private_folder, read_small, write_entry


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_of_the_cache_is_its_owners_alone(tmp_path: Path) -> None:
    folder = private_folder("deep")
    assert folder == tmp_path / "cache" / "deep"
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    folder.chmod(0o777)
    assert mode(private_folder("deep")) == 0o700
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="not a folder of this user; set MALGRADCAM_CACHE"):
        private_folder("link")


def test_a_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder("deep")
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(ValueError, match="not a folder of this user"):
        private_folder("deep")


def test_the_first_writer_of_an_entry_wins(tmp_path: Path) -> None:
    file = private_folder("deep") / "entry.json"
    for text in ("first", "second"):
        write_entry(file, text, replace=False)
    assert file.read_text() == "first"
    write_entry(file, "third", replace=True)
    assert file.read_text() == "third"
    assert os.listdir(file.parent) == ["entry.json"]


def test_what_is_no_small_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 2**40)
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert read_small(tmp_path / "good", 4) == b"good"
    with pytest.raises(ValueError, match="has 4 bytes; allowed: 3"):
        read_small(tmp_path / "good", 3)
    for name, complaint in (("pipe", "no regular file"), ("link", "no regular file"), ("large", "allowed: 64000000")):
        with pytest.raises(ValueError, match=complaint):
            read_small(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "missing")
