"""Archives that are looked into: every method's map is that of the network which was exported, or there is none."""

import zipfile
from pathlib import Path

import pytest
import torch
from tiny_nets import TinyNet, noise, tiny_net
from torch import Tensor, nn

from distill.teachers import Teacher, load_teacher
from explain.methods.registry import METHODS
from explain.runners.white_box import share_weights

SIZE = (48, 80)
LOOKING = [name for name, method in METHODS.items() if method.explains == "student" and not method.needs_readout]
QUICK = {"mask": {"num_iterations": 3, "seeds": [1, 2, 3]}, "integrated_gradients": {"num_steps": 3}}
ANY_NUMBER = {0: torch.export.Dim("batch")}


def load(folder: Path, model: nn.Module, *, output: str = "logits", dynamic: dict | None = ANY_NUMBER) -> Teacher:
    shapes = None if dynamic is None else (dynamic,)
    program = torch.export.export(model, (torch.zeros(2, 3, *SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    text = f'input_size = {list(SIZE)}\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\noutput = "{output}"\n'
    (folder / "teacher.toml").write_text(text, encoding="utf-8")
    return load_teacher(f"torch:{folder / 'model.pt2'}")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    found = load(tmp_path_factory.mktemp("archive"), tiny_net()).module
    assert found is not None
    return found


@pytest.mark.parametrize("name", LOOKING)
def test_a_map_is_that_of_the_network_itself(name: str, opened: nn.Module) -> None:
    images, target = noise(3), torch.tensor([0, 4, 2])
    method, options = METHODS[name].load(), QUICK.get(name, {})
    expected = method(tiny_net(), images, target, **options)
    torch.testing.assert_close(method(opened, images, target, **options), expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 0


def test_modules_inside_a_layer_are_found_by_their_names(opened: nn.Module) -> None:
    images, target = noise(1), torch.tensor([3])
    grad_cam = METHODS["grad_cam"].load()
    for name in ("layer3.0", "layer2.0.conv", "layer1.0.cbam"):
        expected = grad_cam(tiny_net(), images, target, target_layer=name)
        torch.testing.assert_close(grad_cam(opened, images, target, target_layer=name), expected)
    with pytest.raises(ValueError, match="target_layer 'layer9' is not in the model; layers: layer1, layer2"):
        grad_cam(opened, images, target, target_layer="layer9")


def test_copies_share_weights_and_no_hooks(opened: nn.Module) -> None:
    copy = share_weights(opened)
    ours, theirs = ({p.data_ptr() for p in net.parameters()} for net in (opened, copy))
    assert ours == theirs
    fired: list[int] = []
    copy.get_submodule("layer4").register_forward_hook(lambda *_: fired.append(1))
    torch.testing.assert_close(opened(noise(2)), tiny_net()(noise(2)))
    assert not fired
    copy(noise(2))
    assert fired


def test_probabilities_have_no_logits_to_look_for(tmp_path: Path) -> None:
    assert load(tmp_path, nn.Sequential(tiny_net(), nn.Softmax(dim=1)), output="probabilities").module is None


def refuses(teacher: Teacher, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"cannot be looked into: .*{reason}.* give --student RUN"):
        _ = teacher.module


def test_a_fixed_number_of_images_is_refused(tmp_path: Path) -> None:
    refuses(load(tmp_path, tiny_net(), dynamic=None), r"takes 2 images at a time.* \(dynamic_shapes\)")


class Cutting(TinyNet):
    """Lets no gradient through one of its two ways."""

    def forward(self, images: Tensor) -> Tensor:
        last = self.features(images)[-1].mean(dim=(2, 3))
        return self.fc(last * last.detach().sigmoid())


class Scaling(TinyNet):
    """Makes a constant on its way, which torch exports with a `detach` of the constant alone."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.tensor(3.0)


def test_a_graph_that_cuts_the_gradient_is_refused_and_a_constant_cuts_none(tmp_path: Path) -> None:
    torch.manual_seed(0)
    refuses(load(tmp_path, Cutting().eval()), r"cuts the gradient off at 'detach'")
    network = Scaling().eval()
    found = load(tmp_path, network).module
    assert found is not None
    torch.testing.assert_close(found(noise(2)), network(noise(2)))


class Named(TinyNet):
    """Has a module without weights, whose name stands in the archive's notes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.zzz = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.zzz(self.features(images)[-1]).mean(dim=(2, 3)))


def test_a_module_named_like_pythons_own_attributes_is_refused(tmp_path: Path) -> None:
    assert load(tmp_path, Named().eval()).module is not None
    with zipfile.ZipFile(tmp_path / "model.pt2") as old:
        records = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as new:
        for name, content in records.items():
            new.writestr(name, content.replace(b"zzz", b"__class__"))
    refuses(load_teacher(f"torch:{tmp_path / 'model.pt2'}"), "has a module or weight named '__class__'")
