"""Text from outside as people read it: paths short, passwords out."""

import os
import re
from pathlib import Path

MAX_PARENTS = 2  # steps up from the working folder that a shown path may take


def readable(text: str) -> str:
    """Shorten paths below or near the working folder, and take passwords out of URIs, for people who read a page."""
    without = re.sub(r"(://)[^/@\s]*@", r"\1", text)
    here = Path.cwd()
    for steps, folder in enumerate([here, *here.parents][: MAX_PARENTS + 1]):
        if folder != Path(folder.anchor):
            without = without.replace(f"{folder}{os.sep}", "../" * steps)
    return without
