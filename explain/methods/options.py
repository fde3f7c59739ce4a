"""Options of the methods: name, default, range and help text of each, once. Imports no torch: `--help` answers at once.

A method is written as `method(model, images, target, options, ...)` and decorated by `takes_options`; it is called with
an options object, or with some of its fields as keywords: `grad_cam(model, images, target, target_layer="layer3")`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Options = TypeVar("Options")


def takes_options(kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a method so that it is called with an object of `kind`, with its fields as keywords, or with neither.

    Raises:
        ValueError: From the decorated method, for a value out of range.
        TypeError: Likewise, for an options object beside keywords, or a keyword that is no option.
    """
    names = {field.name for field in fields(kind)}

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(model: Any, images: Any, target: Any, options: Any = None, **keywords: Any) -> Any:
            values = {name: keywords.pop(name) for name in names & keywords.keys()}
            if options is not None and values:
                raise TypeError(f"{method.__name__} got an options object and {', '.join(sorted(values))}; give either")
            return method(model, images, target, options or make_options(kind, values), **keywords)

        call.options = kind  # pyright: ignore[reportAttributeAccessIssue]
        return call

    return decorate


def read_options(kind: type[Options], stored: Mapping[str, Any]) -> Options:
    """Make an options object of its stored form, in which a tuple is a list.

    Raises:
        ValueError: For a name that is no option, or a value out of range.
    """
    unknown = sorted(set(stored) - {field.name for field in fields(kind)})  # pyright: ignore[reportArgumentType]
    if unknown:
        known = ", ".join(field.name for field in fields(kind)) or "none"  # pyright: ignore[reportArgumentType]
        raise ValueError(f"unknown options {', '.join(unknown)}; options: {known}")
    return make_options(kind, stored)


def make_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Make an options object of values from Python code or a file; a list stands for a tuple.

    Raises:
        ValueError: A value is of another type than the option, no choice of it, or out of range.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for name, type_ in get_type_hints(kind).items():
        if name in values and not _fits(values[name], type_):
            allowed = type_.__name__ if isinstance(type_, type) else str(type_).removeprefix("typing.")
            raise ValueError(f"{name} {values[name]!r} is not allowed; give {allowed}")
    options = kind(**values)
    if infinite := [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]:
        raise ValueError(f"{infinite[0]} {values[infinite[0]]} is not allowed; give a finite number")
    return options


def _fits(value: Any, type_: Any) -> bool:
    """Tell whether a value is of an option's type, or one of its choices."""
    parts = get_args(type_)
    if get_origin(type_) is Literal:
        return value in parts
    if get_origin(type_) is tuple:
        return isinstance(value, tuple) and all(_fits(item, parts[0]) for item in value)
    if parts:  # a union
        return any(_fits(value, part) for part in parts)
    if type_ in (int, float):
        return isinstance(value, Integral if type_ is int else Real) and not isinstance(value, bool)
    return isinstance(value, type_)


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The method has no options of its own."""


@dataclass(frozen=True, kw_only=True)
class GradCamOptions:
    """Options of `explain.methods.white_box.grad_cam.grad_cam`."""

    target_layer: str = "layer4"
    """Module whose feature maps are weighted: layer1 ... layer4, or one inside, as layer3.2."""
    class_score: Literal["logit", "probability"] = "logit"
    """Score that is differentiated: the target's logit, or its softmax probability."""


@dataclass(frozen=True, kw_only=True)
class HiResCamOptions(GradCamOptions):
    """Options of `explain.methods.white_box.hires_cam.hires_cam`."""

    target_layer: str = "layer3"
    """Module whose feature maps are weighted: layer1 ... layer4 (there it is CAM), or one inside, as layer3.2."""


@dataclass(frozen=True, kw_only=True)
class CamOptions:
    """Options of `explain.methods.white_box.cam.cam`."""

    target_layer: str = "layer4"
    """Module with the last feature maps, before the pooling."""
    classifier: str = "fc"
    """Linear layer behind the pooling."""


@dataclass(frozen=True, kw_only=True)
class ScoreCamOptions:
    """Options of `explain.methods.white_box.score_cam.score_cam`."""

    target_layer: str = "layer4"
    """Module whose feature maps are weighted, one student pass each: layer1 ... layer4, or one inside, as layer3.2."""


