"""Groups: closed, with an inverse, and the same multiplication in the plane and in the channels."""

from __future__ import annotations

import pytest
import torch

from geoframe.layers.groups import mirror_group, named_group, rotation_group, trivial_group

GROUPS = {
    "none": trivial_group(5),
    "mirror": mirror_group(5, flipped=2),
    "three": rotation_group(3, 7, planes=3),
    "five": rotation_group(5, 4),
}


@pytest.mark.parametrize("name", GROUPS)
def test_both_actions_multiply_alike(name):
    group = GROUPS[name]
    for a in range(len(group)):
        for b in range(len(group)):
            product = group.plane[a] @ group.plane[b]
            which = [k for k in range(len(group)) if torch.allclose(group.plane[k], product, atol=1e-5)]
            assert len(which) == 1
            assert torch.allclose(group.channels[a] @ group.channels[b], group.channels[which[0]], atol=1e-5)
    identity = torch.eye(group.channels.shape[1])
    assert torch.equal(group.plane[0], torch.eye(2)) and torch.equal(group.channels[0], identity)
    assert torch.allclose(group.channels @ group.channels.mT, identity.expand_as(group.channels), atol=1e-5)


def test_points_move_with_the_picture():
    group = rotation_group(4, 2)
    image = torch.zeros(1, 3, 20, 20)
    image[:, :, 3, 6] = 1.0
    turned = group.warp(1).sample(image)
    y, x = divmod(int(turned[0, 0].argmax()), 20)
    place = group.move(1, torch.tensor([[6.5, 3.5]]) / 10 - 1)
    assert torch.allclose(place, torch.tensor([[x + 0.5, y + 0.5]]) / 10 - 1, atol=1e-5)
    assert torch.allclose(mirror_group(3).warp(1).sample(image), image.flip(-1), atol=1e-5)


def test_channels_are_negated_and_pixels_stay():
    field = torch.randn(2, 5, 3, 4)
    out = mirror_group(5, flipped=2).act(1, field)
    assert torch.equal(out, torch.cat([-field[:, :2], field[:, 2:]], 1))


def test_names():
    assert len(named_group("none", 3)) == 1 and len(named_group("rotation-5", 8)) == 5
    assert float(torch.trace(named_group("mirror", 16).channels[1])) == 8.0  # 4 of 16 are negated
    with pytest.raises(ValueError, match="group: expected 'none', 'mirror'"):
        named_group("spiral", 3)
    with pytest.raises(ValueError, match="flipped: expected an integer from 1 to 3"):
        mirror_group(3, flipped=4)
