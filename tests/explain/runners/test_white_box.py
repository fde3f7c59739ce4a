from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_nets import tiny_net

from explain.methods.control.random import random
from explain.methods.white_box.mal_grad_cam import mal_grad_cam
from explain.runners.white_box import PASS_IMAGES, Explainer, Request, share_weights

RNG = np.random.default_rng(0)
FRAMES = [RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(11)]


def normalise(frames):
    return torch.from_numpy(frames).permute(0, 3, 1, 2) / 128 - 1


def explainer(**changed):
    return Explainer(**{"function": mal_grad_cam, "model": tiny_net(), "normalize": normalise, **changed})


def requests(target: int | None = 2):
    return [Request(frame=frame, target=target, seed=i) for i, frame in enumerate(FRAMES)]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_maps_are_the_methods_own(num_threads):
    answers = explainer(num_threads=num_threads)(requests())
    expected = mal_grad_cam(tiny_net(), normalise(np.stack(FRAMES)), torch.full((11,), 2))
    for answer, map_ in zip(answers, expected, strict=True):
        assert answer is not None
        torch.testing.assert_close(torch.from_numpy(answer.saliency), map_)
        assert (answer.target, answer.target_prob) == (2, None)
        assert answer.seconds > 0


def test_bytes_depend_on_neither_threads_nor_neighbors():
    asked = requests()
    some = [request if i in (0, 3, 9) else None for i, request in enumerate(asked)]
    for one, other in zip(explainer(num_threads=3)(some), explainer()(asked), strict=True):
        if one is not None:
            assert other is not None
            assert one.saliency.tobytes() == other.saliency.tobytes()


def test_every_pass_has_the_same_size():
    seen = []
    net = tiny_net()
    net.register_forward_hook(lambda *call: seen.append(len(call[-1])))
    answers = explainer(model=net)([*requests(), None])
    assert seen == [PASS_IMAGES, PASS_IMAGES]
    assert [answer is None for answer in answers] == [False] * 11 + [True]


def test_nothing_to_explain_is_no_pass():
    assert explainer(model=None)([None, None]) == [None, None]
    assert explainer(model=None)([]) == []


def test_the_students_top_class_is_the_target_where_none_is_given():
    probs = tiny_net()(normalise(np.stack(FRAMES))).softmax(dim=1)
    for answer, expected in zip(explainer()(requests(target=None)), probs, strict=True):
        assert answer is not None
        assert answer.target == int(expected.argmax())
        assert answer.target_prob == pytest.approx(float(expected.max()), rel=1e-4)


def test_a_control_needs_no_model_and_gets_its_seeds():
    answers = explainer(function=random, seeded=True, model=None, normalize=None)(requests(target=None))
    expected = random(None, torch.zeros(11, 3, 32, 48), torch.zeros(11), seeds=list(range(11)))
    assert all(
        answer and answer.target is None and np.array_equal(answer.saliency, map_.numpy())
        for answer, map_ in zip(answers, expected, strict=True)
    )


def test_copies_share_weights_but_not_hooks():
    net = tiny_net()
    twin = share_weights(net)
    assert twin is not None
    assert all(a is b for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    twin.get_submodule("layer1").register_forward_hook(lambda *_: None)
    assert not net.get_submodule("layer1")._forward_hooks


@pytest.mark.parametrize("num_threads", [1, 3])
def test_calls_from_sixteen_threads_give_the_bits_of_one_after_the_other(num_threads):
    """As a served model is called: hooks of two passes must never meet in one copy of the network."""
    shared = explainer(num_threads=num_threads)
    calls = [
        [Request(frame=FRAMES[k % 11], target=k % 5), None, Request(frame=FRAMES[k % 7], target=1)] for k in range(64)
    ]
    expected = [shared(call) for call in calls]
    with ThreadPoolExecutor(16) as clients:
        answered = list(clients.map(shared, calls))
    for one, other in zip(expected, answered, strict=True):
        assert other[1] is None
        for found, same in ((one[0], other[0]), (one[2], other[2])):
            assert found is not None
            assert same is not None
            assert found.saliency.tobytes() == same.saliency.tobytes()
            assert (found.target, found.passes) == (same.target, same.passes)
