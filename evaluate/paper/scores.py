"""The scores that the paper's tables are made from: read per data set, and refused where they share no table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.storage import Folder
from evaluate.games.reader import Results, load_results
from evaluate.paper.published import METHODS
from evaluate.scored_method import ScoredMethod
from evaluate.stored import scores_config


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set's scores."""

    name: str
    """Its name."""
    results: Results
    """The scores."""

    @property
    def columns(self) -> dict[str, ScoredMethod]:
        """Return the methods by column: the paper's first, then others, controls last.

        Of several settings of one of its methods the first one given stands in the paper's column.
        """
        methods = sorted(self.results.methods, key=lambda scored: scored.is_control)
        own = {scored.method: scored for scored in reversed(methods) if scored.method in METHODS}
        others = {scored.label: scored for scored in methods if scored not in own.values()}
        return {method: own[method] for method in METHODS if method in own} | others


def read_data_sets(scores: Sequence[str]) -> list[DataSet]:
    """Read score folders, any number of each data set.

    Raises:
        ValueError: there are none, some are not complete, two differ in their protocol, or two of one data set in
            teacher or images.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    seen: dict[str, str] = {}
    for uri in dict.fromkeys(scores):
        config = scores_config(Folder(uri))
        if Folder(uri).finished() is None:
            raise ValueError(
                f"the scores in {uri} are not complete; run the same `python -m evaluate games` again first"
            )
        seen.setdefault(str(config.get("protocol_hash")), uri)
        groups.setdefault((data_name(config), str(config.get("data"))), []).append(uri)
    if len(seen) > 1:
        listed = "; ".join(f"{found} in {uri}" for found, uri in seen.items())
        raise ValueError(
            f"the scores were made under {len(seen)} protocols ({listed}); a table holds one: write one each"
        )
    names = [name for name, _ in groups]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        places = "; ".join(data for name, data in groups if name in twice)
        raise ValueError(
            f"two data sets are named {' and '.join(sorted(twice))} ({places}); give one, or rename a folder"
        )
    found = [DataSet(name=name, results=load_results(uris)) for (name, _), uris in groups.items()]
    if not found:
        raise ValueError("no scores given; give one or more --out folders of `python -m evaluate games`")
    for data_set in found:
        _check_images(data_set)
    return found


def data_name(found: Mapping[str, Any]) -> str:
    """Name the data set of a stored configuration or measurement."""
    return found.get("data_name") or Path(str(found.get("data", ""))).name


def _check_images(data_set: DataSet) -> None:
    found = {
        config.get("data_fingerprint"): uri
        for config, uri in zip(data_set.results.configs, data_set.results.uris, strict=True)
    }
    if len(found) > 1:
        listed = "; ".join(f"{fingerprint} in {uri}" for fingerprint, uri in found.items())
        raise ValueError(
            f"the scores of {data_set.name} are of {len(found)} choices of images ({listed}); a row is of one: give "
            "the folders of one, or play the games again with the same --limit or --per-class"
        )
