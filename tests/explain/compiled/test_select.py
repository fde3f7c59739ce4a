"""Engines against torch: every static method, gradients of convolutions, and who is chosen."""

import copy
import dataclasses
import importlib.util
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tiny_nets import tiny_net
from torch import nn

import explain.compiled.select
from distill.student.model import ResCBAM, Student
from distill.teachers.engines.backends import EngineChoice
from explain.compiled.onnx_graph import UnknownOperationError, write_onnx
from explain.compiled.select import EAGER, compile_method, difference, select_engine, with_engine
from explain.compiled.trace import trace
from explain.methods.registry import METHODS
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.readout.checkpoint import new_readout
from explain.runners.white_box import PASS_IMAGES, Explainer, Request

ENGINES = ("onnxruntime", "openvino")
SIZE = (64, 96)
OTHER_OPTIONS = {
    "target_layers": ("layer2.0", "layer4"),
    "class_score": "probability",
    "normalise_cams": "none",
    "sign": "negative",
    "collapse": "abs_mean",
    "normalise_attention": "none",
    "normalisation": "none",
}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None or importlib.util.find_spec("onnx") is None,
    reason="needs the extra `engines`",
)


@pytest.fixture(scope="module")
def student() -> Student:
    """A small student whose batch norms have something to do."""
    torch.manual_seed(0)
    model = ResCBAM(18, 12).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None  # noqa: PT018
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.1)
    said = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "teacher": "none", "teacher_fingerprint": "0"}
    return Student(model=model, input_size=SIZE, fingerprint="untrained", **said)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("distill.teachers.engines.selection.NUM_TIMED", 1)


def explainer(student: Student, name: str = "mal_grad_cam", **options) -> Explainer:
    return Explainer(
        function=METHODS[name].load(),
        options=METHODS[name].options(**options),
        model=student.model,
        normalize=student.normalize,
        num_threads=2,
    )


def requests(number: int = PASS_IMAGES + 3) -> list[Request]:
    """Draw images of different contrast, each explained for another class."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 40 + 20 * (i % 11), (*SIZE, 3), dtype=np.uint8) for i in range(number)]
    return [Request(frame=frame, target=i) for i, frame in enumerate(frames)]


def maps(explainer: Explainer, asked) -> np.ndarray:
    return np.stack([answer.saliency for answer in explainer(asked) if answer is not None])


@pytest.mark.parametrize(
    ("engine", "name", "options"),
    [
        *(("openvino", name, {}) for name, method in METHODS.items() if method.static),
        *((engine, "mal_grad_cam", OTHER_OPTIONS) for engine in ENGINES),
        ("onnxruntime", "mal_grad_cam", {}),
    ],
)
def test_engines_make_torchs_maps(student, engine, name, options):
    """Float32 sums in another order: 1e-4 of a map's range at most, and the order of its pixels stays."""
    eager = explainer(student, name, **options)
    expected = maps(eager, requests())
    found = maps(with_engine(eager, dataclasses.replace(EAGER, engine=engine), SIZE), requests())
    assert found.dtype == np.float32
    assert difference(expected, found) < 1e-4
    for one, other in zip(expected, found, strict=True):
        if np.ptp(one) == 0:  # nothing raises this class
            assert np.ptp(other) == 0
        else:
            correlation: Any = spearmanr(one.ravel(), other.ravel())
            assert correlation.statistic > 0.9999


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask", {"num_iterations": 5}),
        ("score_cam", {"target_layer": "layer1"}),
        ("integrated_gradients", {"num_steps": 4}),
        ("readout", {}),
    ],
)
def test_torch_in_bfloat16_makes_nearly_the_same_maps(student, name, options):
    """Of what is no static graph; the student that others look into stays float32."""
    student = dataclasses.replace(student, model=copy.deepcopy(student.model))
    student.model.add_module("readout", new_readout(student.model).eval().requires_grad_(False))
    eager = dataclasses.replace(explainer(student, name, **options), seeded=METHODS[name].seeded)
    low = with_engine(eager, dataclasses.replace(EAGER, precision="bfloat16"), SIZE)
    answers = [[answer for answer in each(requests(3)) if answer is not None] for each in (eager, low)]
    expected, found = (np.stack([answer.saliency for answer in one]) for one in answers)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    assert (found != expected).any()
    alike = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(expected, found, strict=True)]
    assert np.mean(alike) > 0.9
    assert {tensor.dtype for tensor in student.model.parameters()} == {torch.float32}
    costs = [[answer.passes for answer in one] for one in answers]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_alone_has_the_bytes_that_it_has_in_any_batch(student, engine):
    made = with_engine(explainer(student), dataclasses.replace(EAGER, engine=engine), SIZE)
    asked = requests()
    some = [request if i in (0, 5, 9) else None for i, request in enumerate(asked)]
    together, alone = made(asked), dataclasses.replace(made, num_threads=1)(some)
    for i in (0, 5, 9):
        one, other = together[i], alone[i]
        assert one is not None
        assert other is not None
        assert one.saliency.tobytes() == other.saliency.tobytes()
        assert (one.passes, one.target) == (1, i)


