"""`mlflow:MODEL_URI` or `mlflow:MODEL_URI#teacher.toml`: a model from MLflow's registry, a run or a folder.

ONNX files and torch.export archives are taken out of the model and opened as `onnx:` and `torch:` open theirs, so that
nothing that came with it is run. Every other flavour unpickles or imports what its author wrote: `mlflow-unpickle:` in
place of `mlflow:` says that this is meant.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cluster.tracking.registry import FetchedModel, fetch_model, load_function
from distill.teachers.base import Teacher
from distill.teachers.foreign import call_foreign
from distill.teachers.kinds import onnx_file as onnx
from distill.teachers.kinds import torch_archive as torch_export
from distill.teachers.load_options import LoadOptions
from distill.teachers.teacher_toml import EXAMPLE, NAME, read_toml
from distill.teachers.tensor_model import DTYPES, Tensor, TensorDescription, TensorTeacher, metadata_fields

UNPICKLE = "mlflow-unpickle"
ABOUT = ("MLmodel", "registered_model_meta")  # files that change from copy to copy
DATATYPES = {np.dtype(dtype).name: datatype for datatype, dtype in DTYPES.items()}


@dataclass(frozen=True, kw_only=True)
class Pyfunc(TensorDescription):
    """A model that MLflow runs, whose tensors may have no names."""

    input_tensor: str = ""
    """name of the input; without one it is given bare"""
    output_tensor: str = "output"
    """name of the output, where the model returns a dictionary"""


class PyfuncTeacher(TensorTeacher):
    """A model that MLflow runs."""

    def __init__(self, predict: Callable[[Any], Any], *, named: bool, described: Pyfunc, **description: Any) -> None:
        """Wrap a model's `predict`, which takes its input by name or bare; the rest is `TensorTeacher`'s."""
        super().__init__(described, **description)
        self._predict_function, self._named = predict, named

    def _predict(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        given = {self.described.input_tensor: images} if self._named else images
        return call_foreign(self._arrays, given, spec=self.spec)

    def _arrays(self, given: Any) -> Mapping[str, np.ndarray]:
        found = self._predict_function(given)
        if isinstance(found, Mapping):
            return {str(name): np.asarray(values) for name, values in found.items()}
        return {self.described.output_tensor: np.asarray(found)}  # an array, a list or a data frame


def open_teacher(where: str, options: LoadOptions) -> Teacher:
    """Fetch the model and open it by what it is; `load_teacher` says how."""
    kind = options.spec.partition(":")[0]
    uri, _, toml = where.partition("#")
    if ":" not in uri:  # a path; absolute, so that a worker in another folder finds it
        uri = str(Path(uri).expanduser().absolute())
    own = Path(toml).expanduser().absolute() if toml else None
    spec = f"{kind}:{uri}{'' if own is None else f'#{own}'}"
    with ExitStack() as stack:
        model = fetch_model(uri, Path(stack.enter_context(TemporaryDirectory(prefix="malgradcam-model-"))))
        if own is None and model.inside(NAME) is None:
            raise FileNotFoundError(
                f"the model {uri!r} brings no {NAME}; write {spec}#path/to/{NAME}. For example:\n\n{EXAMPLE}"
            )
        described = own or model.folder / NAME
        opener = _opener(model)
        if opener is not None:
            return opener(described, replace(options, spec=spec))
        if kind != UNPICKLE:
            raise ValueError(
                f"the model {uri!r} ({', '.join(model.flavours)}) is neither an ONNX file nor a torch.export archive: "
                "loading it would run or unpickle whatever its author put there. If you trust the author as you trust "
                f"your own code, write {UNPICKLE}:{where}"
            )
        teacher = _open_pyfunc(model, described, spec)
        weakref.finalize(teacher, stack.pop_all().close)  # it may read its files as long as it lives
    return teacher


def _opener(model: FetchedModel) -> Callable[[Path, LoadOptions], Teacher] | None:
    """Return what opens the model's own file without running anything else of it; None where there is no such file."""
    flavours = model.flavours
    if "onnx" in flavours and (path := model.inside(flavours["onnx"].get("data"))):
        return partial(onnx.open_model, path)
    if "pytorch" in flavours and (path := model.inside(flavours["pytorch"].get("model_data"), "model.pt2")):
        return partial(torch_export.open_model, path)
    return None


def _open_pyfunc(model: FetchedModel, described: Path, spec: str) -> Teacher:
    tensors = [Tensor(name or "", DATATYPES.get(kind, kind), shape) for name, kind, shape in model.inputs]
    description = read_toml(described, Pyfunc, metadata_fields(tensors, [], spec))
    files = sorted(path for path in model.folder.rglob("*") if path.is_file() and path.name not in ABOUT)
    teacher = PyfuncTeacher(
        load_function(model),
        named=bool(description.input_tensor),
        described=description,
        spec=spec,
        fingerprint=description.fingerprint(*files),
        engine=f"mlflow{description.precision_note}",
    )
    return teacher.finish(description.num_known)
