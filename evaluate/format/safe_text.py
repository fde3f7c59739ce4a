"""How text from outside is shown to people: paths short, passwords out, characters that hide or turn text visible."""

import os
import re
import unicodedata
from pathlib import Path

MAX_PARENTS = 2  # steps up from the working folder that a shown path may take
# Control and format characters, lone surrogates, line and paragraph separators: a name that holds one may look like
# another, or turn the text around it. Words of some scripts need the two joiners.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
KEPT = "\n\u200c\u200d"


def readable(text: str) -> str:
    """Shorten paths below or near the working folder, and take passwords out of URIs, for people who read a page."""
    without = re.sub(r"(://)[^/@\s]*@", r"\1", text)
    here = Path.cwd()
    for steps, folder in enumerate([here, *here.parents][: MAX_PARENTS + 1]):
        if folder != Path(folder.anchor):
            without = without.replace(f"{folder}{os.sep}", "../" * steps)
    return without


def visible(text: str) -> str:
    r"""Write hidden characters as their escapes, such as \u202e for the mark that turns text around."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in KEPT or unicodedata.category(c) not in HIDDEN else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
