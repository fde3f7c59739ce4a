"""The student against the published CBAM ResNet-50 and a slow re-derivation of CBAM."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import Linear, ReLU

from cluster.storage import Folder
from distill.student.checkpoint import load_student, save_student
from distill.student.model import CBAM, Block, ResCBAM, Student


def make_student(depth=18, num_classes=7, **changes):
    torch.manual_seed(0)
    fields = {"input_size": (64, 48), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    model = ResCBAM(depth, num_classes).eval()
    return Student(model=model, teacher="onnx:x.onnx", teacher_fingerprint="abc", **(fields | changes))


def test_fifty_layers_have_the_published_number_of_parameters():
    count = sum(p.numel() for p in ResCBAM(50, 1000).parameters())
    assert count == 28_089_624  # Woo et al. 2018, table 4: 28.09 M

    plain = sum(p.numel() for p in torchvision.models.resnet50().parameters())
    gates = 0
    for num_blocks, channels in zip((3, 4, 6, 3), (256, 512, 1024, 2048), strict=True):
        hidden = channels // 16
        mlp = channels * hidden + hidden + hidden * channels + channels
        gates += num_blocks * (mlp + 2 * 7 * 7 + 2)
    assert count == plain + gates


def test_every_residual_block_has_a_cbam():
    assert sum(isinstance(m, CBAM) for m in ResCBAM(50, 10).modules()) == 16
    assert sum(isinstance(m, CBAM) for m in ResCBAM(18, 10).modules()) == 8


def test_without_gates_fifty_layers_compute_what_torchvision_computes():
    torch.manual_seed(0)
    ours, theirs = ResCBAM(50, 11).eval(), torchvision.models.resnet50(num_classes=11).eval()
    for block in [m for m in ours.modules() if isinstance(m, Block)]:
        block.add_module("cbam", torch.nn.Identity())
    pairs = zip(theirs.state_dict().values(), _in_torchvision_order(ours), strict=True)
    for to, value in pairs:
        to.copy_(value)
    x = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def _in_torchvision_order(model):
    """Yield the tensors of our network in the order in which torchvision's registers its own."""
    yield from model.conv1.state_dict().values()
    yield from model.bn1.state_dict().values()
    for i in range(4):
        for block in model.get_submodule(f"layer{i + 1}").children():
            for conv, bn in zip(block.convs, block.bns, strict=True):
                yield from conv.state_dict().values()
                yield from bn.state_dict().values()
            yield from block.shortcut.state_dict().values()
    yield from model.fc.state_dict().values()


def test_cbam_is_the_published_formula():
    torch.manual_seed(1)
    cbam = CBAM(32).eval()
    torch.nn.init.normal_(cbam.spatial.bn.weight)
    torch.nn.init.normal_(cbam.spatial.bn.bias)
    x = torch.randn(2, 32, 5, 9)
    with torch.no_grad():
        got = cbam(x).numpy()
    first, _, second = cast("tuple[Linear, ReLU, Linear]", tuple(cbam.channel.mlp))
    conv, bn = cbam.spatial.conv.weight.detach().numpy(), cbam.spatial.bn

    def mlp(v):
        hidden = np.maximum(first.weight.detach().numpy() @ v + first.bias.detach().numpy(), 0)
        return second.weight.detach().numpy() @ hidden + second.bias.detach().numpy()

    for image, out in zip(x.numpy(), got, strict=True):
        gate = mlp(image.reshape(32, -1).mean(1)) + mlp(image.reshape(32, -1).max(1))
        gated = image / (1 + np.exp(-gate))[:, None, None]
        padded = np.pad(np.stack([gated.mean(0), gated.max(0)]), ((0, 0), (3, 3), (3, 3)))
        for y in range(5):
            for z in range(9):
                value = (conv[0] * padded[:, y : y + 7, z : z + 7]).sum()
                value = value / np.sqrt(1 + bn.eps) * float(bn.weight[0].detach()) + float(bn.bias[0].detach())
                np.testing.assert_allclose(out[:, y, z], gated[:, y, z] / (1 + np.exp(-value)), rtol=1e-4, atol=1e-6)


def test_hooks_see_activations_that_nothing_overwrites():
    student = make_student()
    seen = {}
    for name, module in student.model.named_modules():
        if name.startswith("layer"):
            module.register_forward_hook(
                lambda _m, i, o, name=name: seen.update({name: (o, o.clone(), i[0], i[0].clone())})
            )
    with torch.no_grad():
        student.model(torch.randn(2, 3, 64, 48))
    for name, (out, out_then, into, into_then) in seen.items():
        assert torch.equal(out, out_then), name
        assert torch.equal(into, into_then), name


def test_a_stored_student_comes_back_the_same(tmp_path):
    student = save_student(Folder(str(tmp_path)), make_student(class_names=tuple("abcdefg"), shuffled=True))
    loaded = load_student(str(tmp_path))
    assert replace(loaded, model=student.model) == student
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert not loaded.model.training
    x = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), student.model(x))


def test_a_student_that_was_stored_before_there_were_shuffled_ones_is_none(tmp_path):
    save_student(Folder(str(tmp_path)), make_student())
    description = Folder(str(tmp_path)).read_json("student.json")
    del description["shuffled"]
    Folder(str(tmp_path)).write_json("student.json", description)
    assert not load_student(str(tmp_path)).shuffled


def test_damaged_students_get_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no student"):
        load_student(str(tmp_path))
    save_student(Folder(str(tmp_path)), make_student())
    weights = tmp_path / "student.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-8])
    with pytest.raises(ValueError, match="cannot be read"):
        load_student(str(tmp_path))
    weights.write_bytes(data[:-1] + b"\x07")
    with pytest.raises(ValueError, match="do not fit"):
        load_student(str(tmp_path))
    weights.write_bytes(data)
    (tmp_path / "student.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_student(str(tmp_path))


def test_normalise_keeps_rows_columns_and_colors_apart():
    student = make_student()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    pixels = student.normalize(images)
    assert pixels.shape == (2, 3, 64, 48)
    for channel in range(3):
        expected = (images[1, 5, 40, channel] / 255 - student.mean[channel]) / student.std[channel]
        assert float(pixels[1, channel, 5, 40]) == pytest.approx(expected, abs=1e-5)


def test_unknown_depth_is_refused():
    with pytest.raises(ValueError, match="allowed: 18, 50"):
        ResCBAM(34)


def test_a_student_with_weights_that_are_not_finite_is_refused(tmp_path):
    model = ResCBAM(18, 3)
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")
    description = {"teacher": "x", "teacher_fingerprint": "", "mean": (0.5,) * 3, "std": (0.2,) * 3}
    save_student(Folder(str(tmp_path)), Student(model=model, input_size=(64, 64), **description))
    with pytest.raises(ValueError, match=r"not finite: fc\.weight"):
        load_student(str(tmp_path))
