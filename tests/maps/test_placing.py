"""Vertices of a part placed on the whole by their distances to landmarks and anchors."""

import pytest
import torch

from geoframe.canonical import Surface
from geoframe.maps import GeodesicDistortion
from geoframe.maps.placing import Anchors, placed_by_anchors, placed_by_landmarks
from geoframe.maps.refine import Refined, _placed
from geoframe.maps.shells import rim_edges
from geoframe.maps.starts import Pair
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import spread_vertices


@pytest.fixture(scope="module")
def given(bumpy, cut):
    """The part (three times as large), the whole, and for each vertex of the part its place on the whole."""
    part, kept = cut
    return Surface(3 * part.verts, part.faces), Surface.of(bumpy), kept


def _error(whole: Mesh, places: torch.Tensor, true: torch.Tensor) -> float:
    return float((whole.verts[places] - whole.verts[true]).norm(dim=1).mean() / whole.area.sqrt())


def test_distances_to_landmarks_tell_where_a_vertex_lies(given):
    part, whole, kept = given
    marks = spread_vertices(part, 8)
    at = torch.arange(part.n_verts)
    places = placed_by_landmarks(part, whole, torch.stack([marks, kept[marks]], 1), at)
    assert _error(whole, places, kept) < 0.03


def test_anchors_take_the_noise_out_of_a_map_and_hold_its_rim(given):
    part, whole, kept = given
    near = torch.cdist(whole.verts, whole.verts).argsort(1)[:, :25]  # noise of up to three edges
    some = torch.randint(25, kept.shape, generator=torch.Generator().manual_seed(0))
    noisy = near[kept, some]
    noisy[rim_edges(part)] = near[kept[rim_edges(part)], 24]  # and more at the rim
    found = placed_by_anchors(part, whole, noisy, spread_vertices(part, part.n_verts))
    before, after = _error(whole, noisy, kept), _error(whole, found, kept)
    assert after < 0.5 * before
    rim = rim_edges(part).unique()
    assert _error(whole, found[rim], kept[rim]) < 0.5 * _error(whole, noisy[rim], kept[rim])


def test_a_leap_is_undone_and_nothing_else(given):
    part, whole, kept = given
    leap = kept.clone()
    leap[::20] = torch.cdist(whole.verts, whole.verts).argmax(1)[kept[::20]]
    settled = Anchors.of(part, whole, kept).settled(leap, kept)
    far = (whole.verts[leap] - whole.verts[kept]).norm(dim=1) > 0.5 * whole.area.sqrt()
    assert far.any() and torch.equal(settled[far], kept[far])
    slightly = torch.cdist(whole.verts, whole.verts).argsort(1)[kept, 1]
    assert torch.equal(Anchors.of(part, whole, kept).settled(slightly, kept), slightly)


def test_landmarks_are_anchors_at_their_own_place(given):
    part, whole, kept = given
    marks = torch.stack([torch.arange(3), kept[:3]], 1)
    found = Anchors.of(part, whole, torch.zeros_like(kept), marks)
    assert torch.equal(found.there[-3:], whole.distances(kept[:3]).double() / float(whole.area) ** 0.5)
    assert float(found.trust[-1]) > float(found.trust[:-3].max())


def test_a_part_that_is_surface_1_is_placed_on_surface_2(given):
    """From landmarks alone: the map to start from sends all to one vertex."""
    part, whole, kept = given
    at = spread_vertices(part, 7)
    nowhere = [torch.zeros(m.n_verts, dtype=torch.int64) for m in (whole, part)]
    distortion = GeodesicDistortion(part, whole, n=30)
    marks = torch.stack([at, kept[at]], 1)
    found = _placed(Pair.of(part, whole, 40), Refined("bent", *nowhere), marks, distortion)
    assert _error(whole, found.p2p_12, kept) < 0.02
    assert _error(part, found.p2p_21[kept], torch.arange(part.n_verts)) < 0.03
