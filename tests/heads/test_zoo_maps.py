"""The backbones that know animals and things say what the shipped embeddings say, and heads take over their masks."""

import pytest
import torch
from torch.nn import functional as F

from geoframe.heads.positions import ControlPositions
from geoframe.heads.zoo_maps import ZooMaps, shipped_for
from geoframe.models.surface_embedding import load
from geoframe.surface import farthest_points
from geoframe.surface.shapes import icosphere


@pytest.mark.parametrize("name", ["animals", "things"])
def test_maps_are_those_of_the_embedding_and_its_mask_starts_the_heads(name):
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net = ZooMaps(name, enlarged=2)
    with torch.no_grad():
        maps = net(image)
        large = F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
        model = load(name).model
        field = model(large)
        parts = 4 // model.head.stride  # of a side of the squares of 4 pixels that maps tell of
        embedding, mask = (F.avg_pool2d(x, parts) for x in (field.embedding, field.mask))
        told = F.pixel_shuffle(maps[2][:, -4 * (embedding.shape[1] + 1) :], 2)
        torch.testing.assert_close(told[:, :-1], embedding, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(net.foreground(maps), mask, rtol=1e-4, atol=1e-3)
        assert [m.shape[1] for m in maps] == net.channels and net.strides == [1, 2, 4, 8, 16]

        verts = icosphere(2).verts.double()
        head = ControlPositions(net, verts, verts[:, :2] ** 2, farthest_points(verts, 12), width=16)
        torch.nn.init.zeros_(head.field.out.weight)
        torch.nn.init.zeros_(head.field.out.bias)
        found = head(image).mask
    assert found is not None and not list(net.parameters()) and not net.state_dict()
    wide = F.interpolate(mask[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found, wide, rtol=1e-4, atol=1e-3)


def test_what_is_shipped_knows_categories_of_the_zoo():
    assert [shipped_for(name) for name in ("cow", "human", "car", "table")] == [
        "animals",
        "animals",
        "things",
        None,
    ]
    with pytest.raises(ValueError, match="name: expected one of 'animals', 'things'"):
        ZooMaps("plants")
