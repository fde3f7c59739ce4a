"""Student as a model in MLflow's registry: image in, map out, by `mlflow.pyfunc.load_model` or `mlflow models serve`.

The model holds the student's safetensors and JSON, this code, and the method's name and options; nothing of it is
pickled. It computes what `python -m explain` does without an engine, with the same bits, for any
number of clients at a time.
"""

from collections.abc import Mapping
from importlib.metadata import packages_distributions, requires, version
from io import BytesIO
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import Array, DataType
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

from cluster.private_folder import private_folder, temporary_files_in
from cluster.storage import Folder, as_stored
from cluster.tracking.checksums import guarded
from cluster.tracking.registry import register_model
from cluster.tracking.tracker import TRACKING
from distill.data.decode import ImageError, resized_view
from explain.maps import NOT_FINITE
from explain.methods.registry import find_method
from explain.readout.checkpoint import load_explained, student_files
from explain.runners.white_box import Explanation, Request, explainer_of
from explain.serving.config import Registration

PROJECT = "malgradcam"
PACKAGES = ("cluster", "distill", "explain")
CODE = "from mlflow.models import set_model\n\nfrom explain.serving.pyfunc import Maps\n\nset_model(Maps())\n"
"""Code that MLflow runs to make the model, in place of a pickle."""


class Maps(PythonModel):
    """Model that explains images by one method of one student; `predict` may be called from many threads at once."""

    def load_context(self, context: Any) -> None:
        """Load the student on this machine's cores, once."""
        config = context.model_config
        method = find_method(config["method"])
        self.student = load_explained(context.artifacts["student"], with_readout=method.needs_readout)
        self.explainer = explainer_of(method, self.student, method.read_options(config["options"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Return one row per image, in their order, with the columns of the maps on disk.

        Args:
            context: MLflow's; not looked at.
            model_input: `image`, a file's bytes, and where the class to explain is known (the black box's), `target`.
            params: none are known.

        Returns:
            `target`, `target_prob` (the student's, where it chose the target), `map_height`, `map_width`, `saliency`
            (row by row), `error` (why there is no map).
        """
        targets = model_input["target"] if "target" in model_input else [None] * len(model_input)
        read = [self._read(*row) for row in zip(model_input["image"], targets, strict=True)]
        explanations = self.explainer([found if isinstance(found, Request) else None for found in read])
        rows = [_row(explanation, found) for explanation, found in zip(explanations, read, strict=True)]
        nothing = dict.fromkeys(column.name for column in _outputs())
        return pd.DataFrame([nothing | row for row in rows], dtype=object)  # pandas would make NaN of what is missing

    def _read(self, data: bytes, target: Any) -> Request | str:
        """Return the image to explain, or why it cannot be."""
        number = self.student.num_classes
        target = None if pd.isna(target) else int(target)
        if target is not None and not 0 <= target < number:
            return f"target {target} is no class of the student; give 0 to {number - 1}, or none for its top-1"
        try:
            return Request(frame=resized_view(data, self.student.input_size), target=target)
        except ImageError as error:
            return f"{type(error).__name__}: {error}"


def register(name: str, job: Registration) -> str:
    """Register a student with the method `name` under `job.name`; return its URI, `models:/NAME/VERSION`.

    Raises:
        ValueError, FileNotFoundError: there is no such student, an option does not fit it, or MLflow refuses.
    """
    method, folder = find_method(name), Folder(job.student)
    student = load_explained(job.student, with_readout=method.needs_readout)
    explainer_of(method, student, job.options).dry_run(student.input_size)
    with private_folder() as place, temporary_files_in(place):
        code, files, copies = place / "maps.py", place / "student", place / "packages"
        packages = [copies / package for package in PACKAGES]
        for package in packages:
            copytree(Path(__file__).parents[2] / package.name, package, ignore=ignore_patterns("__pycache__"))
        code.write_text(guarded(CODE, packages), encoding="utf-8")
        for file in student_files(student):
            Folder(str(files)).write_bytes(file, folder.read_bytes(file))
        return register_model(
            job.name,
            run_id=folder.read_json(TRACKING)["run_id"] if folder.exists(TRACKING) else None,
            python_model=str(code),
            artifacts={"student": str(files)},
            code_paths=[str(package) for package in packages],
            model_config={"method": name, "options": as_stored(job.options)},
            signature=_signature(),
            input_example=pd.DataFrame({"image": [_grey_image(student.input_size)]}),
            pip_requirements=_requirements(),
            metadata={"student_fingerprint": student.fingerprint, "teacher": student.teacher},
        )


def _row(explanation: Explanation | None, found: Request | str) -> dict[str, Any]:
    if explanation is None:
        return {"error": found}
    if not np.isfinite(explanation.saliency).all():
        return {"error": NOT_FINITE}
    height, width = explanation.saliency.shape
    return {
        "target": explanation.target,
        "target_prob": explanation.target_prob,
        "map_height": height,
        "map_width": width,
        "saliency": explanation.saliency.ravel(),
    }


def _signature() -> ModelSignature:
    """Name the input's columns, so that a server decodes the base64 of `image`, and the output's."""
    image, target = ColSpec(DataType.binary, "image"), ColSpec(DataType.long, "target", required=False)
    return ModelSignature(inputs=Schema([image, target]), outputs=Schema(_outputs()))


def _outputs() -> list[ColSpec | TensorSpec]:
    kinds = {
        "target": DataType.long,
        "target_prob": DataType.double,
        "map_height": DataType.long,
        "map_width": DataType.long,
        "saliency": Array(DataType.float),
        "error": DataType.string,
    }
    return [ColSpec(kind, name, required=False) for name, kind in kinds.items()]


def _grey_image(size: tuple[int, int]) -> bytes:
    file = BytesIO()
    Image.new("RGB", (size[1], size[0]), "gray").save(file, "PNG")
    return file.getvalue()


def _requirements() -> list[str]:
    """List what the project needs, in the versions of this environment."""
    needed = [Requirement(line) for line in requires(PROJECT) or ()]
    names = [one.name for one in needed if one.marker is None]
    if "onnxruntime" in names:  # or onnxruntime-gpu, which has the same modules
        names[names.index("onnxruntime")] = packages_distributions()["onnxruntime"][0]
    return [f"{name}=={Version(version(name)).public}" for name in names]
