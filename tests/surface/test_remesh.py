"""Collapses and flips keep closed manifolds closed and manifold, and make better triangles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.surface import Mesh, health
from geoframe.surface.remesh import coarsen, edge_table, flip_edges
from geoframe.surface.shapes import icosphere, torus, uv_sphere


def on_sphere(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def arrays(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    return mesh.verts.numpy(), mesh.faces.numpy()


def as_mesh(verts: np.ndarray, faces: np.ndarray) -> Mesh:
    return Mesh(torch.as_tensor(verts), torch.as_tensor(faces))


@pytest.mark.parametrize("n", [400, 60, 12])
def test_coarse_spheres(n: int) -> None:
    v, f, _ = coarsen(*arrays(icosphere(3)), n, on_surface=on_sphere)
    mesh = as_mesh(v, f)
    h = health(mesh)
    assert len(v) == n and len(f) == 2 * n - 4
    assert h.is_closed and h.is_manifold and h.facing == "outward" and not h.problems
    assert bool(((mesh.verts[mesh.faces].mean(1) * mesh.face_normals_scaled).sum(1) > 0).all())  # no fold
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1)


def test_topology_is_kept_where_no_smaller_mesh_exists() -> None:
    """A torus needs 7 vertices: asked for 4, the edges that would break it stay."""
    v, f, _ = coarsen(*arrays(torus(1.0, 0.4, n_around=12, n_tube=8)), 4, on_surface=lambda x: x)
    h = health(as_mesh(v, f))
    assert 7 <= len(v) < 60
    assert h.is_closed and h.is_manifold and h.genus == 1


def test_nothing_is_moved_where_all_vertices_stay() -> None:
    """As on a head of few vertices, all of which are landmarks in the end: the surface is asked for no points."""
    verts, faces = arrays(icosphere(1))
    hold = np.full(len(verts), 2)
    hold[0] = 0

    def asked(x: np.ndarray) -> np.ndarray:
        assert len(x)
        return on_sphere(x)

    v, f, number = coarsen(verts, faces, 12, on_surface=asked, hold=hold)
    assert np.array_equal(v, verts[number]) and len(v) == 41
    assert health(as_mesh(v, f)).is_closed


def test_flips_make_the_triangulation_delaunay() -> None:
    """Opposite angles of every edge sum to at most pi; the surface stays a closed sphere."""
    rng = np.random.default_rng(0)
    v, f = arrays(uv_sphere(24, 12))
    v = on_sphere(v + 0.04 * rng.normal(size=v.shape))

    def worst(faces: np.ndarray) -> float:
        edges, _, apex = edge_table(faces)
        sums = np.zeros(len(edges))
        for side in range(2):
            a, b = (v[edges[:, end]] - v[apex[:, side]] for end in range(2))
            cos = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            sums += np.arccos(cos)
        return float(sums.max())

    assert worst(f) > np.pi + 0.3
    flipped = f
    for _ in range(30):
        flipped = flip_edges(v, flipped)
    assert worst(flipped) < np.pi + 1e-5
    h = health(as_mesh(v, flipped))
    assert h.is_closed and h.is_manifold and h.is_oriented and h.genus == 0
    assert np.array_equal(flip_edges(v, flipped), flipped)


def test_edge_table_against_a_loop() -> None:
    _, f = arrays(icosphere(1))
    edges, wing, apex = edge_table(f)
    assert len(edges) == 120 and len(np.unique(edges, axis=0)) == 120
    for (a, b), faces, corners in zip(edges, wing, apex, strict=True):
        assert a < b
        for face, corner, (start, end) in zip(faces, corners, [(a, b), (b, a)], strict=True):
            cycle = list(f[face])
            assert cycle[(cycle.index(start) + 1) % 3] == end
            assert corner == cycle[(cycle.index(start) + 2) % 3]
