"""Sub-vertex maps against brute force over all triangles, and the projection against an optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from geoframe.maps import BarycentricMap, fmap_to_p2p, p2p_to_fmap, precise_map
from geoframe.maps.precise import at_corners, lies_at_corners, points_near, weights_from_products
from geoframe.spectral import Eigenbasis, eigenbasis
from geoframe.surface import Mesh, subdivide
from geoframe.surface.shapes import ellipsoid


def _weights_naive(a: np.ndarray, b: np.ndarray, c: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Nearest point of a triangle: the best of the inside solution, if inside, and of three clamped edges."""
    found = []
    E = np.stack([b - a, c - a], 1)
    if np.linalg.matrix_rank(E) == 2:
        s, t = np.linalg.lstsq(E, q - a, rcond=None)[0]
        if min(s, t, 1 - s - t) >= 0:
            found.append(np.array([1 - s - t, s, t]))
    corners = (a, b, c)
    for i, k in ((0, 1), (1, 2), (2, 0)):
        e = corners[k] - corners[i]
        x = np.clip(e @ (q - corners[i]) / (e @ e), 0, 1) if e @ e > 0 else 0.0
        w = np.zeros(3)
        w[i], w[k] = 1 - x, x
        found.append(w)
    return min(found, key=lambda w: np.linalg.norm(w @ np.stack(corners) - q))


@pytest.fixture(scope="module")
def small():
    mesh = ellipsoid((1.0, 0.7, 0.5), level=2)
    basis1, basis2 = eigenbasis(mesh, 20), eigenbasis(ellipsoid((1.0, 0.8, 0.5), level=1), 16)
    C_12 = p2p_to_fmap(torch.arange(42), basis1, basis2)
    return mesh, basis1, basis2, C_12


def test_agrees_with_brute_force(small):
    mesh, basis1, basis2, C_12 = small
    A1, A2 = float(basis1.mass.sum()), float(basis2.mass.sum())
    points = basis1.vecs.numpy() @ C_12.numpy().T * (A1 / A2**0.5)
    query = basis2.vecs.numpy() * A2**0.5
    found = precise_map(C_12, basis1, mesh, basis2)
    assert found.face.shape == (42,) and found.barycentric.shape == (42, 3)
    inside = 0
    for j in range(0, len(query), 2):
        q = query[j]
        near = min(np.linalg.norm(_weights_naive(*points[f], q) @ points[f] - q) for f in mesh.faces.numpy())
        w, f = found.barycentric[j].numpy(), mesh.faces[found.face[j]].numpy()
        np.testing.assert_allclose(np.linalg.norm(w @ points[f] - q), near, rtol=1e-9)
        assert found.corners[j].tolist() == f.tolist()
        inside += bool((w > 0).all())
    assert inside > 2  # not only vertices and edges
    for block in (1, 5000):
        pieces = precise_map(C_12, basis1, mesh, basis2, block=block)
        assert torch.equal(pieces.face, found.face)
        torch.testing.assert_close(pieces.barycentric, found.barycentric, atol=1e-9, rtol=0)


@pytest.mark.parametrize("dim", [2, 3, 7])
def test_weights_are_optimal(dim):
    g = np.random.default_rng(dim)
    corners, query = g.normal(size=(60, 3, dim)), 1.5 * g.normal(size=(60, dim))
    corners[-3:, 2] = corners[-3:, 1]  # an edge twice
    corners[-2:, 1] = corners[-2:, 0] = corners[-2:, 2]  # a point
    gram = torch.as_tensor(corners @ corners.transpose(0, 2, 1))
    w = weights_from_products(gram, torch.as_tensor((corners @ query[..., None])[..., 0])).numpy()
    assert (w >= 0).all()
    np.testing.assert_allclose(w.sum(1), 1)
    for c, q, found in zip(corners, query, w, strict=True):
        naive = _weights_naive(*c, q)
        assert abs(np.linalg.norm(found @ c - q) - np.linalg.norm(naive @ c - q)) < 1e-7
    # an independent solver of the constrained problem
    best = minimize(
        lambda x: ((x @ corners[0] - query[0]) ** 2).sum(),
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
    )
    assert abs(((w[0] @ corners[0] - query[0]) ** 2).sum() - best.fun) < 1e-6