def test_a_target_that_is_no_class_is_refused_and_a_missing_one_is_the_students_own(student):
    made = with_engine(explainer(student), dataclasses.replace(EAGER, engine="openvino"), SIZE)
    with pytest.raises(ValueError, match=r"classes: 0\.\.11"):
        made([dataclasses.replace(requests(1)[0], target=12)])
    (answer,) = made([dataclasses.replace(requests(1)[0], target=None)])
    logits = student.model(student.normalize(requests(1)[0].frame[None]))
    assert answer is not None
    assert answer.target == int(logits.argmax())


class OneConvolution(nn.Module):
    """A convolution, perhaps with a batch norm behind it, between two that make its gradient uneven."""

    def __init__(self, kernel: int, stride: int, padding: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, kernel, stride, padding, bias=not norm)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()

    def forward(self, x):
        return torch.sigmoid(self.norm(self.conv(x)))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 1, 0), (7, 1, 3), (1, 2, 0)])
def test_the_gradient_of_a_convolution_is_a_convolution(kernel, stride, padding, norm):
    check_gradient(OneConvolution(kernel, stride, padding, norm=norm), "Conv")


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (3, 2, 0), (7, 3, 3), (2, 2, 0)])
def test_the_gradient_of_a_strided_convolution_reaches_every_pixel(kernel, stride, padding):
    check_gradient(OneConvolution(kernel, stride, padding, norm=True), "ConvTranspose")


def check_gradient(net: nn.Module, kind: str) -> None:
    """Compare a gradient with the one that ONNX's own slow interpreter computes from the written graph."""
    from onnx import load_from_string
    from onnx.reference import ReferenceEvaluator

    def slope(model, images, target):
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            (found,) = torch.autograd.grad(model(images).sum(), [images])
        return found * target[:, None, None, None]

    torch.manual_seed(0)
    net = net.eval().requires_grad_(False)
    for number in net.buffers():
        if number.is_floating_point():
            number.uniform_(0.5, 2)
    images, target = torch.randn(2, 3, 12, 15), torch.tensor([1, 3])
    graph = load_from_string(write_onnx(trace(slope, net, (2, 3, 12, 15))))
    feeds = dict(zip([one.name for one in graph.graph.input], [images.numpy(), target.numpy()], strict=True))
    found: Any = list(ReferenceEvaluator(graph).run(None, feeds))[0]  # noqa: RUF015
    np.testing.assert_allclose(found, slope(net, images, target), atol=1e-6, rtol=1e-4)
    assert kind in {node.op_type for node in graph.graph.node}


