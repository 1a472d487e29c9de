"""A proxy lies on the surface, is closed where it is closed, and carries its eigenfunctions back."""

import numpy as np
import pytest
import torch

from geoframe import geodesic_distances
from geoframe.canonical import Surface
from geoframe.maps import match, match_both_ways
from geoframe.maps.proxy import proxy
from geoframe.surface import health, subdivide
from geoframe.surface.shapes import ellipsoid


@pytest.fixture
def small(monkeypatch):
    """Proxies of 500 vertices."""
    monkeypatch.setattr("geoframe.maps.proxy.LARGE", 1000)
    monkeypatch.setattr("geoframe.maps.proxy.SIZE", 500)


def test_a_small_surface_stands_for_itself(bumpy):
    surface = Surface.of(bumpy)
    assert proxy(surface).surface is surface and proxy(surface).is_whole


def test_a_proxy_is_a_sound_surface_on_the_large_one(small):
    surface = Surface.of(ellipsoid(level=5))
    found = proxy(surface)
    about = health(found.surface)
    assert found.surface.n_verts == 500 and about.is_manifold and about.n_components == 1 and about.genus == 0
    assert torch.equal(surface.verts[found.vertex], found.surface.verts)
    assert torch.equal(found.cell[found.vertex], torch.arange(500))
    away = (surface.verts - found.surface.verts[found.cell]).norm(dim=1)
    assert float(away.max()) < 3 * float((surface.area / 500).sqrt())
    assert (
        float((found.surface.vertex_normals * found.surface.verts).sum(1).min()) > 0
    )  # as the surface is turned
    assert proxy(surface).surface is found.surface


def test_eigenfunctions_are_carried_back(small):
    surface = Surface.of(ellipsoid(level=5))
    exact, carried = surface.basis(20), proxy(surface).basis(proxy(surface).surface.basis(20))
    np.testing.assert_allclose(carried.vals[1:], exact.vals[1:], rtol=0.03)
    U, M = carried.vecs, carried.mass
    torch.testing.assert_close(U.T @ (M[:, None] * U), torch.eye(20).double(), atol=1e-9, rtol=0)


def test_a_large_pair_is_matched_like_a_small_one(small, bumpy):
    """Both are subdivisions of one surface, one of them in another order: the truth is known."""
    large, _ = subdivide(bumpy, 1)
    order = torch.randperm(large.n_verts, generator=torch.Generator().manual_seed(0))
    other = type(large)(2 * large.verts[order], torch.argsort(order)[large.faces])
    at = torch.tensor([0, 100, 300, 500])
    found = match(large, other, torch.stack([order[at], at], 1), k=60, precise=True)
    assert found.p2p_21.shape == (large.n_verts,) and found.C_12.shape == (60, 60)
    assert max(found.settings["proxies"]) <= 500
    probes = torch.arange(0, large.n_verts, 50)
    away = (
        geodesic_distances(large, order[probes]).gather(1, found.p2p_21[probes][:, None]) / large.area.sqrt()
    )
    assert float(away.mean()) < 0.02
    assert found.confidence > 0.9


def test_a_large_pair_both_ways(small, bumpy):
    large, _ = subdivide(bumpy, 1)
    order = torch.randperm(large.n_verts, generator=torch.Generator().manual_seed(0))
    other = type(large)(2 * large.verts[order], torch.argsort(order)[large.faces])
    at = torch.tensor([0, 100, 300, 500])
    there, back = match_both_ways(large, other, torch.stack([order[at], at], 1), k=60)
    assert back.settings["proxies"] == there.settings["proxies"][::-1]
    assert torch.equal(back.basis2.vecs, there.basis1.vecs)
    away = (other.verts[back.p2p_21] - other.verts[torch.argsort(order)]).norm(dim=1) / other.area.sqrt()
    assert back.p2p_21.shape == (large.n_verts,) and float(away.mean()) < 0.03
