"""Scores, maps, images, masks and a student's folder for the report's tests, by the real schemas; and table rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cluster.storage import Folder, config_hash
from distill.demo.rendering import CLASSES, render
from evaluate.analysis.comparison import MethodRow
from evaluate.games.protocol import ALL_GAMES, GAMES, Protocol, is_deletion
from evaluate.games.schema import SCHEMA_VERSION, scores_schema, scores_table
from evaluate.metrics.schema import metrics_schema
from evaluate.metrics.settings import METRICS, ROWS, Settings, settings_hash
from evaluate.scored_method import ScoredMethod
from evaluate.statistics import Interval
from explain.maps import maps_table

SIZE = (24, 36)  # of the maps, not square
NUM_POINTS = 41
# How well each method finds the object, from 0 to 1: what the curves and the maps are made from.
SKILLS = {
    "mal_grad_cam": 0.72,
    "ml_grad_cam": 0.62,
    "matt": 0.45,
    "grad_cam": 0.55,
    "centre_gaussian": 0.4,
    "random": 0.05,
}
COSTS = {"random": (0, 0.0002), "centre_gaussian": (0, 0.0001), "mal_grad_cam": (1, 0.041)}
BROKEN = "the file is no image that can be read"
DIFFERING = 5  # every fifth image has another class from the student


@dataclass(frozen=True)
class World:
    """Where everything lies."""

    data: Path
    run: Path
    scores: str
    image_ids: tuple[str, ...]


def make_world(
    root: Path,
    *,
    num_images: int = 24,
    skills: Mapping[str, float] = SKILLS,
    class_names: Sequence[str] = tuple(CLASSES)[:4],
    masks: bool = True,
    num_errors: int = 0,
    name: str = "scores",
    protocol: Protocol | None = None,
    explains: Mapping[str, str] | None = None,
    **changes: Any,
) -> World:
    """Write a data set, a student's folder, maps of every method and their scores.

    Args:
        root: An empty folder.
        num_images: Images.
        skills: Method -> 0 ... 1.
        class_names: Names of the class folders.
        masks: Whether the data set has object masks.
        num_errors: Images at the end that have an error instead of scores.
        name: The scores' folder.
        protocol: What they were played under, RISE's by default; it decides the games.
        explains: Method -> what its maps say they explain, where they do.
        changes: To the scores' configuration.
    """
    data, run = root / "shapes", root / "run"
    image_ids = write_images(data, num_images, class_names, masks=masks)
    write_student(run, class_names)
    maps = [
        write_maps(
            root / "maps" / method,
            method,
            skill,
            data=data,
            run=run,
            image_ids=image_ids,
            num_errors=num_errors,
            explains=(explains or {}).get(method),
        )
        for method, skill in skills.items()
    ]
    config = scores_config(data, maps, protocol or Protocol()) | changes
    write_scores(Folder(str(root / name)), config, skills, image_ids, num_errors)
    return World(data=data, run=run, scores=str(root / name), image_ids=image_ids)


def write_images(data: Path, num: int, class_names: Sequence[str], *, masks: bool) -> tuple[str, ...]:
    """Render images (and masks) below data/val/CLASS; return their ids, sorted."""
    ids = []
    for i in range(num):
        class_name = class_names[i % len(class_names)]
        scene = render(list(CLASSES)[i % len(CLASSES)], np.random.default_rng(i), side_px=96)
        image_id = f"val/{class_name}/{i:04d}.png"
        ids.append(image_id)
        for folder, pixels in [("", scene.image)] + ([("masks/", scene.mask)] if masks else []):
            path = data / (folder + image_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tuple(sorted(ids))


def write_student(run: Path, class_names: Sequence[str]) -> None:
    """Write a student's description and its agreement; no weights."""
    folder = Folder(str(run))
    folder.write_json("student.json", {"depth": 18, "num_classes": len(class_names), "class_names": None})
    sims = {f"sim{n}": {"mean": 0.9 - 0.1 * n, "low": 0.86 - 0.1 * n, "high": 0.94 - 0.1 * n} for n in range(1, 5)}
    same = {"num_images": 400, "num_errors": 0, "split": "val", "limit": None, "teacher": "onnx:box.onnx", "data": "d"}
    same |= {"teacher_fingerprint": "teacher0", "student_fingerprint": "student0", "view": "centre_crop"}
    folder.write_json("similarity-aaaa.json", {**sims, **same})
    folder.write_json("similarity-bbbb.json", {**sims, **same, "view": "resize", "student_fingerprint": "older"})


