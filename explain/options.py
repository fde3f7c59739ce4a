"""Options of the methods, as the command line shows them. Imports no torch: `--help` answers at once.

A method's signature repeats its options by name; a test holds both, and their defaults, together.
"""

from dataclasses import dataclass
from typing import Literal


def check_layers(target_layers: tuple[str, ...]) -> None:
    """Refuse an empty list of layers, and a layer that is named twice."""
    if not target_layers or len(set(target_layers)) < len(target_layers):
        raise ValueError(f"target_layers {target_layers}: name at least one layer, each once")


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The method has no options of its own."""


@dataclass(frozen=True, kw_only=True)
class GradCamOptions:
    """Options of `explain.grad_cam.grad_cam`."""

    target_layer: str = "layer4"
    """Module whose feature maps are weighed: layer1 ... layer4, or one inside, as layer3.2."""
    class_score: Literal["logit", "probability"] = "logit"
    """What is differentiated: the target's logit, or its probability."""


@dataclass(frozen=True, kw_only=True)
class MlGradCamOptions:
    """Options of `explain.ml_grad_cam.ml_grad_cam`."""

    target_layers: tuple[str, ...] = ("layer2", "layer3", "layer4")
    """Modules whose Grad-CAMs are added."""
    class_score: Literal["logit", "probability"] = "logit"
    """What is differentiated: the target's logit, or its probability."""
    normalise: Literal["none", "min_max"] = "min_max"
    """Scaling of each layer's map before the sum."""

    def __post_init__(self) -> None:
        check_layers(self.target_layers)


@dataclass(frozen=True, kw_only=True)
class MattOptions:
    """Options of `explain.matt.matt`."""

    sign: Literal["positive", "negative", "absolute"] = "absolute"
    """Sign of what attention changes: output minus input as in the paper, the reverse, or absolute."""
    collapse: Literal["sum", "mean", "abs_mean"] = "mean"
    """How its channels become one map."""
    normalise: Literal["none", "min_max"] = "min_max"
    """Scaling of each module's map before the sum."""


@dataclass(frozen=True, kw_only=True)
class MalGradCamOptions:
    """Options of `explain.mal_grad_cam.mal_grad_cam`."""

    target_layers: tuple[str, ...] = ("layer2", "layer3", "layer4")
    """Modules whose Grad-CAMs are added."""
    class_score: Literal["logit", "probability"] = "logit"
    """What is differentiated: the target's logit, or its probability."""
    normalise_cams: Literal["none", "min_max"] = "min_max"
    """Scaling of each layer's Grad-CAM before the sum."""
    sign: Literal["positive", "negative", "absolute"] = "absolute"
    """Sign of what attention changes: output minus input as in the paper, the reverse, or absolute."""
    collapse: Literal["sum", "mean", "abs_mean"] = "mean"
    """How its channels become one map."""
    normalise_attention: Literal["none", "min_max"] = "min_max"
    """Scaling of each attention map before the sum."""
    normalisation: Literal["softmax", "none"] = "softmax"
    """Softmax over pixels as in the paper, or the product itself: the same ranking, without ties for raw layers."""

    def __post_init__(self) -> None:
        check_layers(self.target_layers)


@dataclass(frozen=True, kw_only=True)
class CentreGaussianOptions:
    """Options of `explain.centre_gaussian.centre_gaussian`."""

    sigma: float = 0.25
    """Standard deviation as a share of the image's height and width."""

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma {self.sigma} is not positive; 0.25 is a quarter of the image's side")
