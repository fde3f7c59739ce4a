"""What class activation maps share: hooks, the class score, its gradient, and up-sampling.

`gradient_cam` and `gradient_cams` are the template; each CAM is a formula of activations and gradients in its own file.

A residual addition or an in-place ReLU behind a hooked module overwrites a saved activation, silently. So what a hook
keeps is never the tensor that the rest of the network gets: that one is a copy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from explain.methods.white_box.layer_maps import upsample

ClassScore = Literal["logit", "probability"]
Formula = Callable[[Tensor, Tensor], Tensor]
"""Activations A and gradients g of the class score, both (B, K, h, w) -> maps (B, h, w)."""
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
def module_changes(
    modules: Mapping[str, nn.Module], formula: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Collect a formula of each module's input and output during a forward pass.

    It is computed at once, inside the hook, before what follows can overwrite either tensor.

    Args:
        modules: Name -> module with one tensor as its input and one as its output.
        formula: (input, output) -> what is kept.

    Yields:
        A dictionary that the forward pass fills: name -> result, without a graph.

    Raises:
        ValueError: In the forward pass, if a module overwrites its input.
    """
    kept: dict[str, Tensor] = {}
    versions: dict[str, int] = {}

    def before(name: str) -> PreHook:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            versions[name] = inputs[0]._version  # counts the writes to a tensor

        return hook

    def after(name: str) -> ForwardHook:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if inputs[0]._version != versions[name]:
                raise ValueError(f"module {name!r} overwrites its input, so F_o - F_i is lost; return a new tensor")
            with torch.no_grad():
                kept[name] = formula(inputs[0], output)

        return hook

    hooked = list(modules.values())
    with (
        pre_hooks(hooked, [before(name) for name in modules]),
        forward_hooks(hooked, [after(name) for name in modules]),
    ):
        yield kept


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


def class_scores(logits: Tensor, target: Tensor, class_score: ClassScore) -> Tensor:
    """Select each image's score of its `target` from (B, K) logits, as it is or after the softmax: (B,).

    Raises:
        ValueError: If a target is not a class of the model.
    """
    check_target(target, logits.shape[1])
    scores = logits.softmax(dim=1) if class_score == "probability" else logits
    return scores.gather(1, target.long()[:, None]).squeeze(1)


def check_target(target: Tensor, num_classes: int) -> None:
    """Check that each target of (B,) is a class; in a graph that is being traced it is not known yet.

    Raises:
        ValueError: If one is not; the error names the classes.
    """
    if get_proxy_mode() is None and bool(((target < 0) | (target >= num_classes)).any()):
        raise ValueError(f"target {target.tolist()} holds a class that the model lacks; classes: 0..{num_classes - 1}")


def gradient_cams(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    target_layers: Sequence[str],
    class_score: ClassScore,
    formula: Formula,
) -> list[Tensor]:
    """Compute a CAM of each layer, (B, h, w), from one forward and one backward pass to the earliest of them.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        target_layers: Names of modules with an output (B, K, h, w).
        class_score: Score that is differentiated: the target's logit, or its softmax probability.
        formula: The CAM.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    require_eval(model)
    with torch.enable_grad(), activations(model, target_layers) as kept:
        grads = gradients(class_scores(model(images), target, class_score), kept)
    with torch.no_grad():
        return [formula(kept[name], grads[name]) for name in target_layers]


def gradient_cam(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    target_layer: str,
    class_score: ClassScore,
    formula: Formula,
) -> Tensor:
    """Compute a CAM of one layer at the size of the images, (B, H, W) float32; arguments as in `gradient_cams`."""
    (cam,) = gradient_cams(
        model, images, target, target_layers=[target_layer], class_score=class_score, formula=formula
    )
    with torch.no_grad():
        return upsample(cam.float(), (images.shape[2], images.shape[3]))
