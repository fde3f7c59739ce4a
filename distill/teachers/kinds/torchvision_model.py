"""`torchvision:NAME` or `torchvision:NAME/WEIGHTS`: a classifier with its published weights and transforms."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from typing import Any

import torch

from distill.teachers.base import Teacher
from distill.teachers.kinds.torch_module import EagerTeacher, check_device
from distill.teachers.load_options import LoadOptions


def open_teacher(where: str, options: LoadOptions) -> Teacher:
    """Build the model, load its weights (downloaded once by torch); `load_teacher` says how."""
    device = options.device
    check_device(device)
    model, weights, state = published_model(where)
    transforms = weights.transforms()
    height, width = (*transforms.crop_size, *transforms.crop_size)[:2]  # torchvision writes one side of a square
    teacher = EagerTeacher(
        model.eval().requires_grad_(False).to(device),
        device=device,
        spec=options.spec,
        input_size=(height, width),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        fingerprint=state_fingerprint(state, (height, width, *transforms.mean, *transforms.std)),
        output="logits",
        class_names=tuple(weights.meta["categories"]),
    )
    return teacher.finish()


def published_model(where: str) -> tuple[torch.nn.Module, Any, Mapping[str, torch.Tensor]]:
    """Return the model that NAME or NAME/WEIGHTS names with its published weights, torchvision's word on those, and
    the weights as they are published.

    Raises:
        ValueError: there is no such model or weights, or they cannot be had.
    """
    name, _, wanted = where.partition("/")
    weights = _find_weights(name, wanted)
    state = _load_state(weights)
    import torchvision

    model = torchvision.models.get_model(name, weights=None)
    model.load_state_dict(state)
    return model, weights, state


def _find_weights(name: str, wanted: str) -> Any:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ValueError(f"torchvision has no classifier {name!r}; it has: {', '.join(known)}")
    published: Any = torchvision.models.get_model_weights(name)
    if not wanted:
        return published.DEFAULT
    if wanted not in published.__members__:
        raise ValueError(f"{name} has no weights {wanted!r}; it has: {', '.join(published.__members__)}")
    return published[wanted]


def _load_state(weights: Any) -> Mapping[str, torch.Tensor]:
    """Return the published weights, from torch's cache or from the network, without unpickling more than tensors."""
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise ValueError(
            f"the weights {weights.url} cannot be had: {error}. Put that file into {folder} by hand (TORCH_HOME moves "
            "this folder), or use another teacher, such as onnx:model.onnx"
        ) from error


def state_fingerprint(state: Mapping[str, torch.Tensor], view: tuple[float, ...]) -> str:
    """Hash a model's tensors and how it takes its images (sizes, mean, std): SHA-256 in hex."""
    digest = hashlib.sha256(repr(view).encode())
    for key, tensor in sorted(state.items()):
        digest.update(key.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