def label(image_id: str) -> int:
    """Number an image's class by its folder, as the data set does for the shapes; 0 for other folders."""
    class_names = sorted(tuple(CLASSES)[:4])
    folder = image_id.split("/")[1]
    return class_names.index(folder) if folder in class_names else 0


def saliency(image_id: str, skill: float, method: str, data: Path) -> np.ndarray:
    """Make a map (24, 36): the object, blurred with noise as the skill is low."""
    seed = [int(image_id[-8:-4]), *method.encode()]
    noise = np.random.default_rng(seed).random(SIZE)
    path = data / "masks" / image_id
    mask = Image.open(path).convert("F") if path.exists() else Image.new("F", (96, 96))
    blob = np.asarray(mask.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX)) / 255
    smooth = np.asarray(Image.fromarray(noise.astype(np.float32)).resize((6, 4)).resize((SIZE[1], SIZE[0])))
    return (skill * blob + (1 - skill) * (noise if method == "random" else smooth)).astype(np.float32)


def write_maps(
    path: Path,
    method: str,
    skill: float,
    *,
    data: Path,
    run: Path,
    image_ids: Sequence[str],
    num_errors: int,
    explains: str | None = None,
) -> dict[str, Any]:
    """Write a maps folder of two parts; return its entry in the scores' configuration."""
    config = {
        "schema_version": 1,
        "method": method,
        "options": {},
        "data": str(data),
        "data_name": data.name,
        "split": "val",
        "limit": None,
        "student": None if method in ("random", "centre_gaussian") else str(run),
        "student_fingerprint": "student0",
        "teacher": "onnx:box.onnx",
        "teacher_fingerprint": "teacher0",
        "target": "teacher",
        "seed": 0,
    }
    if explains is not None:
        config["explains"] = explains
    passes, seconds = COSTS.get(method, (1, 0.038))
    rows = []
    for i, image_id in enumerate(image_ids):
        failed = i >= len(image_ids) - num_errors
        row = {"image_id": image_id, "label": label(image_id), "target": label(image_id), "target_prob": 0.8}
        cost = {"teacher_queries": 0, "student_passes": passes, "seconds": seconds}
        made = {"saliency": saliency(image_id, skill, method, data), "map_height": SIZE[0], "map_width": SIZE[1]}
        rows.append(row | ({"error": BROKEN} if failed else {**made, **cost}))
    folder = Folder(str(path))
    folder.claim(config, what="maps")
    half = len(rows) // 2
    for k, part in enumerate([rows[:half], rows[half:]]):
        pq.write_table(maps_table(part, config), path / f"part-{k:05d}.parquet")
    folder.finish({"rows": len(rows)})
    return {"uri": folder.uri, "method": method, "config_hash": config_hash(config), "config": config}


def scores_config(data: Path, maps: Sequence[Mapping[str, Any]], protocol: Protocol) -> dict[str, Any]:
    """Make the configuration of a scores folder."""
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": protocol.fields(),
        "protocol_hash": protocol.hash,
        "teacher": "onnx:box.onnx",
        "teacher_fingerprint": "teacher0",
        "data": str(data),
        "data_name": data.name,
        "data_fingerprint": "data0",
        "split": "val",
        "limit": None,
        "maps": list(maps),
    }


def curve(game: str, image_id: str, skill: float, method: str) -> np.ndarray:
    """Make a curve (41,): the better the map, the sooner it falls or rises; the later with the least relevant first."""
    number = int(image_id[-8:-4])
    level = np.random.default_rng([number, 7]).normal(0, 0.12)
    own = np.random.default_rng([number, *method.encode(), *game.encode()]).normal(0, 0.06)
    speed = 2.2 + 14 * max(0.0, skill + level + own)
    x = np.linspace(0, 1, NUM_POINTS)
    high = 0.86 + 0.1 * level
    falling = high * (np.exp(-speed * x) - np.exp(-speed)) / (1 - np.exp(-speed)) + 0.02
    rising = high * (1 - np.exp(-speed * x)) / (1 - np.exp(-speed)) + 0.02
    early = falling if is_deletion(game) else rising
    return (early if game in GAMES else high + 0.04 - early[::-1]).astype(np.float32)


