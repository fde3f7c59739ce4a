"""Registry of the methods by name. To add one: a file with its function, its options, a line here, a test."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from explain.methods.options import (
    CamOptions,
    CentreGaussianOptions,
    EdgesOptions,
    GpRegressionOptions,
    GradCamOptions,
    HiResCamOptions,
    HsicOptions,
    IntegratedGradientsOptions,
    KernelShapOptions,
    LimeOptions,
    MalGradCamOptions,
    MaskOptions,
    MattOptions,
    MlGradCamOptions,
    NoOptions,
    OracleOptions,
    RiseOptions,
    ScoreCamOptions,
    SobolOptions,
    read_options,
)


@dataclass(frozen=True)
class Method:
    """A registered method; names its function instead of holding it, so that listing imports no torch."""

    name: str
    """As on the command line and in the maps' column `method`."""
    function: str
    """module:function with (model, images (B, 3, H, W), target (B,), options) -> (B, H, W) float32."""
    explains: Literal["student", "teacher", "nothing"]
    """Which model it is given: the student's network, the black box as `Queries`, or none."""
    summary: str
    """One line for --help."""
    options: type = NoOptions
    """Dataclass of its options; the function is decorated with it (`takes_options`)."""
    seeded: bool = False
    """Whether it also takes `seeds`, one for each image."""
    class_specific: bool = True
    """Whether its map depends on the class."""
    static: bool = False
    """Whether its computation is the same for every image, so that an inference engine can compute it as one graph."""
    frame_options: tuple[str, ...] = ()
    """Of a query-based method: options that decide the frames that the black box sees. Jobs that differ in others
    share stored responses."""
    budget: str | None = None
    """Of a query-based method: name of the option that limits the queries per image."""
    needs_readout: bool = False
    """Whether it needs the student's learned read-out."""
    with_std: str | None = None
    """module:function that returns the maps and the standard deviations of their values."""
    version: int = 1
    """Incremented when the same options come to mean other maps; a job never continues another version's."""
    frames_version: int = 1
    """Of a query-based method: incremented when the same options come to mean other frames, and so other responses."""

    @property
    def is_query_based(self) -> bool:
        """Tell whether the method queries the black box (`Queries`), and sees nothing of its inside."""
        return self.explains == "teacher"

    def load(self) -> Callable[..., Any]:
        """Import the method's function."""
        return _load(self.function)

    def read_options(self, stored: Mapping[str, Any]) -> Any:
        """Make the method's options of their stored form, as a maps folder's configuration has them.

        Raises:
            ValueError: For a name that is no option of the method, or a value out of range.
        """
        return read_options(self.options, stored)

    def load_with_std(self) -> Callable[..., Any]:
        """Import the function that also returns standard deviations, where there is one; else the method's own."""
        return _load(self.with_std or self.function)


