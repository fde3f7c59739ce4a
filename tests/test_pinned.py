"""What is stored and typed stays: hashes, keys, columns, names in MLflow, commands and flags, and folders of before.

The file reaches the product as a user does: by `python -m` commands, and by the files and the MLflow store that they
leave. It imports nothing of the project, so it stays as it is while modules and functions move. The pinned values lie
in `pinned/expected.json`. Configurations and columns are equal to them; manifests, folders, MLflow runs, commands and
flags hold at least what is pinned.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.models import get_model_info
from PIL import Image

pytestmark = [
    pytest.mark.timeout(1200),  # a minute alone, six where other work runs beside it
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's store
]
ROOT = Path(__file__).parents[1]
PINNED = ROOT / "tests" / "pinned"
EXPECTED: dict[str, Any] = json.loads((PINNED / "expected.json").read_text())
DATA = "squares"
BOX = "onnx:teacher/model.onnx"

JOBS = f"""
distill demo --data {DATA} --teacher {BOX} --out student --epochs 1 --batch-size 5 --input-size 64 64 \
    --log-steps 1 --precision float32
distill finetune folder --data {DATA} --network python:tiny_network:make --out box --epochs 1 \
    --batch-size 5 --log-steps 1
explain mal_grad_cam --data {DATA} --student student --teacher {BOX} --out maps/mal_grad_cam
explain gp_regression --data {DATA} --split train --teacher {BOX} --out maps/gp_regression --num-samples 8
explain rise --data {DATA} --teacher {BOX} --out maps/rise --num-masks 16 --map-cells 8
explain random --data {DATA} --teacher {BOX} --out maps/random --per-class 1 --seed 3
explain fit --student student --maps maps/gp_regression --epochs 1 --held-out 0.4
explain readout --data {DATA} --student student --teacher {BOX} --out maps/readout --limit 3
evaluate games --maps maps/mal_grad_cam maps/rise --data {DATA} --teacher {BOX} --out scores
evaluate games --maps maps/mal_grad_cam maps/rise --data {DATA} --teacher {BOX} --out patches \
    --patches 4 --least-relevant --deletion-substrate blur --insertion-substrate mean
evaluate games --maps maps/rise --data {DATA} --teacher {BOX} --out points \
    --points 9 --step-px 64 --seed 1 --deletion-substrate black --insertion-substrate noise --limit 4
evaluate games --cross-teacher --maps maps/rise --data {DATA} --teacher onnx:other/model.onnx --out crossed
evaluate measures --maps maps/mal_grad_cam maps/rise --data {DATA} --teacher {BOX} --student student --out measures \
    --measures road mu_fidelity pointing energy max_sensitivity fidelity --num-subsets 8 --num-masks 4 --num-points 3 \
    --num-perturbations 2
evaluate sanity --student student --teacher {BOX} --data {DATA} --out sanity --methods mal_grad_cam matt
evaluate similarity --student student --teacher {BOX} --data {DATA}
evaluate report --scores scores --measures measures --out report.html --table report.md --query-plot curve.png
evaluate tables --scores scores --out paper --beside {DATA}=imagenet
evaluate substrates --scores scores patches --table substrates.md
explain register mal_grad_cam --student student --name {DATA}
evaluate report --scores before/scores --measures before/measures --out again/report.html --table again/report.md
evaluate tables --scores before/scores --out again/paper --beside {DATA}=imagenet
evaluate games --maps before/maps/mal_grad_cam before/maps/gp_regression before/maps/rise \
    before/maps/centre_gaussian --data {DATA} --teacher {BOX} --out again/scores
"""
FOLDERS = (
    *("student", "box", "maps/mal_grad_cam", "maps/gp_regression", "maps/rise", "maps/random", "maps/readout"),
    *("scores", "patches", "points", "crossed", "measures", "sanity"),
)
MAPS = tuple(folder for folder in FOLDERS if folder.startswith("maps/"))
SCORES = ("scores", "patches", "points", "crossed")
RANDOM_KEYS = {"config_hash", "student_fingerprint", "network_fingerprint", "readout_fingerprint"}
"""Keys of a configuration whose values depend on weights that were just learned, or on the folder's place."""

HOST = """
import contextlib, io, json, runpy, sys
commands, results, with_ray = sys.argv[1:]
if with_ray == "ray":
    import ray
    ray.init(logging_level=40)
done = []
for name, *arguments in json.load(open(commands)):
    sys.argv = [name, *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
    done.append([code, out.getvalue(), err.getvalue()])
    json.dump(done, open(results, "w"))
"""
"""Runs commands as `python -m` does, one after the other in one process, under one Ray."""

NETWORK = """
from torch import nn
def make():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 7))
"""


