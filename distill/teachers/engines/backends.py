"""Two ways to compute an ONNX model, behind one call: images in the model's own layout in, its outputs (batch, K) out.

The batch is static: the engines are fastest so, and a result cannot depend on how many images a caller has.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import queue
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distill.teachers.errors import TeacherError, one_line
from distill.teachers.outputs import only_tensor
from distill.teachers.teacher_toml import MAX_BATCH_SIZE
from distill.teachers.tensor_model import Layout, Tensor

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Run = Callable[[np.ndarray], np.ndarray]
DATATYPES = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(float16)": "FP16", "tensor(uint8)": "UINT8"}
"""ONNX Runtime's names of number formats that images come in, and those of the Open Inference Protocol."""
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
"""OpenVINO's names of them."""
WITHOUT_CUDA = "this ONNX Runtime does not run on GPUs; pip install onnxruntime-gpu in its place"
UNPINNED = {"ENABLE_CPU_PINNING": False}
"""OpenVINO pins its threads to the first cores: two workers of one core would share one, at half the rate."""
_CORES: list[Any] = []
_MAKING_CORE = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """What computes a model here."""

    engine: Literal["eager", "onnxruntime", "openvino"]
    """the library; eager: torch itself, for a student or an archive"""
    precision: Literal["float32", "bfloat16"]
    """number format of its kernels"""
    batch_size: int
    """images per call; shorter batches are padded"""

    def __post_init__(self) -> None:
        """Refuse what no engine is. Raises: ValueError."""
        known = self.engine in ("eager", "onnxruntime", "openvino") and self.precision in PRECISIONS
        if not known or type(self.batch_size) is not int or not 0 < self.batch_size <= MAX_BATCH_SIZE:
            raise ValueError(f"no engine computes {self.engine!r}, {self.precision!r}, {self.batch_size!r} images")

    def __str__(self) -> str:
        """Name engine and precision, as scores record them."""
        return f"{self.engine}-{self.precision}"


def has_openvino() -> bool:
    """Say whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def has_cuda() -> bool:
    """Say whether the ONNX Runtime that is installed computes on GPUs."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def has_native_bfloat16() -> bool:
    """Say whether OpenVINO finds bfloat16 instructions in this CPU; emulated ones do not count."""
    if not has_openvino():
        return False
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def open_engine(
    path: Path,
    size: tuple[int, int],
    choice: EngineChoice,
    *,
    num_threads: int | None,
    device: str,
    layout: Layout = "NCHW",
    output: str = "",
) -> Run:
    """Load a model file into an engine.

    Args:
        path: an ONNX file with one image input.
        size: height and width of its images.
        choice: engine, precision and batch size.
        num_threads: CPU threads; None leaves the engine's own choice.
        device: "cpu" or "cuda".
        layout: order of the input's axes.
        output: name of the output that is returned; empty for the first.

    Raises:
        ValueError: the engine cannot load it.
    """
    if choice.engine == "openvino":
        shape = (3, *size) if layout == "NCHW" else (*size, 3)
        return _open_openvino(path, str(path), shape, choice, num_threads=num_threads, output=output)
    return _open_onnxruntime(path, num_threads, device, output)


def open_graph(
    content: bytes, choice: EngineChoice, *, num_streams: int = 1, num_threads: int = 1
) -> Callable[..., np.ndarray]:
    """Load an ONNX model of static shapes, to be called by several threads at once.

    Args:
        content: the model.
        choice: engine and precision.
        num_streams: how many calls there may be at once.
        num_threads: threads of each call; on one, it has the same bits whatever runs beside it.

    Returns:
        What takes the model's inputs, in their order, and returns its first output.

    Raises:
        ValueError: the engine cannot load it.
    """
    if choice.engine == "openvino":
        return _graph_in_openvino(content, choice, num_streams, num_threads)
    session = _session(content, num_threads, "cpu")
    names = [one.name for one in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=False)))[0]


