"""The network of surface embeddings: points of fields, kept maps, styles, starts, calibration."""

from __future__ import annotations

import pytest
import torch

import geoframe
from geoframe.canonical import GeodesicRows
from geoframe.heads import Field, FieldHead, backbone
from geoframe.layers.vertex_embedding import SharedEmbedding, VertexEmbedding
from geoframe.models.surface_embedding import SurfaceEmbedding
from geoframe.models.surface_embedding.network import (
    Calibration,
    Embedded,
    Evidence,
    at_points,
    mean_of,
    on_functions,
    smooth_start,
)


@pytest.fixture(scope="module")
def ellipsoid():
    from geoframe.canonical.surface import Surface

    return Surface.of(_ellipsoid(), {"nose": 0})


def _ellipsoid():
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=3)
    verts = torch.as_tensor(ball.vertices.copy()) * torch.tensor([2.0, 1.0, 0.7], dtype=torch.float64)
    return geoframe.Mesh(verts, torch.as_tensor(ball.faces.copy()).long())


def _network(surface, style=0.0):
    torch.manual_seed(0)
    head = FieldHead(backbone("small"), 6, width=32)
    return SurfaceEmbedding(
        head, SharedEmbedding({"it": VertexEmbedding(surface, 6, functions=20)}), style=style
    )


def test_values_at_pixel_centres_are_those_of_the_enlarged_field():
    head = FieldHead(backbone("small"), 3, width=32)
    field = Field(torch.randn(2, 3, 8, 8), torch.randn(2, 8, 8))
    whole = head.at_size(field, 32, 32).embedding
    col, row = torch.randint(32, (2, 5)), torch.randint(32, (2, 5))
    found = at_points(field.embedding, torch.stack([col, row], -1) + 0.5, 4)
    want = torch.stack([whole[b][:, row[b], col[b]].T for b in range(2)])
    torch.testing.assert_close(found, want)


def _planes(crop, h, w):
    """Fields that are linear in the place in the image, at the centres of (h, w) squares that cover a crop."""
    x0, y0, x1, y1 = crop
    x = x0 + (torch.arange(w) + 0.5) * (x1 - x0) / w
    y = y0 + (torch.arange(h) + 0.5) * (y1 - y0) / h
    y, x = torch.meshgrid(y, x, indexing="ij")
    return Embedded(torch.stack([x, y, 2 * x - y]), x + 3 * y, ())


def test_two_looks_at_one_plane_have_it_as_their_mean():
    wide, close = (10, 0, 90, 60), (33, 12, 75, 41)
    first, second = _planes(wide, 15, 20), _planes(close, 9, 13)
    found = mean_of([(wide, first), (close, second._replace(mask=second.mask + 2))])
    torch.testing.assert_close(found.embedding, second.embedding)
    torch.testing.assert_close(found.mask, second.mask + 1)
    coarse = _planes(wide, 7, 9)
    coarse = coarse._replace(embedding=coarse.embedding + 3, mask=coarse.mask + 5)
    found = mean_of([(wide, coarse), (wide, first), (close, second)], coarse=1)
    torch.testing.assert_close(found.embedding, second.embedding + 1)
    torch.testing.assert_close(found.mask, second.mask)


def test_kept_maps_give_what_the_image_gives(ellipsoid):
    net = _network(ellipsoid).eval()
    image = torch.rand(2, 3, 64, 64)
    one, two = net(image), net(net.head.backbone(image))
    torch.testing.assert_close(one.embedding, two.embedding)
    torch.testing.assert_close(one.mask, two.mask)
    with pytest.raises(ValueError, match="expected the 5 maps of 'small', found 2"):
        net.head(net.head.backbone(image)[:2])


def test_styles_are_exchanged_in_training_only(ellipsoid):
    net = _network(ellipsoid, style=1.0)
    image = torch.rand(4, 3, 64, 64)
    alone = net.eval()(image[:1]).embedding
    torch.testing.assert_close(net(image).embedding[:1], alone, atol=1e-5, rtol=1e-4)
    net.train()
    torch.manual_seed(1)
    assert not torch.allclose(net(image).embedding, net(image).embedding)
    with pytest.raises(ValueError, match="style: expected a chance"):
        _network(ellipsoid, style=2.0)


def test_a_smooth_start_puts_neighbours_together(ellipsoid):
    embedding = VertexEmbedding(ellipsoid, 16, functions=60)
    smooth_start(embedding)
    E, rows = embedding().detach(), GeodesicRows(ellipsoid).rows(torch.arange(0, 642, 40))
    alike = E[::40] @ E.T
    assert alike[(rows > 0.03) & (rows < 0.08)].mean() > 0.9
    assert alike[(rows > 0.4)].mean() < 0.3


def test_the_weights_of_a_table_give_the_table(ellipsoid):
    """E = normalise(Phi W), and of Phi W itself the projection is W."""
    embedding = VertexEmbedding(ellipsoid, 5, functions=30)
    table = embedding.basis @ embedding.weight.detach()
    torch.testing.assert_close(
        on_functions(embedding, table), embedding.weight.detach(), atol=1e-4, rtol=1e-3
    )


def test_calibration_finds_the_probabilities_that_made_the_answers():
    torch.manual_seed(0)
    evidence = Evidence(torch.rand(20000), torch.rand(20000), 4 * torch.randn(20000))
    p = (3 * evidence.concentration + 2 * evidence.agreement + 0.2 * evidence.mask.clamp(-8, 8) - 3).sigmoid()
    calibration = Calibration()
    calibration.fit(evidence, torch.rand(20000) < p)
    assert (calibration(evidence) - p).abs().mean() < 0.02
    with pytest.raises(ValueError, match="right: expected some pixels that are right"):
        calibration.fit(evidence, torch.ones(20000, dtype=torch.bool))
