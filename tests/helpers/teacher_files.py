"""Files of small teachers, as tests of `distill.teachers` write them, and a teacher that returns fixed rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    dtype: type = np.float32,
    batch: int | str = "N",
    norm: dict[str, int] | None = None,
    toml: dict[str, object] | None = None,
    **save: Any,
) -> str:
    """Write an ONNX file of a convolution and a linear layer with its `teacher.toml`; return the teacher's spec.

    Args:
        folder: made here.
        tail: operators behind the logits, such as "Softmax"; "Squeeze" and "Unsqueeze" act on the axes (2, 3) or 1.
        num_outputs: of the linear layer.
        layout: of the input.
        dtype: of the input.
        batch: size of the first axis.
        norm: attributes of a batch norm behind the convolution; None has none.
        toml: changes of the description.
        save: options of `onnx.save`.
    """
    from onnx import TensorProto, helper, numpy_helper
    from onnx import save as save_onnx

    random, node = np.random.default_rng(0), helper.make_node
    arrays = {
        "kernel": random.normal(0, 0.4, (8, 3, 5, 5)),
        "weight": random.normal(0, 0.9, (8, num_outputs)),
        "bias": random.normal(0, 0.3, num_outputs),
        **dict(zip(("scale", "shift", "mean", "var"), (np.full(8, v) for v in (1, 0, 0, 1)), strict=True)),
    }
    float_kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    kinds = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.uint8: TensorProto.UINT8}
    number = np.float16 if dtype == np.float16 else np.float32
    nodes = [node("Cast", ["images"], ["cast"], to=float_kind)]
    if layout == "NHWC":
        nodes.append(node("Transpose", ["cast"], ["first"], perm=[0, 3, 1, 2]))
    else:
        nodes.append(node("Identity", ["cast"], ["first"]))
    nodes.append(node("Conv", ["first", "kernel"], ["conv"], strides=[2, 2]))
    if norm is not None:
        outputs = ["norm", "running_mean", "running_var"] if norm.get("training_mode") else ["norm"]
        nodes.append(node("BatchNormalization", ["conv", "scale", "shift", "mean", "var"], outputs, **norm))
    nodes += [
        node("Relu", ["conv" if norm is None else "norm"], ["relu"]),
        node("GlobalAveragePool", ["relu"], ["pool"]),
        node("Reshape", ["pool", "flat"], ["features"]),
        node("Gemm", ["features", "weight", "bias"], ["out0"]),
    ]
    flat = np.array([batch if isinstance(batch, int) else 0, 8], np.int64)  # 0: as it comes
    axes = {"Squeeze": ["one"], "Unsqueeze": ["last"]}
    for k, name in enumerate(tail):
        options = {"axis": 0} if name == "BatchSoftmax" else {"axis": 1} if name == "Softmax" else {}
        nodes.append(node(name.removeprefix("Batch"), [f"out{k}", *axes.get(name, [])], [f"out{k + 1}"], **options))
    weights = [numpy_helper.from_array(array.astype(number), name) for name, array in arrays.items()]
    weights += [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in (("flat", flat), ("one", [1]), ("last", [2, 3]))
    ]
    shape = ["N", 3, *SIZE] if layout == "NCHW" else ["N", *SIZE, 3]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", kinds[dtype], shape)],
        [helper.make_tensor_value_info(f"out{len(tail)}", float_kind, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    folder.mkdir(parents=True, exist_ok=True)
    save_onnx(model, folder / "model.onnx", **save)
    write_toml(folder, **{"engine": "onnxruntime", **(toml or {})})
    return f"onnx:{folder / 'model.onnx'}"