def test_it_is_never_further_than_the_nearest_vertex(small):
    mesh, basis1, basis2, C_12 = small
    A1, A2 = basis1.mass.sum(), basis2.mass.sum()
    points, query = basis1.vecs @ C_12.T * (A1 / A2.sqrt()), basis2.vecs * A2.sqrt()
    vertex = points[fmap_to_p2p(C_12, basis1, basis2)]
    precise = precise_map(C_12, basis1, mesh, basis2).apply(points)
    gain = (vertex - query).norm(dim=1) - (precise - query).norm(dim=1)
    assert float(gain.min()) > -1e-9 and float(gain.max()) > 0.1


def test_points_between_vertices_are_found():
    """A coarse ellipsoid seen from a fine one: positions come out better than the best vertex can give."""
    fine, coarse = ellipsoid((1.0, 0.8, 0.6), level=3), ellipsoid((1.0, 0.8, 0.6), level=2)
    basis1, basis2 = eigenbasis(coarse, 25), eigenbasis(fine, 25)
    p2p_21 = torch.cdist(fine.verts, coarse.verts).argmin(1)
    C_12 = p2p_to_fmap(p2p_21, basis1, basis2)
    precise = precise_map(C_12, basis1, coarse, basis2)
    error = (precise.apply(coarse.verts) - fine.verts).norm(dim=1).mean()
    assert float(error) < 0.5 * float((coarse.verts[p2p_21] - fine.verts).norm(dim=1).mean())
    # the vertices both have are found; those between are as near to either end
    assert float((precise.p2p()[:162] == torch.arange(162)).double().mean()) > 0.95


def test_units_and_unreferenced_vertices_do_not_matter(small):
    mesh, basis1, basis2, C_12 = small
    plain = precise_map(C_12, basis1, mesh, basis2)
    s = 8.0
    scaled = Eigenbasis(basis1.vals / s**2, basis1.vecs / s, basis1.mass * s**2)
    other = precise_map(C_12 / s, scaled, mesh, basis2)
    assert torch.equal(plain.face, other.face)
    # a vertex without triangles, as near to a query as can be: it has no triangle to offer
    more = Mesh(torch.cat([mesh.verts, torch.zeros(1, 3, dtype=mesh.dtype)]), mesh.faces)
    A1, A2 = basis1.mass.sum(), basis2.mass.sum()
    points, query = basis1.vecs @ C_12.T * (A1 / A2.sqrt()), basis2.vecs * A2.sqrt()
    j = int((points[fmap_to_p2p(C_12, basis1, basis2)] - query).norm(dim=1).argmax())
    row = (torch.linalg.pinv(C_12 * (A1 / A2.sqrt())) @ query[j])[None]
    bait = Eigenbasis(
        basis1.vals, torch.cat([basis1.vecs, row]), torch.cat([basis1.mass, basis1.mass.new_zeros(1)])
    )
    assert int(fmap_to_p2p(C_12, bait, basis2)[j]) == 162
    assert torch.equal(precise_map(C_12, bait, more, basis2).face, plain.face)


def test_apply_is_linear_in_triangles():
    barycentric = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], dtype=torch.float64)
    corners = torch.tensor([[0, 1, 2], [3, 2, 1]])
    found = BarycentricMap(torch.tensor([4, 7]), barycentric, corners, 4)
    f1 = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]])
    torch.testing.assert_close(found.apply(f1), torch.tensor([[2.0, 20.0], [4.0, 40.0]]))
    torch.testing.assert_close(found.apply(f1[:, 0]), torch.tensor([2.0, 4.0]))
    assert found.p2p().tolist() == [0, 2]