def test_nothing_of_a_network_before_the_layers_is_differentiated(student):
    """Below layer 2 lie 9 of an 18-layer student's 20 convolutions, each computed once; the others also backwards."""
    graph = trace(mal_grad_cam, student.model, (1, 3, *SIZE)).graph
    targets = [str(node.target) for node in graph.nodes]
    spatial_gates = 8
    assert targets.count("aten.convolution.default") == 20 + spatial_gates
    assert targets.count("aten.convolution_backward.default") == 10 + spatial_gates // 2


def test_the_choice_is_measured_once(student, tmp_path, monkeypatch):
    made = explainer(student, "grad_cam")
    found = select_engine(made, student, "auto", name="grad_cam")
    (decision,) = (tmp_path / "cache" / "engines").glob("*.json")
    assert EngineChoice(**json.loads(decision.read_text())) == found
    assert found.batch_size == PASS_IMAGES
    monkeypatch.setattr(explain.compiled.select, "_measure", lambda *_: pytest.fail("measured again"))
    assert select_engine(made, student, "auto", name="grad_cam") == found
    with pytest.raises(pytest.fail.Exception):
        select_engine(explainer(student, "grad_cam", target_layer="layer3"), student, "auto", name="grad_cam")


@pytest.mark.parametrize("wrong", [0.98, float("nan")])
def test_an_engine_whose_maps_are_not_torchs_is_not_taken(student, monkeypatch, wrong):
    right = explain.compiled.select.open_graph
    monkeypatch.setattr(
        explain.compiled.select, "open_graph", lambda *call, **how: lambda *arrays: wrong * right(*call, **how)(*arrays)
    )
    made = explainer(student, "grad_cam")
    assert select_engine(made, student, "auto", name="grad_cam") == EAGER
    with pytest.raises(ValueError, match="use --engine eager"):
        select_engine(made, student, "openvino", name="grad_cam")


def test_a_network_that_writes_in_place_stays_with_torch(student):
    other = dataclasses.replace(student, fingerprint="in place")
    made = Explainer(function=mal_grad_cam, model=tiny_net(num_classes=12), normalize=student.normalize)
    with pytest.raises(UnknownOperationError, match="mul_"):
        compile_method(
            mal_grad_cam, tiny_net(num_classes=12), dataclasses.replace(EAGER, engine="onnxruntime"), size=SIZE
        )
    assert select_engine(made, other, "auto", name="mal_grad_cam") == EAGER


@pytest.mark.parametrize("missing", ["onnx", "openvino"])
def test_what_is_not_installed_is_said(student, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        explain.compiled.select.importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(ValueError, match=f"pip install {missing}"):
        select_engine(explainer(student), student, "openvino", name="mal_grad_cam")


def test_a_difference_is_a_share_of_each_maps_own_range():
    expected = np.stack([np.arange(6.0).reshape(2, 3), np.full((2, 3), 7.0)])
    assert difference(expected, expected) == 0
    assert difference(expected, expected + np.array([0.5, 0.0])[:, None, None]) == pytest.approx(0.1)
    assert difference(expected, expected + np.array([0.0, 0.7])[:, None, None]) == pytest.approx(0.1)
    assert difference(expected, expected * np.nan) == float("inf")


FIRST_CALLS = """
import sys, threading
import numpy as np
import onnx
from onnx import TensorProto, helper
from distill.teachers.engines.backends import EngineChoice, open_graph

images = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("images", "outputs")]
graph = helper.make_graph([helper.make_node("Relu", ["images"], ["outputs"])], "relu", images[:1], images[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
choice = EngineChoice(engine="openvino", precision="float32", batch_size=1)
run = open_graph(model.SerializeToString(), choice, num_streams=4)
sys.setswitchinterval(1e-6)
together = threading.Barrier(4)

def call():
    together.wait()
    run(np.ones((1, 3), np.float32))

threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
sys.exit(any(thread.is_alive() for thread in threads))
"""


def test_the_first_calls_of_several_threads_do_not_wait_for_each_other():
    assert subprocess.run([sys.executable, "-c", FIRST_CALLS], check=False, timeout=120).returncode == 0
