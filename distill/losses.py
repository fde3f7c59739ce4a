"""The distillation loss (the paper's eqs. 1-5), and the cross entropy to labels that is one of its terms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def kl_divergence(teacher_probs: Tensor, student_logits: Tensor) -> Tensor:
    """Compute `KL(p_t || softmax(o_s)) = sum_k p_t log(p_t / p_s)` in nats, averaged over the batch (eq. 3).

    Temperature 1; teacher probabilities (B, K) are used unchanged, `0 log 0 = 0`.
    """
    log_student = F.log_softmax(student_logits.float(), dim=1)
    terms = torch.xlogy(teacher_probs, teacher_probs) - teacher_probs * log_student
    return terms.sum() / max(1, len(terms))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute `CE(softmax(o), label) = -log softmax(o)_label` in nats, averaged over the images with a label.

    Args:
        logits: (B, K).
        labels: (B,) class indices; -1 where an image has none.
    """
    num_labelled = (labels >= 0).sum().clamp(min=1)
    return F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum") / num_labelled


def distillation_loss(teacher_probs: Tensor, student_logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Compute `KL(softmax(O_t) || softmax(O_s)) + CE(softmax(O_s), label)`, both weighted 1 (eqs. 1-5).

    Args:
        teacher_probs: (B, K), rows sum to one.
        student_logits: (B, K).
        labels: (B,) class indices; -1 where an image has none, which leaves it out of CE's mean.

    Returns:
        Scalars `loss`, `kl` and `ce`.
    """
    kl = kl_divergence(teacher_probs, student_logits)
    ce = cross_entropy(student_logits, labels)
    return {"loss": kl + ce, "kl": kl, "ce": ce}
