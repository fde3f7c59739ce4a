"""Read scores of one or several jobs as tables, and refuse to mix what cannot be compared.

Only scalars become a data frame; curves are added up part by part, so 50,000 images of ten methods fit in memory.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cluster.parquet import check_size, check_types, read_parquet, readable
from cluster.storage import Folder
from evaluate.games.derived import normalised_area, relevance_gain
from evaluate.games.protocol import ALL_GAMES, GAMES, LEAST_GAMES, Game, RankedBy
from evaluate.games.schema import COLUMNS, SCHEMA_VERSION
from evaluate.scored_method import MAIN_METHOD, MeanCurve, ScoredMethod, label_methods
from evaluate.stored import scores_config

SCALARS = [
    "image_id",
    "label",
    "method",
    "config_hash",
    "game",
    "protocol_hash",
    "target",
    "auc",
    "tied_share",
    "map_seconds",
    "map_teacher_queries",
    "map_student_passes",
    "error",
]
ROUNDING = 1e-3  # by which a mean of float32 probabilities may lie outside of 0 to 1
NUM_READERS = 16  # footers read at once, for stores where each costs a round trip
# What two score folders must have in common: the key in `_config.json`, and what it is called in the error.
MUST_AGREE = {"protocol_hash": "protocols", "teacher_fingerprint": "teachers", "data": "data sets"}


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that was read from the score folders."""

    uris: tuple[str, ...]
    """The score folders."""
    configs: tuple[dict[str, Any], ...]
    """Their configurations; they agree on protocol, teacher and data set."""
    methods: tuple[ScoredMethod, ...]
    """The scored methods, in the order given."""
    rows: pd.DataFrame
    """One row per image, method and game, without curves but with their ends in the columns `start` and `end`; the
    column `name` holds the method's label."""
    curves: dict[tuple[str, str], MeanCurve]
    """Mean curves by (label, game)."""
    against: str | None = None
    """Label of the method that the others are tested against; None for MAL-Grad-CAM."""

    @property
    def config(self) -> dict[str, Any]:
        """Return the first configuration."""
        return self.configs[0]

    @property
    def num_images(self) -> int:
        """Count the images that anything was scored on."""
        return len(self.rows["image_id"].unique())

    @property
    def main(self) -> ScoredMethod | None:
        """Return the method that the others are tested against: the one that was named, else MAL-Grad-CAM.

        That is the first configuration of it, or None where it was not scored.
        """
        if self.against is not None:
            return next(scored for scored in self.methods if scored.label == self.against)
        return next((scored for scored in self.methods if scored.method == MAIN_METHOD), None)

    @functools.cached_property
    def games(self) -> tuple[Game, ...]:
        """Return the games that were played: the two main ones, or all four."""
        played = set(self.rows["game"].unique())
        return tuple(game for game in ALL_GAMES if game in played)

    def auc(self, game: str) -> pd.DataFrame:
        """Return the AUCs of a game, images by methods, NaN where an image has an error."""
        return self._wide["auc", game]

    def measure(self, name: RankedBy) -> pd.DataFrame | None:
        """Return a measure of the maps, images by methods, NaN where an image has none.

        None for a relevance gain whose game was not played least relevant first.
        """
        if name == "gap":
            return self.auc("insertion") - self.auc("deletion")
        if name == "insertion_normalised":
            return self._normalised_insertion()
        return self.auc(name) if name in GAMES else self._gain(GAMES[name == "insertion_gain"])

    def _normalised_insertion(self) -> pd.DataFrame:
        area, start, end = (self._wide[column, "insertion"] for column in ("auc", "start", "end"))
        values = normalised_area(area.to_numpy(), start.to_numpy(), end.to_numpy())
        return pd.DataFrame(values, index=area.index, columns=area.columns)

    def _gain(self, game: Game) -> pd.DataFrame | None:
        if LEAST_GAMES[game] not in self.games:
            return None
        most = self.auc(game)
        least = self.auc(LEAST_GAMES[game]).reindex(index=most.index)
        values = relevance_gain(game, most.to_numpy(), least.to_numpy())
        return pd.DataFrame(values, index=most.index, columns=most.columns)

    @functools.cached_property
    def _wide(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Return columns by (column, game), images by methods."""
        labels = [scored.label for scored in self.methods]
        parts = {game: self.rows[self.rows["game"] == game] for game in ALL_GAMES}
        wanted = [*(("auc", game) for game in ALL_GAMES), ("start", "insertion"), ("end", "insertion")]
        return {
            (column, game): parts[game]
            .pivot(index="image_id", columns="name", values=column)
            .sort_index()
            .reindex(columns=labels)
            for column, game in wanted
        }


def load_results(uris: Sequence[str], *, cross_teacher: bool = False, against: str | None = None) -> Results:
    """Read score folders.

    Args:
        uris: the folders.
        cross_teacher: let them hold scores of maps that were made for another black box.
        against: the method that the others are tested against, by its label, the name of its folder of maps, or its
            own name; without it MAL-Grad-CAM.

    Raises:
        ValueError: a folder has no scores, two were made under different protocols, teachers or data sets, an image
            was scored twice for the same maps, the maps were made for another black box, or none or several methods
            are `against`.
    """
    if not uris:
        raise ValueError("no scores given; give one or more --out folders of `python -m evaluate games`")
    folders = [Folder(uri) for uri in dict.fromkeys(uris)]
    configs = tuple(map(scores_config, folders))
    if not cross_teacher:
        _check_own_teacher(folders, configs)
    _check_comparable(folders, configs)
    methods = label_methods([maps for config in configs for maps in config["maps"]])
    labels = {scored.config_hash: scored.label for scored in methods}
    curves: dict[tuple[str, str], MeanCurve] = {}
    blocks = [
        _read_block(batch, labels, curves, folder.uri)
        for folder in folders
        for batch in _batches(folder)
        if batch.num_rows
    ]
    if not blocks:
        raise ValueError(f"{folders[0].uri} holds no scores of any image; play the games again into another --out")
    rows: Any = pa.concat_tables(blocks).to_pandas()
    rows["name"] = rows["config_hash"].map(labels)
    _check_values(rows["auc"].to_numpy(), "AUCs", ", ".join(folder.uri for folder in folders))
    _check_known(rows)
    _check_unique(rows)
    _check_hashes(rows, configs[0]["protocol_hash"])
    present = set(rows["name"].unique())
    scored = tuple(scored for scored in methods if scored.label in present)
    return Results(
        uris=tuple(folder.uri for folder in folders),
        configs=configs,
        methods=scored,
        rows=rows,
        curves=curves,
        against=None if against is None else _label_of(against, scored),
    )


def _label_of(name: str, methods: Sequence[ScoredMethod]) -> str:
    """Find a method by its label, its folder of maps or its own name."""
    for name_of in (lambda one: one.label, lambda one: one.maps.rstrip("/").rpartition("/")[2], lambda one: one.method):
        labels = [scored.label for scored in methods if name_of(scored) == name]
        if len(labels) == 1:
            return labels[0]
    known = ", ".join(f"{scored.label!r} in {scored.maps}" for scored in methods)
    raise ValueError(f"against {name!r}: no method, or several; give a label or the name of a folder of maps: {known}")


def _check_own_teacher(folders: Sequence[Folder], configs: Sequence[Mapping[str, Any]]) -> None:
    for folder, config in zip(folders, configs, strict=True):
        if "made_for" in config:
            raise ValueError(
                f"{folder.uri} scores maps made for {config['made_for']['teacher']} on another black box, "
                f"{config['teacher']}: they say how specific maps are, not how good; compare them by "
                "`python -m evaluate specificity`, or leave the folder out"
            )


def _check_comparable(folders: Sequence[Folder], configs: Sequence[Mapping[str, Any]]) -> None:
    for key, what in MUST_AGREE.items():
        uris = {config[key]: folder.uri for config, folder in zip(configs, folders, strict=True)}
        if len(uris) > 1:
            listed = "; ".join(f"{value} in {uri}" for value, uri in uris.items())
            raise ValueError(
                f"the scores were made with {len(uris)} {what} ({key}: {listed}); numbers are compared within one "
                "only: write a report for each"
            )


def _batches(folder: Folder) -> Iterator[pa.RecordBatch]:
    names, columns = folder.parts(), [*SCALARS, "curve"]
    if not names:
        raise ValueError(f"{folder.uri} holds no scores; run its `python -m evaluate games` command to the end")
    for name, schema in zip(names, _part_schemas(folder, names), strict=True):
        where = f"{folder.uri}/{name}"
        version = (schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{where} has schema version {version}, this program reads {SCHEMA_VERSION}; play the games again into "
                "another --out"
            )
        missing = sorted(set(columns) - set(schema.names))
        if missing:
            raise ValueError(f"{where} has scores without {', '.join(missing)}; play the games again")
        check_types(schema.empty_table().select(columns), COLUMNS, where)
    dataset = ds.dataset(folder.part_paths(), schema=COLUMNS, filesystem=folder.filesystem, format="parquet")
    try:
        with readable(folder.uri):
            yield from dataset.to_batches(columns=columns, batch_size=4096)
    except ValueError:
        for name in names:  # find the part that is broken: its name is what helps
            read_parquet(folder, name, columns)
        raise


def _part_schemas(folder: Folder, names: Sequence[str]) -> Iterator[pa.Schema]:
    """Read the footers of parts, many at once; one that is broken, or does not fit into memory, is a ValueError."""

    def read(name: str) -> pa.Schema:
        with folder.open(name) as file, readable(f"{folder.uri}/{name}"):
            footer = pq.ParquetFile(file)
            check_size(footer.metadata)
            return footer.schema_arrow

    with ThreadPoolExecutor(NUM_READERS) as readers:
        yield from readers.map(read, names)


def _read_block(
    batch: pa.RecordBatch, labels: Mapping[str, str], curves: dict[tuple[str, str], MeanCurve], uri: str
) -> pa.Table:
    """Add a batch's curves to the sums, and return the rest of it with the curves' ends in `start` and `end`."""
    table, ends = pa.Table.from_batches([batch]), np.full((batch.num_rows, 2), np.nan)
    whole = table["curve"].is_valid().to_numpy()
    lengths = {*batch["curve"].value_lengths().drop_null().to_pylist(), *(curve.sums.size for curve in curves.values())}
    if len(lengths) > 1 or min(lengths, default=2) < 2:
        raise ValueError(
            f"{uri} holds curves of {' and '.join(map(str, sorted(lengths)[:4]))} points; allowed: 2 or more, the same "
            "number for all. Play the games again into another --out"
        )
    hashes, games = (batch[name].dictionary_encode() for name in ("config_hash", "game"))
    codes = hashes.indices.to_numpy() * len(games.dictionary) + games.indices.to_numpy()
    for code in np.unique(codes[whole]):
        config_hash, game = (
            found.dictionary[int(k)].as_py()
            for found, k in zip((hashes, games), divmod(code, len(games.dictionary)), strict=True)
        )
        index = np.flatnonzero(whole & (codes == code))
        picked = table["curve"].take(pa.array(index)).combine_chunks()
        points = picked.flatten().to_numpy(zero_copy_only=False).reshape(len(picked), -1)
        if np.isnan(points).any():
            raise ValueError(f"{uri} holds curves with unknown points; play the games again into another --out")
        _check_values(points, "curves", uri)
        ends[index] = points[:, [0, -1]]
        if config_hash in labels:
            curves.setdefault((labels[config_hash], game), MeanCurve()).add(points)
    scalars = table.select(SCALARS)
    return scalars.append_column("start", [ends[:, 0]]).append_column("end", [ends[:, 1]])


def _check_values(values: np.ndarray, what: str, where: str) -> None:
    """Refuse scores that are no probabilities, or no mean of such; NaN where an image has none."""
    if (values < -ROUNDING).any() or (values > 1 + ROUNDING).any():
        raise ValueError(
            f"{where} holds {what} from {np.nanmin(values):.4g} to {np.nanmax(values):.4g}; allowed: 0 to 1. Play the "
            "games again into another --out"
        )


def _check_known(rows: pd.DataFrame) -> None:
    strangers = rows[rows["name"].isna()]
    if len(strangers):
        raise ValueError(
            f"{len(strangers)} scores are of maps that the folder's configuration does not name, first "
            f"{strangers.iloc[0]['method']} ({strangers.iloc[0]['config_hash']}); play the games again into "
            "another --out"
        )


def _check_unique(rows: pd.DataFrame) -> None:
    doubles = rows[rows.duplicated(["image_id", "name", "game"])]
    if len(doubles):
        first = doubles.iloc[0]
        raise ValueError(
            f"{len(doubles)} scores came twice, first {first['method']} on {first['image_id']} ({first['game']}); give "
            "each score folder once, and no two folders with the same maps"
        )


def _check_hashes(rows: pd.DataFrame, protocol_hash: str) -> None:
    others = sorted(set(rows["protocol_hash"].unique()) - {protocol_hash})
    unknown = sorted(set(rows["game"].unique()) - set(ALL_GAMES))
    if others or unknown:
        raise ValueError(
            f"the scores hold rows of other protocols {others} or games {unknown} than their configuration "
            f"({protocol_hash}; {', '.join(ALL_GAMES)}); play the games again into another --out"
        )
