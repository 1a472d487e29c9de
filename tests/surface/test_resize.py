"""Remeshing keeps the surface, its topology and its boundary, and knows where every new vertex comes from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geoframe.surface import Mesh, health
from geoframe.surface.closest import TriangleTree, closest_weights
from geoframe.surface.resize import resize
from geoframe.surface.shapes import icosphere, torus

CUBE_CORNERS = torch.cartesian_prod(*3 * [torch.tensor([0.0, 1.0], dtype=torch.float64)])
CUBE_FACES = [
    *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
    *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
]


def cube() -> Mesh:
    """Twelve triangles: the poorest start for 400 vertices."""
    return Mesh(CUBE_CORNERS, torch.tensor(CUBE_FACES))


def open_tube(n: int = 24, rows: int = 20) -> Mesh:
    """A cylinder of radius 1 and height 3 with two boundary loops."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    ring = torch.stack([angle.cos(), angle.sin()], 1).repeat(rows, 1)
    height = torch.linspace(0, 3, rows, dtype=torch.float64).repeat_interleave(n)
    a = torch.arange(n * (rows - 1))
    b = a - a % n + (a + 1) % n
    faces = torch.cat([torch.stack([a, b, a + n], 1), torch.stack([b, b + n, a + n], 1)])
    return Mesh(torch.cat([ring, height[:, None]], 1), faces)


def quality(mesh: Mesh) -> torch.Tensor:
    """(F,) area over the sum of squared edges, 1 for an equilateral triangle."""
    corners = mesh.verts[mesh.faces]
    squares = ((corners - corners.roll(1, 1)) ** 2).sum((1, 2))
    return 4 * math.sqrt(3) * mesh.face_areas / squares


@pytest.mark.parametrize("n", [100, 500])
def test_a_torus_stays_a_torus(n: int) -> None:
    old = torus(1.0, 0.4, n_around=48, n_tube=20)
    new = resize(old, n).mesh
    found = health(new)
    assert new.n_verts == n and found.genus == 1
    assert found.is_closed and found.is_manifold and found.facing == "outward" and not found.problems
    assert float(quality(new).mean()) > 0.9 and float(quality(new).min()) > 0.3


def test_refinement_brings_area_and_volume_back() -> None:
    """Vertices lie on the old surface, so what is cut off falls with the square of the edge length."""
    old = icosphere(3)
    lost = [1 - float(resize(old, n).mesh.volume / old.volume) for n in (100, 400)]
    assert 0 < lost[1] < 0.35 * lost[0] and lost[0] < 0.1


def test_a_cube_of_twelve_triangles_is_refined() -> None:
    new = resize(cube(), 400, pins=torch.arange(8))
    found = health(new.mesh)
    assert found.n_verts == 400 and found.is_closed and not found.problems
    assert torch.equal(new.mesh.verts[new.pins], CUBE_CORNERS)
    assert float(new.mesh.volume) > 0.995  # the edges stay sharp: mere points of the sides would cut them off
    on_side = ((new.mesh.verts.abs() < 1e-9) | ((new.mesh.verts - 1).abs() < 1e-9)).any(1)
    assert bool(on_side.all())


def test_sources_and_weights_are_the_positions() -> None:
    """Coordinates are functions like others: carried from the old vertices they are the new positions."""
    old = torus(1.0, 0.4, n_around=48, n_tube=20)
    new = resize(old, 400, pins=torch.tensor([5, 5, 77]))
    torch.testing.assert_close((new.weights[..., None] * old.verts[new.source]).sum(1), new.mesh.verts)
    torch.testing.assert_close(new.weights.sum(1), torch.ones(400, dtype=torch.float64))
    assert float(new.weights.min()) >= 0
    assert torch.equal(new.mesh.verts[new.pins], old.verts[[5, 5, 77]])


@pytest.mark.parametrize("n", [200, 900])
def test_boundaries_stay_where_they_are(n: int) -> None:
    old = open_tube()
    new = resize(old, n, pins=torch.tensor([0, 240])).mesh
    found = health(new)
    assert new.n_verts == n and len(found.boundary_loops) == 2 and found.n_components == 1
    assert found.is_manifold and found.facing == "outward" and not found.problems
    z = new.verts[:, 2]
    assert int((z < 1e-9).sum() + (z > 3 - 1e-9).sum()) == sum(found.boundary_loops)
    assert float((new.area / old.area - 1).abs()) < 0.03


def test_the_same_seed_gives_the_same_mesh_and_scale_changes_nothing_else() -> None:
    old = icosphere(3)
    one, two, other = resize(old, 200), resize(old, 200), resize(old, 200, seed=1)
    assert torch.equal(one.mesh.verts, two.mesh.verts) and torch.equal(one.mesh.faces, two.mesh.faces)
    assert not torch.equal(one.mesh.faces, other.mesh.faces)
    large = resize(old.with_verts(old.verts * 1024), 200)
    torch.testing.assert_close(large.mesh.verts / 1024, one.mesh.verts)
    half = resize(old.to(torch.float32), 200)
    assert half.mesh.dtype == half.weights.dtype == torch.float32


def test_unfit_input_is_refused() -> None:
    with pytest.raises(ValueError, match="expected finite triangles, manifold and oriented"):
        resize(Mesh(CUBE_CORNERS, torch.tensor([*CUBE_FACES, CUBE_FACES[0]])), 100)
    nan = CUBE_CORNERS.clone()
    nan[3] = torch.nan
    with pytest.raises(ValueError, match="mend them with repair"):
        resize(Mesh(nan, torch.tensor(CUBE_FACES)), 100)
    with pytest.raises(ValueError, match="pins: expected at most 10"):
        resize(icosphere(2), 20, pins=torch.arange(11))
    with pytest.raises(ValueError, match="n_verts"):
        resize(cube(), 3)


def test_closest_points_are_those_of_a_fine_search() -> None:
    """Weights beat every point of a fine grid on the triangle, inside and out."""
    rng = np.random.default_rng(0)
    corners, points = rng.normal(size=(60, 3, 3)), rng.normal(size=(60, 3))
    weights = closest_weights(points, corners)
    found = np.linalg.norm(np.einsum("nc,ncd->nd", weights, corners) - points, axis=1)
    grid = np.array([(i, j, 40 - i - j) for i in range(41) for j in range(41 - i)]) / 40
    tried = np.linalg.norm(np.einsum("gc,ncd->ngd", grid, corners) - points[:, None], axis=2).min(1)
    assert (weights >= 0).all() and np.allclose(weights.sum(1), 1)
    assert (found <= tried + 1e-12).all() and (found >= tried - 0.15).all()
    sphere = icosphere(2)
    surface = TriangleTree(sphere.verts.numpy(), sphere.faces.numpy())
    middle = surface.corners.mean(1)
    assert np.array_equal(surface.closest(middle)[0], np.arange(len(middle)))
