"""Passes of white-box methods over a network: the same bits in a map whatever the workers, the batches and the order.

A kernel may sum in another order when the number of images or of threads changes, or when an image comes last in
its batch, and a map's last bits with it. So every pass has `PASS_IMAGES` images (black ones where there are fewer),
an image's place in it follows from its place in the shard, and it runs on one thread. A worker with several cores
runs several passes side by side, each on a copy of the model that shares its weights (the hooks are its own). All
calls of an explainer, from whatever thread, take their copies from one queue: no two passes ever meet in one copy.
"""

import copy
import functools
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from distill.student.model import Student

if TYPE_CHECKING:
    from distill.teachers import Teacher
    from explain.methods.registry import Method

ProgressCallback = Callable[[int, int], None]
"""Called with the number of images done and the number of queries for them, both so far."""
Network = TypeVar("Network", bound=nn.Module | None)
PASS_IMAGES = 8
"""Enough for a core's caches and a small GPU's cores; more would only cost memory (60 MB an image at 224 px)."""


def no_progress(_done: int, _asked: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Image to explain, at the size of the model."""

    frame: np.ndarray
    """uint8 (H, W, 3); or float32 in the same units, for an image that was moved by less than a level."""
    target: int | None
    """Class to explain; None: the student's top-1, where there is a student."""
    seed: int = 0
    """For seeded methods."""
    image_id: str = ""
    """Its path inside the data set."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Saliency map of one image, its target and its cost."""

    saliency: np.ndarray
    """float32 (H, W)."""
    target: int | None
    """The class explained."""
    target_prob: float | None
    """The student's probability of it, where the student chose it."""
    seconds: float
    """Time of this image's map on one thread or the GPU, stored responses included."""
    passes: int = 0
    """Forward passes of the explained or queried model; backward passes are not counted."""
    std: np.ndarray | None = None
    """Standard deviation of each value of the map, float32 (H, W); None from a method that knows none."""
    prior_passes: int = 0
    """Forward passes of the student for the prior of a query-based method."""


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """Runner of one method over frames of one size, in passes of `PASS_IMAGES`."""

    function: Callable[..., Tensor]
    """The method, or another function (model, images, targets) -> (B, ...)."""
    options: Any = None
    """The method's options; None for a function without any."""
    seeded: bool = False
    """Whether it takes `seeds`."""
    model: nn.Module | None = None
    """The network; None for a method that needs none."""
    normalize: Callable[[np.ndarray], Tensor] | None = None
    """uint8 (B, H, W, 3) -> the model's input (B, 3, H, W)."""
    num_threads: int = 1
    """Passes side by side."""
    passes: int = 0
    """Forward passes that hooks on `model` do not see, as those in an engine."""

    def __call__(
        self, requests: Sequence[Request | None], on_progress: ProgressCallback = no_progress, num_done: int = 0
    ) -> list[Explanation | None]:
        """Explain the requests, in their order; None keeps a place free, and is answered by None.

        Args:
            requests: What to explain. Any number of threads may call at the same time.
            on_progress: Called after each pass.
            num_done: Images that were done before, added to what `on_progress` gets.
        """
        starts = range(0, len(requests), PASS_IMAGES)
        with ThreadPoolExecutor(self.num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            passes = [pool.submit(self._pass, requests[i : i + PASS_IMAGES]) for i in starts]
            explanations: list[Explanation | None] = []
            for one in passes:
                explanations += one.result()
                on_progress(num_done + len(explanations), 0)
            return explanations

    def compute(self, model: nn.Module | None, images: Tensor, targets: Tensor, **inputs: Any) -> Tensor:
        """Call the function once, with its options: (B, ...) for images (B, 3, H, W) and targets (B,)."""
        options = {} if self.options is None else {"options": self.options}
        return self.function(model, images, targets, **options, **inputs)

    def dry_run(self, size: tuple[int, int]) -> None:
        """Explain one black image of this (height, width), so that options that do not fit fail before work starts."""
        assert self.normalize is not None, "only a network needs it"
        steps = {name: 1 for name in ("num_iterations", "num_steps") if hasattr(self.options, name)}
        short = replace(self, options=replace(self.options, **steps)) if steps else self
        seeds = {"seeds": [0]} if self.seeded else {}
        image = self.normalize(np.zeros((1, *size, 3), dtype=np.uint8))
        short.compute(self.model, image, torch.zeros(1, dtype=torch.long), **seeds)

    @functools.cached_property
    def _models(self) -> queue.SimpleQueue[nn.Module | None]:
        """Copies of the model that no pass uses now, `num_threads` in all: made once, tens of milliseconds each.

        Two threads that make it at the same time get a queue each, with copies of their own: safe all the same.
        """
        models: queue.SimpleQueue[nn.Module | None] = queue.SimpleQueue()
        for _ in range(self.num_threads):
            models.put(share_weights(self.model))
        return models

    def _pass(self, requests: Sequence[Request | None]) -> list[Explanation | None]:
        asked = [request for request in requests if request is not None]
        if not asked:
            return [None] * len(requests)
        nothing = Request(frame=np.zeros_like(asked[0].frame), target=0)
        padded = [request or nothing for request in requests] + [nothing] * (PASS_IMAGES - len(requests))
        models = self._models
        model = models.get()
        try:
            images = self._images(np.stack([request.frame for request in padded]))
            targets, probs = self._targets(model, images, [request.target for request in padded])
            started = time.perf_counter()
            seeds = {"seeds": [request.seed for request in padded]} if self.seeded else {}
            with counted_images(model) as counted:
                maps = self.compute(model, images, targets, **seeds).cpu().numpy()
            seconds = (time.perf_counter() - started) / PASS_IMAGES
        finally:
            models.put(model)
        known = [None if target < 0 else target for target in targets.tolist()]
        explanations = zip(maps, known, probs, strict=True)
        costs = {"seconds": seconds, "passes": self.passes + sum(counted) // PASS_IMAGES}
        made = [Explanation(saliency=m, target=t, target_prob=p, **costs) for m, t, p in explanations]
        return [explanation if request else None for explanation, request in zip(made, requests, strict=False)]

    def _images(self, frames: np.ndarray) -> Tensor:
        if self.normalize is not None:
            return self.normalize(frames)
        return torch.from_numpy(frames).permute(0, 3, 1, 2).float()  # (B, H, W, 3) -> (B, 3, H, W)

    def _targets(
        self, model: nn.Module | None, images: Tensor, targets: Sequence[int | None]
    ) -> tuple[Tensor, list[float | None]]:
        """Return the targets, (B,), with the student's top-1 where none is given (-1 where there is no student)."""
        given = torch.tensor([-1 if target is None else target for target in targets], device=images.device)
        if model is None or None not in targets:
            return given, [None] * len(targets)
        with torch.no_grad():
            probs, top = model(images).softmax(dim=1).max(dim=1)
        found = [p if target is None else None for p, target in zip(probs.tolist(), targets, strict=True)]
        return torch.where(given < 0, top, given), found


def explainer_of(method: "Method", explained: "Student | Teacher | None", options: Any = None) -> Explainer:
    """Make the explainer of a white-box method or a control, in torch and in this process.

        student = load_explained(run)
        explainer = explainer_of(METHODS["grad_cam"], student)
        (explanation,) = explainer([Request(frame=frame, target=None)])  # frame: uint8 at student.input_size
        explanation.saliency  # float32 (H, W)

    Args:
        method: One that does not query the black box.
        explained: Student, or teacher that is a torch network; None for a control.
        options: Of the method; None for its defaults.
    """
    options = method.options() if options is None else options
    return passes_over(explained, method.load(), options=options, seeded=method.seeded)


def passes_over(explained: "Student | Teacher | None", function: Callable[..., Tensor], **options: Any) -> Explainer:
    """Make the explainer of any function of a network: passes side by side on a CPU, one at a time on a GPU.

    Args:
        explained: The network's owner, on the device where it runs; None for a function of no network.
        function: (model, images, targets) to (B, ...).
        options: As `Explainer` has them.
    """
    on_gpu = explained is not None and explained.device == "cuda"
    return Explainer(
        function=function,
        model=None if explained is None else network_of(explained),
        normalize=None if explained is None else explained.normalize,
        num_threads=1 if on_gpu else torch.get_num_threads(),
        **options,
    )


def network_of(explained: "Student | Teacher") -> nn.Module:
    """Return the torch network of a student, or of a teacher that has one."""
    model = explained.model if isinstance(explained, Student) else explained.module
    assert model is not None, "explained_model returns no teacher without a network"
    return model


@contextmanager
def counted_images(model: nn.Module | None) -> Iterator[list[int]]:
    """Collect the number of images of each forward pass of the model while the block runs."""
    counted: list[int] = []
    if model is None:
        yield counted
        return
    hook = model.register_forward_pre_hook(lambda _module, inputs: counted.append(len(inputs[0])))
    try:
        yield counted
    finally:
        hook.remove()


def share_weights(model: Network) -> Network:
    """Copy a model's modules but not its parameters and buffers, so that hooks on one copy do not fire in another."""
    if model is None:
        return model
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
