"""Text from outside inside Markdown: shown as it is, and never a mark, a link, an image or HTML."""

import re

from cluster.errors import visible

INTERVAL = r"[-+]?[\d.]+, [-+]?[\d.]+\](?![(\[:])"  # the one bracket that stays: 0.12 [0.11, 0.13]
# Characters that a backslash makes plain. Of an address the one that would turn it into a link; of underscores those
# at the edge of a word; an ampersand that begins an entity.
MARKS = re.compile(
    rf"[\\`*~$|@]|(?<!\w)_|_(?!\w)|\[(?!{INTERVAL})|\](?=[(\[:])|!(?=\[)|(?<=:)/(?=/)|(?<=www)\.|&(?=[#\w])",
    flags=re.IGNORECASE,
)


def escaped(text: str) -> str:
    """Write any text as one line of Markdown in which every character stands for itself."""
    plain = visible(" ".join(text.split()))
    return MARKS.sub(r"\\\g<0>", plain).replace("<", "&lt;")
