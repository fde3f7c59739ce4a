"""The project's own rules, read from its source: who may import what, and what must not happen at import."""

import ast
import functools
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from explain.methods.registry import METHODS

ROOT = Path(__file__).parents[1]
PACKAGES = ("cluster", "distill", "explain", "evaluate")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAY_IMPORT = {
    "cluster": {"cluster"},
    "distill": {"cluster", "distill"},
    "explain": {"cluster", "distill", "explain"},
    "evaluate": {"cluster", "distill", "explain", "evaluate"},
}
RAY_OR_MLFLOW = {"distill/training/launch.py", "explain/serving/pyfunc.py"}
"""Files outside cluster/ that import ray or mlflow: the training and the served model. Nothing else may."""
MAX_FILES = 16
"""Files in one folder: what a reader takes in at a glance."""
APART = {
    "explain/methods/white_box": ("explain.methods.query", "explain.methods.control"),
    "explain/methods/query": ("explain.methods.white_box", "explain.methods.control"),
    "explain/methods/control": ("explain.methods.white_box", "explain.methods.query"),
    "evaluate/analysis": ("evaluate.report", "evaluate.paper"),
    "evaluate/format": ("evaluate.report", "evaluate.paper", "evaluate.analysis", "evaluate.games", "evaluate.metrics"),
    "distill/perturb": ("distill.teachers", "distill.training", "distill.student", "distill.data"),
    "distill/data": ("distill.teachers", "distill.training", "distill.student"),
}
"""Folder -> packages that its files do not import."""
AT_IMPORT = ("cluster/__init__.py", "switch_off()")
"""The one exception: opt-outs of telemetry, which libraries read when they are imported."""
HEAVY = ("torch", "ray", "mlflow", "pandas", "pyarrow")
COMMANDS = (
    "distill",
    "distill finetune",
    "explain",
    "explain register",
    "evaluate",
    "cluster",
    "distill.demo",
    "benchmarks.paper",
    "benchmarks.speed",
)
MATHS = sorted(
    {method.function.split(":")[0].replace(".", "/") + ".py" for method in METHODS.values()}
    | {"distill/data/boxes.py", "distill/training/losses.py", "distill/student/similarity.py"}
    | {"distill/student/pooling.py", "explain/rank_maps.py", "evaluate/statistics.py", "evaluate/sanity/checks.py"}
    | {f"distill/perturb/{name}.py" for name in ("curves", "imputation")}
    | {f"evaluate/games/{name}.py" for name in ("baselines", "derived", "sampling", "setup")}
    | {f"evaluate/metrics/{name}.py" for name in ("fidelity", "max_sensitivity", "mu_fidelity", "road")}
)
"""The formulas: they take a model or a callable, and know nothing of files, clusters or trackers."""


LIGHT = {"cluster.device", "cluster.device.one_thread", "cluster.device.own_device"}
"""What formulas may import from cluster/: torch's device and threads."""

UNPICKLERS = {
    *(f"{name}.{load}" for name in ("pickle", "cloudpickle", "dill", "joblib") for load in ("load", "loads")),
    *("eval", "exec", "pickle.Unpickler", "torch.hub.load", "torch.jit.load", "yaml.load", "pd.read_pickle"),
    "loadmat",  # which can crash on a changed byte
}
"""What runs, or can run, what a file says."""