def inspect(path: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs and outputs of an ONNX file. Raises: ValueError where ONNX Runtime cannot load it."""
    session = _session(path, None, "cpu", optimize=False)
    inputs, outputs = (
        [Tensor(one.name, DATATYPES.get(one.type) or str(one.type), _shape(one.shape)) for one in listed]
        for listed in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def _shape(shape: list[Any]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in shape)


def _session(model: Path | bytes, num_threads: int | None, device: str, *, optimize: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # none: warnings are about graph clean-up, and errors are raised
    options.intra_op_num_threads = num_threads or 0
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    if device != "cpu":
        if not device.startswith("cuda") or not has_cuda():
            raise ValueError(f"device {device!r}: {WITHOUT_CUDA}, or use cpu")
        providers.insert(0, "CUDAExecutionProvider")
    try:
        found = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(found, options, providers=providers)
    except _failures() as error:
        what = "a graph" if isinstance(model, bytes) else model
        raise ValueError(f"ONNX Runtime cannot load {what}: {one_line(error)}; give an ONNX model file") from error


def _failures() -> tuple[type[Exception], ...]:
    """List what ONNX Runtime raises, which has no class of its own in common."""
    state = vars(importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state"))
    return tuple(kind for kind in state.values() if isinstance(kind, type) and issubclass(kind, Exception))


def _open_onnxruntime(path: Path, num_threads: int | None, device: str, output: str) -> Run:
    session = _session(path, num_threads, device)
    name, failures = session.get_inputs()[0].name, _failures()
    outputs = [output or session.get_outputs()[0].name]

    def run(pixels: np.ndarray) -> np.ndarray:
        try:
            return session.run(outputs, {name: pixels})[0]
        except failures as error:
            raise TeacherError(f"ONNX Runtime cannot compute {path}: {one_line(error)}") from error

    return run


def open_program(
    program: ExportedProgram, size: tuple[int, int], choice: EngineChoice, *, num_threads: int | None, name: str
) -> Run:
    """Load an exported program into torch itself or OpenVINO, on the CPU.

    Args:
        program: from one float32 tensor of images (B, 3, H, W) to one of outputs.
        size: height and width.
        choice: engine, precision and the number of images, which is always the same.
        num_threads: as in `open_engine`; torch has the process's own.
        name: what to call the model in an error.

    Raises:
        ValueError: OpenVINO lacks an operation of it.
    """
    if choice.engine == "openvino":
        return _open_openvino(program, name, (3, *size), choice, num_threads=num_threads)
    import torch

    module = program.module()
    return torch.inference_mode()(lambda pixels: only_tensor(module(torch.from_numpy(pixels))).numpy())


def _convert(program: ExportedProgram) -> Any:
    """Turn an exported program into OpenVINO's own graph. Raises: ValueError where it lacks an operation."""
    from openvino import frontend
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    failures = (frontend.OpConversionFailure, frontend.OpValidationFailure, frontend.NotImplementedFailure)
    front = frontend.FrontEndManager().load_by_framework("pytorch")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs, with a traceback, what another version of torch calls otherwise
    try:
        decoder = TorchFXPythonDecoder.from_exported_program(program)  # has to live until it is converted
        return front.convert(front.load(decoder))
    except (*failures, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"OpenVINO cannot convert the program: {one_line(error)}; set another engine in teacher.toml"
        ) from error
    finally:
        logging.disable(before)


def _open_openvino(
    source: Path | ExportedProgram,
    name: str,
    shape: tuple[int, int, int],
    choice: EngineChoice,
    *,
    num_threads: int | None,
    output: str = "",
) -> Run:
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",  # measured 2.5 times the throughput hint's rate on 2 cores
        "INFERENCE_PRECISION_HINT": PRECISIONS[choice.precision],
    }
    if num_threads is not None:
        config |= {"INFERENCE_NUM_THREADS": num_threads, **UNPINNED}
    core = _core()
    try:
        model = core.read_model(source) if isinstance(source, Path) else _convert(source)
        model.reshape({model.input(0): [choice.batch_size, *shape]})
        request = core.compile_model(model, "CPU", config).create_infer_request()
    except RuntimeError as error:
        raise ValueError(
            f"OpenVINO cannot load {name}: {one_line(error)}; set another engine in teacher.toml"
        ) from error

    def run(pixels: np.ndarray) -> np.ndarray:
        try:
            request.infer({0: pixels}, share_inputs=True)
        except RuntimeError as error:
            raise TeacherError(f"OpenVINO cannot compute {name}: {one_line(error)}") from error
        tensor = request.get_tensor(output) if output else request.get_output_tensor(0)
        return tensor.data.astype(np.float32)  # a copy: the request reuses its buffer

    return run


def _graph_in_openvino(
    content: bytes, choice: EngineChoice, num_streams: int, num_threads: int
) -> Callable[..., np.ndarray]:
    config: dict[str, Any] = {
        "NUM_STREAMS": num_streams,
        "INFERENCE_NUM_THREADS": num_streams * num_threads,
        "INFERENCE_PRECISION_HINT": PRECISIONS[choice.precision],
        **UNPINNED,
    }
    core = _core()
    try:
        compiled = core.compile_model(core.read_model(content), "CPU", config)
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot load a graph: {one_line(error)}; give another engine") from error
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(num_streams):
        requests.put(compiled.create_infer_request())

    def run(*arrays: np.ndarray) -> np.ndarray:
        request = requests.get()
        try:
            request.infer(dict(enumerate(arrays[: len(compiled.inputs)])), share_inputs=True)
            return request.get_output_tensor(0).data.copy()  # the request reuses its buffer
        finally:
            requests.put(request)

    return run


def _core() -> Any:
    """Return OpenVINO's core, the one of this process.

    Its CPU plugin gives the thread that makes it a stack for signals, and gives back the one before when it ends. Of
    two cores the one that ends last could give back the other's, which is gone: the next signal, be it a child's end
    or Ctrl-C, would end the process by SIGSEGV.
    """
    with _MAKING_CORE:
        if not _CORES:
            with warnings.catch_warnings():  # it warns about its own deprecations when imported
                warnings.simplefilter("ignore")
                import openvino
            # The first array that it is given makes it look for NumPy: two threads at once would wait for each other
            # for ever.
            openvino.Tensor(np.zeros(1, np.float32))
            _CORES.append(openvino.Core())
        return _CORES[0]
