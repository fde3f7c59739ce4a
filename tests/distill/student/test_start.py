"""Weights that a student starts from, against torchvision's own networks."""

import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cluster.storage import Folder
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student
from distill.student.start import load_start

FROM = "distill.student.start.published_model"


def plain(depth: int = 18, num_classes: int = 5) -> nn.Module:
    """Build torchvision's ResNet with weights and batch statistics that are anything but those it begins with."""
    torch.manual_seed(depth)
    network = torchvision.models.get_model(f"resnet{depth}", num_classes=num_classes)
    for name, tensor in network.state_dict().items():
        if "running_var" in name or ("bn" in name and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif "running_mean" in name or ("bn" in name and name.endswith("bias")):
            tensor.normal_(0, 0.1)
    return network.eval()


@torch.no_grad()
def check_same(model: ResCBAM, network: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 48)
    torch.testing.assert_close(model.eval()(images), network(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_student_computes_at_first_what_the_plain_resnet_does(depth: int, ending: str, tmp_path: Path) -> None:
    network, file = plain(depth), tmp_path / f"weights.{ending}"
    save_file(network.state_dict(), file) if ending == "safetensors" else torch.save(network.state_dict(), file)
    start, model = load_start(str(file)), ResCBAM(depth, 5)
    assert start.depth == depth
    start.give(model)
    check_same(model, network)
    model.train()(torch.randn(4, 3, 64, 64)).sum().backward()
    gates = {name: tensor.grad for name, tensor in model.named_parameters() if name.endswith("channel.mlp.2.weight")}
    assert all(grad is not None and grad.abs().max() > 0 for grad in gates.values()), "its gates learn"


def test_published_weights_are_taken_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    network, asked = plain(), []
    monkeypatch.setattr(FROM, lambda where: asked.append(where) or (network, None, network.state_dict()))
    start, model = load_start("torchvision:resnet18/IMAGENET1K_V1"), ResCBAM(18, 7)
    own = model.fc.weight.clone()
    start.give(model)
    assert asked == ["resnet18/IMAGENET1K_V1"]
    assert torch.equal(model.fc.weight, own), "another number of classes has a new classifier"
    model.load_state_dict(model.state_dict() | {"fc.weight": torch.eye(7, 512), "fc.bias": torch.zeros(7)})
    network.fc = nn.Linear(512, 7)
    network.load_state_dict(network.state_dict() | {"fc.weight": torch.eye(7, 512), "fc.bias": torch.zeros(7)})
    check_same(model, network)


@pytest.mark.parametrize("num_classes", [3, 5])
def test_a_student_starts_from_all_of_another_but_a_classifier_of_other_classes(
    num_classes: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, source = ResCBAM(18, 3), ResCBAM(18, num_classes)
    for tensor in source.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape))  # batch statistics too
    half = (0.5, 0.5, 0.5)
    student = Student(model=source, input_size=(64, 64), mean=half, std=half, teacher="x", teacher_fingerprint="x")
    stored = save_student(Folder(str(tmp_path)), student)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = load_start(str(tmp_path))
    start.give(model)
    assert start.fingerprint == stored.fingerprint
    for name, tensor in model.state_dict().items():
        drawn = num_classes != 3 and name in {"fc.weight", "fc.bias"}
        assert torch.equal(tensor, own[name] if drawn else source.state_dict()[name]), name


def test_another_network_is_refused(tmp_path: Path) -> None:
    cases = {
        "deep.pth": (torchvision.models.resnet34(num_classes=3).state_dict(), "no ResNet of 18 or 50 layers"),
        "wide.pth": (torchvision.models.wide_resnet50_2(num_classes=3).state_dict(), "no plain ResNet of 50 layers"),
        "list.pth": ([torch.zeros(2)], "no state dictionary"),
        "nan.pth": ({**plain().state_dict(), "fc.bias": torch.full((5,), torch.nan)}, "not finite: fc.bias"),
    }
    for name, (state, message) in cases.items():
        torch.save(state, tmp_path / name)
        with pytest.raises(ValueError, match=message):
            load_start(str(tmp_path / name))
    (tmp_path / "torn.safetensors").write_bytes(b"12345678901")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(print, protocol=2))
    for name in ("torn.safetensors", "code.pth"):
        with pytest.raises(ValueError, match="holds no tensors"):
            load_start(str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        load_start(str(tmp_path / "missing.pth"))