def write_images(data: Path) -> None:
    """Draw squares on noise: class0 ... class4, three training and two validation images each, these with masks."""
    for split, number in (("train", 3), ("val", 2)):
        for place in ((k, i) for k in range(5) for i in range(number)):
            random, mask = np.random.default_rng([*place, number]), np.zeros((48, 64), np.uint8)
            pixels = (random.random((48, 64, 3)) * 60).astype(np.uint8)
            top, left = int(random.random() * 24), int(random.random() * 36)
            mask[top : top + 22, left : left + 26] = 255
            pixels[mask > 0] += np.array([40 * place[0], 180 - 40 * place[0], 90], np.uint8)
            for folder, values in {"": pixels, "masks/": mask}.items() if split == "val" else [("", pixels)]:
                path = data / f"{folder}{split}/class{place[0]}/{place[1]}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)


def run(folder: Path, commands: Sequence[Sequence[str]], *, with_ray: bool) -> list[tuple[str, int, str, str]]:
    """Run `python -m` commands in a folder; return each one's line, exit status, output and errors."""
    for name, text in {"host.py": HOST, "tiny_network.py": NETWORK, "commands.json": json.dumps(commands)}.items():
        (folder / name).write_text(text)
    host = [sys.executable, "host.py", "commands.json", "results.json", "ray" if with_ray else "alone"]
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "COLUMNS": "100", "CUDA_VISIBLE_DEVICES": ""}
    env["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    started = [sys.executable, "-m", "cluster", "run", "--", *host] if with_ray else host
    ended = subprocess.run(started, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads((folder / "results.json").read_text())
    return [(" ".join(command), *result) for command, result in zip(commands, results, strict=True)]


def describe(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "_config.json").read_text())


def canonical_hash(value: Any, digits: int = 12) -> str:
    """Hash as documented: hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def fixed(value: Any, root: Path) -> Any:
    """Put names in place of what differs from run to run: the folder, and hashes of learned weights."""
    if isinstance(value, dict):
        own = {key: value[key] and f"<{key}>" for key in RANDOM_KEYS & set(value)}
        return {key: own.get(key, fixed(item, root)) for key, item in value.items()}
    if isinstance(value, list):
        return [fixed(item, root) for item in value]
    return value.replace(str(root), "<root>") if isinstance(value, str) else value


def key_paths(value: Any, prefix: str = "") -> Iterator[str]:
    """List the keys of nested dictionaries, as `rate.job`."""
    for key, item in value.items() if isinstance(value, dict) else ():
        yield prefix + key
        yield from key_paths(item, f"{prefix}{key}.")


def read(folder: Path) -> Any:
    return pq.read_table(folder)


def floats(path: Path) -> tuple[list[str], list[list[Any]]]:
    """Read a CSV table: its header, and its cells, numbers where they are some."""
    head, *rows = csv.reader(io.StringIO(path.read_text()))
    return head, [[float(cell) if re.fullmatch(r"-?[\d.e+-]+", cell) else cell for cell in row] for row in rows]


def assert_same_table(got: Path, wanted: Path) -> None:
    (head, rows), (wanted_head, wanted_rows) = floats(got), floats(wanted)
    columns = [head.index(name) for name in wanted_head]  # a column more is allowed
    assert len(rows) == len(wanted_rows)
    for row, wanted_row in zip(rows, wanted_rows, strict=True):
        for place, value in zip(columns, wanted_row, strict=True):
            same = pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
            assert row[place] == same, (got.name, head[place])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every job on a small data set and a small black box."""
    root = tmp_path_factory.mktemp("pinned")
    write_images(root / DATA)
    for name in ("teacher", "other"):
        shutil.copytree(PINNED / "teacher", root / name)
    shutil.copytree(PINNED / "before", root / "before")
    described = root / "other" / "teacher.toml"
    described.write_text(described.read_text().replace("mean = [0.5, 0.45, 0.4]", "mean = [0.4, 0.4, 0.4]"))
    ended = run(root, [line.split() for line in JOBS.strip().splitlines()], with_ray=True)
    assert [(line, out + err) for line, code, out, err in ended if code] == []
    return root


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Ask every pinned command for its help; return its option strings, nothing where there is no such command."""
    commands = [[*line.split(), "--help"] for line in EXPECTED["commands"]]
    found = {}
    for line, code, out, _ in run(tmp_path_factory.mktemp("help"), commands, with_ray=False):
        columns = re.findall(r"^(?:│ |  )(-\S.*)$", out, flags=re.MULTILINE)
        names = {flag for column in columns for flag in re.findall(r"--[a-z0-9-]+", re.split(r"\s{2,}", column)[0])}
        found[line.removesuffix(" --help")] = set() if code else names
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_configurations_keep_their_keys_values_and_hash(world, folder):
    config = fixed(describe(world / folder), world)
    assert config == EXPECTED["configs"][folder]
    assert canonical_hash(config) == EXPECTED["config_hashes"][folder]


@pytest.mark.parametrize("folder", MAPS)
def test_maps_carry_the_documented_hash_of_their_configuration(world, folder):
    config, table = describe(world / folder), read(world / folder)
    assert set(table["config_hash"].to_pylist()) == {canonical_hash(config)}
    assert set(table["method"].to_pylist()) == {config["method"]}
    assert json.loads(table.schema.metadata[b"config"]) == config
    assert table.schema.metadata[b"config_hash"].decode() == canonical_hash(config)


@pytest.mark.parametrize("folder", SCORES)
def test_scores_carry_the_pinned_hash_of_their_protocol(world, folder):
    config, table = describe(world / folder), read(world / folder)
    wanted = EXPECTED["protocol_hashes"][folder]
    assert canonical_hash(config["protocol"], 8) == config["protocol_hash"] == wanted
    assert set(table["protocol_hash"].to_pylist()) == {wanted}
    for entry in config["maps"]:
        assert entry["config"] == describe(Path(entry["uri"]))
        assert entry["config_hash"] == canonical_hash(entry["config"])
    assert set(table["config_hash"].to_pylist()) == {entry["config_hash"] for entry in config["maps"]}


def test_measures_and_checks_carry_pinned_hashes(world):
    config, table = describe(world / "measures"), read(world / "measures")
    rows = {row["measure"]: row["protocol_hash"] for row in table.select(["measure", "protocol_hash"]).to_pylist()}
    assert rows == EXPECTED["protocol_hashes"]["measures"]
    assert set(rows.values()) == {canonical_hash(fields, 8) for fields in config["measures"].values()}
    checks = set(read(world / "sanity")["protocol_hash"].to_pylist())
    assert checks == {EXPECTED["protocol_hashes"]["sanity"]} == {describe(world / "sanity")["protocol_hash"]}


def test_a_data_set_keeps_its_fingerprint(world):
    for split, wanted in EXPECTED["data_fingerprints"].items():
        ids = sorted(path.relative_to(world / DATA).as_posix() for path in (world / DATA / split).rglob("*.png"))
        record = json.dumps([DATA, ids, [int(image_id.split("/")[1][-1]) for image_id in ids]])
        assert hashlib.sha256(record.encode()).hexdigest()[:12] == wanted
    assert describe(world / "student")["data_fingerprint"] == list(EXPECTED["data_fingerprints"].values())


@pytest.mark.parametrize("folder", [*MAPS, *SCORES, "measures", "sanity"])
def test_parquet_keeps_its_columns(world, folder):
    schema = read(world / folder).schema
    assert [[field.name, str(field.type)] for field in schema] == EXPECTED["columns"][folder]
    assert schema.metadata[b"schema_version"] == b"1"


def test_targets_and_answers_lie_beside_the_maps_under_their_names(world):
    val, train = (EXPECTED["data_fingerprints"][split] for split in ("val", "train"))
    teacher = EXPECTED["configs"]["maps/rise"]["teacher_fingerprint"]
    for fingerprint in (val, train):
        targets = world / "maps" / f"targets-{teacher[:12]}-{fingerprint}"
        assert sorted(describe(targets)) == EXPECTED["side_configs"]["targets"]
        assert [[field.name, str(field.type)] for field in read(targets).schema] == EXPECTED["columns"]["targets"]
    for method in ("rise", "gp_regression"):
        (answers,) = (world / "maps").glob(f"answers-{method}-*")
        config = describe(answers)
        assert answers.name == f"answers-{method}-{canonical_hash(config)}"
        assert fixed(config, world) == EXPECTED["side_configs"][method]
        assert [[field.name, str(field.type)] for field in read(answers).schema] == EXPECTED["columns"]["answers"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_manifests_keep_their_keys_and_folders_their_files(world, folder):
    manifest = json.loads((world / folder / "_manifest.json").read_text())
    assert set(EXPECTED["manifests"][folder]) - set(key_paths(manifest)) == set()
    assert set(EXPECTED["files"][folder]) - {path.name for path in (world / folder).iterdir()} == set()


def test_a_student_keeps_its_files(world):
    weights = (world / "student" / "student.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + size])
    tensors = [[name, entry["dtype"], entry["shape"]] for name, entry in header.items() if name != "__metadata__"]
    assert canonical_hash(sorted(tensors)) == EXPECTED["student_tensors"]
    student = json.loads((world / "student" / "student.json").read_text())
    assert student["fingerprint"] == hashlib.sha256(weights).hexdigest()
    (similarity,) = (world / "student").glob("similarity-*.json")
    agreement = json.loads(similarity.read_text())
    assert similarity.stem == f"similarity-{canonical_hash({k: agreement[k] for k in EXPECTED['similarity_settings']})}"
    for name, found in student_files(world).items():
        assert sorted(key_paths(found)) == EXPECTED["student_files"][name], name


def student_files(world: Path) -> dict[str, Any]:
    """Read the JSON files that lie in a student's folder beside configuration and manifest."""
    paths = [path for path in (world / "student").glob("*.json") if not path.name.startswith("_")]
    return {re.sub(r"-[0-9a-f]{12}", "-<hash>", path.name): json.loads(path.read_text()) for path in paths}


def runs_of(world: Path) -> dict[str, dict[str, set[str]]]:
    """List experiment, name, stage and protocol of each MLflow run, and the names that it holds."""
    client, found = mlflow.MlflowClient(f"sqlite:///{world}/mlflow.db"), {}
    for experiment in client.search_experiments():
        for one in client.search_runs([experiment.experiment_id]):
            tags = one.data.tags
            name = f"{experiment.name}: {one.info.run_name}, {tags.get('stage')}, {tags.get('protocol_hash')}"
            held = {"params": set(one.data.params), "tags": set(tags), "metrics": set(one.data.metrics)}
            before = found.setdefault(name, held)
            found[name] = {kind: names | before[kind] for kind, names in held.items()}
    return found


def test_mlflow_runs_keep_their_names_params_tags_and_metrics(world):
    found = runs_of(world)
    assert set(EXPECTED["runs"]) - set(found) == set()
    for name, wanted in EXPECTED["runs"].items():
        for kind, names in wanted.items():
            assert set(names) - found[name][kind] == set(), (name, kind)


def test_a_registered_model_keeps_its_columns(world, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{world}/mlflow.db")
    model = get_model_info(f"models:/{DATA}/1")
    assert model.signature.inputs.input_names() == EXPECTED["model"]["inputs"]
    assert model.signature.outputs.input_names() == EXPECTED["model"]["outputs"]


@pytest.mark.parametrize("name", ["report.csv", "substrates.csv", *(f"paper/table{n}.csv" for n in (1, 2, 3))])
def test_tables_keep_their_columns(world, name):
    assert set(EXPECTED["tables"][name]) - set(floats(world / name)[0]) == set()


@pytest.mark.parametrize("name", ["report.csv", *(f"paper/table{n}.csv" for n in (1, 2, 3))])
def test_folders_of_before_are_still_read(world, name):
    """Their maps, images and student are gone from where they were: the numbers do not need them."""
    assert_same_table(world / "again" / name, PINNED / "before" / name)
    page = (world / "again" / "report.html").read_text()
    assert all(method in page for method in ("mal_grad_cam", "gp_regression", "rise", "centre_gaussian"))


def test_maps_of_before_get_the_scores_of_before(world):
    columns = ["image_id", "method", "game", "config_hash", "protocol_hash", "auc", "curve", "tied_share"]
    order = [(name, "ascending") for name in columns[:3]]
    before, again = (
        read(folder).select(columns).sort_by(order).to_pylist()
        for folder in (PINNED / "before" / "scores", world / "again" / "scores")
    )
    assert len(before) == len(again) == 40
    for wanted, got in zip(before, again, strict=True):
        assert got["auc"] == pytest.approx(wanted["auc"], abs=1e-4)
        assert got["curve"] == pytest.approx(wanted["curve"], abs=1e-3)
        assert {k: got[k] for k in columns[:5]} == {k: wanted[k] for k in columns[:5]}


@pytest.mark.parametrize("command", EXPECTED["commands"])
def test_commands_keep_their_flags(flags, command):
    assert set(EXPECTED["commands"][command]) - flags[command] == set()


@pytest.mark.parametrize("command", EXPECTED["readme"])
def test_the_readme_of_before_names_what_still_exists(flags, command):
    assert flags[command] >= {*EXPECTED["readme"][command], "--help"}


def test_make_keeps_its_targets_and_variables():
    text = (ROOT / "Makefile").read_text()
    assert [name for name in EXPECTED["make"] if not re.search(rf"^{name}:", text, flags=re.MULTILINE)] == []
    given = ["DATASET=cars_40", "DATA=images", "OPTIONS=--num-masks 2000", "BENCH=--only games"]
    told = ["make", "--dry-run", *given, "paper", "paper-status", "bench"]
    done = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("cars_40 --data images --num-masks 2000") == 2
    assert "--only games" in done.stdout
