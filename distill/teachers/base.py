"""What every black box looks like from outside: pixels in, checked class probabilities out.

A kind adds `_outputs`; normalizing, batching, the softmax and the checks are here once, for all kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cluster.device import one_thread
from distill.teachers.errors import RefusedImageError, TeacherError
from distill.teachers.retry import retry
from distill.teachers.teacher_toml import Output

SUM_TOLERANCE = 1e-3  # of a row of probabilities: room for float16 outputs, too little for a forgotten softmax
RETRY_WAITS_S = (1.0, 4.0)  # where there was no reply: a lost connection passes at once, a busy server in seconds


class Teacher(ABC):
    """A black box: knows its own input size and normalization, returns checked probabilities.

    Every call of `_outputs` gets exactly `batch_size` images (the last ones padded with zeros): kernels, and with
    them the last bits of a result, can change with the size of a batch, and an image must score the same in any.
    """

    quantized = False  # True where the black box takes uint8: float frames are rounded before it sees them
    pads = True  # False where a query costs: a batch that is not full stays so
    num_ranked: int | None = None  # of the top classes, those that an answer tells apart; None: all of them
    costs_queries = False  # True where it lies elsewhere: what a job asks of it is stated before the work starts
    device = "cpu"  # where pixels are normalized
    own_threads = False  # True where an engine computes, beside whose threads torch's should rest
    remembers = False  # True where it keeps its answers by content; whoever keeps them better may turn it off
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
        """Describe the black box; `finish` asks it for its number of classes.

        Args:
            spec: the `KIND:WHERE` that it was loaded from.
            input_size: height and width in pixels.
            mean: subtracted per channel from pixels in [0, 1].
            std: divided by per channel afterwards.
            fingerprint: 12 hex digits that change with the model's weights or description.
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
        """Count the classes with one image, hold them against what was promised, and return self.

        Raises:
            ValueError: the model returns another number of classes than `num_classes` or `class_names` say.
            TeacherError: the model does not return probabilities for an image of the mean color.
        """
        found = self._answer(torch.zeros(1, 3, *self.input_size)).shape[1]
        names = None if self.class_names is None else len(self.class_names)
        for what, promised in (("num_classes", num_classes), ("classes", names)):
            if promised is not None and promised != found:
                raise ValueError(
                    f"teacher {self.spec!r} returns {found} classes, but its {what} says {promised}; "
                    "correct the description, or give the model that it describes"
                )
        self.num_classes = int(found)
        return self

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
            return self._answer(pixels)
        except TeacherError as error:
            if self._still_answers():
                raise RefusedImageError(str(error)) from error
            raise

    def _still_answers(self) -> bool:
        try:
            self._ask(torch.zeros(1, 3, *self.input_size))
        except TeacherError:
            return False
        return True

    def _answer(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return checked probabilities, asked for now or known from before. Raises: TeacherError."""
        return self._ask(pixels)

    def _ask(self, pixels: torch.Tensor) -> torch.Tensor:
        """Ask for checked probabilities. Raises: TeacherError."""
        outputs = self._batches(pixels)
        with one_thread():
            self._check(outputs, len(pixels))
            if self.output == "logits":
                return torch.softmax(outputs, dim=1)
            self._check_probabilities(outputs)
            return outputs

    def _batches(self, pixels: torch.Tensor) -> torch.Tensor:
        size = self.batch_size or len(pixels)
        with torch.inference_mode():
            return torch.cat([self._chunk(chunk, size) for chunk in pixels.split(size)])

    def _chunk(self, pixels: torch.Tensor, size: int) -> torch.Tensor:
        missing = size - len(pixels) if self.pads else 0
        padded = torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])]) if missing else pixels
        outputs = retry(lambda: self._outputs(padded), self.retry_waits_s)
        if outputs.ndim != 2 or len(outputs) != len(padded):
            raise TeacherError(
                f"teacher {self.spec!r} returned shape {tuple(outputs.shape)} for {len(padded)} images; "
                f"allowed: ({len(padded)}, number of classes)"
            )
        return outputs[: len(pixels)].to(pixels.device, torch.float32)

    def _check(self, outputs: torch.Tensor, num_images: int) -> None:
        if self.num_classes and outputs.shape != (num_images, self.num_classes):  # none known while it is loaded
            raise TeacherError(
                f"teacher {self.spec!r} returned shape {tuple(outputs.shape)}; "
                f"allowed: {(num_images, self.num_classes)}"
            )
        if not torch.isfinite(outputs).all():
            bad = int((~torch.isfinite(outputs)).any(dim=1).sum())
            raise TeacherError(f"teacher {self.spec!r} returned NaN or infinity for {bad} of {num_images} images")

    def _check_probabilities(self, outputs: torch.Tensor) -> None:
        lowest, sums = float(outputs.min()), outputs.double().sum(dim=1)
        worst = float(sums[(sums - 1).abs().argmax()])
        if lowest < 0 or abs(worst - 1) > SUM_TOLERANCE:
            raise TeacherError(
                f"teacher {self.spec!r} says that it returns probabilities, but its lowest value is {lowest:.4g} "
                f"and a row sums to {worst:.6g}; allowed: at least 0, sum 1 within {SUM_TOLERANCE}. "
                'If it returns logits, say so in its description (output = "logits")'
            )
