"""Switch off the telemetry of libraries before they are imported: they read their opt-outs once, or at import.

ONNX Runtime would write a device id and a queue of events, OpenVINO an analytics id, MLflow and Ray would call servers
of their own. A setting that the user made in the environment wins. Processes that are started inherit the environment;
Ray's workers import this package before any of these libraries.
"""

import os
import sys

OPT_OUTS = {
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # a dependency of accelerate
    "DO_NOT_TRACK": "true",  # MLflow compares it with this word
}
OPENVINO = "openvino_telemetry"
"""Sends without a question when `openvino` is imported. OpenVINO does without it where it cannot be imported."""


def switch_off() -> None:
    """Set the opt-outs of this process and of those that it starts."""
    for name, value in OPT_OUTS.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault(OPENVINO, None)  # pyright: ignore[reportArgumentType] - Python's way to forbid an import
