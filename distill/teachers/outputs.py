"""Class scores from a model's own outputs: which shapes are read, what a binary model is, and what must hold.

A score is the probability of a class. Models with several labels for an image (`output = "sigmoid"`) have
scores that do not sum to 1; all others' do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from distill.teachers.teacher_toml import MAX_CLASSES, MULTI_LABEL, Output

SUM_TOLERANCE = 1e-3  # of a row of probabilities: room for float16 outputs, too little for a forgotten softmax


def only_tensor(outputs: Any) -> torch.Tensor:
    """Return the one tensor that a network returns, bare or in a container. Raises: ValueError where it is not one."""
    values = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(values, list | tuple) and len(values) == 1:
        return only_tensor(values[0])
    if isinstance(outputs, torch.Tensor):
        return outputs
    found = f"{len(values)} values" if isinstance(values, list | tuple) else type(outputs).__name__
    raise ValueError(f"returned {found}; allowed: one tensor (B, K), bare or alone in a tuple, list or dict")


def as_rows(outputs: torch.Tensor, num_images: int) -> torch.Tensor:
    """Return a model's outputs as rows (B, K): (B,) is one output, and axes of length 1 at the end are dropped.

    Raises:
        ValueError: the outputs are no row of numbers for each image.
    """
    shape = tuple(outputs.shape)
    if shape and shape[0] == num_images and outputs.numel() and all(size == 1 for size in shape[2:]):
        rows = outputs.reshape(num_images, -1)
        if rows.shape[1] <= MAX_CLASSES:
            return rows
    spatial = "; average over the positions in the model" if len(shape) > 2 else ""
    raise ValueError(f"returned shape {shape} for {num_images} images; allowed: ({num_images}, classes){spatial}")


def class_scores(rows: torch.Tensor, output: Output) -> torch.Tensor:
    """Turn rows (B, K) of a model's outputs into scores (B, K); one output becomes two classes, (B, 2).

    A binary model's one output belongs to class 1: its score is p = sigmoid(output), or the output itself where the
    model returns probabilities. Class 0 has 1 - p.
    """
    if output == "logits":
        return torch.softmax(torch.cat([torch.zeros_like(rows), rows], 1) if rows.shape[1] == 1 else rows, dim=1)
    scores = torch.sigmoid(rows) if output == "sigmoid_logits" else rows
    binary = output not in ("labels", "top_k") and rows.shape[1] == 1
    return torch.cat([1 - scores, scores], 1) if binary else scores


def problem_of(scores: torch.Tensor, output: Output) -> str | None:
    """Say what is wrong with scores (B, K), and what the description should say instead; None where nothing is."""
    lowest, highest, sums = float(scores.min()), float(scores.max()), scores.double().sum(dim=1)
    worst = float(sums[(sums - 1).abs().argmax()])
    if output in MULTI_LABEL:
        if lowest >= 0 and highest <= 1 + SUM_TOLERANCE:
            return None
        return (
            f"says that it returns a probability for each class (sigmoid), but its values lie between {lowest:.4g} and "
            f"{highest:.4g}; allowed: 0 to 1. If it returns what a sigmoid is to be taken of, say output = "
            '"sigmoid_logits"'
        )
    if lowest >= 0 and abs(worst - 1) <= SUM_TOLERANCE:
        return None
    advice = 'If it returns logits, say so in its description (output = "logits")'
    if lowest >= 0 and highest <= 1:
        advice = 'If each value is a probability of its own (several labels an image, sigmoid), say output = "sigmoid"'
        advice += '; if they are logits, output = "logits"'
    return (
        f"says that it returns probabilities, but its lowest value is {lowest:.4g} and a row sums to {worst:.6g}; "
        f"allowed: at least 0, sum 1 within {SUM_TOLERANCE}. {advice}"
    )


def wrong_declaration(rows: torch.Tensor, output: Output) -> str | None:
    """Say why rows (B, K) of made-up images are not what `output` declares, though each row could be; None if they are.

    Args:
        rows: a model's outputs for images that differ.
        output: what its description declares.
    """
    sums = rows.double().sum(dim=1)
    normed = float(rows.min()) >= 0 and float((sums - 1).abs().max()) <= SUM_TOLERANCE
    if rows.shape[1] > 1 and output in ("logits", "sigmoid_logits") and normed:
        return (
            f'is declared with output = "{output}", but returns probabilities: every row is non-negative and sums '
            'to 1. Say output = "probabilities"'
        )
    if rows.shape[1] == 1 and output in ("probabilities", "sigmoid") and bool((rows == 1).all()):
        return (
            "returns 1 for every image: a softmax over one output. Return the output itself and say output = "
            '"logits": it is then a model of two classes'
        )
    return None


def doubtful_declaration(rows: torch.Tensor, output: Output) -> str | None:
    """Say why rows (B, K) of made-up images may not be what `output` declares; None where nothing speaks against it."""
    if output in ("logits", "sigmoid_logits") and float(rows.min()) >= 0 and float(rows.max()) <= 1:
        return (
            f'is declared with output = "{output}", but all its values for made-up images lie between 0 and 1: if a '
            'sigmoid is part of the model, say output = "sigmoid"'
        )
    return None
