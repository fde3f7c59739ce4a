"""Rows of several map folders side by side: for each image of a data set the maps of all methods, in one pass."""

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.parquet import read_parquet
from cluster.storage import Folder, config_hash
from explain.maps import map_parts, read_part, saliency_maps
from explain.methods.titles import title_of

COLUMNS = (
    "image_id",
    "label",
    "target",
    "target_prob",
    "teacher_queries",
    "error",
    "map_height",
    "map_width",
    "saliency",
)
SCORE_COLUMNS = ("image_id", "config_hash", "game", "auc")
GAMES = ("deletion", "insertion")


@dataclass(frozen=True, kw_only=True)
class MapFolder:
    """One folder of maps, and its name in pictures."""

    folder: Folder
    """Where the maps lie."""
    config: Mapping[str, Any]
    """What made them."""
    title: str
    """The method's name, with what tells it apart from others of the same method."""
    key: str
    """The title as a name of files."""


@dataclass(frozen=True, kw_only=True)
class ImageMaps:
    """The maps of one image."""

    image_id: str
    """Path relative to the data set."""
    rows: Mapping[str, dict[str, Any]]
    """Key of the folder -> its row, with `saliency` as an array (h, w) or None where `error` says why."""


def open_map_folders(uris: Sequence[str]) -> list[MapFolder]:
    """Open folders of maps, and name them apart.

    Raises:
        ValueError: a folder holds no maps, is given twice, or the folders are of different images.
    """
    folders = [Folder(uri) for uri in uris]
    if len(set(folders)) < len(folders):
        raise ValueError("a folder of maps is given twice; give each once")
    configs = [folder.config() for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        _check_config(folder, config, folders[0], configs[0])
    methods = [str(config["method"]) for config in configs]
    made = [
        _named(folder, config, twice=methods.count(method) > 1)
        for folder, config, method in zip(folders, configs, methods, strict=True)
    ]
    keys = [one.key for one in made]
    if len(set(keys)) < len(keys):
        raise ValueError(f"folders of maps have the same name ({', '.join(keys)}); give folders with different names")
    return made


def _check_config(folder: Folder, config: Mapping[str, Any], first: Folder, other: Mapping[str, Any]) -> None:
    """Refuse a folder without maps, or with those of another data set or split than the first one's."""
    if not isinstance(config.get("method"), str):
        raise ValueError(f"{folder.uri} holds no maps; give the --out folder of `python -m explain METHOD`")
    if any(config.get(key) != other.get(key) for key in ("data_name", "split")):
        raise ValueError(
            f"{folder.uri} and {first.uri} hold maps of different images; give folders of the same data set and split"
        )


def _named(folder: Folder, config: Mapping[str, Any], *, twice: bool) -> MapFolder:
    """Name a folder by its method, and by its own name where another one has the same method."""
    method = str(config["method"])
    key = folder.name if twice else method
    return MapFolder(
        folder=folder,
        config=config,
        title=f"{title_of(method)} ({folder.name})" if twice else title_of(method),
        key="".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in key),
    )


def image_maps(folders: Sequence[MapFolder], order: Mapping[str, int]) -> Iterator[ImageMaps]:
    """Yield each image's maps of all folders, in the order of the data set; one part of each folder in memory.

    Args:
        folders: the maps.
        order: image id -> its place in the data set; other images are left out.
    """
    merged = heapq.merge(*(_rows(one, order) for one in folders), key=lambda item: item[0])
    for _, group in itertools.groupby(merged, key=lambda item: item[0]):
        rows = {key: row for _, key, row in group}
        yield ImageMaps(image_id=next(iter(rows.values()))["image_id"], rows=rows)


def _rows(one: MapFolder, order: Mapping[str, int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (place, key, row) of a folder's images, sorted by place as the job wrote them."""
    for part in map_parts(one.folder.uri):
        table = read_part(one.folder.uri, part, COLUMNS)
        plain = table.drop_columns(["saliency"]).to_pylist()
        found = [
            (order[row["image_id"]], one.key, {**row, "saliency": saliency})
            for row, saliency in zip(plain, saliency_maps(table), strict=True)
            if row["image_id"] in order
        ]
        yield from sorted(found, key=lambda item: item[0])


def read_scores(uris: Sequence[str], folders: Sequence[MapFolder]) -> dict[tuple[str, str, str], float]:
    """Read AUCs of the maps from scores folders: (image id, key of the folder, game) -> AUC.

    Raises:
        ValueError: a folder holds no scores, or those of none of the maps.
    """
    keys = {config_hash(one.config): one.key for one in folders}
    aucs: dict[tuple[str, str, str], float] = {}
    for uri in uris:
        folder = Folder(uri)
        rows = [row for name in folder.parts() for row in read_parquet(folder, name, SCORE_COLUMNS).to_pylist()]
        known = [row for row in rows if row["config_hash"] in keys and row["game"] in GAMES and row["auc"] is not None]
        if not known:
            raise ValueError(
                f"{uri} holds no scores of these maps; give the --out folder of `python -m evaluate games`"
            )
        aucs |= {(row["image_id"], keys[row["config_hash"]], row["game"]): float(row["auc"]) for row in known}
    return aucs
