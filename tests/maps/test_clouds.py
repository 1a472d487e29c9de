"""Triangles between the points of a cloud: where they lie, how they are turned, and what of the surface they give."""

import numpy as np
import pytest
import torch

from geoframe import eigenbasis, farthest_points, template
from geoframe.maps import match
from geoframe.maps.clouds import surface_of_points
from geoframe.surface import health
from geoframe.surface.mesh import PointCloud
from geoframe.surface.sampling import spread_vertices
from geoframe.surface.shapes import icosphere


@pytest.fixture(scope="module")
def ball():
    """Points that do not lie on a grid, 1,500 on the unit sphere."""
    x = torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)).double()
    return surface_of_points(PointCloud(torch.nn.functional.normalize(x, dim=1)))


def test_a_sphere_comes_out_closed_but_for_small_holes(ball):
    """Its area, no edge with three triangles, one component, turned outwards."""
    about = health(ball)
    assert about.n_components == 1 and not len(about.nonmanifold_edges)
    assert float(ball.area) == pytest.approx(4 * np.pi, rel=0.03)
    assert float((ball.vertex_normals * ball.verts).sum(1).median()) > 0.95


def test_its_eigenvalues_are_those_of_the_sphere(ball):
    vals = eigenbasis(ball, 9).vals
    torch.testing.assert_close(vals[1:4], torch.full((3,), 2.0).double(), rtol=0.05, atol=0)
    torch.testing.assert_close(vals[4:9], torch.full((5,), 6.0).double(), rtol=0.05, atol=0)


def test_points_stay_and_their_order_does_not_matter():
    verts = icosphere(2).verts * torch.tensor([1.0, 0.8, 0.6]).double()
    order = torch.randperm(len(verts), generator=torch.Generator().manual_seed(0))
    one, two = surface_of_points(PointCloud(verts)), surface_of_points(PointCloud(1e4 * verts[order]))
    assert torch.equal(one.verts, verts)
    as_sets = [{tuple(sorted(f)) for f in faces.tolist()} for faces in (one.faces, order[two.faces])]
    assert as_sets[0] == as_sets[1]


@pytest.mark.parametrize(("name", "every"), [("zebra", 1), ("dog", 3)])
def test_animals_are_turned_outwards(name, every):
    """Their outermost points lie on thin limbs, where neighbours tell least."""
    mesh = template(name)
    found = surface_of_points(PointCloud(mesh.verts[::every]))
    inside = [
        torch.linalg.det(m.verts.double()[m.faces] - m.verts.double().mean(0)).sum() for m in (found, mesh)
    ]
    assert inside[0] > 0.8 * inside[1] > 0


def test_bad_input():
    with pytest.raises(ValueError, match="cloud: expected at least 50 points, found 3"):
        surface_of_points(PointCloud(torch.eye(3)))
    with pytest.raises(ValueError, match="cloud: expected one cloud"):
        surface_of_points(PointCloud(torch.rand(2, 60, 3)))
    with pytest.raises(ValueError, match="cloud: expected finite"):
        surface_of_points(PointCloud(torch.full((60, 3), torch.nan)))


def test_points_that_are_too_few_for_thin_limbs_are_never_trusted():
    dog = template("dog")
    thin = surface_of_points(PointCloud(dog.verts[farthest_points(dog, 150)]))
    at = spread_vertices(thin, 7)
    found = match(
        thin, thin, torch.stack([at, at], 1), k=30
    )  # the map of a surface to itself is right, and yet
    assert found.verdict == "doubtful" and found.confidence < 0.6
    assert sum("has too few points for its thin parts" in w for w in found.warnings) == 2
