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
        labels: (B,) class indices, -1 where an image has none, or what `mixed_labels` makes; an image without a label
            is left out of the mean.
    """
    labelled = labels >= 0 if labels.ndim == 1 else labels.any(dim=1)
    num_labelled = labelled.sum().clamp(min=1)
    return F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum") / num_labelled


def distillation_loss(
    teacher_probs: Tensor, student_logits: Tensor, labels: Tensor, *, label_weight: float = 1.0
) -> dict[str, Tensor]:
    """Compute `KL(softmax(O_t) || softmax(O_s)) + label_weight CE(softmax(O_s), label)` (eqs. 1-5: both weighted 1).

    Args:
        teacher_probs: (B, K), rows sum to one.
        student_logits: (B, K).
        labels: as `cross_entropy` takes them.
        label_weight: 0 follows the teacher alone.

    Returns:
        Scalars `loss`, `kl` and `ce`.
    """
    kl = kl_divergence(teacher_probs, student_logits)
    ce = cross_entropy(student_logits, labels)
    return {"loss": kl + label_weight * ce, "kl": kl, "ce": ce}


def mixed_labels(labels: Tensor, other_labels: Tensor, share: Tensor, num_classes: int) -> Tensor:
    """Compute `share onehot(label) + (1 - share) onehot(other_label)`, (B, K) float32; no label (-1) counts as zeros.

    Args:
        labels: (B,) class indices.
        other_labels: (B,) those of the images that are mixed in.
        share: (B,), of the former.
        num_classes: K.
    """
    weighed = torch.zeros(len(labels), num_classes, device=labels.device)
    for own, weight in ((labels, share), (other_labels, 1 - share)):
        weighed.scatter_add_(1, own.clamp(min=0)[:, None], (weight * (own >= 0)).float()[:, None])
    return weighed
