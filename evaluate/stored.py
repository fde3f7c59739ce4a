"""Stored configurations of jobs, checked as they are read: a folder may come from somebody else, or be damaged."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

from cluster.storage import CONFIG, Folder, check_fields

Types = Mapping[str, type | tuple[type, ...]]
TEXT_OR_NULL = (str, NoneType)
NUMBER_OR_NULL = (int, NoneType)
IMAGES: Types = {"data_name": str, "data_fingerprint": str, "split": TEXT_OR_NULL, "limit": NUMBER_OR_NULL}
JUDGED: Types = {"teacher": str, "teacher_fingerprint": str, "data": str, "maps": list}
SCORES: Types = {**JUDGED, "protocol": dict, "protocol_hash": str}
METRICS: Types = {**JUDGED, "measures": dict, "data_fingerprint": str}
ENTRY: Types = {"uri": str, "method": str, "config_hash": str}
MAPS: Types = {
    "method": str,
    "options": dict,
    "seed": int,
    "data": str,
    "data_fingerprint": str,
    "split": TEXT_OR_NULL,
    "limit": NUMBER_OR_NULL,
    "target": (str, int, NoneType),
    **{f"{model}{part}": TEXT_OR_NULL for model in ("teacher", "student") for part in ("", "_fingerprint")},
}
"""Keys of the configuration of maps, as `python -m explain` stores it."""
OPTIONAL_MAPS: Types = {
    "data_name": str,
    "per_class": NUMBER_OR_NULL,
    "explains": str,
    "map_cells": NUMBER_OR_NULL,
    "readout_fingerprint": TEXT_OR_NULL,
}
SIMILARITY: Types = {"num_images": int}
OPTIONAL_SIMILARITY: Types = {
    **IMAGES,
    "view": str,
    "data": str,
    "teacher": str,
    "per_class": NUMBER_OR_NULL,
    "teacher_fingerprint": TEXT_OR_NULL,
    "student_fingerprint": TEXT_OR_NULL,
}
INTERVAL: Types = dict.fromkeys(("mean", "low", "high"), (int, float))
STUDENT: Types = {"class_names": (list, NoneType), "num_classes": int, "depth": int, "fingerprint": str}
MAX_N = 5


def scores_config(folder: Folder) -> dict[str, Any]:
    """Read what a folder of scores was made with. Raises: ValueError where it holds no scores, or is damaged."""
    config = folder.config()
    if "protocol" not in config:
        raise ValueError(f"{folder.uri} holds no scores; give the --out folder of `python -m evaluate games`")
    _check_judged(config, SCORES, folder)
    check_fields(config["protocol"], {"name": str}, where=f"{folder.uri}/{CONFIG}: protocol")
    if "made_for" in config:
        check_fields(config, {"made_for": dict}, where=f"{folder.uri}/{CONFIG}")
        made_for = {"teacher": str, "teacher_fingerprint": str}
        check_fields(config["made_for"], made_for, where=f"{folder.uri}/{CONFIG}: made_for")
    return config


def metrics_config(folder: Folder) -> dict[str, Any]:
    """Read what a folder of metrics was made with. Raises: ValueError where it holds no metrics, or is damaged."""
    config = folder.config()
    if "measures" not in config:
        raise ValueError(f"{folder.uri} holds no metrics; give the --out folder of `python -m evaluate measures`")
    _check_judged(config, METRICS, folder)
    return config


def maps_config(folder: Folder) -> dict[str, Any]:
    """Read what a folder of maps was made with. Raises: ValueError where it holds no maps, or is damaged."""
    config = folder.config()
    if "method" not in config:
        raise ValueError(f"{folder.uri} holds no maps; give the --out folder of `python -m explain METHOD`")
    _check(config, MAPS, OPTIONAL_MAPS, f"{folder.uri}/{CONFIG}")
    return config


def read_similarity(folder: Folder, name: str) -> dict[str, Any]:
    """Read a measurement of Sim N from a student's folder. Raises: ValueError where it is damaged."""
    result, where = folder.read_json(name), f"{folder.uri}/{name}"
    if not isinstance(result, dict):
        raise ValueError(f"{where} holds no similarity; give the folder that `python -m evaluate similarity` wrote to")
    sims = {f"sim{n}": dict for n in range(1, MAX_N + 1)}
    _check(result, SIMILARITY, {**OPTIONAL_SIMILARITY, **sims}, where)
    for sim in sims:
        interval = result.get(sim, {"mean": 0, "low": 0, "high": 0})
        check_fields(interval, INTERVAL, where=f"{where}: {sim}")
        if any(value < 0 or value > 1 for value in interval.values()):  # NaN where one image alone was seen
            raise ValueError(
                f"{where} has {sim} outside of 0 to 1; measure it again with `python -m evaluate similarity`"
            )
    return result


def read_student_file(folder: Folder) -> dict[str, Any]:
    """Read a student's description; empty where there is none. Raises: ValueError where it is damaged."""
    name = "student.json"
    description = folder.read_json(name) if folder.exists(name) else {}
    if not isinstance(description, dict):
        raise ValueError(f"{folder.uri}/{name} holds no student; give the --out folder of `python -m distill`")
    _check(description, {}, STUDENT, f"{folder.uri}/{name}")
    return description


def _check_judged(config: Mapping[str, Any], required: Types, folder: Folder) -> None:
    where = f"{folder.uri}/{CONFIG}"
    _check(config, required, {**IMAGES, "per_class": NUMBER_OR_NULL, "student": TEXT_OR_NULL}, where)
    for k, entry in enumerate(config["maps"]):
        if not isinstance(entry, dict):
            raise ValueError(f"{where} has maps {str(entry)[:80]!r}; allowed: a description of maps")
        _check(entry, ENTRY, {"config": dict}, f"{where}: maps[{k}]")
        _check(entry.get("config", {}), {}, {**MAPS, **OPTIONAL_MAPS}, f"{where}: maps[{k}].config")
    if not config["maps"]:
        raise ValueError(f"{where} names no maps; give the --out folder of a command that has run")


def _check(fields: Mapping[str, Any], required: Types, optional: Types, where: str) -> None:
    check_fields(fields, {**required, **{key: optional[key] for key in optional if key in fields}}, where=where)
