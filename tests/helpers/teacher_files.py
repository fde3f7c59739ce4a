"""Files of small teachers, as tests of `distill.teachers` write them, and a teacher that returns fixed rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from linear_teacher import MEAN, NUM_CLASSES, SIZE, STD
from project_paths import HELPERS

from distill.teachers import Teacher
from distill.teachers.teacher_toml import Output


class FakeTeacher(Teacher):
    """A teacher that returns what it is told to, cut to the batch."""

    def __init__(self, rows: torch.Tensor, output: Output = "probabilities", batch_size: int | None = None) -> None:
        super().__init__(
            spec="fake:",
            input_size=SIZE,
            mean=MEAN,
            std=STD,
            fingerprint="0" * 64,
            engine="fake",
            output=output,
            batch_size=batch_size,
        )
        self.rows = rows
        self.num_classes = NUM_CLASSES
        self.seen: list[int] = []

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(pixels))
        return self.rows


def add_softmax(source: Path, folder: Path) -> None:
    import onnx

    model = onnx.load(source)
    (output,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Softmax", [output.name], ["shares"], axis=1))
    output.name = "shares"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    write_toml(folder, output="probabilities")


def write_toml(folder: Path, **changes: object) -> None:
    values = {"input_size": list(SIZE), "mean": list(MEAN), "std": list(STD), "output": "logits", **changes}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None]
    (folder / "teacher.toml").write_text("".join(lines), encoding="utf-8")


def copy_model(source: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / source.name).write_bytes(source.read_bytes())
    return folder / source.name


def python_spec(folder: Path, monkeypatch: pytest.MonkeyPatch, **attributes: object) -> str:
    lines = [
        "from linear_teacher import SIZE, MEAN, STD, slow_probabilities",
        "class Box:",
        "    input_size, mean, std = SIZE, MEAN, STD",
        *[f"    {name} = {value!r}" for name, value in attributes.items()],
        "    def __call__(self, images):",
        "        assert images.dtype == 'uint8' and images.shape[1:] == (*SIZE, 3)",
        "        return slow_probabilities(images)",
    ]
    name = f"black_box_{folder.name}".replace("-", "_")
    (folder / f"{name}.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(HELPERS))
    return f"python:{name}:Box"


def write_onnx(
    folder: Path,
    tail: Sequence[str] = (),
    *,
    num_outputs: int = NUM_CLASSES,
    layout: str = "NCHW",
    dtype: Any = np.float32,
    norm: Mapping[str, int] | None = None,
    toml: Mapping[str, Any] | None = None,
    **save: Any,
) -> str:
    """Write an ONNX file of a convolution and a linear layer with its `teacher.toml`; return the teacher's spec.

    Args:
        folder: made here.
        tail: operators behind the logits, such as "Softmax"; "Squeeze" acts on axis 1, "Unsqueeze" adds two axes, and
            "BatchSoftmax" is one over the batch.
        num_outputs: of the linear layer.
        layout: of the input.
        dtype: of the input.
        norm: attributes of a batch norm behind the convolution; None has none.
        toml: changes of the description.
        save: options of `onnx.save`; or `batch`, the number of images that the graph computes.
    """
    from onnx import TensorProto, helper
    from onnx import save as save_onnx

    kinds = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.uint8: TensorProto.UINT8}
    float_kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    shape = ["N", 3, *SIZE] if layout == "NCHW" else ["N", *SIZE, 3]
    nodes: list[Any] = [helper.make_node("Cast", ["images"], ["cast"], to=float_kind)]
    order = [0, 1, 2, 3] if layout == "NCHW" else [0, 3, 1, 2]
    nodes += [helper.make_node("Transpose", ["cast"], ["first"], perm=order), *_layers(norm), *_tail(tail)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", kinds[dtype], shape)],
        [helper.make_tensor_value_info(f"out{len(tail)}", float_kind, None)],
        _weights(num_outputs, np.float16 if dtype == np.float16 else np.float32, save.pop("batch", 0)),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    folder.mkdir(parents=True, exist_ok=True)
    save_onnx(model, folder / "model.onnx", **save)
    write_toml(folder, **{"engine": "onnxruntime", **(toml or {})})
    return f"onnx:{folder / 'model.onnx'}"


def _layers(norm: Mapping[str, int] | None) -> list[Any]:
    from onnx.helper import make_node

    nodes = [make_node("Conv", ["first", "kernel"], ["conv"], strides=[2, 2])]
    if norm is not None:
        outputs = ["norm", "running_mean", "running_var"] if norm.get("training_mode") else ["norm"]
        attributes: Any = norm
        nodes.append(make_node("BatchNormalization", ["conv", "scale", "shift", "mean", "var"], outputs, **attributes))
    return [
        *nodes,
        make_node("Relu", ["conv" if norm is None else "norm"], ["relu"]),
        make_node("GlobalAveragePool", ["relu"], ["pool"]),
        make_node("Reshape", ["pool", "flat"], ["features"]),
        make_node("Gemm", ["features", "weight", "bias"], ["out0"]),
    ]


def _tail(names: Sequence[str]) -> list[Any]:
    from onnx.helper import make_node

    axes, options = {"Squeeze": ["one"], "Unsqueeze": ["last"]}, {"Softmax": {"axis": 1}, "BatchSoftmax": {"axis": 0}}
    nodes = []
    for k, name in enumerate(names):
        attributes: Any = options.get(name, {})
        inputs = [f"out{k}", *axes.get(name, [])]
        nodes.append(make_node(name.removeprefix("Batch"), inputs, [f"out{k + 1}"], **attributes))
    return nodes


def _weights(num_outputs: int, number: Any, batch: int) -> list[Any]:
    """Return the network's weights; `batch` of 0 takes any number of images."""
    from onnx.numpy_helper import from_array

    random = np.random.default_rng(0)
    arrays = {
        "kernel": random.normal(0, 0.4, (8, 3, 5, 5)),
        "weight": random.normal(0, 0.9, (8, num_outputs)),
        "bias": random.normal(0, 0.3, num_outputs),
        **{name: np.full(8, value) for name, value in (("scale", 1), ("shift", 0), ("mean", 0), ("var", 1))},
    }
    sizes = {"flat": [batch, 8], "one": [1], "last": [2, 3]}
    return [
        *(from_array(array.astype(number), name) for name, array in arrays.items()),
        *(from_array(np.array(value, np.int64), name) for name, value in sizes.items()),
    ]
