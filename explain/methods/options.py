"""Options of the methods, as the command line shows them. Imports no torch: `--help` answers at once.

A method's signature repeats its options by name; a test holds both, and their defaults, together.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """The method has no options of its own."""


@dataclass(frozen=True, kw_only=True)
class GradCamOptions:
    """Options of `explain.methods.white_box.grad_cam.grad_cam`."""

    target_layer: str = "layer4"
    """Module whose feature maps are weighed: layer1 ... layer4, or one inside, as layer3.2."""
    class_score: Literal["logit", "probability"] = "logit"
    """What is differentiated: the target's logit, or its probability."""


@dataclass(frozen=True, kw_only=True)
class HiResCamOptions(GradCamOptions):
    """Options of `explain.methods.white_box.hires_cam.hires_cam`."""

    target_layer: str = "layer3"
    """Module whose feature maps are weighed: layer1 ... layer4, where it is CAM, or one inside, as layer3.2."""


@dataclass(frozen=True, kw_only=True)
class CamOptions:
    """Options of `explain.methods.white_box.cam.cam`."""

    target_layer: str = "layer4"
    """Last module with feature maps, before the pooling."""
    classifier: str = "fc"
    """Linear layer behind the pooling."""


@dataclass(frozen=True, kw_only=True)
class ScoreCamOptions:
    """Options of `explain.methods.white_box.score_cam.score_cam`."""

    target_layer: str = "layer4"
    """Module whose feature maps are weighed, one student pass each: layer1 ... layer4, or one inside, as layer3.2."""


@dataclass(frozen=True, kw_only=True)
class IntegratedGradientsOptions:
    """Options of `explain.methods.white_box.integrated_gradients.integrated_gradients`."""

    num_steps: int = 50
    """Points between the mean colour and the image, a student pass each."""
    class_score: Literal["logit", "probability"] = "logit"
    """What is differentiated: the target's logit, or its probability."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps {self.num_steps} is too small; give 1 or more, such as 50")


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Options of `explain.methods.white_box.mask.mask`."""

    perturbation: Literal["constant", "noise", "blur"] = "blur"
    """What stands in for deleted pixels."""
    num_iterations: int = 300
    """Steps of Adam; a student pass for each."""
    mask_size: int = 28
    """Cells of the mask along each side."""
    l1: float = 0.01
    """Weight of the share that is deleted, against the target's probability."""
    total_variation: float = 0.2
    """Weight of the mask's unevenness."""
    beta: float = 3.0
    """Power of the differences of neighbouring cells."""
    jitter: float = 4 / 224
    """Largest random shift at each step, as a share of the image's longer side."""

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
    """What the methods share that add the Grad-CAMs of several layers."""

    target_layers: tuple[str, ...] = ("layer2", "layer3", "layer4")
    """Modules whose Grad-CAMs are added."""
    class_score: Literal["logit", "probability"] = "logit"
    """What is differentiated: the target's logit, or its probability."""

    def __post_init__(self) -> None:
        if not self.target_layers or len(set(self.target_layers)) < len(self.target_layers):
            raise ValueError(f"target_layers {self.target_layers}: name at least one layer, each once")


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """What the methods share that read the student's attention."""

    sign: Literal["positive", "negative", "absolute"] = "absolute"
    """Sign of what attention changes: output minus input as in the paper, the reverse, or absolute."""
    collapse: Literal["sum", "mean", "abs_mean"] = "mean"
    """How its channels become one map."""


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
    """Softmax over pixels as in the paper, or the product itself: the same ranking, without ties for raw layers."""


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
    """Questions to the black box per image; answers of an earlier start are used again."""
    num_cells: int = 7
    """Cells of a mask along each side."""
    keep_probability: float = 0.5
    """Probability of a cell to be shown."""
    antithetic: bool = False
    """Every second mask is its predecessor's complement (for a keep_probability of 0.5)."""
    centred: bool = False
    """Take the mean answer off: the same ranking from fewer questions."""
    settled: float = 0.0
    """Stop once the ranking changes no more: rank correlation with the map at half the masks; 0 never stops early."""

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
    """Questions to the black box per image; answers of an earlier start are used again."""
    num_segments: int = 50
    """About how many superpixels."""
    compactness: float = 10.0
    """Of the superpixels, weight of nearness against colour."""
    substrate: Literal["segment_mean", "mean", "blur"] = "segment_mean"
    """What hidden superpixels become: their own mean colour, the data's mean colour, or a blurred image."""

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
    """How near a sample must be to count, in units of the cosine distance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kernel_width > 0:
            raise ValueError(f"kernel_width {self.kernel_width} is not positive; 0.25 is the authors'")


@dataclass(frozen=True, kw_only=True)
class GpRegressionOptions:
    """Options of `explain.methods.query.gp_regression.gp_regression`."""

    num_samples: int = 200
    """Questions to the black box per image; answers of an earlier start are used again."""
    num_segments: tuple[int, ...] = (20, 50, 100)
    """About how many superpixels, for each scale."""
    compactness: float = 10.0
    """Of the superpixels, weight of nearness against colour."""
    substrate: Literal["blur", "mean", "both"] = "both"
    """What hidden superpixels become: a blurred image, the data's mean colour, or each for half of the questions."""
    prior: Literal["none", "student", "readout"] = "none"
    """Where a map starts from, as far as the black box's answers agree (give --student): nothing, the student's map of
    the same kind, or its learnt read-out, which asks nobody."""
    prior_samples: int = 1000
    """Questions to the student per image for its own map."""
    settled: float = 0.0
    """Stop once the ranking changes no more: rank correlation with the map at half the questions, looked at from 32 on
    at each doubling; 0 never stops early."""

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
    """The game to find the ceiling of; its map is none of the other's."""
    grid: int = 14
    """Patches along each side."""
    num_queries: int = 4000
    """Questions to the black box per image, at most; answers of an earlier start are used again."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError(f"grid {self.grid} is too small; give 1 or more, such as 14")
        if self.num_queries <= self.grid**2:
            raise ValueError(
                f"num_queries {self.num_queries} is too small for a grid of {self.grid}: more than {self.grid**2} are "
                "needed to ask for each patch once"
            )
