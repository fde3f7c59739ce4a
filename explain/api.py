"""Python API for notebooks: open a black box, explain images in memory with any method, draw the maps. Starts no Ray.

    from explain.api import explain_images, open_teacher

    teacher = open_teacher("onnx:model.onnx")
    maps = explain_images(["cat.jpg", "dog.jpg"], teacher=teacher, num_samples=200)
    maps.table()        # pandas: one row per image
    maps.figure()       # PIL: photographs with their maps

The maps are those of `python -m explain`, to the last bit, for the same image ids, seed and options.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from cluster.device import own_device
from distill.data.decode import resize
from distill.data.frames import as_photographs
from distill.student.model import Student
from distill.teachers import load_teacher
from distill.teachers.base import Teacher
from distill.teachers.kinds.python_callable import PythonTeacher
from explain.auto import AutoOptions, resolve
from explain.config import Job
from explain.methods.options import make_options
from explain.methods.registry import Method, find_method
from explain.methods.titles import title_of
from explain.pictures.class_names import class_title, name_classes
from explain.pictures.overlay import columns_of, fit, overlay, rows_of, side_by_side
from explain.plan import DEFAULT_SIZE, explained_model
from explain.readout.checkpoint import load_explained
from explain.runners.query import QueryRunner
from explain.runners.white_box import Explanation, ProgressCallback, Request, explainer_of, no_progress
from explain.seeds import image_seed
from explain.surrogate import make_surrogate
from explain.targets import responses_or_errors, top_class

if TYPE_CHECKING:
    import pandas as pd

ImageLike = str | Path | np.ndarray | Image.Image
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def open_teacher(teacher: str | Teacher) -> Teacher:
    """Open a black box by its `KIND:WHERE`, such as `onnx:model.onnx`; one that is open stays as it is.

    Raises:
        ValueError, FileNotFoundError: as `load_teacher`.
    """
    if isinstance(teacher, Teacher):
        return teacher
    return load_teacher(teacher, num_threads=torch.get_num_threads(), device=own_device())


def wrap_callable(
    function: Callable[[np.ndarray], Any],
    *,
    input_size: tuple[int, int],
    class_names: Sequence[str] | None = None,
    name: str = "callable",
    batch_size: int | None = None,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Teacher:
    """Make a black box of a Python function.

    Args:
        function: uint8 images (B, height, width, 3) to probabilities (B, K).
        input_size: height and width in pixels.
        class_names: one per class, where known.
        name: stands for the function in tables.
        batch_size: images per call; None passes any number on.
        mean: color of a hidden pixel, of pixels in [0, 1].
        std: standard deviation of the colors, likewise.

    Raises:
        ValueError: the function's outputs are no probabilities, or as many as `class_names`.
    """
    teacher = PythonTeacher(
        function,
        spec=f"python:{name}",
        input_size=input_size,
        mean=mean,
        std=std,
        fingerprint=name,
        class_names=None if class_names is None else tuple(class_names),
        batch_size=batch_size,
    )
    return teacher.finish(None if class_names is None else len(class_names))


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Saliency maps of some images by one method."""

    saliency: np.ndarray
    """(N, H, W) float32; NaN for an image that has an error."""
    target: np.ndarray
    """Class explained, (N,) int64; -1 where none is."""
    target_prob: np.ndarray
    """The model's probability of it on the whole image, (N,) float32; NaN where no model chose it."""
    queries: np.ndarray
    """Black-box queries that each map needed, (N,) int64."""
    seconds: np.ndarray
    """The method's time per map, (N,) float32."""
    errors: tuple[str | None, ...]
    """Why an image has no map; None where it has one."""
    std: np.ndarray | None
    """Standard deviation of each value, (N, H, W) float32; None from a method that knows none."""
    photographs: tuple[Image.Image, ...]
    """The images, RGB."""
    image_ids: tuple[str, ...]
    """Names of the images; random methods are seeded by them."""
    method: str
    """As in the registry."""
    class_names: tuple[str, ...]
    """One per class; "" where unknown."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def table(self) -> "pd.DataFrame":
        """Return one row per image: image_id, method, target, class_name, target_prob, queries, seconds, error."""
        import pandas as pd

        names = [class_title(self.class_names, None if target < 0 else int(target)) for target in self.target]
        return pd.DataFrame(
            {
                "image_id": self.image_ids,
                "method": self.method,
                "target": self.target,
                "class_name": names,
                "target_prob": self.target_prob,
                "teacher_queries": self.queries,
                "seconds": self.seconds,
                "error": self.errors,
            }
        )

    def overlay(self, k: int, **options: Any) -> Image.Image:
        """Draw the map of image `k` over its photograph; `explain.pictures.overlay.overlay` has the options."""
        return overlay(self.photographs[k], self.saliency[k], **options)

    def figure(self, *others: "Maps", long_side_px: int = 320, columns: bool = False, **options: Any) -> Image.Image:
        """Draw every image with its map, and those of other methods of the same images.

        Args:
            *others: maps of the same images by other methods.
            long_side_px: longer side of each picture.
            columns: one column per image, its photograph over its maps, instead of one row.
            **options: of `explain.pictures.overlay.overlay`.

        Raises:
            ValueError: the others are maps of other images.
        """
        if any(other.image_ids != self.image_ids for other in others):
            raise ValueError("maps of different images cannot share a figure; explain the same images in one order")
        drawn = [self._panels(k, others, long_side_px, options) for k in range(len(self))]
        if columns:
            return columns_of([(self._heading(k), list(panels.values())) for k, panels in enumerate(drawn)])
        return rows_of([side_by_side(panels, heading=self._heading(k)) for k, panels in enumerate(drawn)])

    def row(self, k: int, *others: "Maps", long_side_px: int = 320, **options: Any) -> Image.Image:
        """Draw image `k` with its maps, as `figure` does all of them."""
        return side_by_side(self._panels(k, others, long_side_px, options), heading=self._heading(k))

    def _panels(
        self, k: int, others: Sequence["Maps"], long_side_px: int, options: Mapping[str, Any]
    ) -> dict[str, Image.Image]:
        panels = {"Photograph": fit(self.photographs[k], long_side_px)}
        for maps in (self, *others):
            if maps.errors[k] is None:
                cost = f"{maps.queries[k]:,} queries" if maps.queries[k] else "no query"
                panels[f"{title_of(maps.method)}\n{cost}"] = maps.overlay(k, long_side_px=long_side_px, **options)
        return panels

    def _heading(self, k: int) -> str:
        target = None if self.target[k] < 0 else int(self.target[k])
        prob = "" if np.isnan(self.target_prob[k]) else f" ({self.target_prob[k]:.2f})"
        return f"{class_title(self.class_names, target)}{prob}"


@dataclass(frozen=True, kw_only=True)
class _Models:
    """What a method is given: the black box, the student, or both."""

    teacher: Teacher | None
    student: Student | None

    def size(self, method: Method) -> tuple[int, int]:
        """Return the maps' (height, width), as a job's plan does."""
        model = self.teacher if method.is_query_based else self.student or self.teacher
        return DEFAULT_SIZE if model is None else (model.input_size[0], model.input_size[1])


def explain_images(
    images: Sequence[ImageLike],
    method: str = "auto",
    *,
    teacher: str | Teacher | None = None,
    student: str | Student | None = None,
    target: int | Sequence[int] | None = None,
    image_ids: Sequence[str] | None = None,
    seed: int = 0,
    on_progress: ProgressCallback = no_progress,
    **options: Any,
) -> Maps:
    """Explain images in memory with one method.

    Args:
        images: paths, PIL images, or uint8 arrays (H, W, 3); one per map.
        method: a name of the registry, or "auto": the best map for a number of `queries` per image (200).
        teacher: the black box, open or as `KIND:WHERE`.
        student: a distilled student, open or its RUN folder.
        target: class to explain, one or one per image; None takes the teacher's top-1, else the student's.
        image_ids: names of the images, which seed random methods; None takes a path's file name, else its number.
        seed: of random methods.
        on_progress: called with (images done, queries made).
        **options: the method's own, such as `num_samples=200`; `python -m explain METHOD --help` lists them.

    Raises:
        ValueError: an option, image or model does not fit; the message says what is allowed.
        FileNotFoundError: a file is missing.
    """
    found_method, chosen = _choose(method, options, teacher, student)
    if isinstance(student, str):
        reads = found_method.needs_readout or getattr(chosen, "prior", "none") == "readout"
        student = load_explained(student, device=own_device(), with_readout=reads)
    models = _Models(teacher=None if teacher is None else open_teacher(teacher), student=student)
    inputs = _inputs(images, image_ids, target, models)
    size = models.size(found_method)
    requests = [
        Request(
            frame=resize(photograph, size), target=goal, seed=image_seed(seed, name, found_method.name), image_id=name
        )
        if error is None
        else None
        for photograph, goal, name, error in zip(
            inputs.photographs, inputs.targets, inputs.image_ids, inputs.errors, strict=True
        )
    ]
    explanations = _run(found_method, chosen, models, requests, on_progress)
    return _maps(found_method, explanations, inputs, models)


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The images of a call with the classes to explain, one entry per image."""

    photographs: tuple[Image.Image, ...]
    image_ids: tuple[str, ...]
    targets: tuple[int | None, ...]
    probs: tuple[float | None, ...]
    errors: tuple[str | None, ...]


