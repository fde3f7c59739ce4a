"""Telemetry of the engines, MLflow and Ray: off before they are imported, whichever of our packages comes first."""

import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = """
import PACKAGE
import importlib.util, os, sys
import onnxruntime
from onnx import TensorProto, helper
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]), ir_version=8,
                          opset_imports=[helper.make_opsetid("", 17)])
onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": [1.0]})
if importlib.util.find_spec("openvino"):
    import openvino
    assert sys.modules["openvino_telemetry"] is None
"""
MLFLOW = "import PACKAGE, mlflow.telemetry.utils as u, sys; sys.exit(not u.is_telemetry_disabled())"
RAY = (
    "import PACKAGE, ray._common.usage.usage_lib as u, sys;"
    "sys.exit(u._usage_stats_enabledness() != u.UsageStatsEnabledness.DISABLED_EXPLICITLY)"
)


@pytest.mark.parametrize("script", [ENGINES, MLFLOW, RAY], ids=["engines", "mlflow", "ray"])
def test_nothing_is_left_in_a_fresh_home_and_nothing_is_sent(tmp_path: Path, script: str) -> None:
    for package in ("distill", "cluster")[: 2 if script == ENGINES else 1]:
        environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-W", "ignore", "-c", script.replace("PACKAGE", package)]
        subprocess.run(command, env=environment, check=True, cwd=Path(__file__).parents[2])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_users_own_setting_wins(tmp_path: Path) -> None:
    script = "import cluster, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0' and os.environ['DO_NOT_TRACK']"
    environment = {"HOME": str(tmp_path), "ORT_DISABLE_TELEMETRY": "0"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, cwd=Path(__file__).parents[2])
