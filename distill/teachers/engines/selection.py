"""Choose the engine of a model file (or of a student's pass) by measurement, once per machine and model file.

The decision is kept in the user's cache folder, so that every worker and every rerun computes with the same engine
and gets the same bytes. Machines of one cluster that differ may decide differently; `engine` and `precision` in
the model's `teacher.toml` settle it for all of them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from distill.teachers.cache import CACHE_VARIABLE, private_folder, read_small, write_entry
from distill.teachers.engines.backends import EngineChoice, Run, has_native_bfloat16, has_openvino, open_engine
from distill.teachers.engines.onnx_description import OnnxDescription
from distill.teachers.errors import TeacherError
from distill.teachers.load_check import probe_images
from distill.teachers.outputs import as_rows, class_scores
from distill.teachers.teacher_toml import MULTI_LABEL, Description, Output
from distill.teachers.tensor_model import as_input

BATCH_SIZES = (8, 16)
NUM_PROBES = 32
# What another engine or precision may change on the probe, against ONNX Runtime in float32. Of each image the class
# whose probability moves most counts. The probe is hard: EfficientNet-Lite0 in bfloat16 moved by 0.031 in the mean and
# 0.055 at most on it, by 0.009 and 0.041 on 200 photographs, of which 199 kept their top class.
MEAN_TOLERANCE = 0.05
LARGEST_TOLERANCE = 0.1
TOP1_SHARE = 0.9  # of the images keep their top class
NUM_TIMED = 5  # calls; the fastest counts, since others may be using the machine
GAIN = 1.05  # a candidate must be this much faster than the simpler one before it


def choose_engine(path: Path, description: OnnxDescription, fingerprint: str, *, device: str) -> EngineChoice:
    """Return the engine, precision and batch size for a model file here, measuring them the first time.

    Raises:
        ValueError: `teacher.toml` demands what is not installed or does not go together, or the model computes only
            one image at once and does not say so.
    """
    candidates = _candidates(description, device)
    sizes = (description.batch_size,) if description.batch_size else BATCH_SIZES
    images = _model_inputs(description)

    def opened(choice: EngineChoice) -> Run:
        layout, output = description.layout, description.output_tensor
        return open_engine(
            path, description.input_size, choice, num_threads=None, device=device, layout=layout, output=output
        )

    def measure() -> EngineChoice:
        try:
            return _measure(images, description.output, candidates, sizes, opened)
        except (TeacherError, ValueError) as error:
            if sizes[0] > 1 and _computes_one(images, candidates, opened):
                raise ValueError(
                    f"{path} computes one image at a time: its graph holds a batch of 1 ({error}). Set batch_size = 1 "
                    "in its teacher.toml, or export it for any number of images (dynamic axes), which is faster"
                ) from error
            raise

    wishes = (description.engine, description.precision, str(description.batch_size), device)
    return cached_choice((fingerprint, *wishes), measure, candidates)


def choose_archive_engine(
    description: Description, fingerprint: str, batch_size: int, opened: Callable[[EngineChoice], Run]
) -> EngineChoice:
    """Return what computes an archive on this CPU, torch itself or OpenVINO, measuring them the first time.

    Args:
        description: its `teacher.toml`; float16 is for GPUs, and float32 here.
        fingerprint: of the model.
        batch_size: images per call.
        opened: makes a choice's call; raises ValueError where it cannot.

    Raises:
        ValueError: `teacher.toml` demands what is not installed or does not go together.
    """
    wished = replace(description, precision="float32") if description.precision == "float16" else description
    eager = EngineChoice(engine="eager", precision="float32", batch_size=batch_size)
    candidates = _allowed([eager, *_openvino_choices(wished, "cpu")], wished, "cpu")
    about = (fingerprint, wished.engine, wished.precision, str(batch_size), f"torch {torch.__version__}")
    images = probe_images(description.input_size, description.mean, description.std, NUM_PROBES)
    measure = partial(_measure, images, description.output, candidates, (batch_size,), opened)
    return cached_choice(about, measure, candidates)


def cached_choice(
    about: Sequence[str], measure: Callable[[], EngineChoice], candidates: Sequence[EngineChoice] | None = None
) -> EngineChoice:
    """Return what was decided here about a model and the wishes for it; measure and keep it the first time.

    Args:
        about: what the decision depends on.
        measure: decides.
        candidates: engines and precisions that are possible; None: any.

    Raises:
        ValueError: what is kept is no choice among the candidates, or nothing can be kept.
    """
    file = private_folder("engines") / f"{_key(about)}.json"
    if not file.exists():
        try:
            write_entry(file, json.dumps(asdict(measure())), replace=False)
        except OSError as error:
            raise ValueError(
                f"the choice of engine cannot be kept in {file.parent}: {error}; set {CACHE_VARIABLE} to a writable "
                "folder"
            ) from error
    choice = _read(file)
    if candidates is not None and all(
        (choice.engine, choice.precision) != (one.engine, one.precision) for one in candidates
    ):
        raise ValueError(f"{file} holds {choice}, which cannot compute this model; delete it, and it is measured again")
    return choice


def _model_inputs(description: OnnxDescription) -> np.ndarray:
    """Make images in a model's own layout and number format."""
    images = probe_images(description.input_size, description.mean, description.std, NUM_PROBES)
    if description.datatype == "UINT8":
        center, width = (np.reshape(values, (1, 3, 1, 1)) for values in (description.mean, description.std))
        images = np.rint((images * width + center) * 255).clip(0, 255)
    return as_input(images, description.layout, description.datatype)


def _computes_one(
    images: np.ndarray, candidates: Sequence[EngineChoice], opened: Callable[[EngineChoice], Run]
) -> bool:
    try:
        _run(opened(replace(candidates[0], batch_size=1)), images[:2], 1)
    except (TeacherError, ValueError):
        return False
    return True


