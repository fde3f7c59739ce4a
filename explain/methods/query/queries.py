"""Questions to a black box about numbered frames of an image: asked in batches, and each only once.

A method that may only ask (RISE, LIME, KernelSHAP) numbers what it would show the black box. So answers of an earlier
start, or of a larger budget, stand in for new questions: another estimator of the same frames costs no query.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""Normalised frames (B, 3, H, W) -> class probabilities (B, K)."""
Frames = Callable[[range], Tensor]
"""Numbers -> the frames of those numbers, (len, 3, H, W)."""


class Queries:
    """A black box that is asked for the target's probability on numbered frames of the images of one batch."""

    def __init__(self, score: Score, *, batch_size: int = 64, known: Mapping[int, Tensor] | None = None) -> None:
        """Wrap a black box.

        Args:
            score: The black box.
            batch_size: Frames per call of `score`.
            known: Image's place in the batch -> answers of its frames 0, 1, ... (n,) that need no question.
        """
        self.score, self.batch_size = score, batch_size
        self.responses: dict[int, Tensor] = dict(known or {})
        """Place -> every answer known by now, (n,) float32 on the CPU."""
        self.used: dict[int, int] = {}
        """Place -> number of answers that the method has used: what its map costs, asked now or earlier."""

    def query(self, image: int, numbers: range, frames: Frames, target: int) -> Tensor:
        """Return the target's probability on the frames `numbers`, (len(numbers),) float32 on the CPU.

        Args:
            image: The image's place in the batch.
            numbers: Consecutive numbers; an image's frames are asked for in order, without a gap.
            frames: Called for those numbers only that have no answer yet, at most `batch_size` at a time.
            target: Class index.
        """
        known = self.responses.get(image, torch.zeros(0))
        assert numbers.step == 1, numbers
        assert numbers.start <= len(known), f"frames {numbers} after {len(known)} answers"
        starts = range(max(numbers.start, len(known)), numbers.stop, self.batch_size)
        parts = (range(start, min(start + self.batch_size, numbers.stop)) for start in starts)
        new = [self.score(frames(part))[:, target].float() for part in parts]
        self.responses[image] = known = torch.cat([known, *(response.cpu() for response in new)])
        self.used[image] = max(self.used.get(image, 0), numbers.stop)
        return known[numbers.start : numbers.stop]
