"""Hold the pools of training, their gradients and CBAM with them against torch's own."""

import pytest
import torch
from torch import Tensor

from distill.student.model import CBAM
from distill.student.pooling import pool_channels, pool_pixels

LAYOUTS = (torch.contiguous_format, torch.channels_last)
SHAPE = (3, 6, 5, 4)


def weighed(*values: Tensor) -> Tensor:
    """Add values up with weights of their own, so that every gradient differs."""
    return torch.stack([(v * torch.arange(v.numel(), dtype=v.dtype).view(v.shape).cos()).sum() for v in values]).sum()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("pool", "dims", "keep"), [(pool_pixels, (2, 3), False), (pool_channels, (1,), True)])
def test_pools_and_gradients_are_torchs(layout, pool, dims, keep):
    made = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, plain = (made.clone(memory_format=layout).requires_grad_() for _ in range(2))
    mean, top, through = pool(ours)
    expected = (plain.mean(dim=dims, keepdim=keep), plain.amax(dim=dims, keepdim=keep), plain)
    for found, wanted in zip((mean, top, through), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    weighed(mean, top, through**2).backward()
    weighed(expected[0], expected[1], plain**2).backward()
    torch.testing.assert_close(ours.grad, plain.grad)


@pytest.mark.parametrize("pool", [pool_pixels, pool_channels])
def test_of_equal_values_the_first_gets_the_maximums_gradient(pool):
    x = torch.zeros(SHAPE).requires_grad_()
    _, top, _ = pool(x)
    top.sum().backward()
    grad = x.grad
    assert grad is not None
    assert set(grad.unique().tolist()) == {0.0, 1.0}
    assert grad.sum() == top.numel()
    first = grad[:, 0] if pool is pool_channels else grad[:, :, 0, 0]
    assert bool((first == 1).all())


def test_a_training_step_of_cbam_is_the_plain_ones():
    torch.manual_seed(0)
    module = CBAM(32).double().train()
    module.spatial.bn.weight.data.fill_(0.7)
    made = torch.randn(4, 32, 7, 9, dtype=torch.float64).to(memory_format=torch.channels_last)
    found = []
    for step in (module._train, plain_step(module)):
        x = made.clone().requires_grad_()
        module.zero_grad()
        out = step(x)
        weighed(out).backward()
        found.append([out, x.grad, *(p.grad for p in module.parameters())])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(module(made), found[0][0])


def plain_step(module: CBAM):
    def step(x: Tensor) -> Tensor:
        gated = module.channel(x) * x
        return module.spatial(gated) * gated

    return step


def test_without_gradients_or_training_torchs_own_pools_are_used(monkeypatch):
    monkeypatch.setattr(CBAM, "_train", lambda *_: pytest.fail("not in training"))
    module = CBAM(32)
    with torch.no_grad():
        module.train()(torch.zeros(2, 32, 3, 3))
    module.eval()(torch.zeros(2, 32, 3, 3, requires_grad=True))