def _choose(method: str, options: Mapping[str, Any], teacher: Any, student: Any) -> tuple[Method, Any]:
    """Return the method and all its options. Raises: ValueError for unknown ones, or a model that is missing."""
    has_teacher, run = teacher is not None, student if isinstance(student, str) else None
    job_models: dict[str, Any] = {"teacher": "open:" if has_teacher else None, "student": run}
    if method == "auto":
        given = _options(AutoOptions, options, method)
        name, job = resolve(Job(options=given, data="", out="", **job_models))
        return find_method(name), job.options
    found = find_method(method)
    given = _options(found.options, options, method)
    if found.explains == "student" and student is None and teacher is None:
        raise ValueError(
            f"method {method!r} looks into a network; give student=RUN, or a teacher that is a torch network"
        )
    if found.is_query_based and not has_teacher:
        raise ValueError(f"method {method!r} queries the black box; give teacher=KIND:WHERE or an open one")
    prior = getattr(given, "prior", "none")
    if prior != "none" and student is None:
        raise ValueError(f"prior={prior!r} needs a student; give student=RUN")
    return found, given


def _options(kind: type, given: Mapping[str, Any], method: str) -> Any:
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"method {method!r} has no option {', '.join(unknown)}; options: {', '.join(known) or 'none'}")
    return make_options(kind, given)


