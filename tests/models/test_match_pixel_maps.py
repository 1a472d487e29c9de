"""Matches of two pictures by the embeddings of their pixels: a known map is found, the rest is told."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.models.deep_matching import match_pixel_maps
from geoframe.pixels import PixelMap
from geoframe.surface.shapes import icosphere


def disc(radius: float, size: tuple[int, int], turn: float = 0.0, sure: float = 0.8) -> PixelMap:
    """A disc in the middle of an image whose pixels are embedded by where they lie in it, turned by an angle."""
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 - n / 2 for n in size), indexing="ij")
    c, s = math.cos(turn), math.sin(turn)
    place = torch.stack([c * x + s * y, c * y - s * x], -1) / radius
    mask = place.norm(dim=-1) < 1
    centres = torch.rand(24, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    embedding = torch.exp(-(place[..., None, :] - centres).square().sum(-1) / 0.1)
    vertex = torch.zeros(size, dtype=torch.int64).masked_fill(~mask, -1)
    return PixelMap(icosphere(0), vertex, mask, sure * mask.float(), embedding=embedding * mask[..., None])


def test_a_turned_and_larger_object_is_found():
    maps = disc(20.0, (48, 60)), disc(34.0, (80, 72), turn=0.3, sure=0.5)
    images = torch.rand(3, 48, 60), torch.rand(3, 80, 72)
    found = match_pixel_maps(*images, *maps, places=32)
    c, s = math.cos(0.3), math.sin(0.3)
    centred = (found.points0 - torch.tensor([30.0, 24.0])) * 34 / 20
    truth = centred @ torch.tensor([[c, s], [-s, c]]) + torch.tensor([36.0, 40.0])
    off = (found.points1 - truth).norm(dim=1)
    assert len(off) > 200 and float((off < 2 * 68 / 32).float().mean()) > 0.9
    torch.testing.assert_close(found.confidence.median(), torch.tensor(0.4))
    known = found.flow.isfinite().all(0)
    assert torch.equal(known, maps[0].mask)
    goal = found.flow[:, known] + torch.nonzero(known).T.flip(0) + 0.5
    plain = (torch.nonzero(known).flip(1) + 0.5 - torch.tensor([30.0, 24.0])) * 34 / 20
    truth = plain @ torch.tensor([[c, s], [-s, c]]) + torch.tensor([36.0, 40.0])
    assert float((goal.T - truth).norm(dim=1).median()) < 2
    assert not found.flow_confidence[~known].any() and 0.3 < found.mean_confidence < 0.45


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.replace(embedding=None), "map1: expected a map with embeddings, found none"),
        (lambda m: disc(1e-6, (48, 60)), "map1: expected some foreground, found none"),
        (lambda m: disc(10.0, (48, 61)), r"map1: expected the size of image1, \(48, 60\), found \(48, 61\)"),
        (lambda m: m.replace(embedding=m.embedding[..., :3]), r"field1: expected shape \(24, h1, w1\)"),
    ],
)
def test_maps_that_do_not_fit_are_told(change, told):
    image, good = torch.rand(3, 48, 60), disc(20.0, (48, 60))
    with pytest.raises(ValueError, match=told):
        match_pixel_maps(image, image, good, change(good))