def write_scores(
    folder: Folder, config: dict[str, Any], skills: Mapping[str, float], image_ids: Sequence[str], num_errors: int
) -> None:
    """Write a scores folder, one part per method."""
    folder.claim(config, what="scores")
    schema = scores_schema(config)
    games = ALL_GAMES if config["protocol"].get("least_relevant") else GAMES
    for k, entry in enumerate(config["maps"]):
        rows = []
        passes, seconds = COSTS.get(entry["method"], (1, 0.038))
        for i, image_id in enumerate(image_ids):
            for game in games:
                same = {
                    "image_id": image_id,
                    "label": label(image_id),
                    "target": label(image_id),
                    "game": game,
                    "method": entry["method"],
                }
                same |= {"config_hash": entry["config_hash"], "protocol_hash": config["protocol_hash"]}
                if i >= len(image_ids) - num_errors:
                    rows.append({**same, "teacher_queries": 0, "error": BROKEN})
                    continue
                points = curve(game, image_id, skills[entry["method"]], entry["method"])
                costs = {"map_seconds": seconds, "map_teacher_queries": 0, "map_student_passes": passes}
                made = {"auc": float(np.trapezoid(points, dx=1 / (NUM_POINTS - 1))), "curve": points.tolist()}
                rows.append({**same, **costs, **made, "tied_share": 0.1, "teacher_queries": NUM_POINTS})
        write_part(folder, f"part-{k:05d}.parquet", scores_table(rows, schema))
    folder.finish({"rows": len(games) * len(image_ids) * len(config["maps"])})


def write_part(folder: Folder, name: str, table: pa.Table) -> None:
    """Write one Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    folder.write_bytes(name, sink.getvalue().to_pybytes())


def write_metrics(
    world: World,
    out: Path,
    names: Sequence[str] = tuple(METRICS),
    *,
    limit: int | None = None,
    **changes: Any,
) -> str:
    """Write a measures folder of the world's maps; a name that is no measure has one row a map, of its own name.

    Max-sensitivity and fidelity have values for the methods that explain the student only.
    """
    scores = Folder(world.scores).config()
    fields: dict[str, Any] = {name: {"measure": name} for name in names}
    fields |= {name: Settings().fields(name, target="teacher", objects="masks") for name in METRICS if name in names}
    kept = ("teacher", "teacher_fingerprint", "data", "data_name", "data_fingerprint", "split", "maps")
    config = {"schema_version": "1", "measures": fields, "student": str(world.run), "student_fingerprint": "student0"}
    config |= {**{name: scores[name] for name in kept}, "boxes": None, "limit": limit, **changes}
    folder = Folder(str(out))
    folder.claim(config, what="measures")
    rows = []
    for entry in config["maps"]:
        for image_id in world.image_ids[:limit]:
            same = {"image_id": image_id, "method": entry["method"], "config_hash": entry["config_hash"], "target": 0}
            for measure, own in fields.items():
                for name in ROWS.get(measure, (measure,)):  # pyright: ignore[reportArgumentType, reportCallIssue]
                    cost = {"teacher_queries": 1.0, "seconds": 0.1}
                    row = {**same, **cost, "measure": name, "protocol_hash": settings_hash(own)}
                    value = measured_value(name, image_id, entry)
                    rows.append(row | ({"error": "no student"} if value is None else {"value": value}))
    write_part(folder, "part-00000.parquet", pa.Table.from_pylist(rows, schema=metrics_schema(config)))
    folder.finish({"rows": len(rows)})
    return folder.uri


def measured_value(name: str, image_id: str, entry: Mapping[str, Any]) -> float | None:
    """Make a measure's value: better with the method's skill; None where the method has no such value."""
    method, number = entry["method"], int(image_id[-8:-4])
    if (name == "max_sensitivity" or name.startswith("fidelity")) and entry["config"]["student"] is None:
        return None
    if name == "fidelity_clean_agreement":
        return float(number % DIFFERING != 0)
    own = np.random.default_rng([number, *method.encode(), *name.encode()]).normal(0, 0.1)
    good = float(np.clip(SKILLS.get(method, 0.3) + own, 0, 1))
    if name == "pointing_game":
        return float(good > 0.5)
    return 1 - good if name in ("max_sensitivity", "road_morf") or name.endswith("_kl") else good


def method_row(scored: ScoredMethod, values: Mapping[str, Interval], teacher_queries: float) -> MethodRow:
    """Make a row of the table of methods that was held against nothing."""
    return MethodRow(
        scored=scored,
        values=values,
        against={},
        num_flat=0,
        tied_share=0.0,
        teacher_queries=teacher_queries,
        student_passes=0.0,
        seconds=1.0,
        num_errors=0,
    )