def _inputs(
    images: Sequence[ImageLike],
    image_ids: Sequence[str] | None,
    target: int | Sequence[int] | None,
    models: _Models,
) -> _Inputs:
    """Read the images and choose their targets; an image that the teacher fails on has an error."""
    photographs = as_photographs(images)
    if image_ids is not None and len(image_ids) != len(images):
        raise ValueError(f"got {len(image_ids)} image_ids for {len(images)} images; give one for each")
    names = [Path(image).name if isinstance(image, str | Path) else str(k) for k, image in enumerate(images)]
    tops: list[dict[str, Any]] = [{} for _ in images]
    if target is not None:
        tops = [{"target": goal} for goal in _given_targets(target, len(images), models)]
    elif models.teacher is not None:
        frames = [resize(photograph, models.teacher.input_size) for photograph in photographs]
        responses = responses_or_errors(models.teacher, frames)
        tops = [{"error": one} if isinstance(one, str) else top_class(one) for one in responses]
    return _Inputs(
        photographs=photographs,
        image_ids=tuple(names if image_ids is None else image_ids),
        targets=tuple(top.get("target") for top in tops),
        probs=tuple(top.get("target_prob") for top in tops),
        errors=tuple(top.get("error") for top in tops),
    )


def _given_targets(target: int | Sequence[int], number: int, models: _Models) -> list[int]:
    """Return one target per image. Raises: ValueError for a wrong number of them, or no class of the model."""
    goals = [target] * number if isinstance(target, int | np.integer) else [int(goal) for goal in target]
    model = models.teacher or models.student
    if len(goals) != number:
        raise ValueError(f"got {len(goals)} targets for {number} images; give one, or one for each")
    if model is not None and not all(0 <= goal < model.num_classes for goal in goals):
        raise ValueError(f"target {target} is no class of the model; classes: 0 to {model.num_classes - 1}")
    return goals


def _run(
    method: Method,
    options: Any,
    models: _Models,
    requests: Sequence[Request | None],
    on_progress: ProgressCallback,
) -> Sequence[Explanation | str | None]:
    if not method.is_query_based:
        explained = explained_model(method, models.student, models.teacher)
        return explainer_of(method, explained, options)(requests, on_progress)
    assert models.teacher is not None, "_choose checks it"
    prior, inputs = getattr(options, "prior", "none"), {}
    if prior != "none":
        assert models.student is not None, "_choose checks it"
        inputs["student_size"] = models.student.input_size
        if prior == "readout":
            inputs["readout"] = explainer_of(find_method("readout"), models.student)
        else:
            inputs["student"] = make_surrogate(models.student, models.teacher)
    function = partial(method.load_with_std(), options=options)
    return QueryRunner(function=function, teacher=models.teacher, device=own_device(), **inputs)(requests, on_progress)


def _maps(method: Method, explanations: Sequence[Explanation | str | None], inputs: _Inputs, models: _Models) -> Maps:
    made = [one if isinstance(one, Explanation) else None for one in explanations]
    targets = [None if one is None else one.target for one in made]
    own_probs = [None if one is None else one.target_prob for one in made]
    probs = [given if own is None else own for own, given in zip(own_probs, inputs.probs, strict=True)]
    model = models.teacher or models.student
    queries_teacher = method.is_query_based or models.student is None
    has_std = any(one is not None and one.std is not None for one in made)
    return Maps(
        saliency=_stacked([None if one is None else one.saliency for one in made], models.size(method)),
        target=np.array([-1 if target is None else target for target in targets]),
        target_prob=np.array([np.nan if prob is None else prob for prob in probs], dtype=np.float32),
        queries=np.array([one.passes if one is not None and queries_teacher else 0 for one in made]),
        seconds=np.array([np.nan if one is None else one.seconds for one in made], dtype=np.float32),
        errors=tuple(
            one if isinstance(one, str) else error for one, error in zip(explanations, inputs.errors, strict=True)
        ),
        std=_stacked([None if one is None else one.std for one in made], models.size(method)) if has_std else None,
        photographs=inputs.photographs,
        image_ids=inputs.image_ids,
        method=method.name,
        class_names=tuple(
            name_classes(None, model and model.class_names, None if model is None else model.num_classes)
        ),
    )


def _stacked(maps: Sequence[np.ndarray | None], size: tuple[int, int]) -> np.ndarray:
    """Stack maps, (N, H, W) float32, with NaN where there is none."""
    nothing = np.full(size, np.nan, dtype=np.float32)
    return np.stack([nothing if one is None else one for one in maps])