def test_bad_input(small):
    mesh, basis1, basis2, C_12 = small
    with pytest.raises(ValueError, match="mesh1: expected 162 vertices"):
        precise_map(C_12, basis1, ellipsoid(level=1), basis2)
    with pytest.raises(ValueError, match="mesh1: expected 162 vertices, as in basis1, and triangles"):
        precise_map(C_12, basis1, Mesh(mesh.verts, mesh.faces[:0]), basis2)
    with pytest.raises(ValueError, match="C_12: expected at most"):
        precise_map(torch.zeros(16, 21), basis1, mesh, basis2)
    with pytest.raises(ValueError, match="block"):
        precise_map(C_12, basis1, mesh, basis2, block=0)
    found = precise_map(C_12, basis1, mesh, basis2)
    with pytest.raises(ValueError, match="f1: expected 162 rows"):
        found.apply(torch.zeros(42, 3))
    with pytest.raises(TypeError, match="f1: expected a floating dtype"):
        found.apply(torch.zeros(162, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"face: expected shape \(42,\)"):
        BarycentricMap(found.face[:-1], found.barycentric, found.corners, 162)
    with pytest.raises(ValueError, match="corners: expected indices"):
        BarycentricMap(found.face, found.barycentric, found.corners, 5)


def test_points_near_a_map_are_where_they_are_known_to_be():
    """Surface 2 is surface 1 subdivided: its vertices are those of surface 1 and the middles of its edges."""
    mesh1 = ellipsoid((1.0, 0.7, 0.5), level=3)
    mesh2, P = subdivide(mesh1, 1)
    rows = P.tolil().rows
    guess = torch.tensor([r[0] for r in rows])
    points = eigenbasis(mesh1, 20).vecs  # coordinates on surface 1, and the same ones on surface 2
    query = torch.as_tensor(P @ points.numpy())
    found = points_near(guess, query, points, mesh1)
    torch.testing.assert_close(found.barycentric.sum(1), torch.ones(mesh2.n_verts).double())
    assert float(found.barycentric.min()) >= 0 and torch.equal(found.corners, mesh1.faces[found.face])
    length = float((mesh1.verts[mesh1.faces[:, 0]] - mesh1.verts[mesh1.faces[:, 1]]).norm(dim=1).mean())
    off, before = found.apply(mesh1.verts) - mesh2.verts, mesh1.verts[guess] - mesh2.verts
    assert float(off.norm(dim=1).mean()) < 0.1 * length < 0.3 * float(before.norm(dim=1).mean())
    beside = torch.empty(mesh1.n_verts, dtype=torch.int64)  # of every vertex a neighbour
    for i in range(3):
        beside[mesh1.faces[:, i]] = mesh1.faces[:, (i + 1) % 3]
    near = points_near(beside[guess], query, points, mesh1)  # a guess an edge off is mended by the steps
    same = (near.apply(mesh1.verts) - mesh2.verts).norm(dim=1) < 0.5 * length
    assert float(same.double().mean()) > 0.9


def test_a_vertex_map_is_one_to_corners_of_triangles():
    mesh = ellipsoid((1.0, 0.7, 0.5), level=2)
    p2p = torch.randint(mesh.n_verts, (300,), generator=torch.Generator().manual_seed(0))
    found = at_corners(p2p, mesh)
    assert torch.equal(found.p2p(), p2p) and torch.equal(found.apply(mesh.verts), mesh.verts[p2p])
    assert torch.equal(found.corners, mesh.faces[found.face])


def test_vertices_in_the_same_places_are_told_from_others():
    corners, face = torch.zeros(4000, 3, dtype=torch.int64), torch.zeros(4000, dtype=torch.int64)
    weights = np.random.default_rng(0).dirichlet((1, 1, 1), size=4000)  # anywhere in a triangle
    assert not lies_at_corners(BarycentricMap(face, torch.as_tensor(weights), corners, 1))
    near = 0.3 * weights + 0.7 * np.eye(3)[0]
    assert lies_at_corners(BarycentricMap(face, torch.as_tensor(near), corners, 1))
