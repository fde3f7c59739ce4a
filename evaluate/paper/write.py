"""Write the paper's tables and figures into one folder: what `python -m evaluate tables` does."""

import re
from collections.abc import Sequence

from cluster.storage import Folder
from evaluate.paper.figures import figures
from evaluate.paper.formats import FORMATS
from evaluate.paper.published import rows_beside
from evaluate.paper.scores import read_data_sets
from evaluate.paper.tables import make_tables


def write_paper(
    scores: Sequence[str],
    out: str,
    *,
    students: Sequence[str] = (),
    beside: Sequence[str] = (),
    photographs: bool = True,
    num_images: int = 4,
) -> list[str]:
    """Write table1 ... table3 in every format, and figure5 and figure6 of each data set.

    Args:
        scores: folders of `python -m evaluate games`, of any number of data sets under one protocol.
        out: folder or URI; files of the same names are replaced.
        students: run folders whose Sim N belongs into Table 1, besides those of the scored maps.
        beside: NAME=ROW, the paper's row for a data set of another name.
        photographs: False leaves the images out of the figures.
        num_images: images in each figure, 1 or more.

    Returns:
        What was written, one path or remark a line.

    Raises:
        ValueError: the scores cannot stand in one table, or an argument is not understood.
    """
    if num_images < 1:
        raise ValueError(f"num_images {num_images} is too small; give 1 or more")
    rows = rows_beside(beside)
    data_sets = read_data_sets(scores)
    folder, written = Folder(out), []
    for table in make_tables(data_sets, students, rows):
        for ending, text in FORMATS.items():
            written.append(f"table{table.number}{ending}")
            folder.write_bytes(written[-1], text(table).encode())
    remarks = []
    for data_set in data_sets:
        drawn = figures(data_set, num_images=num_images, photographs=photographs)
        for name, png in drawn.items():
            written.append(f"{name}-{_file_name(data_set.name)}.png")
            folder.write_bytes(written[-1], png)
        if not drawn:
            remarks.append(f"no figures of {data_set.name}: mal_grad_cam has no score")
    return [*(f"{folder.uri}/{name}" for name in written), *remarks]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
