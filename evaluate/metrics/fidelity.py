"""Fidelity of the student where it matters: does it answer as the black box does, on what maps are made and judged of?

A map of the student speaks for the black box as far as the two agree: on the whole image, on the image under RISE's
masks, and on the frames of the map's own games. Both see each frame at their own input size. The black box's are made
as RISE and the games make them; the student gets the whole image as it gets it for its map, and any other frame from
the black box's by `explain.surrogate.student_view`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.perturb.curves import Perturbation, compose
from distill.perturb.rise_masks import FAMILIES, rise_masks
from distill.student.similarity import sim_n
from distill.training.losses import kl_divergence
from evaluate.statistics import spearman


def masked_frames(image: Tensor, *, seed: int, num: int) -> Tensor:
    """Show an image under RISE's masks: the first num / 2 of each family, which are those that RISE itself shows.

    Args:
        image: (3, H, W), normalized for the teacher.
        seed: `image_seed` of the image and "rise".
        num: an even number.

    Returns:
        (num, 3, H, W), one family after the other.
    """
    assert num % 2 == 0, num
    size = (image.shape[1], image.shape[2])
    shown = {"seed": seed, "size": size, "device": image.device}
    masks = [rise_masks(range(num // 2), num_cells=s, keep_probability=p, **shown) for s, p in FAMILIES]
    return image * torch.cat(masks)[:, None]


def game_frames(plays: Sequence[Perturbation], *, num_points: int) -> Tensor:
    """Make the frames at evenly spaced points of each play, both ends included: (len(plays) * num_points, 3, H, W).

    Point i of P is frame round(i * steps / (P - 1)) of the game, i = 0 ... P - 1.
    """
    frames = plays[0].start.new_empty(len(plays), num_points, *plays[0].start.shape)
    for own, game in zip(frames, plays, strict=True):
        for i, k in enumerate(np.linspace(0, game.num_steps, num_points).round().astype(int).tolist()):
            compose(game, range(k, k + 1), out=own[i : i + 1])
    return frames.flatten(0, 1)


def compare(teacher_probs: np.ndarray, student_logits: np.ndarray) -> tuple[float, float]:
    """Compare both models' answers on the same frames.

    Args:
        teacher_probs: (N, K).
        student_logits: (N, K).

    Returns:
        The agreement (Sim1: the share of frames with the same top-1), and the mean over frames of
        `KL(teacher || student) = sum_k p_k log(p_k / q_k)` in nats, which is 0 only where both say the same.

    Raises:
        ValueError: an answer of the student is not finite.
    """
    if not np.isfinite(student_logits).all():
        raise ValueError("the student's answers are not finite; it cannot be compared")
    probs, logits = torch.from_numpy(teacher_probs), torch.from_numpy(student_logits)
    agreement = sim_n(probs, logits, 1).double().mean()
    return float(agreement), float(kl_divergence(probs.double(), logits))


def masked_correlation(teacher_scores: np.ndarray, student_scores: np.ndarray) -> float:
    """Compute Spearman's rank correlation of the target's probabilities within each family of masks, and the mean.

    It says whether RISE on the student would say the same. Over both families at once it would mostly say that less
    of the image lowers both probabilities.

    Args:
        teacher_scores: (num,), on `masked_frames`.
        student_scores: (num,), likewise.

    Returns:
        -1 to 1; NaN where either is the same under every mask of a family.
    """
    halves = (np.split(scores, len(FAMILIES)) for scores in (teacher_scores, student_scores))
    return float(np.mean([spearman(a, b) for a, b in zip(*halves, strict=True)]))
