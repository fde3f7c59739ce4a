"""Rate limits: kept by all processes of a machine, through a clock that is set back."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from distill.teachers.http.rate_limit import RateLimit


def test_a_rate_is_kept_by_all_who_ask() -> None:
    script = (
        "import time; from distill.teachers.http.rate_limit import RateLimit\n"
        "limit = RateLimit('http://x', 20.0)\n"
        "for k in range(4):\n"
        "    limit.wait(3); print(time.time())\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sent = sorted(float(line) for worker in workers for line in worker.communicate()[0].split())
    assert len(sent) == 8
    # twenty a second, three at once; however late a worker is waked, what comes after is never early for all before
    assert all(later - sent[0] >= 3 * k / 20 - 0.05 for k, later in enumerate(sent))


def test_a_rate_limit_goes_on_after_the_clock_was_set_back(tmp_path: Path) -> None:
    limit = RateLimit("http://x", 1000.0)
    limit.wait(1)
    (file,) = (path for path in (tmp_path / "cache" / "pace").iterdir() if not path.name.endswith(".lock"))
    file.write_text(str(time.time() + 10**6), encoding="utf-8")
    started = time.monotonic()
    limit.wait(1)
    assert time.monotonic() - started < 1
