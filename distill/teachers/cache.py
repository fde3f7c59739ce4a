"""Where this machine keeps what it has found out about black boxes: decisions about engines, answers, paces."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "MALGRADCAM_CACHE"


def cache_folder(name: str) -> Path:
    """Return the folder `name` in $MALGRADCAM_CACHE, else in malgradcam/ in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "malgradcam" / name
