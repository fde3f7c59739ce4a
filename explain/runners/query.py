"""Query-based methods of one worker: image after image, the black box's batches full of one image's frames."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
"""Where the teacher does not say how many it takes at once."""


@dataclass(frozen=True, kw_only=True)
class QueryRunner:
    """Run one query-based method over frames at the teacher's input size."""

    function: Callable[..., Tensor | tuple[Tensor, Tensor]]
    """The method; it may also return its values' standard deviations."""
    teacher: "Teacher"
    """The black box, or the student that stands in for it."""
    folder: Folder
    """Where answers are kept."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The method's keyword arguments."""
    student: "Teacher | None" = None
    """The student in the black box's place, for a method that takes its answers as a prior."""
    starts: Explainer | None = None
    """The student's read-out, for a method that takes its map as a prior."""
    student_size: tuple[int, int] | None = None
    """Height and width of what `starts` reads."""
    device: str = "cpu"
    """Where frames are composed."""

    def __call__(
        self, requests: Sequence[Request | None], on_progress: ProgressCallback = no_progress
    ) -> list[Explanation | str | None]:
        """Explain the requests, in their order; None keeps a place free, and is answered by None.

        `on_progress` is called after every batch of queries. A text says why an image has no map. Whatever happens,
        responses that arrived are kept.
        """
        image_ids = [request.image_id for request in requests if request is not None]
        known = read_responses(self.folder, image_ids)
        before = {image_id: len(found.probs) for image_id, found in known.items()}
        counted = _Counted(on_progress)
        try:
            return [
                None if request is None else self._explain(request, known, counted.at(place))
                for place, request in enumerate(requests)
            ]
        finally:
            if {image_id: len(found.probs) for image_id, found in known.items()} != before:
                write_responses(self.folder, image_ids, known)

    def _explain(self, request: Request, known: dict[str, Responses], counted: "_Counted") -> Explanation | str:
        assert request.target is not None, "a query-based method has a target from the start"
        earlier = known.get(request.image_id, Responses(probs=np.zeros(0, np.float32), seconds=0.0))
        queries = _asked(self.teacher, earlier.probs, counted)
        image = self.teacher.normalize(request.frame[None]).to(self.device)
        target = torch.tensor([request.target])
        started = time.perf_counter()
        prior, prior_passes = self._prior(request)
        try:
            with one_thread() if self.teacher.own_threads else nullcontext():
                found = self.function(queries, image, target, seeds=[request.seed], **self.options, **prior)
                saliency, *std = (maps[0].cpu().numpy() for maps in (found if isinstance(found, tuple) else (found,)))
        except RefusedImageError as error:
            return str(error)
        finally:
            took = time.perf_counter() - started
            if len(queries.responses[0]) > len(earlier.probs):
                responses = queries.responses[0].numpy()
                known[request.image_id] = Responses(probs=responses, seconds=earlier.seconds + took)
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
        """Return what the method takes of the student, and the passes that are spent on it already."""
        if self.student is not None:
            return {"student": _asked(self.student)}, 0
        if self.starts is None:
            return {}, 0
        assert self.student_size is not None, "what is read has a size"
        frame = resize(Image.fromarray(request.frame), self.student_size)
        (answer,) = self.starts([Request(frame=frame, target=request.target)])
        assert answer is not None, "it was asked for"
        return {"start": torch.from_numpy(answer.saliency)[None]}, answer.passes


class _Counted:
    """Count the questions of one call, and tell after each batch of them."""

    def __init__(self, on_progress: ProgressCallback) -> None:
        self._on_progress, self._place, self._asked = on_progress, 0, 0

    def at(self, place: int) -> "_Counted":
        self._place = place
        self._on_progress(self._place, self._asked)
        return self

    def add(self, num: int) -> None:
        self._asked += num
        self._on_progress(self._place, self._asked)


def _asked(answerer: "Teacher", known: Sequence[float] | np.ndarray = (), counted: _Counted | None = None) -> Queries:
    """Make the questions to one image's frames, of which some are answered already."""
    responses = torch.from_numpy(np.asarray(known, dtype=np.float32))

    def score(frames: Tensor) -> Tensor:
        found = answerer.forward(frames)
        if counted is not None:
            counted.add(len(frames))
        return found

    return Queries(score, batch_size=answerer.batch_size or BATCH_FRAMES, known={0: responses})