@dataclass(frozen=True, kw_only=True)
class IntegratedGradientsOptions:
    """Options of `explain.methods.white_box.integrated_gradients.integrated_gradients`."""

    num_steps: int = 50
    """Points of the integral from the mean color to the image; one student pass each."""
    class_score: Literal["logit", "probability"] = "logit"
    """Score that is differentiated: the target's logit, or its softmax probability."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps {self.num_steps} is too small; give 1 or more, such as 50")


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Options of `explain.methods.white_box.mask.mask`."""

    perturbation: Literal["constant", "noise", "blur"] = "blur"
    """Baseline that replaces deleted pixels: the mean color, noise around it, or a blurred image."""
    num_iterations: int = 300
    """Steps of Adam; one student pass each."""
    mask_size: int = 28
    """Cells of the mask along each side."""
    l1: float = 0.01
    """Weight of the deleted area, against the target's probability."""
    total_variation: float = 0.2
    """Weight of the mask's total variation."""
    beta: float = 3.0
    """Exponent of the total variation's differences."""
    jitter: float = 4 / 224
    """Largest random shift of image and mask per step, as a share of the image's longer side."""

    def __post_init__(self) -> None:
        for name, least in (("num_iterations", 1), ("mask_size", 2), ("l1", 0), ("total_variation", 0), ("beta", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} {getattr(self, name)} is too small; give {least} or more")
        if not 0 <= self.jitter < 0.5:
            raise ValueError(f"jitter {self.jitter} is out of range; give 0 to less than half of the image's side")


@dataclass(frozen=True, kw_only=True)
class EdgesOptions:
    """Options of `explain.methods.control.edges.edges`."""

    sigma: float = 0.02
    """Standard deviation of the smoothing as a share of the image's longer side; 0 does not smooth."""

    def __post_init__(self) -> None:
        if not self.sigma >= 0:
            raise ValueError(f"sigma {self.sigma} is negative; give 0 (no smoothing) or more, such as 0.02")


@dataclass(frozen=True, kw_only=True)
class LayersOptions:
    """Options of methods that add the Grad-CAMs of several layers."""

    target_layers: tuple[str, ...] = ("layer2", "layer3", "layer4")
    """Modules whose Grad-CAMs are added."""
    class_score: Literal["logit", "probability"] = "logit"
    """Score that is differentiated: the target's logit, or its softmax probability."""

    def __post_init__(self) -> None:
        if not self.target_layers or len(set(self.target_layers)) < len(self.target_layers):
            raise ValueError(f"target_layers {self.target_layers}: name at least one layer, each once")


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """Options of methods that use the student's attention maps (CBAM)."""

    sign: Literal["positive", "negative", "absolute"] = "absolute"
    """Sign of an attention map: output minus input as in the paper, the reverse, or the absolute value."""
    collapse: Literal["sum", "mean", "abs_mean"] = "mean"
    """Reduction of an attention map's channels to one."""


@dataclass(frozen=True, kw_only=True)
class MlGradCamOptions(LayersOptions):
    """Options of `explain.methods.white_box.ml_grad_cam.ml_grad_cam`."""

    normalise: Literal["none", "min_max"] = "min_max"
    """Scaling of each layer's map before the sum."""


@dataclass(frozen=True, kw_only=True)
class MattOptions(AttentionOptions):
    """Options of `explain.methods.white_box.matt.matt`."""

    normalise: Literal["none", "min_max"] = "min_max"
    """Scaling of each module's map before the sum."""


@dataclass(frozen=True, kw_only=True)
class MalGradCamOptions(AttentionOptions, LayersOptions):
    """Options of `explain.methods.white_box.mal_grad_cam.mal_grad_cam`."""

    normalise_cams: Literal["none", "min_max"] = "min_max"
    """Scaling of each layer's Grad-CAM before the sum."""
    normalise_attention: Literal["none", "min_max"] = "min_max"
    """Scaling of each attention map before the sum."""
    normalisation: Literal["softmax", "none"] = "softmax"
    """Softmax over pixels as in the paper, or none: the same ranking, without ties where layers are not scaled."""


@dataclass(frozen=True, kw_only=True)
class CentreGaussianOptions:
    """Options of `explain.methods.control.centre_gaussian.centre_gaussian`."""

    sigma: float = 0.25
    """Standard deviation as a share of the image's height and width."""

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma {self.sigma} is not positive; 0.25 is a quarter of the image's side")


@dataclass(frozen=True, kw_only=True)
class RiseOptions:
    """Options of `explain.methods.query.rise.rise`; the paper's authors use 7 cells at 0.5 and 8 cells at 0.1."""

    num_masks: int = 4000
    """Queries to the black box per image; stored responses are used again."""
    num_cells: int = 7
    """Cells of a mask along each side."""
    keep_probability: float = 0.5
    """Probability that a cell is shown."""
    antithetic: bool = False
    """Pairs of masks: every second one is its predecessor's complement (needs a keep_probability of 0.5)."""
    centred: bool = False
    """Subtract the mean response from the mask weights: same expected ranking, lower variance."""
    settled: float = 0.0
    """Early stopping: least rank correlation of the map with the map at half of the masks; 0 never stops early."""

    def __post_init__(self) -> None:
        if self.num_masks < 1:
            raise ValueError(f"num_masks {self.num_masks} is too small; give 1 or more, such as 4000")
        if self.num_cells < 1:
            raise ValueError(f"num_cells {self.num_cells} is too small; give 1 or more, such as 7")
        if not 0 < self.keep_probability < 1:
            raise ValueError(f"keep_probability {self.keep_probability} is not between 0 and 1; 0.5 or 0.1 are usual")
        if self.antithetic and self.keep_probability != 0.5:
            raise ValueError(f"antithetic masks need keep_probability 0.5, not {self.keep_probability}")
        if not 0 <= self.settled <= 1:
            raise ValueError(f"settled {self.settled} is no rank correlation; give 0 (never stop early) to 1")


@dataclass(frozen=True, kw_only=True)
class KernelShapOptions:
    """Options of `explain.methods.query.kernel_shap.kernel_shap`."""

    num_samples: int = 1000
    """Queries to the black box per image; stored responses are used again."""
    num_segments: int = 50
    """Approximate number of superpixels."""
    compactness: float = 10.0
    """Weight of distance against color in the superpixels (SLIC)."""
    substrate: Literal["segment_mean", "mean", "blur"] = "segment_mean"
    """Baseline that replaces hidden superpixels: their own mean color, the data's mean color, or a blurred image."""

    def __post_init__(self) -> None:
        for name, least in (("num_samples", 2), ("num_segments", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is too small; give {least} or more")
        if not self.compactness > 0:
            raise ValueError(f"compactness {self.compactness} is not positive; 10 is usual")


@dataclass(frozen=True, kw_only=True)
class LimeOptions(KernelShapOptions):
    """Options of `explain.methods.query.lime.lime`."""

    kernel_width: float = 0.25
    """Width of the kernel that weights samples by their cosine distance from the whole image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kernel_width > 0:
            raise ValueError(f"kernel_width {self.kernel_width} is not positive; 0.25 is the authors'")


@dataclass(frozen=True, kw_only=True)
class HsicOptions:
    """Options of `explain.methods.query.hsic.hsic`."""

    num_samples: int = 1000
    """Queries to the black box per image; stored responses are used again."""
    grid: int = 8
    """Cells along each side."""
    substrate: Literal["mean", "blur"] = "mean"
    """Baseline that replaces hidden cells: the data's mean color, or a blurred image."""

    def __post_init__(self) -> None:
        for name, least in (("num_samples", 2), ("grid", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is too small; give {least} or more")


@dataclass(frozen=True, kw_only=True)
class SobolOptions(HsicOptions):
    """Options of `explain.methods.query.sobol.sobol`."""

    num_samples: int = 1000
    """Most queries to the black box per image: one for each cell and two more, as often as they allow."""
    grid: int = 11
    """Cells along each side, at most: fewer where the queries would not do for 4 designs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_samples < 12:
            raise ValueError(
                f"num_samples {self.num_samples} is too small; give 12 or more: two designs of 2 x 2 cells"
            )
        if self.grid > 100:
            raise ValueError(f"grid {self.grid} is too fine; give 100 or less, such as 11")


@dataclass(frozen=True, kw_only=True)
class GpRegressionOptions:
    """Options of `explain.methods.query.gp_regression.gp_regression`."""

    num_samples: int = 200
    """Queries to the black box per image; stored responses are used again."""
    num_segments: tuple[int, ...] = (20, 50, 100)
    """Approximate number of superpixels of each scale."""
    compactness: float = 10.0
    """Weight of distance against color in the superpixels (SLIC)."""
    substrate: Literal["blur", "mean", "both"] = "both"
    """Baseline that replaces hidden superpixels: a blur, the data's mean color, or each for half of the queries."""
    prior: Literal["none", "student", "readout"] = "none"
    """Prior mean of the map, weighted by how well it agrees with the responses (needs --student): zero, the
    student's map by the same method, or the student's learned read-out, which needs no query."""
    prior_samples: int = 1000
    """Queries to the student per image for the prior `student`."""
    settled: float = 0.0
    """Early stopping: least rank correlation of the map with the map at half of the queries, tested from 64 queries
    on at each doubling; 0 never stops early."""

    def __post_init__(self) -> None:
        if not 0 <= self.settled <= 1:
            raise ValueError(f"settled {self.settled} is no rank correlation; give 0 (never stop early) to 1")
        for name, least in (("num_samples", 8), ("prior_samples", 8)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is too small; give {least} or more")
        if not self.num_segments or min(self.num_segments) < 2:
            raise ValueError(f"num_segments {self.num_segments}: give at least one scale, of 2 superpixels or more")
        if not self.compactness > 0:
            raise ValueError(f"compactness {self.compactness} is not positive; 10 is usual")


@dataclass(frozen=True, kw_only=True)
class OracleOptions:
    """Options of `explain.methods.query.oracle.oracle`."""

    game: Literal["deletion", "insertion"] = "deletion"
    """Game whose best reachable score is searched for; the map says nothing of the other game."""
    grid: int = 14
    """Patches along each side."""
    num_queries: int = 4000
    """Most queries to the black box per image; stored responses are used again."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError(f"grid {self.grid} is too small; give 1 or more, such as 14")
        if self.num_queries <= self.grid**2:
            raise ValueError(
                f"num_queries {self.num_queries} is too small for a grid of {self.grid}: more than {self.grid**2} are "
                "needed to ask for each patch once"
            )
