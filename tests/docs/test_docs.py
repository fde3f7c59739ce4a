"""README and docs against the project: every command, method and column is there, and what they name exists."""

import importlib
import re
from pathlib import Path

import pytest
from project_paths import ROOT

from distill.teachers import KINDS
from distill.training.recipes import FINE_TUNING_RECIPES, RECIPES
from evaluate.games.schema import score_columns
from evaluate.insights.images import COLUMNS as IMAGES
from evaluate.insights.interventions import COLUMNS as TRIALS
from evaluate.insights.suspicions import COLUMNS as SUSPICIONS
from evaluate.metrics.schema import COLUMNS as METRICS
from evaluate.metrics.settings import HIGHER_IS_BETTER
from evaluate.sanity.schema import COLUMNS as CHECKS
from explain.maps import maps_schema
from explain.methods.registry import METHODS

README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])
COMMANDS = (
    *("distill", "distill finetune", "explain", "explain auto", "explain fit", "explain register"),
    *(f"evaluate {name}" for name in ("games", "insights", "measures", "sanity", "similarity", "specificity")),
    *(f"evaluate {name}" for name in ("report", "substrates", "tables")),
    *("cluster plan", "cluster run", "cluster upload"),
)
HELD = ("cluster", "distill", "explain", "evaluate", "tests", "benchmarks", "deploy", "docs", "results")
"""Folders whose files the pages name by their full path."""
SITE_ONLY = ("reference/index.md",)
"""Targets of links that `make docs` makes."""
MAX_README, MAX_PAGE, MAX_CHARS = 150, 160, 120
INTERNAL = {"demo-photographs", "demo-steps", "help"}


def text_of(page: Path) -> str:
    return page.read_text()


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def everything() -> str:
    return "\n".join(map(text_of, PAGES))


def test_readme_and_docs_mention_every_command_method_and_target(everything):
    makefile = text_of(ROOT / "Makefile")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE)) - INTERNAL
    wanted = [f"python -m {command}" for command in COMMANDS] + [f"make {target}" for target in targets]
    wanted += [f"`{name}`" for name in (*METHODS, *RECIPES, *FINE_TUNING_RECIPES)]
    wanted += [f"`{kind}:" for kind in KINDS if kind != "https"]
    assert [one for one in wanted if one not in everything] == []


def test_every_method_is_explained_on_one_page():
    rows = [line for line in text_of(ROOT / "docs" / "methods.md").splitlines() if line.startswith("| `")]
    page = "\n".join(rows) + text_of(ROOT / "docs" / "methods.md").partition("## Oracle")[2]
    assert [name for name in METHODS if f"`{name}`" not in page] == []


def test_every_column_is_explained():
    outputs = text_of(ROOT / "docs" / "outputs.md")
    schemas = [maps_schema({"method": "gp_regression"}), score_columns({"protocol": {"points": 9}}), METRICS, CHECKS]
    names = {name for schema in schemas for name in schema.names} | set(HIGHER_IS_BETTER)
    assert sorted(name for name in names if f"`{name}`" not in outputs) == []
    insights = text_of(ROOT / "docs" / "insights.md")
    wanted = {re.sub("_(low|high)$", "", name) for schema in (IMAGES, TRIALS, SUSPICIONS) for name in schema.names}
    assert sorted(name for name in wanted if f"`{name}`" not in insights) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text_of(page))
    assert [link for link in links if link not in SITE_ONLY and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_and_modules_that_are_named_exist(page):
    text = text_of(page)
    paths = re.findall(rf"`((?:{'|'.join(HELD)})/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = set(re.findall(r"python -m ((?:cluster|distill|explain|evaluate|benchmarks)[\w.]*)", text))
    files = {name: ROOT / name.replace(".", "/") for name in modules}
    runs = {
        name for name, path in files.items() if path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    }
    assert modules - runs == set()
    for module, names in re.findall(r"^    from ((?:cluster|distill|explain|evaluate)[\w.]*) import (.+)$", text, re.M):
        assert [one for one in names.split(", ") if not hasattr(importlib.import_module(module), one)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_are_short(page):
    lines = text_of(page).splitlines()
    assert len(lines) <= (MAX_README if page == README else MAX_PAGE)
    assert [line for line in lines if len(line) > MAX_CHARS and (page == README or not line.startswith("|"))] == []
