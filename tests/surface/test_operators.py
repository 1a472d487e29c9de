"""Laplacians, masses, gradient and divergence: identities, loops as oracles, closed forms, broken meshes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from geoframe.surface import Mesh, PointCloud, divergence, gradient, laplacian, load
from geoframe.surface.operators import (
    MOLLIFY,
    cotangent_laplacian_intrinsic,
    edge_lengths_squared,
    face_areas_intrinsic,
    is_edge_manifold,
    mass_barycentric_intrinsic,
    mass_voronoi_intrinsic,
    mollify_intrinsic,
)
from geoframe.surface.shapes import box, grid, icosphere, torus


def _mesh(verts, faces) -> Mesh:
    return Mesh(
        torch.as_tensor(np.asarray(verts, float)), torch.as_tensor(np.asarray(faces, np.int64).reshape(-1, 3))
    )


def _noisy(seed: int = 0) -> Mesh:
    """A sphere with obtuse and acute triangles."""
    mesh = icosphere(2).to(torch.float64)
    noise = np.random.default_rng(seed).normal(scale=0.08, size=mesh.verts.shape)
    return mesh.with_verts(mesh.verts + torch.as_tensor(noise))


def _broken(kind: str) -> Mesh:
    """A sphere spoilt in one way."""
    v, f = icosphere(2).verts.double().numpy().copy(), icosphere(2).faces.numpy().copy()
    some = f[[3, 70, 200]]
    if kind == "collinear":
        v[some[:, 0]] = (v[some[:, 1]] + v[some[:, 2]]) / 2
    elif kind == "equal vertices":
        v[some[:, 0]] = v[some[:, 1]]
    elif kind == "three equal vertices":
        v[some[0]] = v[some[0, 0]]
    elif kind == "flat":
        v[:, 2] = 0
    elif kind == "point":
        v[:] = v[0]
    elif kind == "repeated index":
        f = np.r_[f, np.c_[some[:, :2], some[:, :1]], [[5, 5, 5]]]
    elif kind == "duplicate faces":
        f = np.r_[f, some, some[:, ::-1]]
    elif kind == "unreferenced":
        v, f = np.r_[[[7.0, 7, 7]], v, [[-9.0, 9, 9]]], f + 1
    elif kind == "two components":
        v, f = np.r_[v, v + 5], np.r_[f, f + len(v)]
    elif kind == "fin":
        v, f = np.r_[v, [[0.0, 0, 3]]], np.r_[f, [[*f[0, :2], len(v)]]]
    elif kind == "no faces":
        f = f[:0]
    return _mesh(v, f)


BROKEN = ("collinear", "equal vertices", "three equal vertices", "flat", "point", "repeated index",
          "duplicate faces", "unreferenced", "two components", "fin", "no faces")  # fmt: skip
MESHES = {"noisy": _noisy(), "grid": grid(5, 4), "torus": torus(n_around=12, n_tube=8), "box": box(n=2)}


# ---- oracles: loops over corners, from positions ----


def _angle_cotangent(p, q, r) -> float:
    """Cotangent of the angle at p."""
    a, b = q - p, r - p
    return float(a @ b / np.linalg.norm(np.cross(a, b)))


def _laplacian_by_hand(mesh: Mesh) -> np.ndarray:
    v, W = mesh.verts.double().numpy(), np.zeros((mesh.n_verts, mesh.n_verts))
    for face in mesh.faces.tolist():
        for k in range(3):
            p, q, r = face[k], face[k - 1], face[k - 2]
            w = _angle_cotangent(v[p], v[q], v[r]) / 2
            W[q, r] -= w
            W[r, q] -= w
            W[q, q] += w
            W[r, r] += w
    return W


def _voronoi_by_hand(mesh: Mesh) -> np.ndarray:
    """Meyer et al. 2003, figure 4."""
    v, mass = mesh.verts.double().numpy(), np.zeros(mesh.n_verts)
    for face in mesh.faces.tolist():
        cot = [_angle_cotangent(v[face[k]], v[face[k - 1]], v[face[k - 2]]) for k in range(3)]
        area = np.linalg.norm(np.cross(v[face[1]] - v[face[0]], v[face[2]] - v[face[0]])) / 2
        for k in range(3):
            p, q, r = v[face[k]], v[face[k - 1]], v[face[k - 2]]
            if min(cot) >= 0:
                mass[face[k]] += (((p - r) ** 2).sum() * cot[k - 1] + ((p - q) ** 2).sum() * cot[k - 2]) / 8
            else:
                mass[face[k]] += area / (2 if cot[k] < 0 else 4)
    return mass


@pytest.mark.parametrize("name", MESHES)
def test_cotangent_laplacian_and_masses_match_loops(name):
    mesh = MESHES[name]
    W, bary = laplacian(mesh)
    _, voro = laplacian(mesh, mass="voronoi")
    np.testing.assert_allclose(
        W.toarray(), _laplacian_by_hand(mesh), atol=1e-6 if mesh.dtype == torch.float32 else 1e-12
    )
    np.testing.assert_allclose(voro, _voronoi_by_hand(mesh), rtol=1e-6)
    by_hand = np.zeros(mesh.n_verts)
    for face, area in zip(mesh.faces.tolist(), mesh.face_areas.tolist(), strict=True):
        by_hand[face] += area / 3
    np.testing.assert_allclose(bary, by_hand, rtol=1e-5)
    for mass in (bary, voro):
        assert mass.sum() == pytest.approx(float(mesh.area), rel=1e-6)


def test_noisy_sphere_has_both_kinds_of_triangles():
    l_sq = edge_lengths_squared(MESHES["noisy"])
    obtuse = (2 * l_sq > l_sq.sum(1, keepdims=True)).any(1)
    assert 0.05 < obtuse.mean() < 0.95


def test_edge_lengths_are_opposite_to_the_corners():
    mesh = _mesh([[0, 0, 0], [3, 0, 0], [0, 4, 0]], [[0, 1, 2]])
    np.testing.assert_allclose(edge_lengths_squared(mesh), [[25, 16, 9]])
    np.testing.assert_allclose(face_areas_intrinsic(np.array([[25.0, 16, 9]])), [6])


def test_area_of_a_needle_keeps_its_digits():
    # sides 1, 1, 1e-9: Heron's formula as it is usually written is off by 10 %
    assert face_areas_intrinsic(np.array([[1.0, 1.0, 1e-18]]))[0] == pytest.approx(0.5e-9, rel=1e-12)


def test_intrinsic_functions_need_no_positions():
    # three equilateral triangles around a vertex: a cone that is flat nowhere in the plane's sense
    l_sq, faces = np.ones((3, 3)), np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1]])
    W = cotangent_laplacian_intrinsic(l_sq, faces, 4).toarray()
    assert W[0, 1] == pytest.approx(-1 / np.sqrt(3)) and W[1, 2] == pytest.approx(-0.5 / np.sqrt(3))
    cell = np.sqrt(3) / 4 / 3 * np.array([3, 2, 2, 2])
    np.testing.assert_allclose(mass_barycentric_intrinsic(l_sq, faces, 4), cell)
    np.testing.assert_allclose(mass_voronoi_intrinsic(l_sq, faces, 4), cell)


# ---- identities ----


@pytest.mark.parametrize("kind", ["cotangent", "tufted"])
@pytest.mark.parametrize("name", [*MESHES, *BROKEN])
def test_laplacian_is_symmetric_semidefinite_finite_with_constants_in_its_kernel(name, kind):
    mesh = MESHES[name] if name in MESHES else _broken(name)
    W, mass = laplacian(mesh, kind=kind)
    assert W.shape == (mesh.n_verts, mesh.n_verts) and W.dtype == mass.dtype == np.float64
    assert np.isfinite(W.data).all() and np.isfinite(mass).all() and (mass >= 0).all()
    assert abs(W - W.T).max() == 0
    scale = max(abs(W).max(), 1)
    assert np.abs(W @ np.ones(mesh.n_verts)).max() < 1e-12 * scale
    assert np.linalg.eigvalsh(W.toarray()).min() > -1e-12 * scale
    assert mass.sum() == pytest.approx(float(mesh.area), rel=2e-4)


def test_equilateral_is_cotangent_of_edges_of_length_one_wherever_the_vertices_are():
    icosahedron = icosphere(0)
    edge = (icosahedron.verts[icosahedron.faces[0, 0]] - icosahedron.verts[icosahedron.faces[0, 1]]).norm()
    W, mass = laplacian(Mesh(icosahedron.verts / edge, icosahedron.faces), kind="cotangent")
    for verts in (icosahedron.verts, torch.rand(12, 3, generator=torch.Generator().manual_seed(0)).double()):
        U, lumped = laplacian(Mesh(verts, icosahedron.faces), kind="equilateral")
        assert abs(U - W).max() < 1e-12 and np.abs(lumped - mass).max() < 1e-12
    for verts in (icosahedron.verts * torch.nan, icosahedron.verts.expand(2, -1, -1)):
        with pytest.raises(ValueError, match="verts: expected"):
            laplacian(Mesh(verts, icosahedron.faces), kind="equilateral")
    with pytest.raises(ValueError, match="no triangles for 'equilateral'"):
        laplacian(PointCloud(torch.rand(9, 3)), kind="equilateral")


@pytest.mark.parametrize("name", [*MESHES, *BROKEN])
def test_gradient_and_divergence_compose_to_the_laplacian(name):
    mesh = MESHES[name] if name in MESHES else _broken(name)
    G, D = gradient(mesh), divergence(mesh)
    W, _ = laplacian(mesh, kind="cotangent")
    assert G.shape == (3 * mesh.n_faces, mesh.n_verts) and np.isfinite(G.data).all()
    area = face_areas_intrinsic(mollify_intrinsic(edge_lengths_squared(mesh)))
    scale = max(abs(W).max(), 1)
    assert abs(G.T @ sp.diags(np.repeat(area, 3)) @ G - W).max() < 1e-12 * scale
    assert abs(D @ G + W).max() < 1e-12 * scale


@pytest.mark.parametrize("name", MESHES)
def test_gradient_of_a_linear_function_is_its_tangential_part(name):
    mesh = MESHES[name].to(torch.float64)
    direction = np.array([0.3, -1.1, 0.7])
    g = (gradient(mesh) @ (mesh.verts.numpy() @ direction + 2)).reshape(-1, 3)
    n = torch.nn.functional.normalize(mesh.face_normals_scaled, dim=1).numpy()
    np.testing.assert_allclose(g, direction - n * (n @ direction)[:, None], atol=1e-6)


def test_gradient_on_a_sphere_converges():
    errors = []
    for level in (2, 3, 4):
        mesh = icosphere(level).to(torch.float64)
        v, centre = mesh.verts.numpy(), mesh.verts[mesh.faces].mean(1).numpy()
        centre /= np.linalg.norm(centre, axis=1, keepdims=True)
        g = (gradient(mesh) @ (v[:, 0] * v[:, 1])).reshape(-1, 3)
        true = np.stack([centre[:, 1], centre[:, 0], 0 * centre[:, 0]], 1)
        true -= centre * (true * centre).sum(1, keepdims=True)
        errors.append(np.abs(g - true).max())
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.6 * errors[1] < 0.1


def test_divergence_of_a_field_on_a_closed_surface_sums_to_zero():
    field = np.random.default_rng(0).normal(size=3 * MESHES["noisy"].n_faces)
    assert abs((divergence(MESHES["noisy"]) @ field).sum()) < 1e-12


@pytest.mark.parametrize("kind", ["cotangent", "tufted"])
def test_sphere_functions_are_eigenfunctions_in_the_limit(kind):
    errors = []
    for level in (2, 3, 4):
        mesh = icosphere(level).to(torch.float64)
        W, mass = laplacian(mesh, kind=kind)
        u = mesh.verts[:, 0].numpy() * mesh.verts[:, 1].numpy()  # degree 2: eigenvalue 6
        errors.append(abs(u @ (W @ u) / (u @ (mass * u)) - 6))
    assert errors[1] < 0.3 * errors[0] and errors[2] < 0.3 * errors[1] < 0.02


@pytest.mark.parametrize("kind", ["cotangent", "tufted"])
def test_rigid_motion_scale_and_order(kind):
    mesh, rng = _noisy(), np.random.default_rng(1)
    W, mass = laplacian(mesh, kind=kind)
    Q = torch.as_tensor(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    W2, mass2 = laplacian(mesh.with_verts(1e-6 * (mesh.verts @ Q.T) + 1e-6), kind=kind)
    assert abs(W2 - W).max() < 1e-8
    np.testing.assert_allclose(mass2, 1e-12 * mass, rtol=1e-8)
    order = rng.permutation(mesh.n_verts)  # the new vertex i is the old order[i]
    place = torch.as_tensor(np.argsort(order))
    faces = place[mesh.faces][rng.permutation(mesh.n_faces)].roll(1, 1)
    W3, mass3 = laplacian(Mesh(mesh.verts[order], faces), kind=kind)
    assert abs(W3 - W[order][:, order]).max() < 1e-8
    np.testing.assert_allclose(mass3, mass[order], rtol=1e-8)


# ---- which Laplacian, and broken meshes ----


def test_auto_is_cotangent_on_edge_manifolds_and_tufted_elsewhere():
    noisy = _noisy()  # not Delaunay, so that the two differ
    doubled = Mesh(noisy.verts, torch.cat([noisy.faces, noisy.faces[:1]]))
    for mesh, kind, other in ((noisy, "cotangent", "tufted"), (doubled, "tufted", "cotangent")):
        W = laplacian(mesh)[0]
        assert abs(W - laplacian(mesh, kind=kind)[0]).max() == 0
        assert abs(W - laplacian(mesh, kind=other)[0]).max() > 1e-3


def test_edge_manifold_check():
    assert is_edge_manifold(_noisy().faces.numpy(), _noisy().n_verts)
    assert is_edge_manifold(np.array([[0, 1, 2], [0, 2, 1], [0, 3, 4]]), 5)  # a pillow, touched at a vertex
    assert not is_edge_manifold(_broken("fin").faces.numpy(), _broken("fin").n_verts)


def test_tufted_agrees_with_cotangent_where_the_mesh_is_delaunay():
    W, mass = laplacian(icosphere(3))
    W2, mass2 = laplacian(icosphere(3), kind="tufted")
    assert abs(W - W2).max() < 1e-9
    np.testing.assert_allclose(mass, mass2, rtol=1e-9)


@pytest.mark.parametrize("kind", ["cotangent", "tufted"])
def test_unreferenced_vertices_have_zero_rows_and_mass_and_move_nothing(kind):
    W, mass = laplacian(_broken("unreferenced"), kind=kind)
    V = mass.size
    assert mass[0] == mass[-1] == 0
    assert abs(W[[0, V - 1]]).sum() == 0
    clean = icosphere(2).to(torch.float64)
    assert abs(W[1:-1, 1:-1] - laplacian(clean, kind=kind)[0]).max() < 1e-12


@pytest.mark.parametrize("kind", ["cotangent", "tufted"])
def test_components_do_not_see_each_other(kind):
    both, one = _broken("two components"), icosphere(2).to(torch.float64)
    W, V = laplacian(both, kind=kind)[0], one.n_verts
    assert abs(W[:V, V:]).sum() == 0
    assert abs(W[:V, :V] - laplacian(one, kind=kind)[0]).max() < 1e-9


def test_faces_that_name_a_vertex_twice_count_for_nothing():
    W, mass = laplacian(_broken("repeated index"))
    clean = laplacian(icosphere(2).to(torch.float64))
    assert abs(W - clean[0]).max() == 0
    np.testing.assert_array_equal(mass, clean[1])


def test_each_duplicate_counts():
    v, f = [[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]
    for kind in ("cotangent", "tufted"):
        once, twice = laplacian(_mesh(v, f), kind=kind), laplacian(_mesh(v, f * 2), kind=kind)
        assert abs(2 * once[0] - twice[0]).max() < 1e-9
        np.testing.assert_allclose(2 * once[1], twice[1])


def test_a_collinear_triangle_holds_its_middle_vertex_on_the_edge():
    # a square whose lower half is split at the middle of the diagonal, which the upper half does not know:
    # a triangle of no area is all that closes the slit between them
    v = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 0]]
    slit, closed = [[0, 1, 4], [1, 2, 4], [0, 2, 3]], [[0, 1, 4], [1, 2, 4], [0, 2, 3], [0, 4, 2]]
    x = np.array([0.0, 1, 1, 0, 0.5])
    for faces, stiff in ((slit, False), (closed, True)):
        W, _ = laplacian(_mesh(v, faces), kind="cotangent")
        assert x @ (W @ x) == pytest.approx(1, rel=2e-3)  # a linear function keeps its energy
        bump = x + np.array([0, 0, 0, 0, 0.1])
        assert (bump @ (W @ bump) > 5) == stiff


def test_mollification_touches_bad_triangles_only_and_gives_them_area():
    good = edge_lengths_squared(_noisy())
    assert mollify_intrinsic(good) is good
    mixed = np.r_[good[:2], [[4.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]
    out = mollify_intrinsic(mixed)
    np.testing.assert_array_equal(out[[0, 1, 4]], mixed[[0, 1, 4]])
    lengths = np.sort(np.sqrt(out[2:4]), axis=1)
    np.testing.assert_allclose(
        (lengths[:, 0] + lengths[:, 1] - lengths[:, 2]) / lengths[:, 2], MOLLIFY, rtol=1e-6
    )
    assert (face_areas_intrinsic(out[2:4]) > 0).all()


# ---- clouds ----


def test_point_cloud_laplacian_approximates_the_sphere():
    points = icosphere(3).verts.double()
    W, mass = laplacian(PointCloud(points))
    assert mass.sum() == pytest.approx(4 * np.pi, rel=0.03)
    assert abs(W - W.T).max() == 0 and np.abs(W @ np.ones(len(points))).max() < 1e-10
    u = points[:, 2].numpy()
    assert u @ (W @ u) / (u @ (mass * u)) == pytest.approx(2, rel=0.03)


def test_small_and_repeated_clouds():
    points = torch.as_tensor(np.random.default_rng(0).normal(size=(4, 3)))
    for cloud in (points, torch.cat([points, points])):
        W, mass = laplacian(PointCloud(cloud))
        assert np.isfinite(W.data).all() and np.isfinite(mass).all() and mass.sum() > 0


# ---- bad input ----


def test_bad_input():
    mesh, cloud = icosphere(0), PointCloud(icosphere(0).verts)
    with pytest.raises(
        ValueError, match="kind: expected one of 'auto', 'cotangent', 'tufted', 'equilateral', found 'robust'"
    ):
        laplacian(mesh, kind="robust")
    with pytest.raises(ValueError, match="mass: expected one of 'barycentric', 'voronoi', found 'full'"):
        laplacian(mesh, mass="full")
    with pytest.raises(ValueError, match="kind: a point cloud has no triangles for 'cotangent'; use"):
        laplacian(cloud, kind="cotangent")
    with pytest.raises(ValueError, match="mass: a point cloud has no triangles for 'voronoi'; use"):
        laplacian(cloud, mass="voronoi")
    with pytest.raises(ValueError, match="at least 4 points for a Laplacian, found 3"):
        laplacian(PointCloud(cloud.points[:3]))
    with pytest.raises(ValueError, match="expected points that spread over a surface"):
        laplacian(PointCloud(torch.arange(20.0)[:, None] * torch.tensor([1.0, 0, 0])))
    for surface in (mesh.with_verts(mesh.verts[None]), PointCloud(cloud.points[None])):
        with pytest.raises(ValueError, match=r"expected shape \([VN], 3\), found \(1, 12, 3\)"):
            laplacian(surface)
    bad = mesh.verts.clone()
    bad[4, 1] = float("nan")
    for fn in (laplacian, gradient, divergence, edge_lengths_squared):
        with pytest.raises(ValueError, match=r"verts: .*found 1 NaN .* at index \[4, 1\]"):
            fn(mesh.with_verts(bad))
    with pytest.raises(ValueError, match=r"points: .*found 1 NaN"):
        laplacian(PointCloud(bad))


# ---- real data ----


@pytest.mark.skipif("GEOFRAME_DATA" not in os.environ, reason="needs real data (GEOFRAME_DATA)")
def test_cat_against_libigl():
    igl = pytest.importorskip("igl")
    mesh = load(Path(os.environ["GEOFRAME_DATA"]) / "animals/cat_lion/cat-00.off").to(torch.float64)
    v, f = mesh.verts.numpy(), mesh.faces.numpy()
    W, voronoi = laplacian(mesh, mass="voronoi")
    assert abs(W + igl.cotmatrix(v, f)).max() < 1e-9 * abs(W).max()
    M = igl.massmatrix(v, f, igl.MASSMATRIX_TYPE_VORONOI).diagonal()
    np.testing.assert_allclose(voronoi, M, rtol=1e-9)
    u = v[:, 0] ** 2
    g = igl.grad(v, f) @ u  # all x components, then y, then z
    np.testing.assert_allclose((gradient(mesh) @ u).reshape(-1, 3), g.reshape(3, -1).T, atol=1e-9)
