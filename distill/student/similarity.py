"""Sim N: how often teacher and student rank the same classes first (the paper's Table 1)."""

from __future__ import annotations

from torch import Tensor


def sim_n(teacher_probs: Tensor, student_probs: Tensor, n: int) -> Tensor:
    """Tell for each image whether teacher and student agree on the top `n` classes in the same order.

    Source: the paper, section 4, Table 1. Equal values rank by class index, so that the answer is defined.

    Args:
        teacher_probs: (N, K) probabilities or logits.
        student_probs: (N, K), likewise.
        n: 1 to K.

    Returns:
        bool (N,).

    Raises:
        ValueError: shapes differ or `n` is out of range.
    """
    if teacher_probs.shape != student_probs.shape:
        raise ValueError(f"teacher has shape {tuple(teacher_probs.shape)}, student {tuple(student_probs.shape)}")
    if not 1 <= n <= teacher_probs.shape[1]:
        raise ValueError(f"n is {n}; allowed: 1 to the number of classes, {teacher_probs.shape[1]}")
    ranked = [p.argsort(dim=1, descending=True, stable=True)[:, :n] for p in (teacher_probs, student_probs)]
    return (ranked[0] == ranked[1]).all(dim=1)
