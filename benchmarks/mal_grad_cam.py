"""Measure MAL-Grad-CAM from an untrained ResCBAM-50 against `grad-cam`, torch, and the raw passes in the same engine.

    python benchmarks/mal_grad_cam.py --out runs/benchmarks/mal_grad_cam

`grad-cam` explains the same student at the same three layers, for the same classes (its map has no attention in it).
The raw passes are one graph of the student's forward pass and its gradients at layers 2, 3 and 4, with nothing made of
them.
"""

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from ratio import Row, interleaved, write
from scipy.stats import spearmanr

from distill.student import ResCBAM
from distill.teachers.engines import Choice
from explain.capture import activations, gradients
from explain.engine import difference, open_method
from explain.grad_cam import class_scores
from explain.mal_grad_cam import mal_grad_cam

LAYERS = ("layer2", "layer3", "layer4")
REACH = {1: 3.0, 16: 8.0}
"""Times as fast as `grad-cam`, by batch size."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    out: Path
    """Where the table goes: OUT.md and OUT.json."""
    batches: tuple[int, ...] = (1, 16)
    """Images per call."""
    rounds: int = 5
    """Rounds; each measures all, in turns."""
    threads: int = 2
    """CPU threads."""
    engine: Literal["openvino", "onnxruntime"] = "openvino"
    """What computes the graphs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format in it. The product computes maps in float32 alone."""
    size: int = 224
    """Height and width of the images, in pixels."""


def main(settings: Settings) -> None:
    """Measure and write."""
    torch.set_num_threads(settings.threads)
    student = untrained_student()
    rows = [row for batch in settings.batches for row in measure(student, batch, settings)]
    print(write(rows, settings.out, threads=settings.threads, rounds=settings.rounds, size=settings.size))


def untrained_student() -> ResCBAM:
    """Make a ResCBAM-50 of 1000 classes as a loaded student is, channels last."""
    torch.manual_seed(0)
    model = ResCBAM(50, 1000).eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def measure(student: ResCBAM, batch: int, settings: Settings) -> list[Row]:
    """Time all of them at one batch size."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, settings.size, settings.size, generator=generator)
    target = torch.arange(batch)
    choice = Choice(engine=settings.engine, precision=settings.precision, batch_size=batch)
    size = (settings.size, settings.size)
    ours, raw = (
        open_method(function, student, choice, size=size, num_threads=settings.threads)
        for function in (mal_grad_cam, raw_passes)
    )
    peer = grad_cam_of(student)
    classes = [ClassifierOutputTarget(int(one)) for one in target]
    channels_last = images.contiguous(memory_format=torch.channels_last)
    eager = partial(mal_grad_cam, student, channels_last, target)
    times = interleaved(
        {
            "ours": lambda: ours(None, images, target),
            "grad-cam": lambda: peer(input_tensor=images, targets=classes),
            "eager": eager,
            "raw": lambda: raw(None, images, target),
        },
        rounds=settings.rounds,
    )
    expected, found = eager().numpy(), ours(None, images, target).numpy()
    pairs = zip(expected, found, strict=True)
    order = min(float(spearmanr(a.ravel(), b.ravel())[0]) for a, b in pairs)
    exact = (
        f"batch {batch}; from torch's map {difference(expected, found):.1e} of its range, rank correlation {order:.6f}"
    )
    what = f"MAL-Grad-CAM, ResCBAM-50, {choice}"
    row = partial(Row, what=what, items=batch, of=times["ours"], note=exact)
    against = {
        "grad-cam": ("grad-cam, layers 2, 3 and 4", REACH.get(batch)),
        "eager": ("MAL-Grad-CAM in torch, channels last", None),
        "raw": ("forward and gradients alone, same engine", 0.8),
    }
    return [row(against=said, reach=reach, peer=times[name]) for name, (said, reach) in against.items()]


def raw_passes(model: torch.nn.Module, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Run the student forwards, and its gradients down to layer 2; return their means, so that all is computed."""
    with torch.enable_grad(), activations(model, LAYERS) as kept:
        grads = gradients(class_scores(model(images), target, "logit"), kept)
    return torch.cat([grads[name].mean(dim=(2, 3)) for name in LAYERS], dim=1)


def grad_cam_of(student: ResCBAM) -> GradCAM:
    """Make the peer, on a copy whose parameters ask for gradients: without them it has none to hook."""
    model = copy.deepcopy(student).requires_grad_(True)
    return GradCAM(model=model, target_layers=[model.get_submodule(name) for name in LAYERS])


if __name__ == "__main__":
    main(tyro.cli(Settings))
