"""The notebook of docs/: it runs as it stands there, and lies there executed, with small pictures."""

import copy
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from project_paths import ROOT

NOTEBOOK = ROOT / "docs" / "explain_a_photograph.ipynb"
MAX_BYTES = 1_000_000


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def kinds_of(notebook: Any) -> list[list[set[str]]]:
    """List the kinds of every output of every cell of code, such as text/html."""
    return [
        [set(output.get("data", {})) or {output["output_type"]} for output in cell["outputs"]]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_it_lies_there_executed_and_is_small(notebook: Any) -> None:
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    kinds = kinds_of(notebook)
    assert sum("image/png" in kind for cell in kinds for kind in cell) == 2
    assert sum("text/html" in kind for cell in kinds for kind in cell) == 2
    assert not any(kind & {"error", "stream"} for cell in kinds for kind in cell)


def test_it_runs_and_gives_such_outputs_again(notebook: Any, tmp_path: Path) -> None:
    again = copy.deepcopy(notebook)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}
    client = NotebookClient(again, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)
    assert kinds_of(again) == kinds_of(notebook)
