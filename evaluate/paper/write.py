"""The command `python -m evaluate tables`: the paper's tables and figures, written into one folder."""

import re

from cluster.storage import Folder
from evaluate.config import PaperConfig
from evaluate.paper.figures import figures
from evaluate.paper.formats import FORMATS
from evaluate.paper.published import rows_beside
from evaluate.paper.scores import DataSet, read_data_sets
from evaluate.paper.tables import make_tables
from evaluate.scored_images import open_scored_images, openable_maps


def write_paper(config: PaperConfig) -> list[str]:
    """Write table1 ... table3 in every format, and figure5 and figure6 of each data set; files are replaced.

    Returns:
        What was written, one path or remark a line.

    Raises:
        ValueError: the scores cannot stand in one table, or an argument is not understood.
    """
    config.check()
    rows = rows_beside(config.beside)
    data_sets = read_data_sets(config.scores)
    folder, written = Folder(config.out), []
    for table in make_tables(data_sets, config, rows):
        for ending, text in FORMATS.items():
            written.append(f"table{table.number}{ending}")
            folder.write_bytes(written[-1], text(table).encode())
    remarks = []
    for data_set in data_sets:
        pngs = figures(data_set, config)
        for name, png in pngs.items():
            written.append(f"{name}-{_file_name(data_set.name)}.png")
            folder.write_bytes(written[-1], png)
        remarks += _remarks(data_set, config) if pngs else [f"no figures of {data_set.name}: mal_grad_cam has no score"]
    return [*(f"{folder.uri}/{name}" for name in written), *remarks]


def _remarks(data_set: DataSet, config: PaperConfig) -> list[str]:
    """Say what of the figures is left out because it may not be opened, and how it can be."""
    of_maps = openable_maps(data_set.results.methods, config.locations)[1]
    of_images = open_scored_images(data_set.results, config.locations, config.data)[1] if config.photographs else ""
    return [f"{data_set.name}: {problem}" for problem in (of_images, of_maps) if problem]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
