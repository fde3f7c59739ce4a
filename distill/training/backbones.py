"""Networks to fine-tune, found by the `KIND` of a `KIND:WHERE` string, with a new classifier for other classes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.student.model import IMAGENET_MEAN, IMAGENET_STD
from distill.teachers.kinds import python_callable as python
from distill.teachers.kinds import torchvision_model as published
from distill.teachers.tools import efficientnet_lite as lite

EXAMPLES = "torchvision:resnet50, lite:efficientnet-lite0, python:package.module:factory"
LITE = "efficientnet-lite"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A classifier of images that can be trained, and how it takes them."""

    module: nn.Module
    """Normalized pixels (B, 3, H, W) to logits (B, K)."""
    mean: tuple[float, float, float]
    """Subtracted from pixels in [0, 1], per channel."""
    std: tuple[float, float, float]
    """Divides after the mean is subtracted."""

    @property
    def fingerprint(self) -> str:
        """Hash the weights and the normalization: SHA-256 in hex."""
        return published.state_fingerprint(self.module.state_dict(), (*self.mean, *self.std))


def load_network(spec: str, num_classes: int, *, seed: int, input_size: tuple[int, int]) -> Network:
    """Load the network that `spec` names and give it a new classifier; all its parameters will be trained.

    Args:
        spec: `torchvision:NAME[/WEIGHTS]`, `lite:efficientnet-lite0`, or `python:package.module:factory`, a function
            that takes nothing and returns an nn.Module, which may have `mean` and `std` (ImageNet's otherwise).
        num_classes: outputs of the new classifier.
        seed: what the new classifier's weights, and those that a factory draws with torch, depend on.
        input_size: height and width in pixels at which it must work.

    Raises:
        ValueError: the kind or the network is unknown, it has no linear layer, or it does not return (B, K).
    """
    kind, _, where = spec.partition(":")
    if kind not in KINDS or not where:
        raise ValueError(f"network {spec!r} is unknown; allowed: KIND:WHERE, such as {EXAMPLES}")
    torch.manual_seed(seed)
    network = KINDS[kind](where)
    replace_classifier(network.module, num_classes, spec)
    _check_outputs(network.module.requires_grad_(True), num_classes, spec, input_size)
    return network


def replace_classifier(module: nn.Module, num_classes: int, spec: str) -> None:
    """Put a new linear layer, drawn as torch draws one, in the place of the module's last one.

    Raises:
        ValueError: the module has no linear layer inside.
    """
    linear = [(name, layer) for name, layer in module.named_modules() if name and isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(
            f"network {spec!r} ({type(module).__name__}) has no torch.nn.Linear to replace as its classifier; "
            "give a network whose last layer is one"
        )
    name, old = linear[-1]
    parent, _, attribute = name.rpartition(".")
    new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    setattr(module.get_submodule(parent), attribute, new)


def _check_outputs(module: nn.Module, num_classes: int, spec: str, input_size: tuple[int, int]) -> None:
    """Ask a copy for the logits of two gray images: that its last layer is not the classifier would show."""
    module = copy.deepcopy(module)
    for training in (True, False):
        try:
            with torch.no_grad():
                found = module.train(training)(torch.zeros(2, 3, *input_size))
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        except RuntimeError as error:  # shapes that do not fit
            got = f"the error {str(error)!r}"
        if got != (2, num_classes):
            raise ValueError(
                f"network {spec!r} gives {got} for 2 images of {input_size} pixels after its last "
                f"torch.nn.Linear was replaced; allowed: (2, {num_classes}), so that layer must be the classifier"
            )


def _torchvision(where: str) -> Network:
    module, weights, _ = published.published_model(where)
    transforms = weights.transforms()
    return _network(module, transforms.mean, transforms.std)


def _lite(where: str) -> Network:
    version = where.removeprefix(LITE)
    if not where.startswith(LITE) or version not in lite.SIZES_PX:
        known = ", ".join(f"lite:{LITE}{number}" for number in lite.SIZES_PX)
        raise ValueError(f"network 'lite:{where}' is unknown; allowed: {known}")
    return _network(lite.load_lite(version), lite.MEAN, lite.STD)


def _python(where: str) -> Network:
    module = python.find_factory(where)()
    if not isinstance(module, nn.Module):
        raise ValueError(f"python:{where} returned {type(module).__name__}; allowed: a torch.nn.Module")
    mean, std = getattr(module, "mean", IMAGENET_MEAN), getattr(module, "std", IMAGENET_STD)
    return _network(module, mean, std)


def _network(module: nn.Module, mean: Iterable[float], std: Iterable[float]) -> Network:
    red, green, blue = zip(map(float, mean), map(float, std), strict=True)
    return Network(module=module, mean=(red[0], green[0], blue[0]), std=(red[1], green[1], blue[1]))


KINDS: dict[str, Callable[[str], Network]] = {"torchvision": _torchvision, "lite": _lite, "python": _python}
