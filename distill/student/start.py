"""Weights that a student starts from: another student's, or those of a plain ResNet, as torchvision publishes them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from cluster.storage import split_file
from distill.student.checkpoint import load_student
from distill.student.model import BLOCKS, Block, ResCBAM
from distill.teachers.kinds.torchvision_model import published_model, state_fingerprint

PUBLISHED = "torchvision:"
FILES = (".safetensors", ".pt", ".pth")
OPEN = 4.0
"""Logit of a CBAM gate that lets nearly everything pass: sigmoid(4) = .982."""
MAX_BYTES = 2**31
_BLOCK = re.compile(r"(layer\d\.\d+)\.(conv|bn)(\d)\.(.+)")


@dataclass(frozen=True)
class Start:
    """Weights that a student starts from."""

    state: Mapping[str, Tensor]
    """Tensors by their names in `ResCBAM`; those of CBAM are missing where a plain ResNet gave them."""
    fingerprint: str
    """SHA-256 of the weights, in hex."""

    @property
    def depth(self) -> int:
        """Number of layers: 18 or 50. Raises: ValueError for another network."""
        blocks = tuple(
            len({name.split(".")[1] for name in self.state if name.startswith(f"layer{k}.")}) for k in range(1, 5)
        )
        kernels = sum(name.startswith("layer1.0.convs.") for name in self.state)
        found = [depth for depth, known in BLOCKS.items() if known == blocks and kernels == (3 if depth >= 50 else 2)]
        if not found:
            raise ValueError(
                f"weights with {blocks} blocks in layer1 to layer4 are no ResNet of "
                f"{' or '.join(map(str, BLOCKS))} layers"
            )
        return found[0]

    def give(self, model: ResCBAM) -> None:
        """Load the weights into a student of their depth.

        The classifier stays as it is drawn where the numbers of classes differ. Gates that no weights are given for are
        set to a constant that is nearly 1, and the batch norm before them makes up for the rest: at first the student
        computes what the plain ResNet does.
        """
        fits = self.state["fc.bias"].shape == model.fc.bias.shape
        missing, unexpected = model.load_state_dict(
            {name: tensor for name, tensor in self.state.items() if fits or not name.startswith("fc.")}, strict=False
        )
        assert not unexpected, unexpected
        if any(".cbam." in name for name in missing):
            _open_gates(model)
        assert all(".cbam." in name or name.startswith("fc.") for name in missing), missing


def load_start(spec: str) -> Start:
    """Load the weights that `--init` names.

    Args:
        spec: Run folder of a student; `torchvision:resnet50[/WEIGHTS]`; or a file of a ResNet's tensors under
            torchvision's names, .safetensors, .pt or .pth (tensors alone are unpickled).

    Raises:
        FileNotFoundError: there is no student or file.
        ValueError: the weights are broken, or of another network.
    """
    if spec.startswith(PUBLISHED):
        state = published_model(spec.removeprefix(PUBLISHED))[2]
    elif spec.endswith(FILES):
        state = _read_state(spec)
    else:
        student = load_student(spec)
        return Start(student.model.state_dict(), student.fingerprint)
    own = {_own_name(name): tensor for name, tensor in state.items()}
    start = Start(own, state_fingerprint(own, ()))
    _check(start, spec)
    return start


def _read_state(spec: str) -> Mapping[str, Tensor]:
    folder, name = split_file(spec)
    data = folder.read_bytes(name, max_bytes=MAX_BYTES)
    try:
        state = load_tensors(data) if name.endswith(FILES[0]) else torch.load(BytesIO(data), weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{spec} holds no tensors: {error}; give a state dictionary that torch.save wrote") from error
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(
            f"{spec} holds no state dictionary of tensors; write one by torch.save(model.state_dict(), ...)"
        )
    return state


def _own_name(name: str) -> str:
    """Translate torchvision's name of a ResNet's tensor to `ResCBAM`'s."""
    name = name.removeprefix("module.").replace(".downsample.", ".shortcut.")
    block = _BLOCK.fullmatch(name)
    return f"{block[1]}.{block[2]}s.{int(block[3]) - 1}.{block[4]}" if block else name


def _check(start: Start, spec: str) -> None:
    """Check names, shapes and values. Raises: ValueError."""
    expected = ResCBAM(start.depth, 1).state_dict()
    shapes = {name: tensor.shape for name, tensor in expected.items() if ".cbam." not in name}
    wrong = [
        name
        for name in shapes
        if name not in start.state or not (name.startswith("fc.") or start.state[name].shape == shapes[name])
    ]
    wrong += [name for name in start.state if name not in shapes]
    if wrong:
        raise ValueError(
            f"the weights of {spec} are no plain ResNet of {start.depth} layers as torchvision has it: {wrong[0]!r} "
            f"and {len(wrong) - 1} more tensors are missing, of another shape or too many"
        )
    broken = [name for name, tensor in start.state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"the weights of {spec} are not finite: {', '.join(broken[:3])}")


@torch.no_grad()
def _open_gates(model: ResCBAM) -> None:
    """Set all gates to `sigmoid(OPEN)`, whatever they see, and divide the last batch norm of each block by both."""
    gate = torch.sigmoid(torch.tensor(OPEN))
    for block in model.modules():
        if not isinstance(block, Block):
            continue
        channel: Any = block.cbam.channel.mlp[-1]
        channel.weight.zero_()
        channel.bias.fill_(OPEN / 2)  # the MLP is added up for both pools
        block.cbam.spatial.bn.weight.zero_()
        block.cbam.spatial.bn.bias.fill_(OPEN)
        norm: Any = block.bns[-1]
        norm.weight.div_(gate**2)
        norm.bias.div_(gate**2)
