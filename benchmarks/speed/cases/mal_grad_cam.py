"""MAL-Grad-CAM of a ResCBAM-50 against `grad-cam`, and the raw passes in the same engine.

`grad-cam` explains the same student at the same three layers, for the same classes (its map has no attention in it).
The raw passes are one graph of the student's forward pass and its gradients at layers 2, 3 and 4, with nothing made of
them.
"""

import copy
from functools import partial
from typing import Literal

import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from benchmarks.speed.ratio import Row, Times, interleaved, limit_note, speed_row
from benchmarks.speed.world import World
from distill.student.model import ResCBAM
from distill.teachers.engines.backends import EngineChoice, has_native_bfloat16, has_openvino
from explain.compiled.select import compile_method
from explain.methods.white_box.hooks import activations, class_scores, gradients
from explain.methods.white_box.mal_grad_cam import mal_grad_cam

LAYERS = ("layer2", "layer3", "layer4")
REACH = {16: 8.0, 1: 3.0}
"""Times as fast as `grad-cam`, by batch size."""
Precision = Literal["float32", "bfloat16"]


def measure(world: World) -> list[Row]:
    """Time a batch and a single image, in each precision that this machine has."""
    torch.set_num_threads(world.threads)
    precisions: tuple[Precision, ...] = ("bfloat16", "float32") if has_native_bfloat16() else ("float32",)
    student = world.student()
    return [row for batch in REACH for row in measure_batch(world, student, batch, precisions)]


def measure_batch(world: World, student: ResCBAM, batch: int, precisions: tuple[Precision, ...]) -> list[Row]:
    """Time all of them at one batch size."""
    size = world.teacher.input_size
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    target = torch.arange(batch) % world.teacher.num_classes
    peer, classes = grad_cam_of(student), [ClassifierOutputTarget(int(one)) for one in target]
    works = {"grad-cam": (lambda: peer(input_tensor=images, targets=classes), batch)}
    for precision in precisions:
        engine = "openvino" if has_openvino() else "onnxruntime"
        choice = EngineChoice(engine=engine, precision=precision, batch_size=batch)
        for name, function in (("ours", mal_grad_cam), ("raw", raw_passes)):
            graph = compile_method(function, student, choice, size=size, num_threads=world.threads)
            works[f"{name} {precision}"] = (partial(graph, None, images, target), batch)
    times = interleaved(works, rounds=world.rounds(5))
    return [row for precision in precisions for row in rows_of(times, batch, precision)]


def rows_of(times: dict[str, list[Times]], batch: int, precision: Precision) -> list[Row]:
    """Make the rows of one batch size and precision."""
    images = "one image" if batch == 1 else f"{batch} images"
    row = partial(speed_row, times[f"ours {precision}"], key="mal_grad_cam")
    return [
        row(
            times["grad-cam"],
            what=f"MAL-Grad-CAM, ResCBAM-50, {precision}, {images}",
            against="`grad-cam`, layers 2, 3 and 4",
            at_least=REACH[batch],
            note=limit_note(times["grad-cam"], times[f"raw {precision}"], "forward and gradients alone are"),
        ),
        row(
            times[f"raw {precision}"],
            what=f"the same, {precision}, {images}",
            against="forward and gradients alone, same engine and precision",
            at_least=0.8,
        ),
    ]


def raw_passes(model: torch.nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Run the student forwards, and its gradients down to layer 2; return their means, so that all is computed."""
    with torch.enable_grad(), activations(model, LAYERS) as kept:
        grads = gradients(class_scores(model(images), target, "logit"), kept)
    return torch.cat([grads[name].mean(dim=(2, 3)) for name in LAYERS], dim=1)


def grad_cam_of(student: ResCBAM) -> GradCAM:
    """Make the peer, on a copy whose parameters ask for gradients: without them it has none to hook."""
    model = copy.deepcopy(student).requires_grad_(True)
    return GradCAM(model=model, target_layers=[model.get_submodule(name) for name in LAYERS])
