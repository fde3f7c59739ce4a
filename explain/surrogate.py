"""Surrogate of the black box: the student, queried in its place. Is it unfaithful, or are its maps poorly made?

The frames are the black box's own: made at its input size, superpixels and masks alike, and only then resized for the
student. So the two maps of an image differ by the queried model alone, and have the same number of pixels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.student.model import Student
from distill.teachers.base import Teacher
from distill.teachers.engines.backends import EngineChoice
from distill.teachers.kinds.torch_module import EagerTeacher
from explain.compiled.select import EAGER, with_engine
from explain.runners.white_box import PASS_IMAGES, passes_over


def make_surrogate(student: Student, teacher: Teacher, choice: EngineChoice = EAGER) -> Teacher:
    """Make a teacher that takes the black box's normalized pixels and returns the student's probabilities.

    Args:
        student: On the device where it is asked, in passes of 8 images: the same bits however many run side by side.
        teacher: The black box that it was distilled from.
        choice: What computes the student's passes on a CPU.
    """
    passes = with_engine(passes_over(student, logits), choice, student.input_size)
    of_none = torch.zeros(PASS_IMAGES, dtype=torch.long)

    def answer(pixels: Tensor) -> Tensor:
        view = student_view(pixels, mean=teacher.mean, std=teacher.std, size=student.input_size)
        images = student.normalize(view * 255).split(PASS_IMAGES)
        with ThreadPoolExecutor(passes.num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return torch.cat(list(pool.map(lambda one: passes.function(passes.model, one, of_none), images)))

    asked = EagerTeacher(
        answer,
        device=student.device,
        spec=f"the student of {teacher.spec}",
        input_size=teacher.input_size,
        mean=teacher.mean,
        std=teacher.std,
        fingerprint=student.fingerprint,
        output="logits",
        batch_size=PASS_IMAGES * passes.num_threads,
    )
    asked.own_threads = choice.engine != "eager"
    return asked.finish(teacher.num_classes)


def logits(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Return the student's logits, (B, K), where a method returns maps; the target plays no part."""
    del target
    with torch.inference_mode():
        return model(images)


def student_view(frames: Tensor, *, mean: Sequence[float], std: Sequence[float], size: tuple[int, int]) -> Tensor:
    """Turn the teacher's frames into what the student is shown of them, before its own normalisation.

    The teacher's normalisation is undone, x std + mean, and the pixels are resized as whole images are (bilinear with
    antialiasing); they are neither rounded nor clipped. At the same input size nothing is resized.

    Args:
        frames: (N, 3, H, W), normalised for the teacher.
        mean: Of the teacher's normalisation.
        std: Likewise.
        size: The student's input size, (H', W').

    Returns:
        (N, H', W', 3) in units of [0, 1].
    """
    mean_, std_ = (frames.new_tensor(values)[:, None, None] for values in (mean, std))
    pixels = F.interpolate(frames * std_ + mean_, size=size, mode="bilinear", align_corners=False, antialias=True)
    return pixels.permute(0, 2, 3, 1)  # (N, 3, H', W') -> (N, H', W', 3)
