"""The wheel: it holds every file of the four packages and nothing else, and runs outside of the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cluster", "distill", "explain", "evaluate")
TEMPLATE = "import evaluate.report.html as h; from jinja2 import PackageLoader as L; L('evaluate.report', '.')"


def sources() -> set[str]:
    """List the files of the packages, such as cluster/planning/workloads.toml."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return {str(path.relative_to(ROOT)) for path in files if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy of the sources, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "runs", "results", "build", "dist")
    shutil.copytree(ROOT, folder / "checkout", ignore=hidden)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "checkout")], check=True)
    (built,) = folder.glob("malgradcam-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel into a folder of its own, as `pip install --target` does."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def test_it_holds_the_packages_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert names == sources()


def run(installed: Path, folder: Path, script: str, *arguments: str) -> str:
    """Run a script with the installed packages alone, away from the checkout."""
    guard = f"import cluster, sys; assert cluster.__file__.startswith({str(installed)!r}), cluster.__file__; "
    done = subprocess.run(
        [sys.executable, "-c", guard + script, *arguments],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", PACKAGES)
def test_every_command_answers(installed: Path, tmp_path: Path, command: str) -> None:
    script = "sys.argv[0] = 'malgradcam'; from cluster.cli import main; sys.exit(main())"
    assert f"usage: malgradcam {command} " in run(installed, tmp_path, script, command, "--help")


def test_its_version_templates_and_tables_are_there(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "from cluster.cli import main; main(['--version'])").strip() == "0.2.0"
    run(installed, tmp_path, f"{TEMPLATE}.get_source(__import__('jinja2').Environment(), 'report.html.j2')")
    run(installed, tmp_path, "from cluster.planning.cost_model import find_workload as f; f('imagenet', settings={})")


def test_the_script_is_declared(installed: Path) -> None:
    (entry_points,) = installed.glob("malgradcam-*.dist-info/entry_points.txt")
    assert entry_points.read_text().split() == ["[console_scripts]", "malgradcam", "=", "cluster.cli:main"]
