"""Engine of a network's passes: torch, or a method compiled for an inference engine, behind the same interface.

An engine computes the graph of `static_graph` in float32, with the images that torch would get in one pass, and sums in
another order: maps differ from torch's in their last bits. Which engine, is measured once per machine, student and
method, and one whose maps are further away is not taken. Torch computes where there is a GPU, no engine, a job too
short to be worth a graph, and for methods whose work depends on what they see.
"""

import copy
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cluster.storage import as_stored
from distill.teachers.engines.backends import EngineChoice, has_openvino, open_graph
from distill.teachers.engines.selection import cached_choice, fastest
from distill.teachers.load_check import probe_images
from explain.compiled.onnx_graph import write_onnx
from explain.compiled.trace import trace
from explain.methods.white_box.hooks import check_target
from explain.readout.network import ReadOut
from explain.runners.white_box import PASS_IMAGES, Explainer, counted_images

if TYPE_CHECKING:
    from distill.student.model import Student
    from distill.teachers import Teacher

EngineOption = Literal["auto", "eager", "onnxruntime", "openvino"]
EAGER = EngineChoice(engine="eager", precision="float32", batch_size=PASS_IMAGES)
GRAPH_IMAGES = 256
"""Images that a job needs for a graph: making and measuring one costs as much as some hundred maps."""
GRAPH_QUERIES = 4096
"""Queries to the student that a job needs for a graph."""
TOLERANCE = 1e-2
"""Largest difference from torch's map, as a share of that map's range. Between two memory layouts torch's own maps of
an untrained student, whose layers hardly vary, differ by a tenth of it; of others engines stay below 1e-5."""


@dataclass(frozen=True, kw_only=True)
class CompiledMethod:
    """Method with its options and its model, compiled for an engine; called as any method is."""

    run: Callable[..., np.ndarray]
    """The graph: images and target to maps."""
    shape: tuple[int, int, int, int]
    """Of the images, (B, 3, H, W)."""
    num_classes: int
    """Of the model."""
    passes: int
    """Forward passes of the model in the graph."""

    def __call__(self, model: nn.Module | None, images: Tensor, target: Tensor) -> Tensor:
        """Return the maps, (B, H, W) float32; the graph has the model in it, and `model` plays no part.

        Raises:
            ValueError: If a target is not a class of the model.
        """
        assert images.shape == self.shape, (images.shape, self.shape)
        check_target(target, self.num_classes)
        return torch.from_numpy(self.run(np.ascontiguousarray(images.numpy()), target.numpy()))