def is_close(reference: np.ndarray, other: np.ndarray, output: Output) -> bool:
    """Say whether the scores of two engines' outputs (N, K) agree within the tolerances above."""
    expected, found = (
        class_scores(as_rows(torch.from_numpy(outputs.astype(np.float64)), len(outputs)), output).numpy()
        for outputs in (reference, other)
    )
    if not np.isfinite(found).all():
        return False
    if output not in MULTI_LABEL and np.abs(found.sum(axis=1) - 1).max() > 1e-3:
        return False
    same_top = (expected.argmax(axis=1) == found.argmax(axis=1)).mean()
    largest = np.abs(expected - found).max(axis=1)
    return bool(same_top >= TOP1_SHARE and largest.mean() <= MEAN_TOLERANCE and largest.max() <= LARGEST_TOLERANCE)


def _candidates(description: Description, device: str) -> list[EngineChoice]:
    """List what is allowed here, the simplest first."""
    if description.engine == "onnxruntime" and description.precision == "bfloat16":
        raise ValueError('engine "onnxruntime" computes in float32 only; use precision "auto" or engine "openvino"')
    simplest = EngineChoice(engine="onnxruntime", precision="float32", batch_size=BATCH_SIZES[0])
    return _allowed([simplest, *_openvino_choices(description, device)], description, device)


def _openvino_choices(description: Description, device: str) -> list[EngineChoice]:
    if description.engine == "openvino" and not has_openvino():
        raise ValueError("teacher.toml asks for engine openvino, which is not installed; pip install openvino")
    if description.precision == "bfloat16" and not has_native_bfloat16():
        raise ValueError('precision "bfloat16" needs OpenVINO and a CPU with bfloat16 instructions; use "auto"')
    if not has_openvino() or device != "cpu":
        return []
    whole = EngineChoice(engine="openvino", precision="float32", batch_size=BATCH_SIZES[0])
    return [whole, replace(whole, precision="bfloat16")]


def _allowed(choices: list[EngineChoice], description: Description, device: str) -> list[EngineChoice]:
    engine, precision = description.engine, description.precision
    kept = [c for c in choices if engine in ("auto", c.engine) and precision in ("auto", c.precision)]
    if not kept:
        raise ValueError(
            f'engine {engine!r} with precision {precision!r} does not run on device {device!r}; use "auto"'
        )
    return kept


def _measure(
    images: np.ndarray,
    output: Output,
    candidates: list[EngineChoice],
    sizes: tuple[int, ...],
    opened: Callable[[EngineChoice], Run],
) -> EngineChoice:
    """Time every usable candidate at the first batch size, then the winner at all of them."""
    usable: dict[EngineChoice, Run] = {}
    failures: list[ValueError] = []
    reference: np.ndarray | None = None
    for candidate in (replace(candidate, batch_size=sizes[0]) for candidate in candidates):
        wished = len(candidates) == 1
        if candidate.precision == "bfloat16" and not (wished or has_native_bfloat16()):
            continue
        try:
            run = opened(candidate)
        except ValueError as error:  # this engine lacks one of the model's operators; another one may have it
            failures.append(error)
            continue
        outputs = _run(run, images, candidate.batch_size)
        if reference is None or is_close(reference, outputs, output):
            usable[candidate] = run
        reference = outputs if reference is None else reference
    if not usable:
        raise failures[0]
    best = fastest(usable, images)
    others = [replace(best, batch_size=size) for size in sizes if size != best.batch_size]
    runs = {c: opened(c) for c in others}
    return fastest({best: usable[best], **runs}, images)


def fastest(usable: dict[EngineChoice, Run], images: np.ndarray) -> EngineChoice:
    """Return the first choice that no later one beats by more than `GAIN`, in turns so that all see the same load."""
    seconds = {choice: [] for choice in usable}
    for _ in range(1 + NUM_TIMED if len(usable) > 1 else 0):
        for choice, run in usable.items():
            batch = np.resize(images, (choice.batch_size, *images.shape[1:]))
            start = time.perf_counter()
            run(batch)
            seconds[choice].append((time.perf_counter() - start) / choice.batch_size)
    best, *rivals = usable
    for rival in rivals:
        if min(seconds[rival][1:]) * GAIN < min(seconds[best][1:]):  # the first call warms up
            best = rival
    return best


def _run(run: Run, images: np.ndarray, batch_size: int) -> np.ndarray:
    padding = np.zeros((-len(images) % batch_size, *images.shape[1:]), images.dtype)
    padded = np.concatenate([images, padding])
    chunks = (padded[start : start + batch_size] for start in range(0, len(padded), batch_size))
    outputs = [run(chunk) for chunk in chunks]
    try:
        return np.concatenate([as_rows(torch.from_numpy(np.asarray(rows)), batch_size) for rows in outputs])[
            : len(images)
        ]
    except ValueError as error:
        raise TeacherError(f"the model {error}") from error


def _key(about: Sequence[str]) -> str:
    """Hash what a decision depends on: model and wishes, processor, versions; not the number of threads."""
    import onnxruntime

    versions = [onnxruntime.__version__]  # of onnxruntime-gpu too, which is another distribution
    if has_openvino():
        versions.append(importlib.metadata.version("openvino"))
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else [platform.processor()]
    processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))} or lines[:1])
    parts = [*about, *versions, platform.machine(), str(os.cpu_count()), *processor]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(file: Path) -> EngineChoice:
    try:
        choice = EngineChoice(**json.loads(read_small(file)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} holds no choice of engine: {error}; delete it, and it is measured again") from error
    return choice
