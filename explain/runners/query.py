"""Runner of query-based methods in one worker: image after image, each batch full of one image's frames."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cluster.device import one_thread
from cluster.storage import Folder
from distill.data.decode import resize
from distill.teachers import RefusedImageError
from explain.methods.query.queries import Queries
from explain.runners.query_cache import Responses, read_responses, write_responses
from explain.runners.white_box import Explainer, Explanation, ProgressCallback, Request, no_progress

if TYPE_CHECKING:
    from distill.teachers import Teacher

BATCH_FRAMES = 64
"""Frames per batch where the teacher does not say how many it takes at once."""


@dataclass(frozen=True, kw_only=True)
class QueryRunner:
    """Run one query-based method over frames at the teacher's input size.

    Without Ray, in this process:

        runner = QueryRunner(function=METHODS["rise"].load(), teacher=load_teacher("onnx:model.onnx"))
        (explanation,) = runner([Request(frame=frame, target=3)])  # frame: uint8 at teacher.input_size
    """

    function: Callable[..., Tensor | tuple[Tensor, Tensor]]
    """Method with its options bound; it may also return the standard deviations of its values."""
    teacher: "Teacher"
    """Model that is queried: the black box, or its surrogate."""
    folder: Folder | None = None
    """Response cache; None keeps nothing."""
    student: "Teacher | None" = None
    """Surrogate of the black box, for a method with its map as a prior."""
    readout: Explainer | None = None
    """The student's read-out, for a method with its map as a prior."""
    student_size: tuple[int, int] | None = None
    """Height and width of the read-out's images."""
    device: str = "cpu"
    """Where frames are composed."""

    def __call__(
        self, requests: Sequence[Request | None], on_progress: ProgressCallback = no_progress, num_done: int = 0
    ) -> list[Explanation | str | None]:
        """Explain the requests, in their order; None keeps a place free, and is answered by None.

        A text is the reason why an image has no map; it is not kept, so that another start queries again. Whatever
        happens, responses that arrived are kept.

        Args:
            requests: What to explain.
            on_progress: Called after each batch of queries.
            num_done: Images that were done before, added to what `on_progress` gets.
        """
        image_ids = [request.image_id for request in requests if request is not None]
        known = {} if self.folder is None else read_responses(self.folder, image_ids)
        before = {image_id: len(responses.probs) for image_id, responses in known.items()}
        counter = _Counter(on_progress, num_done)
        try:
            return [
                None if request is None else self._explain(request, known, counter.at(place))
                for place, request in enumerate(requests)
            ]
        finally:
            changed = {image_id: len(responses.probs) for image_id, responses in known.items()} != before
            if changed and self.folder is not None:
                write_responses(self.folder, image_ids, known)

    def _explain(self, request: Request, known: dict[str, Responses], counter: "_Counter") -> Explanation | str:
        assert request.target is not None, "a query-based method has a target from the start"
        earlier = known.get(request.image_id, Responses(probs=np.zeros(0, np.float32), seconds=0.0))
        queries = _queries(self.teacher, earlier.probs, counter)
        image = self.teacher.normalize(request.frame[None]).to(self.device)
        target = torch.tensor([request.target])
        started = time.perf_counter()
        prior, prior_passes = self._prior(request)
        try:
            with one_thread() if self.teacher.own_threads else nullcontext():
                maps = self.function(queries, image, target, seeds=[request.seed], **prior)
                saliency, *std = (each[0].cpu().numpy() for each in (maps if isinstance(maps, tuple) else (maps,)))
        except RefusedImageError as error:
            return str(error)
        finally:
            took = time.perf_counter() - started
            if len(queries.responses[0]) > len(earlier.probs):
                probs = queries.responses[0].numpy()
                known[request.image_id] = Responses(probs=probs, seconds=earlier.seconds + took)
        used, reused = queries.used.get(0, 0), min(queries.used.get(0, 0), len(earlier.probs))
        seconds_before = earlier.seconds * reused / len(earlier.probs) if reused else 0.0
        return Explanation(
            saliency=saliency,
            target=request.target,
            target_prob=None,
            seconds=took + seconds_before,
            std=std[0] if std else None,
            passes=used,
            prior_passes=prior_passes + sum(one.used.get(0, 0) for one in prior.values() if isinstance(one, Queries)),
        )

    def _prior(self, request: Request) -> tuple[dict[str, Queries | Tensor], int]:
        """Return the method's inputs from the student, and the passes that they have cost already."""
        if self.student is not None:
            return {"student": _queries(self.student)}, 0
        if self.readout is None:
            return {}, 0
        assert self.student_size is not None, "a read-out's images have a size"
        frame = resize(Image.fromarray(request.frame), self.student_size)
        (explanation,) = self.readout([Request(frame=frame, target=request.target)])
        assert explanation is not None, "it was requested"
        return {"start": torch.from_numpy(explanation.saliency)[None]}, explanation.passes


class _Counter:
    """Count the queries of one call, and report after each batch of them."""

    def __init__(self, on_progress: ProgressCallback, num_done: int) -> None:
        self._on_progress, self._before, self._place, self._num_queries = on_progress, num_done, 0, 0

    def at(self, place: int) -> "_Counter":
        self._place = place
        return self.add(0)

    def add(self, num: int) -> "_Counter":
        self._num_queries += num
        self._on_progress(self._before + self._place, self._num_queries)
        return self


def _queries(model: "Teacher", known: Sequence[float] | np.ndarray = (), counter: _Counter | None = None) -> Queries:
    """Make the queries on one image's frames, of which the first may have responses already."""

    def score(frames: Tensor) -> Tensor:
        probs = model.forward(frames)
        if counter is not None:
            counter.add(len(frames))
        return probs

    responses = torch.from_numpy(np.asarray(known, dtype=np.float32))
    return Queries(score, batch_size=model.batch_size or BATCH_FRAMES, known={0: responses})
