"""The student in the black box's place, for the methods that ask: is it unfaithful, or only poorly read from?

The frames are the black box's own: made at its input size, superpixels and masks alike, and only then resized for the
student. So the two maps of an image differ by who answers and by nothing else, and have the same number of pixels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.student import Student
from distill.teachers.base import Teacher
from distill.teachers.eager import EagerTeacher
from explain.passes import PASS_IMAGES


def stand_in(student: Student, teacher: Teacher, *, num_threads: int = 1, device: str = "cpu") -> Teacher:
    """Make what takes the teacher's normalised pixels, as the teacher does, and answers as the student.

    Args:
        student: On `device`.
        teacher: The black box that it was distilled from.
        num_threads: Passes side by side, each of 8 images on one thread: the same bits whatever their number.
        device: Where the student runs.
    """

    def answer(pixels: Tensor) -> Tensor:
        view = student_view(pixels, mean=teacher.mean, std=teacher.std, size=student.input_size)
        passes = student.normalise(view * 255).split(PASS_IMAGES)
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return torch.cat(list(pool.map(student.model, passes)))

    return EagerTeacher(
        answer,
        device=device,
        spec=f"the student of {teacher.spec}",
        input_size=teacher.input_size,
        mean=teacher.mean,
        std=teacher.std,
        fingerprint=student.fingerprint,
        output="logits",
        batch_size=PASS_IMAGES * num_threads,
    ).finish(teacher.num_classes)


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
