"""Static graph of a method that does the same with every image: the network's forward pass and its gradient.

The method itself is traced, on tensors without content, so its formula stands in one place. The gradient is worked out
once, down to the activations that the method asks for and with none of a parameter, and what is left is a list of
operations that an inference engine computes like any other network.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten
DECOMPOSED: tuple[Any, ...] = (
    aten.threshold_backward.default,
    aten.sigmoid_backward.default,
    aten._softmax_backward_data.default,
)
"""Gradients that are a few operations of the kinds that every engine has."""


def trace(function: Callable[..., Tensor], model: nn.Module, shape: tuple[int, int, int, int]) -> fx.GraphModule:
    """Trace `function(model, images, target)` for images of one shape, (B, 3, H, W), as a graph of aten operations.

    Args:
        function: A method with its options bound; what it does may depend on no number in the images.
        model: In eval mode, on the CPU, no parameter requires a gradient. Its weights become the graph's constants.
        shape: Of the images.

    Returns:
        The graph: images (B, 3, H, W) float32 and target (B,) int64 to what `function` returns.
    """

    def explain(images: Tensor, target: Tensor) -> Any:
        return function(model, images, target)

    known = core_aten_decompositions()
    traced = make_fx(
        explain,
        decomposition_table={operation: known[operation] for operation in DECOMPOSED},
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.long))
    traced.graph.eliminate_dead_code()
    return traced
