"""The report's commands: each is parsed by the command line itself and asks for what the configuration stores."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tyro
from fake_scores import make_world, write_metrics

from cluster.storage import Folder
from distill.__main__ import Distill
from distill.training.recipes import RECIPES, Recipe
from evaluate.__main__ import Command, Games, Metrics, Report, Similarity
from evaluate.games.protocol import Protocol
from evaluate.metrics.settings import METRICS, Settings
from evaluate.report.commands import commands, distil, explain, games, measures
from evaluate.report.report_data import ReportData, gather
from explain.__main__ import parse
from explain.methods.options import RiseOptions
from explain.methods.registry import METHODS


def words(command: str, *program: str) -> list[str]:
    """Split a command as a shell does, and take the program off."""
    found = shlex.split(command.replace("\\\n", " "))
    assert found[: 2 + len(program)] == ["python", "-m", *program]
    return found[2 + len(program) :]


def evaluated(command: str) -> Any:
    cli: Any = tyro.cli
    return cli(Command, args=words(command, "evaluate"))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where nothing is near, so that no path is shortened, wherever the project and the tests' folders lie."""
    monkeypatch.chdir(Path.cwd().anchor)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    root = tmp_path_factory.mktemp("a place; $(rm -rf ~) 'quoted'")
    protocol = Protocol(deletion_substrate="noise", patches=14, least_relevant=True, seed=3)
    world = make_world(root, num_images=3, skills={"mal_grad_cam": 0.7, "random": 0.1}, protocol=protocol)
    return gather([world.scores], [write_metrics(world, root / "measures", limit=2)])


def test_every_stage_has_its_command(found: ReportData) -> None:
    kinds = [" ".join(shlex.split(line)[2:4]) for line in commands(found)]
    assert kinds == [
        "explain mal_grad_cam",
        "explain random",
        "evaluate games",
        "evaluate measures",
        "evaluate similarity",
        "evaluate report",
    ]


def test_what_is_asked_for_again_is_what_is_stored(found: ReportData) -> None:
    lines, config = commands(found), found.results.config
    for line, scored in zip(lines, found.results.methods, strict=False):
        name, job = parse(words(line, "explain"))
        assert name == scored.method
        asked = {"data": job.data, "teacher": job.teacher, "split": job.split, "seed": job.seed, "student": job.student}
        assert asked == {key: scored.config[key] for key in asked}
        assert (job.out, asdict(job.options)) == (scored.maps, asdict(METHODS[name].options()))
    asked = evaluated(lines[2])
    assert isinstance(asked, Games)
    assert asked.protocol == Protocol(deletion_substrate="noise", patches=14, least_relevant=True, seed=3)
    assert asked.maps == tuple(entry["uri"] for entry in config["maps"])
    assert (asked.data, asked.teacher, asked.out) == (config["data"], config["teacher"], found.results.uris[0])
    asked = evaluated(lines[3])
    assert isinstance(asked, Metrics)
    assert (asked.measures, asked.limit, asked.settings) == (METRICS, 2, Settings())
    assert asked.out == next(iter(found.measured))
    asked = evaluated(lines[4])
    assert isinstance(asked, Similarity)
    assert (asked.view, asked.split) == ("centre_crop", "val")
    asked = evaluated(lines[5])
    assert isinstance(asked, Report)
    assert (asked.scores, asked.measures) == (found.results.uris, tuple(found.measured))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"options": {"num_masks": 9, "num_cells": 8, "keep_probability": 0.1, "centred": True}},
        {"target": "label", "seed": 4, "limit": 7},
        {"per_class": 3},
        {"target": 3, "teacher": "onnx:a b.onnx"},
    ],
)
def test_explain_keeps_what_is_not_the_default(changes: dict[str, Any]) -> None:
    own = changes.get("options", {})
    config = {"method": "rise", "data": "d", "teacher": "onnx:x", "student": None, "target": "teacher", "split": None}
    config |= {"limit": None, "seed": 0, **changes, "options": asdict(RiseOptions(**own))}
    line = explain(config, "out")
    name, job = parse(words(line, "explain"))
    assert (name, job.options) == ("rise", RiseOptions(**own))
    assert (job.target or "teacher", job.seed, job.limit) == (str(config["target"]), config["seed"], config["limit"])
    assert job.per_class == config.get("per_class")
    assert line.count("--") == 3 + len(own) + len({"target", "seed", "limit", "per_class"} & set(changes))


def test_measures_keep_their_settings() -> None:
    settings = Settings(percentages=(20, 60), num_subsets=16, grid=4, tolerance_px=2, seed=5)
    fields = {name: settings.fields(name, target="teacher", objects="boxes") for name in METRICS}
    config = {
        "measures": fields,
        "data": "d",
        "teacher": "t:x",
        "limit": None,
        "student": "run",
        "boxes": "-boxes",
        "maps": [],
    }
    asked = evaluated(measures({**config, "maps": [{"uri": "m"}]}, "out"))
    assert asked.settings == settings
    assert (asked.student, asked.boxes, asked.measures) == ("run", "./-boxes", METRICS)


def test_games_of_the_default_protocol_name_no_setting() -> None:
    config = {"protocol": Protocol().fields(), "maps": [{"uri": "m"}], "data": "d", "teacher": "t", "limit": None}
    assert games(config, "out") == "python -m evaluate games --maps m --data d --teacher t --out out"


@pytest.mark.parametrize("name", RECIPES)
def test_distil_finds_the_recipe_and_its_changes(name: str) -> None:
    _, recipe = RECIPES[name]
    changed = {**recipe.fields(), "epochs": 3, "compile": True, "input_size": [64, 80]}
    for fields in (recipe.fields(), changed):
        args = words(distil({"recipe": fields, "data": "d", "teacher": "t:x"}, "out"), "distill")
        missing: Any = tyro.MISSING
        known = {
            n: (line, Distill(data=missing, teacher=missing, out=missing, recipe=r)) for n, (line, r) in RECIPES.items()
        }
        asked = tyro.extras.overridable_config_cli(known, args=args)
        assert asked.recipe == Recipe.from_fields(fields)
        assert (asked.data, asked.teacher, asked.out) == ("d", "t:x", "out")


def test_a_students_command_comes_first(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_images=2, skills={"mal_grad_cam": 0.7})
    config = {"recipe": RECIPES["demo"][1].fields(), "data": "d", "teacher": "onnx:x"}
    Folder(str(world.run)).write_json("_config.json", config)
    assert commands(gather([world.scores]))[0].startswith("python -m distill demo --data d --teacher onnx:x --out")