def _load(where: str) -> Callable[..., Any]:
    module, _, function = where.partition(":")
    return getattr(import_module(module), function)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "mal_grad_cam",
            "explain.methods.white_box.mal_grad_cam:mal_grad_cam",
            "student",
            "Attention maps of all CBAMs times Grad-CAM of layers 2, 3, 4 (the paper's map).",
            MalGradCamOptions,
            static=True,
        ),
        Method(
            "ml_grad_cam",
            "explain.methods.white_box.ml_grad_cam:ml_grad_cam",
            "student",
            "Grad-CAM summed over layers 2, 3, 4.",
            MlGradCamOptions,
            static=True,
        ),
        Method(
            "matt",
            "explain.methods.white_box.matt:matt",
            "student",
            "Attention maps of all CBAMs of the student, summed.",
            MattOptions,
            class_specific=False,
            static=True,
        ),
        Method(
            "readout",
            "explain.readout.network:readout",
            "student",
            "Attention maps and CAMs of layers 2, 3, 4, combined by a small trained network (python -m explain fit).",
            needs_readout=True,
        ),
        Method(
            "grad_cam",
            "explain.methods.white_box.grad_cam:grad_cam",
            "student",
            "Grad-CAM of one layer, any.",
            GradCamOptions,
            static=True,
        ),
        Method(
            "cam",
            "explain.methods.white_box.cam:cam",
            "student",
            "Last feature maps weighted by the classifier's weights.",
            CamOptions,
            static=True,
        ),
        Method(
            "grad_cam_pp",
            "explain.methods.white_box.grad_cam_pp:grad_cam_pp",
            "student",
            "Grad-CAM++ of one layer, any.",
            GradCamOptions,
            static=True,
        ),
        Method(
            "layer_cam",
            "explain.methods.white_box.layer_cam:layer_cam",
            "student",
            "LayerCAM of one layer, any.",
            GradCamOptions,
            static=True,
        ),
        Method(
            "hires_cam",
            "explain.methods.white_box.hires_cam:hires_cam",
            "student",
            "HiResCAM of one layer, any.",
            HiResCamOptions,
            static=True,
        ),
        Method(
            "score_cam",
            "explain.methods.white_box.score_cam:score_cam",
            "student",
            "Score-CAM of one layer: a student pass for each channel.",
            ScoreCamOptions,
        ),
        Method(
            "integrated_gradients",
            "explain.methods.white_box.integrated_gradients:integrated_gradients",
            "student",
            "Integrated gradients: the student's gradient from the mean color to the image.",
            IntegratedGradientsOptions,
        ),
        Method(
            "mask",
            "explain.methods.white_box.mask:mask",
            "student",
            "The smallest region whose replacement lowers the student's probability.",
            MaskOptions,
            seeded=True,
        ),
        Method(
            "rise",
            "explain.methods.query.rise:rise",
            "teacher",
            "Random masks weighted by the black box's responses.",
            RiseOptions,
            seeded=True,
            frame_options=("num_cells", "keep_probability", "antithetic"),
            budget="num_masks",
        ),
        Method(
            "lime",
            "explain.methods.query.lime:lime",
            "teacher",
            "Linear model of the black box's responses to images with hidden superpixels.",
            LimeOptions,
            seeded=True,
            frame_options=("num_segments", "compactness", "substrate"),
            budget="num_samples",
        ),
        Method(
            "kernel_shap",
            "explain.methods.query.kernel_shap:kernel_shap",
            "teacher",
            "Shapley values of superpixels from the black box's responses.",
            KernelShapOptions,
            seeded=True,
            frame_options=("num_segments", "compactness", "substrate"),
            budget="num_samples",
            version=2,
            frames_version=2,
        ),
        Method(
            "gp_regression",
            "explain.methods.query.gp_regression:gp_regression",
            "teacher",
            "Gaussian-process regression on superpixels of several scales, for few queries.",
            GpRegressionOptions,
            seeded=True,
            frame_options=("num_segments", "compactness", "substrate"),
            budget="num_samples",
            with_std="explain.methods.query.gp_regression:gp_regression_with_std",
            version=3,
            frames_version=2,
        ),
        Method(
            "sobol",
            "explain.methods.query.sobol:sobol",
            "teacher",
            "Share of the response's variance that each cell of a grid takes part in.",
            SobolOptions,
            seeded=True,
            frame_options=("num_samples", "grid", "substrate"),
            budget="num_samples",
        ),
        Method(
            "hsic",
            "explain.methods.query.hsic:hsic",
            "teacher",
            "Dependence of the response on whether each cell of a grid is shown.",
            HsicOptions,
            seeded=True,
            frame_options=("grid", "substrate"),
            budget="num_samples",
        ),
        Method(
            "oracle",
            "explain.methods.query.oracle:oracle",
            "teacher",
            "Direct search for the best score of a game by queries: an upper bound, not an explanation.",
            OracleOptions,
            seeded=True,
            frame_options=("game", "grid"),
            budget="num_queries",
        ),
        Method(
            "random",
            "explain.methods.control.random:random",
            "nothing",
            "Control: uniform noise, seeded per image.",
            seeded=True,
            class_specific=False,
        ),
        Method(
            "centre_gaussian",
            "explain.methods.control.centre_gaussian:centre_gaussian",
            "nothing",
            "Control: a Gaussian at the center of the image.",
            CentreGaussianOptions,
            class_specific=False,
        ),
        Method(
            "edges",
            "explain.methods.control.edges:edges",
            "nothing",
            "Control: an edge detector (Sobel).",
            EdgesOptions,
            class_specific=False,
        ),
    )
}


def find_method(name: str) -> Method:
    """Look a method up.

    Raises:
        ValueError: If no method has that name; the error lists those that exist.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; methods: {', '.join(METHODS)}")
    return METHODS[name]
