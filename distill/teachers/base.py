"""What every black box looks like from outside: pixels in, checked class probabilities out.

A kind adds `_outputs`; normalizing, batching, the softmax and the checks are here once, for all kinds.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cluster.device import one_thread
from distill.teachers.errors import RefusedImageError, TeacherError
from distill.teachers.load_check import BRIGHTNESS, check_batches, probe_images
from distill.teachers.model_history import ModelHistory
from distill.teachers.outputs import as_rows, class_scores, doubtful_declaration, problem_of, wrong_declaration
from distill.teachers.retry import retry
from distill.teachers.teacher_toml import Output

NUM_TOGETHER = 4  # made-up images in a batch where the teacher has no batch size of its own
RETRY_WAITS_S = (1.0, 4.0)  # where there was no reply: a lost connection passes at once, a busy server in seconds


class Teacher(ABC):
    """A black box: knows its own input size and normalization, returns checked class scores.

    Every call of `_outputs` gets exactly `batch_size` images (the last ones padded with zeros): kernels, and with
    them the last bits of a result, can change with the size of a batch, and an image must score the same in any.
    """

    quantized = False  # True where the model takes uint8: float frames are rounded before it sees them
    pads = True  # False where a query costs: a batch that is not full stays so
    num_ranked: int | None = None  # of the top classes, those that a response tells apart; None: all of them
    costs_queries = False  # True for a remote model: the queries of a job are stated before the work starts
    device = "cpu"  # where pixels are normalized
    own_threads = False  # True where an engine computes, beside whose threads torch's should rest
    caches_responses = False  # True where responses are cached by content; a job with a better cache turns it off
    history: ModelHistory | None = None  # where the fingerprint is that of a name, not of content
    retry_waits_s: Sequence[float] = RETRY_WAITS_S

    def __init__(
        self,
        *,
        spec: str,
        input_size: tuple[int, int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        fingerprint: str,
        engine: str,
        output: Output,
        class_names: tuple[str, ...] | None = None,
        batch_size: int | None = 8,
    ) -> None:
        """Describe the model; `finish` queries it for its number of classes.

        Args:
            spec: the `KIND:WHERE` that it was loaded from.
            input_size: height and width in pixels.
            mean: subtracted per channel from pixels in [0, 1].
            std: divided by per channel afterwards.
            fingerprint: SHA-256 in hex, which changes with the model's weights or description.
            engine: what computes it and how precisely, such as "openvino-bfloat16".
            output: what the model returns; the softmax is taken here, once, for logits only. Where that is no
                number for every class, `_outputs` makes probabilities of it.
            class_names: one name per class where they are known.
            batch_size: images per call of `_outputs`; None passes the caller's batches on as they are.
        """
        self.spec = spec
        self.input_size = input_size
        self.mean = mean
        self.std = std
        self.fingerprint = fingerprint
        self.engine = engine
        self.output: Output = output
        self.class_names = class_names
        self.batch_size = batch_size
        self.num_classes = 0
        self.num_outputs = 0
        """Numbers that the model itself returns for an image: 1 for a binary model, else the number of classes."""
        self.num_load_queries = 0
        """Images that were queried to check it when it was loaded."""

    @property
    def module(self) -> torch.nn.Module | None:
        """Return the network from normalized pixels to logits where it can be looked into, else None."""
        return None

    @abstractmethod
    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the model's own output (B, K) for normalized float32 pixels (B, 3, H, W).

        Raises:
            NoReplyError: there is none, and there may be one soon.
            TeacherError: there is none.
        """

    def finish(self, num_classes: int | None = None) -> Any:
        """Query a few made-up images, check the responses against the description, and return self.

        A model that is known to this machine, and has been checked here, is queried for one image alone.

        Raises:
            ValueError: the outputs are not what the description declares, depend on the rest of their batch, or have
                another number of classes than `num_classes` or `class_names` say.
            TeacherError: the model does not return scores for an image.
        """
        probe = probe_images(self.input_size, self.mean, self.std, brightness=BRIGHTNESS)
        images = torch.from_numpy(probe).to(self.device)
        # One score tells two models apart, one label does not.
        first = self._rows_at_load(images[: len(images) if self.output == "labels" and self.history else 1])
        scores = class_scores(first, self.output)
        self._check_scores(scores)
        if self.history is None or not self.history.recognize(first.cpu().numpy(), self.batch_size):
            self._check_at_load(images, first)
        self._check_num_classes(scores.shape[1], num_classes)
        self.num_classes, self.num_outputs = int(scores.shape[1]), int(first.shape[1])
        if self.history is not None:
            self.fingerprint = self.history.fingerprint
        return self

    def _check_at_load(self, images: torch.Tensor, first: torch.Tensor) -> None:
        """Query one batch, and check what no single row shows. Raises: ValueError, TeacherError."""
        size = self.batch_size or NUM_TOGETHER
        if size < len(images) or not self.pads:
            images = images[torch.arange(max(size, 2), device=images.device) % len(images)]
        batches = [self._rows_at_load(images.flip(0)).flip(0)]
        if self.pads and not self.costs_queries:
            batches.append(self._rows_at_load(images))
        differs = check_batches(first[:1], batches, self.output, spec=self.spec)
        rows = torch.cat([first, *batches])
        self._check_scores(class_scores(rows, self.output))
        if problem := wrong_declaration(rows, self.output):
            raise ValueError(f"teacher {self.spec!r} {problem}")
        if doubt := doubtful_declaration(rows, self.output):
            logging.getLogger(__name__).warning("teacher %r %s", self.spec, doubt)
        if self.history is not None:
            self.history.record(first.cpu().numpy(), self.batch_size, noise=differs)

    def _check_num_classes(self, found: int, num_classes: int | None) -> None:
        names = None if self.class_names is None else len(self.class_names)
        for what, promised in (("num_classes", num_classes), ("classes", names)):
            if promised is not None and promised != found:
                binary = ": a model with one output has two, [negative, positive]" if promised == 1 else ""
                raise ValueError(
                    f"teacher {self.spec!r} returns {found} classes, but its {what} says {promised}{binary}; "
                    "correct the description, or give the model that it describes"
                )

    def normalize(self, images: np.ndarray) -> torch.Tensor:
        """Turn uint8 images (B, H, W, 3) into (x / 255 - mean) / std, float32 pixels (B, 3, H, W) on `device`."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (*self.input_size, 3):
            raise ValueError(
                f"teacher {self.spec!r} takes uint8 images {('B', *self.input_size, 3)}, got {images.dtype} "
                f"{images.shape}; resize them to its input_size (height, width)"
            )
        own = np.require(images, requirements=["C", "W"])  # torch warns of an array that is read-only
        levels = torch.from_numpy(own).to(self.device)  # a quarter of the pixels' bytes
        pixels = levels.permute(0, 3, 1, 2).contiguous().float()
        mean, std = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return pixels.div_(255).sub_(mean).div_(std)

    def levels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn normalized pixels (B, 3, H, W) back into the nearest levels, uint8 (B, H, W, 3)."""
        mean, std = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        levels = ((pixels * std + mean) * 255).round().clamp(0, 255)
        return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # (B, 3, H, W) -> (B, H, W, 3)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return checked probabilities, float32 (B, K), for uint8 images (B, H, W, 3) at `input_size`."""
        return self.forward(self.normalize(images)).cpu().numpy()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return checked probabilities, float32 (B, K), for normalized float32 pixels (B, 3, H, W).

        Raises:
            ValueError: the pixels have another shape or type.
            RefusedImageError: no reply at any attempt, wrong shape, not finite, negative, or a row does not sum to
                one within 1e-3; and yet it answers for an image of the mean color, as it did when it was loaded.
            TeacherError: it fails on that one, too.
        """
        if pixels.dtype != torch.float32 or pixels.ndim != 4 or pixels.shape[1:] != (3, *self.input_size):
            raise ValueError(
                f"teacher {self.spec!r} takes float32 pixels {('B', 3, *self.input_size)}, "
                f"got {pixels.dtype} {tuple(pixels.shape)}; normalize images with its normalize()"
            )
        if len(pixels) == 0:
            return torch.zeros(0, self.num_classes, device=pixels.device)
        try:
            return self._respond(pixels)
        except TeacherError as error:
            if self._still_answers():
                raise RefusedImageError(str(error)) from error
            raise

    def _still_answers(self) -> bool:
        try:
            self._query(torch.zeros(1, 3, *self.input_size, device=self.device))
        except TeacherError:
            return False
        return True

    def _respond(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return checked scores, queried now or known from before. Raises: TeacherError."""
        return self._query(pixels)

    def _query(self, pixels: torch.Tensor) -> torch.Tensor:
        """Query the model for checked scores. Raises: TeacherError."""
        rows = self._rows(pixels)
        with one_thread():
            self._check_finite(rows)
            scores = class_scores(rows, self.output)
            if self.num_classes and scores.shape[1] != self.num_classes:
                raise TeacherError(
                    f"teacher {self.spec!r} returned shape {tuple(rows.shape)}; "
                    f"allowed: {(len(pixels), self.num_classes)}"
                )
            self._check_scores(scores)
            return scores

    def _rows(self, pixels: torch.Tensor) -> torch.Tensor:
        """Query the model for its own outputs, rows (B, K) float32. Raises: TeacherError."""
        size = self.batch_size or len(pixels)
        with torch.inference_mode():
            return torch.cat([self._chunk(chunk, size) for chunk in pixels.split(size)])

    def _rows_at_load(self, pixels: torch.Tensor) -> torch.Tensor:
        self.num_load_queries += len(pixels)
        rows = self._rows(pixels)
        self._check_finite(rows)
        return rows

    def _chunk(self, pixels: torch.Tensor, size: int) -> torch.Tensor:
        missing = size - len(pixels) if self.pads else 0
        padded = torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])]) if missing else pixels
        outputs = retry(lambda: self._outputs(padded), self.retry_waits_s)
        try:
            rows = as_rows(outputs, len(padded))
        except ValueError as error:
            raise TeacherError(f"teacher {self.spec!r} {error}") from error
        return rows[: len(pixels)].to(pixels.device, torch.float32)

    def _check_finite(self, rows: torch.Tensor) -> None:
        if not torch.isfinite(rows).all():
            bad = int((~torch.isfinite(rows)).any(dim=1).sum())
            raise TeacherError(f"teacher {self.spec!r} returned NaN or infinity for {bad} of {len(rows)} images")

    def _check_scores(self, scores: torch.Tensor) -> None:
        if self.output in ("logits", "sigmoid_logits"):  # a softmax of finite rows is what it should be
            return
        if problem := problem_of(scores, self.output):
            raise TeacherError(f"teacher {self.spec!r} {problem}")
