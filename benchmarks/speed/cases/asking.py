"""RISE and LIME, which ask the black box, against its forwards alone and against the `lime` package."""

import contextlib
import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from lime.lime_image import LimeImageExplainer
from torch import Tensor

from benchmarks.reliability.rise_memory import rise_memory
from benchmarks.speed.engine import Engines
from benchmarks.speed.ratio import Row, interleaved, limit_note, speed_row
from benchmarks.speed.world import World
from cluster.device import one_thread
from distill.teachers import Teacher
from explain.methods.query.lime import lime
from explain.methods.query.queries import Queries
from explain.methods.query.rise import rise


def measure(world: World) -> list[Row]:
    """Time RISE and LIME on one image."""
    torch.set_num_threads(world.threads)
    frame = world.frames(1)
    target = world.teacher.probabilities(frame).argmax(axis=1)
    return [time_rise(world, frame, target), rise_memory(world), *time_lime(world, frame[0], int(target[0]))]


def time_rise(world: World, frame: np.ndarray, target: np.ndarray) -> Row:
    """Time RISE beside the engine alone."""
    teacher, engines, num = world.teacher, Engines(world), world.number(4000, 64)
    image, chosen = teacher.normalize(frame), torch.from_numpy(target)
    times = interleaved(
        {
            "ours": (lambda: alone(rise, teacher, image, chosen, num_masks=num), num),
            "raw": (partial(engines.alone, num), num),
        },
        rounds=world.rounds(2),
    )
    return speed_row(
        times["ours"],
        times["raw"],
        key="rise",
        what=f"RISE, {num} masks",
        against=f"the engine alone, batches of {engines.choice.batch_size}, as many forwards",
        at_least=0.95,
    )


def alone(method: Callable[..., Tensor], teacher: Teacher, image: Tensor, target: Tensor, **options: int) -> Tensor:
    """Ask the black box about one image, as the job does."""
    queries = Queries(teacher.forward, batch_size=teacher.batch_size or 64)
    with one_thread() if teacher.own_threads else contextlib.nullcontext():
        return method(queries, image, target, seeds=[0], **options)


def time_lime(world: World, frame: np.ndarray, target: int) -> list[Row]:
    """Time LIME beside the package of its authors, on the same black box."""
    teacher, num = world.teacher, world.number(1000, 32)
    image, chosen = teacher.normalize(frame[None]), torch.tensor([target])
    ours = (lambda: alone(lime, teacher, image, chosen, num_samples=num), num)
    packaged = partial(package_lime, frame, target, num, teacher.batch_size or 64)
    engine = interleaved(
        {
            "ours": ours,
            "lime": (partial(packaged, teacher.probabilities), num),
            "raw": (partial(Engines(world).alone, num), num),
        },
        rounds=world.rounds(3),
    )
    what = f"LIME, {num} samples"
    same = f"the `lime` package, the same black box ({teacher.engine}), its batches"
    return [
        speed_row(
            engine["ours"],
            engine["lime"],
            key="lime",
            what=what,
            against=same,
            at_least=5.0,
            note=limit_note(engine["lime"], engine["raw"]),
        ),
    ]


def package_lime(
    frame: np.ndarray, target: int, num_samples: int, batch_size: int, classify: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Explain an image with the `lime` package as it comes, at a batch that suits the black box."""
    explainer = LimeImageExplainer(random_state=0)
    options = {"labels": (target,), "top_labels": None, "num_samples": num_samples, "batch_size": batch_size}
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        explainer.explain_instance(frame, classify, **options)
