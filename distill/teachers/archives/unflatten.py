"""A torch.export archive as a network of modules again, so that methods can look into it: activations and gradients.

An exported graph has lost its modules but not their names. torch puts them together again; what it makes computes the
same operations, so a gradient is the exported network's own. Where that would not hold, there is no network: a graph
that cuts the gradient off (`detach`) would give a map of a part of the model that looks like one of all of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram, unflatten

TOLERANCE = 1e-4
"""Largest difference of a logit between the program and its modules, as a share of the largest logit."""
aten = torch.ops.aten
CUTS = (aten.detach.default, aten.detach_.default, aten.detach_copy.default)


def open_network(program: ExportedProgram, spec: str, input_size: tuple[int, int]) -> nn.Module:
    """Make a network in eval mode of a program that passed `check_archive`, on the program's device.

    A module that runs several times is found under its name, then NAME@1, NAME@2.

    Args:
        program: from one tensor of images to logits.
        spec: what to call the model in an error.
        input_size: height and width of its images.

    Raises:
        ValueError: it takes a fixed number of images, cuts the gradient off, or torch cannot find its modules.
    """
    num_images = _example(program).shape[0]
    if isinstance(num_images, int):
        raise refusal(
            spec,
            f"it takes {num_images} images at a time, no more and no fewer; export it for any number "
            "(dynamic_shapes), or",
        )
    cut = _cut(program)
    if cut:
        raise refusal(spec, f"its graph cuts the gradient off at {cut!r} (detach);")
    private = [name for name in _names(program) if any(part.startswith("__") for part in name.split("."))]
    if private:
        raise refusal(spec, f"it has a module or weight named {private[0]!r}, which no network has;")
    try:
        network = unflatten(program).eval().requires_grad_(False)
    except (RuntimeError, AssertionError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise refusal(spec, f"torch cannot put its modules together again ({error});") from error
    _forget_shapes(network)
    _check_same(program, network, spec, input_size)
    return network


def refusal(spec: str, why: str) -> ValueError:
    return ValueError(f"teacher {spec!r} cannot be looked into: {why} give --student RUN (python -m distill)")


def _example(program: ExportedProgram) -> torch.Tensor:
    """Return the program's images as they were when it was exported: a tensor without content."""
    names = program.graph_signature.user_inputs
    return next(node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names)


def _cut(program: ExportedProgram) -> str | None:
    """Return the first node that cuts the gradient from the images off; None where there is none."""
    (images,) = program.graph_signature.user_inputs
    of_images: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.name == images or of_images & set(node.all_input_nodes):
            of_images.add(node)
            if node.target in CUTS:
                return node.name
    return None


def _names(program: ExportedProgram) -> set[str]:
    """List the names that modules, weights and constants are found under."""
    stacks = (node.meta.get("nn_module_stack") or {} for node in program.graph.nodes)
    modules = {str(path) for stack in stacks for path, *_ in stack.values()}
    modules |= {entry.fqn for entry in program.module_call_graph}
    return modules | {spec.target for spec in program.graph_signature.input_specs if spec.target}


def _forget_shapes(network: nn.Module) -> None:
    """Drop what export noted at each operation: tensors without content, of which no copy can be made."""
    for module in network.modules():
        graph: Any = getattr(module, "graph", None)
        for node in graph.nodes if isinstance(graph, fx.Graph) else ():
            node.meta.clear()


def _check_same(program: ExportedProgram, network: nn.Module, spec: str, size: tuple[int, int]) -> None:
    device = next((tensor.device for tensor in program.state_dict.values()), torch.device("cpu"))
    image = torch.linspace(-2, 2, 3 * size[0] * size[1], device=device).reshape(1, 3, *size)
    with torch.no_grad():
        expected, found = program.module()(image.clone()), network(image.clone())
    far = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not far <= TOLERANCE:
        raise refusal(spec, f"put together again, its modules return other logits, by {far:.2g} of the largest;")
