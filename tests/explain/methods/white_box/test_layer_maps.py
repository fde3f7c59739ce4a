import torch
from tiny_nets import slow_min_max, slow_upsample

from explain.methods.white_box.layer_maps import min_max, sum_over_layers, upsample


def test_min_max_scales_each_image_by_itself():
    maps = torch.stack([torch.linspace(-3, 5, 12).view(3, 4), torch.linspace(0, 1e-6, 12).view(3, 4)])
    for scaled, map_ in zip(min_max(maps), maps, strict=True):
        torch.testing.assert_close(scaled, slow_min_max(map_))
        assert scaled.min() == 0
        assert scaled.max() == 1


def test_min_max_of_a_constant_map_is_zeros_beside_others():
    maps = torch.stack([torch.full((2, 3), 7.0), torch.arange(6.0).view(2, 3)])
    scaled = min_max(maps)
    assert torch.equal(scaled[0], torch.zeros(2, 3))
    assert scaled[1].max() == 1


def test_upsample_is_bilinear_between_pixel_centres():
    map_ = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(upsample(map_[None], (12, 15))[0], slow_upsample(map_, 12, 15), atol=1e-6, rtol=1e-5)


def test_sum_gives_every_layer_its_own_size():
    layers = [torch.ones(2, 1, 1), torch.full((2, 4, 2), 2.0)]
    assert torch.equal(sum_over_layers(layers, (8, 6)), torch.full((2, 8, 6), 3.0))
