"""Activations and gradients of named modules, by forward hooks.

A residual addition or an in-place ReLU behind a hooked module overwrites a saved activation, silently. So
what a hook keeps is never the tensor that the rest of the network gets: that one is a copy.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PreHook = Callable[[nn.Module, tuple[Any, ...]], None]
ForwardHook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]


def require_eval(model: nn.Module) -> None:
    """Refuse a model in training mode, whose batch norms would mix the images of a batch.

    Raises:
        ValueError: If any module of the model is in training mode.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("the model is in training mode, so a map would depend on its batch; call model.eval()")


def find_modules(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Return the modules that are called `names`, in that order.

    Raises:
        ValueError: If the model has no module of that name; the error names its top-level modules.
    """
    modules = dict(model.named_modules())
    for name in names:
        if not name or name not in modules:
            layers = ", ".join(child for child, _ in model.named_children()) or "none"
            raise ValueError(
                f"target_layer {name!r} is not in the model; layers: {layers} (or inside one, as 'layer4.0')"
            )
    return [modules[name] for name in names]


@contextmanager
def forward_hooks(modules: Sequence[nn.Module], hooks: Sequence[ForwardHook]) -> Iterator[None]:
    """Hold one forward hook on each module, and remove them all on the way out, errors included."""
    with ExitStack() as stack:
        for module, hook in zip(modules, hooks, strict=True):
            stack.enter_context(module.register_forward_hook(hook))
        yield


@contextmanager
def pre_hooks(modules: Sequence[nn.Module], hooks: Sequence[PreHook]) -> Iterator[None]:
    """Hold one hook before each module's forward, as `forward_hooks` does after it."""
    with ExitStack() as stack:
        for module, hook in zip(modules, hooks, strict=True):
            stack.enter_context(module.register_forward_pre_hook(hook))
        yield


@contextmanager
def activations(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the modules called `names` during a forward pass, ready for `gradients`.

    The autograd graph starts at the first of them that runs (in a ResNet the earliest layer): nothing before
    it is recorded, and no parameter needs a gradient. What follows a module gets a copy of its output.

    Yields:
        A dictionary that the forward pass fills: name -> (B, K, h, w), requiring a gradient.

    Raises:
        ValueError: For an unknown name, or (in the forward pass) an output that is not (B, K, h, w).
    """
    modules = find_modules(model, names)
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> ForwardHook:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            if not isinstance(output, Tensor) or output.ndim != 4:
                got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(f"target_layer {name!r} returns {got}; a map needs feature maps (B, K, h, w)")
            starts_graph = not kept or not output.requires_grad
            kept[name] = output.detach().requires_grad_() if starts_graph else output
            return kept[name].clone()

        return hook

    with forward_hooks(modules, [keep(name) for name in names]):
        yield kept


def gradients(scores: Tensor, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Differentiate `scores` (B,) with respect to the kept activations and nothing else.

    The scores are summed: images do not meet in a network in eval mode, so each keeps its own gradient.
    """
    grads = torch.autograd.grad(scores.sum(), list(kept.values()))
    return dict(zip(kept, grads, strict=True))
