"""The loss and Sim N against plain re-derivations and a peer."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from distill.student.similarity import sim_n
from distill.training.losses import distillation_loss, mixed_labels


def test_loss_is_kl_plus_cross_entropy_and_images_without_label_are_left_out_of_the_latter():
    rng = np.random.default_rng(0)
    teacher, logits = softmax(rng.normal(size=(5, 4)) * 3, axis=1), rng.normal(size=(5, 4))
    teacher[0] = [0, 1, 0, 0]
    labels = [2, -1, 0, 3, -1]
    probs, outputs = (torch.as_tensor(v, dtype=torch.float32) for v in (teacher, logits))
    terms = distillation_loss(probs, outputs, torch.tensor(labels))
    kl = np.mean([rel_entr(t, softmax(s)).sum() for t, s in zip(teacher, logits, strict=True)])
    ce = np.mean([-log_softmax(s)[y] for s, y in zip(logits, labels, strict=True) if y >= 0])
    assert float(terms["kl"]) == pytest.approx(kl, rel=1e-5)
    assert float(terms["ce"]) == pytest.approx(ce, rel=1e-5)
    assert float(terms["loss"]) == pytest.approx(kl + ce, rel=1e-5)


def test_loss_is_smallest_for_the_teacher_itself_and_finite_without_images():
    probs = torch.softmax(torch.randn(3, 6), dim=1)
    unlabelled = torch.full((3,), -1)
    assert float(distillation_loss(probs, probs.log(), unlabelled)["loss"]) == pytest.approx(0, abs=1e-6)
    nothing = distillation_loss(
        torch.zeros(0, 6), torch.zeros(0, 6, requires_grad=True), torch.zeros(0, dtype=torch.long)
    )
    assert float(nothing["loss"].detach()) == 0


def test_sim_n_compares_the_order_of_the_top_n():
    rng = np.random.default_rng(1)
    teacher = rng.normal(size=(200, 5))
    student = teacher + rng.normal(size=(200, 5)) * 0.3
    for n in range(1, 6):
        slow = []
        for t, s in zip(teacher, student, strict=True):
            rank_t = sorted(range(5), key=lambda k: (-t[k], k))[:n]
            slow.append(rank_t == sorted(range(5), key=lambda k: (-s[k], k))[:n])
        got = sim_n(torch.as_tensor(teacher), torch.as_tensor(student), n)
        assert got.tolist() == slow
    assert 0 < sum(slow) < 200
    with pytest.raises(ValueError, match="allowed: 1 to"):
        sim_n(torch.zeros(2, 5), torch.zeros(2, 5), 6)
    with pytest.raises(ValueError, match="shape"):
        sim_n(torch.zeros(2, 5), torch.zeros(2, 4), 1)


def test_mixed_labels_are_the_mixture_of_both_cross_entropies():
    rng = np.random.default_rng(2)
    logits, teacher = rng.normal(size=(4, 3)), softmax(rng.normal(size=(4, 3)), axis=1)
    labels, others, share = [2, 0, -1, -1], [1, -1, 2, -1], [0.25, 0.5, 0.1, 0.7]
    mixed = mixed_labels(torch.tensor(labels), torch.tensor(others), torch.tensor(share), 3)
    slow = np.zeros((4, 3))
    for i, (own, other, s) in enumerate(zip(labels, others, share, strict=True)):
        for label, weight in ((own, s), (other, 1 - s)):
            if label >= 0:
                slow[i, label] += weight
    assert np.allclose(mixed, slow)
    ce = -(slow * log_softmax(logits, axis=1)).sum() / 3  # the last image has no label
    kl = np.mean([rel_entr(t, softmax(s)).sum() for t, s in zip(teacher, logits, strict=True)])
    probs, outputs = (torch.as_tensor(v, dtype=torch.float32) for v in (teacher, logits))
    for weight in (0.0, 0.5, 1.0):
        terms = distillation_loss(probs, outputs, mixed, label_weight=weight)
        assert float(terms["ce"]) == pytest.approx(ce, rel=1e-5)
        assert float(terms["loss"]) == pytest.approx(kl + weight * ce, rel=1e-5)


def test_unmixed_labels_give_the_same_loss_as_indices():
    logits, probs = torch.randn(4, 3), torch.softmax(torch.randn(4, 3), dim=1)
    labels = torch.tensor([2, -1, 0, 1])
    mixed = mixed_labels(labels, torch.tensor([0, 1, 2, 0]), torch.tensor([1.0, 1.0, 1.0, 1.0]), 3)
    plain = distillation_loss(probs, logits, labels)
    # An image without a label stays without one: what is mixed in has no share.
    assert float(distillation_loss(probs, logits, mixed)["loss"]) == pytest.approx(float(plain["loss"]), rel=1e-6)
