"""Both games of an image against the engine alone, and against what else plays them, with and without our engine."""

import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import quantus
import torch
from torch import Tensor, nn
from torchcam.metrics import DeletionInsertionMetric

from benchmarks.speed.engine import Engines
from benchmarks.speed.ratio import Row, interleaved, limit_note, speed_row
from benchmarks.speed.world import World
from distill.perturb.curves import play, rank_pixels
from evaluate.games.protocol import Protocol
from evaluate.games.setup import make_plays, num_frames

PROTOCOL = Protocol()
TORCHCAM_BATCH = 8  # of 1, 8 and 32 its fastest in plain torch on 2 cores


def measure(world: World) -> list[Row]:
    """Time the games of one image, the raw engine and the peers, in turns."""
    torch.set_num_threads(world.threads)
    teacher, engines = world.teacher, Engines(world)
    image = teacher.normalize(world.frames(1))
    target = int(teacher.forward(image)[0].argmax())
    saliency = torch.rand(28, 28, generator=torch.Generator().manual_seed(0))
    num = num_frames(PROTOCOL, teacher.input_size)
    works = {
        "ours": (partial(play_ours, teacher, teacher.forward, image[0], saliency, target), num),
        "raw": (partial(engines.alone, num), num),
    }
    asking = Clock(teacher.forward)
    clocked = {"ours": (partial(play_ours, teacher, asking, image[0], saliency, target), num), "raw": works["raw"]}
    times = interleaved(clocked, rounds=world.rounds(9))
    asked_s = asking.median_s(world.rounds(9))
    spent_s, raw_s = (statistics.median(one.wall_s for one in times[name]) for name in ("ours", "raw"))
    first = speed_row(
        times["ours"],
        times["raw"],
        key="games",
        what=f"insertion and deletion, {num} frames an image, {teacher.engine}",
        against=f"the engine alone, batches of {engines.choice.batch_size}, as many forwards",
        at_least=0.95,
        note=f"{asked_s / spent_s:.0%} of the time the black box is at work, {asked_s / raw_s:.2f} times as long as "
        "the engine alone with one batch again and again; the rest ranks pixels and makes frames",
    )
    eager = make_peers(lambda _batch: world.network, image, saliency, target)
    slow = interleaved({**works, **eager}, rounds=world.rounds(2), warm_up=False)
    same = make_peers(engines.module, image, saliency, target)
    fast = interleaved({**works, **same}, rounds=world.rounds(5))
    row = partial(speed_row, key="games", what="the same")
    return [
        first,
        *(
            row(
                times["ours"],
                times[name],
                against=f"{name}, {how}",
                at_least=least,
                note=limit_note(times[name], times["raw"]),
            )
            for names, times, how, least in (
                (eager, slow, "in plain torch, float32", 8.0),
                (same, fast, "the same engine under it", 2.0),
            )
            for name in names
        ),
    ]


class Clock:
    """A black box whose calls are timed."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self.forward, self.calls_s = forward, []

    def __call__(self, frames: Tensor) -> Tensor:
        """Return its answers."""
        start_s = time.perf_counter()
        answers = self.forward(frames)
        self.calls_s.append(time.perf_counter() - start_s)
        return answers

    def median_s(self, rounds: int) -> float:
        """Return how long the calls of one of the last so many rounds took, median; a round before them warmed up."""
        return float(np.median(np.reshape(self.calls_s, (rounds + 1, -1))[1:].sum(axis=1)))


def play_ours(
    teacher: Any, forward: Callable[[Tensor], Tensor], image: Tensor, saliency: Tensor, target: int
) -> list[np.ndarray]:
    """Rank, compose and score both games of an image, as the job does."""
    options = {"image_id": "one", "mean": teacher.mean, "std": teacher.std}
    plays, _ = make_plays(image, saliency, target=target, protocol=PROTOCOL, **options)
    return list(play(forward, plays, batch_size=teacher.batch_size or 64))


def make_peers(
    network: Callable[[int], nn.Module], image: Tensor, saliency: Tensor, target: int
) -> dict[str, tuple[Callable[[], object], int]]:
    """Return what else plays the games on one image, and how many forwards each takes.

    Args:
        network: batch size -> the black box as a torch network.
        image: (1, 3, H, W), normalised.
        saliency: (h, w).
        target: class.
    """
    size = (image.shape[2], image.shape[3])
    order = rank_pixels(saliency, size).ranks.flatten().argsort()
    full = torch.nn.functional.interpolate(saliency[None, None], size=size, mode="bilinear")[0]
    steps = -(-full.numel() // size[1])
    at_once = features_in_step(full.numel(), 3 * size[1])
    flipping = partial(flip_pixels, network(1), image.numpy(), full.numpy()[None], target, at_once)
    metric = DeletionInsertionMetric(
        GivenMap(network(TORCHCAM_BATCH), full), partial(torch.softmax, dim=-1), steps=steps, batch_size=TORCHCAM_BATCH
    )
    return {
        "Quantus' pixel flipping, twice": (lambda: (flipping(), flipping()), 2 * 3 * full.numel() // at_once),
        "torch-cam's deletion and insertion": (lambda: metric.update(image, target), 2 * steps),
        "a plain port of RISE's games": (partial(port, network(1), image, order, target, size[1]), 2 * (steps + 1)),
    }


def features_in_step(num_pixels: int, wanted: int) -> int:
    """Return the number nearest to `wanted` that Quantus takes: it must divide the number of pixels."""
    divisors = [n for n in range(1, num_pixels + 1) if num_pixels % n == 0]
    return min(divisors, key=lambda n: abs(n - wanted))


def flip_pixels(network: nn.Module, image: np.ndarray, saliency: np.ndarray, target: int, at_once: int) -> Any:
    """Play Quantus' deletion, so many values at once changed to zero."""
    metric = quantus.PixelFlipping(
        features_in_step=at_once,
        normalise=False,
        perturb_baseline=0.0,  # pyright: ignore[reportArgumentType]
        disable_warnings=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations, and steps that change no pixel
        return metric(network, image, np.array([target]), a_batch=saliency, device="cpu", softmax=True)


class GivenMap:
    """A map that is there already, as torch-cam takes one from its extractors."""

    def __init__(self, model: nn.Module, saliency: Tensor) -> None:
        self.model, self.saliency = model, saliency

    def __call__(self, *_: Any, **__: Any) -> list[Tensor]:
        """Return the map, (1, H, W)."""
        return [self.saliency]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        """Return the only one."""
        return cams[0]

    def _hooks_off(self) -> Any:
        return nullcontext()


def port(network: nn.Module, image: Tensor, order: Tensor, target: int, step_px: int) -> list[list[float]]:
    """Play both games as RISE's authors describe them: a copy of the frame is edited and asked about, step by step."""
    other = torch.zeros_like(image)
    curves = []
    for start, finish in ((image, other), (other, image)):
        frame, curve = start.clone(), []
        with torch.no_grad():
            for k in range(0, order.numel() + step_px, step_px):
                changed = order[max(0, k - step_px) : k]
                frame = frame.clone()
                frame.flatten(2)[..., changed] = finish.flatten(2)[..., changed]
                curve.append(float(network(frame).softmax(dim=1)[0, target]))
        curves.append(curve)
    return curves
