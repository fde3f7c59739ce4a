"""Queries to a black box on numbered frames of an image: in batches, and each only once.

A query-based method (RISE, LIME, KernelSHAP) numbers the frames that it shows the black box. So responses of an earlier
start, or of a larger budget, take the place of new queries: another estimator of the same frames costs none.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""Normalized frames (B, 3, H, W) -> class probabilities (B, K)."""
Frames = Callable[[range], Tensor]
"""Numbers -> the frames with those numbers, (len, 3, H, W)."""


class Queries:
    """Black box that returns the target's probability on numbered frames of the images of one batch.

    For a model in this process: `Queries(teacher.forward)`.
    """

    def __init__(self, score: Score, *, batch_size: int = 64, known: Mapping[int, Tensor] | None = None) -> None:
        """Wrap a black box.

        Args:
            score: The black box.
            batch_size: Frames per call of `score`.
            known: Image's place in the batch -> responses to its frames 0, 1, ... (n,) that need no query.
        """
        self.score, self.batch_size = score, batch_size
        self.responses: dict[int, Tensor] = dict(known or {})
        """Place -> all responses so far, (n,) float32 on the CPU."""
        self.used: dict[int, int] = {}
        """Place -> number of responses that the method has used: the cost of its map, queried now or earlier."""

    def query(self, image: int, numbers: range, frames: Frames, target: int) -> Tensor:
        """Return the target's probability on the frames `numbers`, (len(numbers),) float32 on the CPU.

        Args:
            image: The image's place in the batch.
            numbers: Consecutive numbers; an image's frames are queried in order, without a gap.
            frames: Called for those numbers only that have no response yet, at most `batch_size` at a time.
            target: Class index.
        """
        known = self.responses.get(image, torch.zeros(0))
        assert numbers.step == 1, numbers
        assert numbers.start <= len(known), f"frames {numbers} after {len(known)} responses"
        starts = range(max(numbers.start, len(known)), numbers.stop, self.batch_size)
        parts = (range(start, min(start + self.batch_size, numbers.stop)) for start in starts)
        new = [self.score(frames(part))[:, target].float() for part in parts]
        self.responses[image] = known = torch.cat([known, *(response.cpu() for response in new)])
        self.used[image] = max(self.used.get(image, 0), numbers.stop)
        return known[numbers.start : numbers.stop]