FOREIGN_CALLS = "distill/teachers/foreign.py"
"""Calls a user's own code, which raises what it likes: the one place that catches `Exception`."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def every_source(rule: Callable[[Path], None]) -> Callable[[], None]:
    """Make one test of a rule for each file; it names every file that breaks it."""

    def test() -> None:
        broken = {}
        for path in SOURCES:
            try:
                rule(path)
            except AssertionError as error:
                broken[name_of(path)] = str(error)
        assert broken == {}

    test.__doc__ = rule.__doc__
    return test


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> set[str]:
    """List every module that a file imports anywhere in it, by its full name."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: write imports in full"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tops(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


def test_imports_are_found_wherever_they_stand(tmp_path):
    source = tmp_path / "x.py"
    source.write_text("import a.b\ndef f():\n    from c.d import e\nif 1:\n    import g as h, i\n")
    assert imports(source) == {"a.b", "c.d", "c.d.e", "g", "i"}
    assert tops(source) == {"a", "c", "g", "i"}


@every_source
def test_imports_flow_one_way(path):
    package = name_of(path).split("/")[0]
    assert tops(path) & set(PACKAGES) <= MAY_IMPORT[package]
    assert "tests" not in tops(path)


@every_source
def test_ray_and_mlflow_stay_in_cluster(path):
    expected = name_of(path) in RAY_OR_MLFLOW
    if not name_of(path).startswith("cluster/"):
        assert bool(tops(path) & {"ray", "mlflow"}) == expected


@pytest.mark.parametrize("folder", APART)
def test_packages_that_stand_apart_do_not_import_one_another(folder):
    files = [path for path in SOURCES if name_of(path).startswith(f"{folder}/")]
    assert files
    for path in files:
        assert [name for name in imports(path) if name.startswith(APART[folder])] == [], name_of(path)


def test_folders_are_small():
    folders = {path.parent for path in SOURCES} | {path.parent for path in (ROOT / "tests").rglob("*.py")}
    sizes = {name_of(folder): sum(path.is_file() for path in folder.iterdir()) for folder in folders}
    assert {name: size for name, size in sizes.items() if size > MAX_FILES} == {}


def test_imports_form_no_circle():
    """Imports for types alone count too: what a file needs to be read is what it names."""
    modules = {name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in SOURCES}
    needs = {name: (imports(path) & set(modules)) - {name} for name, path in modules.items()}
    while free := {name for name, others in needs.items() if not others & set(needs)}:
        needs = {name: others for name, others in needs.items() if name not in free}
    circle = {name: sorted(others & set(needs)) for name, others in needs.items()}
    assert circle == {}


@pytest.mark.parametrize("name", MATHS)
def test_maths_imports_torch_and_numpy_alone(name):
    allowed = {"torch", "numpy"} | ({"scipy"} if name == "evaluate/statistics.py" else set())
    path = ROOT / name
    others = tops(path) - set(sys.stdlib_module_names) - allowed - set(PACKAGES)
    assert others == set()
    assert {module for module in imports(path) if module.startswith("cluster.")} <= LIGHT
    own = {module for module in imports(path) if module.split(".")[0] in PACKAGES}
    for module in own:  # what it takes from the project is as light as it is
        source = ROOT / (module.replace(".", "/") + ".py")
        if source.is_file():
            assert not tops(source) & {"ray", "mlflow", "pyarrow", "pandas", "PIL"}, module
            if source.is_file() and not module.startswith("cluster."):
                assert {name for name in imports(source) if name.startswith("cluster.")} <= LIGHT, module


@pytest.mark.parametrize("package", PACKAGES)
def test_the_imported_packages_are_ours(package):
    """`evaluate` and `cluster` are also names of other projects on the package index."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin == str(ROOT / package / "__init__.py")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    script = f"""
import runpy, sys
sys.argv = {[*command.split(), "--help"]}
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as done:
    assert not done.code, done.code
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


@every_source
def test_nothing_happens_at_import(path):
    """At a module's top level stand definitions, imports and constants: no print, no run, no global randomness."""
    for node in parse(path).body:
        if not isinstance(node, ast.Expr):
            continue
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        assert text or (name_of(path), ast.unparse(node)) == AT_IMPORT, (
            f"{name_of(path)}:{node.lineno} does something at import"
        )


@every_source
def test_untrusted_bytes_are_never_unpickled(path):
    for node in ast.walk(parse(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        where = f"{name_of(path)}:{node.lineno} calls {called}"
        assert called not in UNPICKLERS, where
        if called == "torch.export.load":
            assert name_of(path) == "distill/teachers/kinds/torch_archive.py", (
                where
            )  # which has the archive checked first
        if called == "torch.load":
            safe = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "weights_only"]
            assert safe == ["True"], where
        if called in {"np.load", "numpy.load"}:
            assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}, where


@every_source
def test_images_are_decoded_in_one_place(path):
    """`ImageSet.image` cuts a data set's banner off, which neither a model nor a person is to see."""
    if not name_of(path).startswith("distill/data/"):
        assert "distill.data.decode.decode" not in imports(path)


@every_source
def test_errors_are_caught_by_name(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            foreign = name_of(path) == FOREIGN_CALLS and caught == "Exception"
            assert foreign or caught not in {"", "Exception", "BaseException"}, f"{name_of(path)}:{node.lineno}"


@every_source
def test_files_say_why_they_exist(path):
    assert ast.get_docstring(parse(path)), f"{name_of(path)} has no module docstring"


def test_tests_mirror_the_packages():
    """A test of `explain/methods/query/rise.py` lies in `tests/explain/methods/query`."""
    tests = ROOT / "tests"
    for path in tests.rglob("test_*.py"):
        folder = path.parent.relative_to(tests)
        assert (ROOT / folder).is_dir(), f"{path} mirrors no folder"


def test_the_demo_runs_a_method_of_every_family():
    table = (ROOT / "Makefile").read_text().partition("define MAPS\n")[2].partition("endef")[0]
    named = {line.split()[1] for line in table.splitlines()}
    assert named <= set(METHODS)
    papers, rivals = {"mal_grad_cam", "ml_grad_cam", "matt"}, {"grad_cam", "rise", "lime"}
    assert named >= papers | rivals | {"readout", "gp_regression", "random", "centre_gaussian"}


def test_every_method_has_a_test_of_its_own():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for method in METHODS.values():
        assert f"from {method.function.split(':')[0]} import" in tests, method.name
        assert callable(getattr(importlib.import_module(method.function.split(":")[0]), method.name))