def compile_method(
    function: Callable[..., Tensor],
    model: nn.Module,
    choice: EngineChoice,
    *,
    size: tuple[int, int],
    num_streams: int = 1,
    num_threads: int = 1,
) -> CompiledMethod:
    """Make a static graph of a method and load it into an engine.

    Args:
        function: The method, its options bound: (model, images, target) -> maps.
        model: In eval mode, on the CPU.
        choice: Engine, precision and the number of images, which is always the same.
        size: Height and width of the images.
        num_streams: How many calls there may be at once.
        num_threads: What each call computes on; bits may depend on it.

    Raises:
        UnknownOperationError: For an operation that has not been written to ONNX.
        ValueError: As the method; or the engine cannot load the graph.
    """
    shape = (choice.batch_size, 3, *size)
    with counted_images(model) as counted:
        graph = trace(function, model, shape)
    with torch.no_grad():
        num_classes = model(torch.zeros(1, 3, *size)).shape[1]
    run = open_graph(write_onnx(graph), choice, num_streams=num_streams, num_threads=num_threads)
    return CompiledMethod(run=run, shape=shape, num_classes=num_classes, passes=sum(counted) // choice.batch_size)


def with_engine(explainer: Explainer, choice: EngineChoice, size: tuple[int, int]) -> Explainer:
    """Let an engine compute an explainer's method for images of one size (height, width).

    Raises: as `compile_method`.
    """
    if choice == EAGER:
        return explainer
    assert explainer.model is not None, "only a method of a network is a graph"
    if choice.engine == "eager":
        return replace(explainer, model=in_bfloat16(explainer.model))
    method = compile_method(explainer.compute, explainer.model, choice, size=size, num_streams=explainer.num_threads)
    return replace(explainer, function=method, options=None, passes=method.passes)


def in_bfloat16(model: nn.Module) -> nn.Module:
    """Copy a network so that torch computes its passes in bfloat16; it takes and returns float32 as before.

    A read-out beside it, which no pass goes through, stays as it is.
    """
    low = copy.deepcopy(model)
    for child in low.children():
        if not isinstance(child, ReadOut):
            child.bfloat16()
    low.register_forward_pre_hook(lambda _module, inputs: tuple(each.bfloat16() for each in inputs))
    low.register_forward_hook(lambda _module, _inputs, output: output.float())
    return low


def select_engine(
    explainer: Explainer, explained: "Student | Teacher", engine_option: EngineOption, *, name: str
) -> EngineChoice:
    """Return what computes a method here, measured the first time.

    Args:
        explainer: The method in torch.
        explained: What its model belongs to.
        wish: One engine, or "auto".
        name: Of the method.

    Raises:
        ValueError: If the engine that is wished for is not installed, cannot load the graph or is not exact.
    """
    if engine_option == "eager":
        return EAGER
    needed = {"onnx": True, "openvino": engine_option == "openvino"}
    missing = [module for module, wanted in needed.items() if wanted and importlib.util.find_spec(module) is None]
    if missing and engine_option != "auto":
        raise ValueError(f"--engine {engine_option} needs {' and '.join(missing)}; pip install {' '.join(missing)}")
    if missing:
        return EAGER
    options = json.dumps({} if explainer.options is None else as_stored(explainer.options), sort_keys=True)
    about = (explained.fingerprint, name, options, engine_option, str(PASS_IMAGES))
    return cached_choice(about, lambda: _measure(explainer, explained, engine_option))


def _measure(explainer: Explainer, explained: "Student | Teacher", engine_option: EngineOption) -> EngineChoice:
    """Time one pass on one thread in torch and in each engine whose maps are torch's."""
    images = probe_images(explained.input_size, explained.mean, explained.std, PASS_IMAGES)
    target = torch.arange(PASS_IMAGES) % explained.num_classes
    engines = (
        ("onnxruntime", *(["openvino"] if has_openvino() else [])) if engine_option == "auto" else (engine_option,)
    )
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        eager = replace(explainer, num_threads=1)
        runs = {EAGER: partial(_run, eager, target)}
        expected = runs[EAGER](images)
        for engine in engines:
            choice = replace(EAGER, engine=engine)
            try:
                run = partial(_run, with_engine(eager, choice, explained.input_size), target)
                check_exact(expected, run(images), engine)
            except ValueError:
                if engine_option != "auto":
                    raise
                continue  # torch's maps are to be had without it
            runs[choice] = run
        return choice if engine_option != "auto" else fastest(runs, images)
    finally:
        torch.set_num_threads(num_threads)


def _run(explainer: Explainer, target: Tensor, images: np.ndarray) -> np.ndarray:
    frames = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)  # as `normalise` makes them
    return explainer.compute(explainer.model, frames, target).numpy()


def check_exact(expected: np.ndarray, maps: np.ndarray, engine: str) -> None:
    """Refuse an engine whose maps differ from torch's by more than `TOLERANCE`. Raises: ValueError."""
    error = difference(expected, maps)
    if error > TOLERANCE:
        raise ValueError(
            f"--engine {engine} makes maps that differ from torch's by {error:.2g} of their range, more than "
            f"{TOLERANCE}; use --engine eager"
        )


def difference(expected: np.ndarray, maps: np.ndarray) -> float:
    """Return the largest difference of two maps of (B, H, W), or answers (B, K), as a share of the expected range.

    Infinite where a value is not finite; of a constant map the share is of its largest value, or of one.
    """
    if not np.isfinite(maps).all():
        return float("inf")
    expected, maps = (each.reshape(len(each), -1) for each in (expected, maps))
    span = np.ptp(expected, axis=1)
    span = np.where(span > 0, span, np.maximum(np.abs(expected).max(axis=1), 1))
    return float((np.abs(maps - expected).max(axis=1) / span).max())
