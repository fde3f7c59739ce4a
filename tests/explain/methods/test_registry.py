import inspect
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from tiny_nets import noise, tiny_net

from cluster.storage import as_stored
from distill.student.model import ResCBAM
from explain.methods.grid import grid_size
from explain.methods.query.queries import Queries
from explain.methods.registry import METHODS, find_method
from explain.methods.white_box.grad_cam import grad_cam
from explain.readout.checkpoint import new_readout

# No more than a map needs to be one: the budgets' own tests are beside each method.
SMALL = {
    "rise": {"num_masks": 200},
    "lime": {"num_samples": 200},
    "kernel_shap": {"num_samples": 200},
    "sobol": {"num_samples": 200},
    "hsic": {"num_samples": 200},
    "oracle": {"num_queries": 300},
    "mask": {"num_iterations": 30},
}


def explain(name, targets):
    method = METHODS[name]
    seeds = {"seeds": [1, 2]} if method.seeded else {}
    model = tiny_net()
    if method.needs_readout:
        torch.manual_seed(0)
        model = ResCBAM(18, 5).eval().requires_grad_(False)
        model.add_module("readout", new_readout(model).eval())
    if method.is_query_based:
        model = Queries(lambda frames: tiny_net()(frames).detach().softmax(dim=1))
    options = asdict(method.options()) | SMALL.get(name, {})
    return method.load()(model, noise(2, 32, 64), torch.tensor(targets), **options, **seeds)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_finite_map_of_the_input_size_or_on_the_grid(name):
    maps = explain(name, [0, 4])
    assert maps.shape in ((2, 32, 64), (2, *grid_size(32, 64)))
    assert maps.dtype == torch.float32
    assert torch.isfinite(maps).all()
    assert not maps.requires_grad


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].is_query_based])
def test_a_map_is_the_same_for_all_classes_where_the_registry_says_so(name):
    assert torch.equal(explain(name, [0, 4]), explain(name, [1, 3])) != METHODS[name].class_specific


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_options_that_the_registry_names_and_nothing_else(name):
    method = METHODS[name]
    for function in (method.load(), method.load_with_std()):
        assert function.options is method.options
    parameters = inspect.signature(method.load_with_std()).parameters
    assert list(parameters)[:4] == ["model", "images", "target", "options"]
    assert ("seeds" in parameters) == method.seeded
    assert set(parameters) <= {"model", "images", "target", "options", "seeds", "student", "start"}
    with pytest.raises(TypeError, match="nonsense"):
        method.load()(None, None, None, nonsense=1)


@pytest.mark.parametrize("name", METHODS)
def test_stored_options_come_back_as_they_were(name):
    method = METHODS[name]
    assert method.read_options(as_stored(method.options())) == method.options()
    with pytest.raises(ValueError, match="unknown options nonsense; options: "):
        method.read_options({"nonsense": 1})


def test_options_are_an_object_or_keywords_but_not_both():
    options = METHODS["grad_cam"].options(target_layer="layer3", class_score="probability")
    net, images, target = tiny_net(), noise(2, 32, 64), torch.tensor([0, 4])
    expected = grad_cam(net, images, target, target_layer="layer3", class_score="probability")
    assert torch.equal(grad_cam(net, images, target, options), expected)
    with pytest.raises(TypeError, match="an options object and class_score"):
        grad_cam(net, images, target, options, class_score="logit")
    with pytest.raises(ValueError, match="num_steps 0 is too small"):
        METHODS["integrated_gradients"].load()(net, images, target, num_steps=0)


def test_unknown_method_is_told_what_there_is():
    with pytest.raises(ValueError, match="unknown method 'gradcam'; methods: mal_grad_cam, ml_grad_cam, matt"):
        find_method("gradcam")


def test_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, explain.__main__; "
        "print([m for m in ('torch', 'ray', 'mlflow', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
