"""Private folders: the owner's alone, deleted afterwards, also those of processes that were killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.private_folder import private_folder

KILLED = """
import os, signal, sys
from cluster.private_folder import private_folder
with private_folder(sys.argv[1]) as folder:
    (folder / "big").write_text("x")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_the_owners_and_gone_afterwards(tmp_path: Path) -> None:
    with private_folder(str(tmp_path)) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    left = Path(done.stdout.strip())
    assert (left / "big").is_file()
    with private_folder(str(tmp_path)):
        assert left.exists()  # it may have been made just now, by a process that is still to lock it
    os.utime(left, (0, 0))
    with private_folder(str(tmp_path)) as held:
        assert not left.exists()
        os.utime(held, (0, 0))
        (tmp_path / "mgc-link").symlink_to(held)
        with private_folder(str(tmp_path)):
            assert held.exists()  # its process lives
    assert [path.name for path in tmp_path.iterdir()] == ["mgc-link"]
