"""Models of the registry: nothing that was changed is run, and a killed registration leaves nothing at work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cluster.__main__ import main
from cluster.tracking.registry import PROCESS_TAG, register_model, verify_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*type hint.*:UserWarning"),  # MLflow's own
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
REGISTER = """
import os, signal, sys
from pathlib import Path
from cluster.tracking import checksums, registry
place, kill = Path(sys.argv[1]), sys.argv[2:]
package = place / "tiny"
package.mkdir(exist_ok=True)
(package / "__init__.py").write_text("from mlflow.pyfunc import PythonModel\\n\\nclass Tiny(PythonModel):\\n"
    "    def predict(self, context, model_input, params=None):\\n        return [7]\\n")
code = "from mlflow.models import set_model\\nfrom tiny import Tiny\\nset_model(Tiny())\\n"
(place / "model.py").write_text(checksums.guarded(code, [package]))
sys.path.insert(0, str(place))
if kill:
    from mlflow import MlflowClient
    send = MlflowClient.log_model_artifacts
    def send_and_die(*given):
        send(*given)
        os.kill(os.getpid(), signal.SIGKILL)
    MlflowClient.log_model_artifacts = send_and_die
content = {"python_model": str(place / "model.py"), "code_paths": [str(package)], "pip_requirements": []}
print(registry.register_model("tiny", **content))
"""
LOAD = "import mlflow, sys; print(mlflow.pyfunc.load_model(sys.argv[1]).predict([1]))"


def python(script: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=os.environ)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Register a tiny model twice, once killed while it is sent, in a store of its own."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        assert python(REGISTER, str(folder), "kill", folder=folder).returncode == -9
        killed = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        (experiment,) = [one for one in killed.search_experiments() if one.name == "models"]
        assert [run.info.status for run in killed.search_runs([experiment.experiment_id])] == ["KILLED"]
        assert len(killed.search_logged_models([experiment.experiment_id])) == 1
        done = python(REGISTER, str(folder), folder=folder)
        assert done.stdout.splitlines()[-1:] == ["models:/tiny/1"], done.stderr
    return folder


@pytest.fixture(autouse=True)
def uri(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    monkeypatch.setenv("PYTHONPATH", "")


def files(store: Path) -> Path:
    (folder,) = (path.parent for path in store.glob("mlartifacts/models/models/*/artifacts/MLmodel"))
    return folder


def test_what_a_killed_registration_sent_is_deleted_by_the_next(store: Path) -> None:
    client = MlflowClient()
    experiment = client.get_experiment_by_name("models")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert str(model.status) == "READY"
    assert PROCESS_TAG in model.tags
    assert len(list(store.glob("mlartifacts/models/models/*/artifacts/*"))) == len(list(files(store).iterdir()))


def test_files_of_a_registered_model_are_read_only(store: Path) -> None:
    assert {path.stat().st_mode & 0o222 for path in files(store).rglob("*") if path.is_file()} == {0}


def test_what_was_registered_is_loaded_and_verified(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "models:/tiny/1"]) == 0
    assert capsys.readouterr().out.startswith("unchanged: models:/tiny/1, sha256 ")
    done = python(LOAD, "models:/tiny/1", folder=store)
    assert done.stdout.strip() == "[7]", done.stderr
    assert list(files(store).rglob("__pycache__")) == []
    assert main(["verify", "models:/tiny/1"]) == 0


@pytest.mark.parametrize("name", ["tiny/__init__.py", "tiny/added.py", "json.py", "tiny/__pycache__/x.pyc"])
def test_changed_and_added_code_is_not_run(store: Path, name: str) -> None:
    path = files(store) / "code" / name
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    if before is not None:
        path.chmod(0o644)
    path.write_bytes((before or b"") + b"\nopen('was-run', 'w')\n")
    try:
        done = python(LOAD, "models:/tiny/1", folder=store)
        assert done.returncode == 1
        assert f"code is not as it was registered: {name}; register it again" in done.stderr
        assert name == "json.py" or not (store / "was-run").exists()
        with pytest.raises(ValueError, match="files of models:/tiny/1 are not those that were registered"):
            verify_model("models:/tiny/1")
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)
        elif path.parent.name == "__pycache__":
            path.parent.rmdir()


def test_a_change_of_the_guard_itself_is_verified_before_it_runs(store: Path) -> None:
    path = files(store) / "model.py"
    before = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"open('was-run', 'w')\n" + before)
    try:
        assert main(["verify", "models:/tiny/1"]) == 2
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("model", ["tiny", "models:/tiny", "runs:/x/y", "models:/tiny/99", "models:/none@a"])
def test_what_is_no_registered_model_is_one_line(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", model]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_refusal_of_the_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MLflow cannot register"):
        register_model("a/b", python_model=str(tmp_path / "missing.py"))
