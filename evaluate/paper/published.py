"""The numbers that the paper prints, stored once: its Tables 1, 2 and 3, to stand beside what is measured here.

They were made with the paper's black boxes (torchvision's ResNet-50, and the same fine-tuned) on its own images, so a
number of ours beside one of them says whether the order of methods holds, not who is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REFERENCE = (
    'J. Kang, M. Jeon, H. Lee, S. Kim, "Visual Explanation of Black-box Models Using Layer-wise Class Activation Maps '
    'from Approximating Neural Networks", 2021 (in Korean)'
)
METHODS = {"grad_cam": "Grad-CAM", "lime": "LIME", "rise": "RISE", "mal_grad_cam": "MAL-Grad-CAM"}
"""The methods of its Tables 2 and 3, in its order: our name -> its name."""
SIMS = {f"sim{n}": f"Sim{n}" for n in range(1, 6)}
"""The columns of its Table 1."""


@dataclass(frozen=True, kw_only=True)
class Printed:
    """One data set's row in the paper's tables."""

    name: str
    """Name of its recipe here."""
    title: str
    """Name in the paper."""
    sims: tuple[float, ...] = ()
    """Sim1 ... Sim5 (Table 1); empty where it prints none."""
    deletion: tuple[float, ...]
    """Deletion AUC (Table 2), as `METHODS` is ordered."""
    insertion: tuple[float, ...]
    """Insertion AUC (Table 3), likewise."""

    def numbers(self, table: str) -> Mapping[str, float]:
        """Return the row of the table `sims`, `deletion` or `insertion`, by column."""
        values: tuple[float, ...] = getattr(self, table)
        return dict(zip(SIMS if table == "sims" else METHODS, values, strict=True)) if values else {}


PRINTED = (
    Printed(
        name="imagenet",
        title="ImageNet",
        sims=(0.807, 0.701, 0.633, 0.574, 0.534),
        deletion=(0.1253, 0.1217, 0.1077, 0.1236),
        insertion=(0.6785, 0.6940, 0.7335, 0.6055),
    ),
    Printed(
        name="cub",
        title="CUB-200-2011",
        deletion=(0.0805, 0.1287, 0.0588, 0.0627),
        insertion=(0.6982, 0.6531, 0.7461, 0.6415),
    ),
    Printed(
        name="cars",
        title="Stanford Cars",
        deletion=(0.0796, 0.1345, 0.0658, 0.0698),
        insertion=(0.7197, 0.6447, 0.7720, 0.6785),
    ),
    Printed(
        name="aircraft-variant",
        title="Aircraft variant",
        deletion=(0.0740, 0.1508, 0.0569, 0.0628),
        insertion=(0.6742, 0.5647, 0.7248, 0.6168),
    ),
    Printed(
        name="aircraft-family",
        title="Aircraft family",
        deletion=(0.1049, 0.1935, 0.0762, 0.0878),
        insertion=(0.7480, 0.6532, 0.8026, 0.7261),
    ),
    Printed(
        name="aircraft-manufacturer",
        title="Aircraft manufacturer",
        deletion=(0.1735, 0.3009, 0.1388, 0.1627),
        insertion=(0.8011, 0.7091, 0.8475, 0.7798),
    ),
)
"""In the paper's order."""


def rows_beside(assignments: Sequence[str]) -> dict[str, Printed]:
    """Say which printed row each data set stands beside: those of the same name, and NAME=ROW as the user wrote it.

    Raises:
        ValueError: an assignment is not of that form, or names no row of the paper.
    """
    rows = {printed.name: printed for printed in PRINTED}
    found = dict(rows)
    for assignment in assignments:
        name, _, row = assignment.rpartition("=")
        if not name or row not in rows:
            raise ValueError(f"beside '{assignment}' is not understood; give NAME=ROW with a ROW of {', '.join(rows)}")
        found[name] = rows[row]
    return found
