import pytest
import torch
from tiny_nets import Gate, noise, slow_min_max, slow_upsample, tiny_net

from explain.methods.white_box.matt import matt


def slow_matt(net, image, sign, collapse, normalise):
    """Walk the layers by hand, and each attention map channel by channel."""
    total, x = torch.zeros(48, 80), image[None]
    for i in range(4):
        f_in = net.get_submodule(f"layer{i + 1}.0.conv")(x)
        f_out = net.get_submodule(f"layer{i + 1}.0.cbam")(f_in)
        map_ = torch.zeros(f_in.shape[2:])
        for c in range(f_in.shape[1]):
            change = {"positive": 1, "negative": -1, "absolute": 1}[sign] * (f_out[0, c] - f_in[0, c])
            map_ += change.abs() if "abs" in sign + collapse else change
        map_ = map_ / (1 if collapse == "sum" else f_in.shape[1])
        total += slow_upsample(slow_min_max(map_) if normalise == "min_max" else map_, 48, 80)
        x = torch.relu(f_out * 1.5 - 0.1)
    return total


@pytest.mark.parametrize("sign", ["positive", "negative", "absolute"])
@pytest.mark.parametrize(("collapse", "normalise"), [("sum", "none"), ("mean", "min_max"), ("abs_mean", "none")])
def test_equals_a_slow_derivation(sign, collapse, normalise):
    net, images = tiny_net(), noise(2)
    maps = matt(net, images, torch.zeros(2), sign=sign, collapse=collapse, normalise=normalise)
    for i in range(2):
        expected = slow_matt(net, images[i], sign, collapse, normalise)
        torch.testing.assert_close(maps[i], expected, atol=1e-5, rtol=1e-5)


def test_signs_are_opposite_and_both_occur():
    net, images = tiny_net(), noise(1)
    positive, negative = (
        matt(net, images, torch.zeros(1), sign=sign, normalise="none") for sign in ("positive", "negative")
    )
    torch.testing.assert_close(negative, -positive)
    assert positive.min() < 0 < positive.max()


def test_does_not_depend_on_the_target():
    net, images = tiny_net(), noise(2)
    first = matt(net, images, torch.tensor([0, 0]))
    torch.testing.assert_close(matt(net, images, torch.tensor([3, 4])), first, atol=0, rtol=0)


def test_constant_maps_become_zeros():
    net = tiny_net()
    for module in net.modules():
        if isinstance(module, Gate):
            for parameter in module.parameters():  # the gate is 2 * sigmoid(0): nothing changes
                parameter.zero_()
    saliency = matt(net, noise(2), torch.zeros(2), normalise="min_max")
    assert torch.equal(saliency, torch.zeros(2, 48, 80))


def test_refuses_a_model_without_attention():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)).eval()
    with pytest.raises(ValueError, match="no module named"):
        matt(net, noise(1), torch.zeros(1))


class Overwriting(Gate):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(torch.sigmoid(self.conv(x)))


def test_refuses_attention_that_overwrites_its_input():
    net = tiny_net()
    net.get_submodule("layer3.0").cbam = Overwriting(8).eval().requires_grad_(False)
    with pytest.raises(ValueError, match=r"layer3\.0\.cbam.*overwrites its input"):
        matt(net, noise(1), torch.zeros(1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
