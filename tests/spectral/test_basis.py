"""Eigenbases: closed forms, dense linear algebra, and the surfaces on which others go silently wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch

from geoframe.spectral import Eigenbasis, _lanczos, eigenbasis
from geoframe.spectral._lanczos import lowest_pairs
from geoframe.surface import Mesh, PointCloud, laplacian
from geoframe.surface.shapes import box, cylinder, ellipsoid, grid, icosphere, torus

CASES = {
    "sphere": (icosphere(3), 40),  # repeated eigenvalues
    "ellipsoid": (ellipsoid(level=3), 40),
    "torus": (torus(), 50),
    "open grid": (grid(30, 20), 50),
    "tube with two boundaries": (cylinder(), 30),
    "box": (box(n=10), 30),
    "dense path": (ellipsoid(level=2), 100),
}


def union(*meshes: Mesh) -> Mesh:
    """All meshes as one, each moved aside."""
    starts = np.cumsum([0, *(m.n_verts for m in meshes)])
    verts = torch.cat([m.verts + torch.tensor([4.0 * i, 0, 0], dtype=m.dtype) for i, m in enumerate(meshes)])
    return Mesh(verts, torch.cat([m.faces + int(s) for m, s in zip(meshes, starts, strict=False)]))


def rough(mesh: Mesh, amount: float = 0.03, seed: int = 0) -> Mesh:
    """The mesh with random displacements, so that no eigenvalue is repeated."""
    g = torch.Generator().manual_seed(seed)
    return mesh.with_verts(mesh.verts + amount * torch.randn(mesh.verts.shape, generator=g, dtype=mesh.dtype))


def assert_eigenpairs(basis: Eigenbasis, surface, *, rtol: float = 1e-7):
    """``W u = lambda M u`` in the norm of M^-1, ``U^T M U = I``, ascending."""
    W, M = laplacian(surface)
    U, vals = basis.vecs.double().numpy(), basis.vals.double().numpy()
    np.testing.assert_allclose(U.T @ (M[:, None] * U), np.eye(len(vals)), atol=1e-12)
    on = M > 0
    residual = (W @ U - (M[:, None] * U) * vals)[on] / np.sqrt(M[on])[:, None]
    rounding = 1e-12 * (W.diagonal()[on] / M[on]).max()  # the constant function has eigenvalue 0
    assert (np.linalg.norm(residual, axis=0) <= rtol * (vals + vals[-1] / len(vals)) + rounding).all()
    assert (np.diff(vals) >= 0).all()
    np.testing.assert_array_equal(basis.mass.numpy(), M)


def dense_vals(surface) -> np.ndarray:
    W, M = laplacian(surface)
    on = M > 0
    return la.eigh(W.toarray()[np.ix_(on, on)], np.diag(M[on]), eigvals_only=True)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_dense_linear_algebra(name):
    mesh, k = CASES[name]
    basis = eigenbasis(mesh, k, cache=False)
    assert_eigenpairs(basis, mesh)
    expected = dense_vals(mesh)[:k]
    np.testing.assert_allclose(basis.vals, expected, rtol=1e-8, atol=1e-8 * expected[-1] / k)
    assert basis.vals[0] == 0
    assert float(basis.vecs[:, 0].std()) < 1e-12


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_few_eigenpairs(k):
    mesh = ellipsoid(level=3)
    basis = eigenbasis(mesh, k, cache=False)
    assert_eigenpairs(basis, mesh)
    np.testing.assert_allclose(basis.vals, dense_vals(mesh)[:k], atol=1e-9)


def test_sphere_has_l_l_plus_1_with_multiplicity_2l_plus_1():
    expected = np.repeat([x * (x + 1) for x in range(9)], [2 * x + 1 for x in range(9)])
    errors = []
    for level in (3, 4):
        vals = eigenbasis(icosphere(level), 81, cache=False).vals.numpy()
        errors.append(np.abs(vals - expected)[1:] / expected[1:])
    assert errors[1].max() < 0.03  # l = 8 on 2,562 vertices
    ratio = errors[0][3:] / errors[1][3:]  # second order; the first three are nearly exact on any icosphere
    assert 3.5 < np.median(ratio) < 4.5


def test_unit_square_has_pi2_m2_plus_n2():
    m, n = np.meshgrid(np.arange(9), np.arange(9))
    expected = np.sort((np.pi**2 * (m**2 + n**2)).ravel())[:25]
    vals = [eigenbasis(grid(s, s), 25, cache=False).vals.numpy() for s in (20, 40)]
    errors = [np.abs(v - expected)[1:] / expected[1:] for v in vals]
    assert errors[1].max() < 0.02
    assert errors[1].max() < 0.3 * errors[0].max()


def test_flat_torus_of_a_tube_limit():
    R, r = 1.0, 0.05  # a thin torus is nearly the product of circles with radii R and r
    vals = eigenbasis(torus(R, r, n_around=200, n_tube=24), 9, cache=False).vals.numpy()
    expected = np.repeat(np.arange(5) ** 2 / R**2, [1, 2, 2, 2, 2]).astype(float)
    np.testing.assert_allclose(vals[1:], expected[1:], rtol=0.01)


def test_certificate_and_repair_of_missed_copies(monkeypatch):
    mesh = icosphere(4)
    expected = eigenbasis(mesh, 121, cache=False).vals
    full = sla.eigsh(
        laplacian(mesh)[0], 121, M=sp.diags(laplacian(mesh)[1]).tocsc(), sigma=-0.1, return_eigenvectors=False
    )
    np.testing.assert_allclose(expected[1:], np.sort(full)[1:], rtol=1e-9)
    sizes = []
    original = _lanczos.ritz_pairs

    def spoiled(*args, b, **kwargs):
        """The first run loses a converged pair, as Lanczos does when it misses a copy."""
        sizes.append(b)
        nu, error, rows = original(*args, b=b, **kwargs)
        if len(sizes) == 1:
            nu, error, rows = (np.delete(x, 60, axis=0) for x in (nu, error, rows))
        return nu, error, rows

    monkeypatch.setattr(_lanczos, "ritz_pairs", spoiled)
    again = eigenbasis(mesh, 121, cache=False).vals
    assert sizes == [4, 16]
    np.testing.assert_allclose(again[1:], expected[1:], rtol=1e-10)


def test_many_copies_without_splitting_are_all_found():
    five = union(*[icosphere(3)] * 5)  # eigenvalues of multiplicity 5 (2 l + 1), given to the solver as one
    W, M = laplacian(five)
    vals, vecs = lowest_pairs(W, M, 5 * 9)
    expected = np.sort(np.tile(dense_vals(icosphere(3))[:9], 5))
    np.testing.assert_allclose(vals[:45], expected, atol=1e-9)
    np.testing.assert_allclose(vecs.T @ (M[:, None] * vecs), np.eye(len(vals)), atol=1e-12)


def test_an_eigenvalue_of_huge_multiplicity_ends_in_the_dense_solver():
    n = 600
    W = sp.csr_matrix(n * np.eye(n) - 1.0)  # complete graph: 0 once, n all other times
    vals, vecs = lowest_pairs(W, np.ones(n), 20)
    np.testing.assert_allclose(vals, np.r_[0, np.full(n - 1, n)], atol=1e-9)
    np.testing.assert_allclose(vecs.T @ vecs, np.eye(n), atol=1e-10)


def test_failure_is_an_error_not_a_wrong_spectrum(monkeypatch):
    monkeypatch.setattr(_lanczos, "count_below", lambda *args, **kwargs: None)
    monkeypatch.setattr(_lanczos, "DENSE_FALLBACK", (0, 0, 0))
    with pytest.raises(ValueError, match="could not certify the 10 lowest eigenpairs of 642 vertices"):
        eigenbasis(icosphere(3), 10, cache=False)


def test_residual_check_sees_a_wrong_pair():
    W, M = laplacian(icosphere(3))
    vals, vecs = lowest_pairs(W, M, 20)
    assert _lanczos.residuals_pass(W, M, vals, vecs, 1.0)
    wrong_value = vals.copy()
    wrong_value[7] *= 1.001
    assert not _lanczos.residuals_pass(W, M, wrong_value, vecs, 1.0)
    wrong_vector = vecs.copy()
    wrong_vector[5, 7] += 1e-3
    assert not _lanczos.residuals_pass(W, M, vals, wrong_vector, 1.0)


def test_five_equal_spheres():
    five = union(*[icosphere(3)] * 5)
    basis = eigenbasis(five, 100, cache=False)
    assert_eigenpairs(basis, five)
    np.testing.assert_allclose(
        basis.vals, np.sort(np.tile(dense_vals(icosphere(3))[:25], 5))[:100], atol=1e-9
    )
    lives_on = (basis.vecs.reshape(5, -1, 100).abs().amax(1) > 0).sum(0)
    assert (lives_on == 1).all()


def test_two_components_of_different_size():
    small = icosphere(3, radius=0.5)
    parts = (rough(small, 0.01), rough(torus(), seed=1))
    mesh = union(*parts)
    basis = eigenbasis(mesh, 60, cache=False)
    assert_eigenpairs(basis, mesh)
    expected = np.sort(np.concatenate([dense_vals(p)[:60] for p in parts]))[:60]
    np.testing.assert_allclose(basis.vals, expected, atol=1e-8)
    large_first = basis.vecs[small.n_verts :, 0].abs().min() > 0
    assert bool(large_first) and (basis.vals[:2] == 0).all()


def test_a_small_component_with_slow_modes_gets_its_share():
    ribbon = grid(200, 2, size=(60.0, 0.05))  # little area, yet the lowest frequencies of all
    mesh = union(icosphere(3), ribbon)
    basis = eigenbasis(mesh, 40, cache=False)
    expected = np.sort(np.concatenate([dense_vals(icosphere(3))[:40], dense_vals(ribbon)[:40]]))[:40]
    np.testing.assert_allclose(basis.vals, expected, atol=1e-8)


def test_more_components_than_eigenpairs():
    mesh = union(*[icosphere(1, radius=r) for r in (0.2, 1.0, 0.5, 0.3)])
    basis = eigenbasis(mesh, 3, cache=False)
    assert (basis.vals == 0).all()
    on = [int(i) // 42 for i in basis.vecs.abs().argmax(0)]
    assert on == [1, 2, 3]  # the largest first
    assert eigenbasis(mesh, 1, cache=False).vals.tolist() == [0.0]


def test_all_eigenpairs_of_a_tiny_mesh():
    mesh = icosphere(0)
    basis = eigenbasis(mesh, 12, cache=False)
    assert_eigenpairs(basis, mesh)
    np.testing.assert_allclose(basis.vals, dense_vals(mesh), atol=1e-12)
    triangle = Mesh(torch.eye(3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
    assert_eigenpairs(eigenbasis(triangle, 3, cache=False), triangle)


@pytest.mark.parametrize("k", [10, 60])
def test_unreferenced_vertices_change_nothing_but_have_zero_rows(k):
    clean = rough(icosphere(2))
    shift = 3
    loose = torch.full((shift, 3), 7.0, dtype=clean.dtype)
    dirty = Mesh(torch.cat([loose, clean.verts, loose]), clean.faces + shift)
    a, b = eigenbasis(clean, k, cache=False), eigenbasis(dirty, k, cache=False)
    torch.testing.assert_close(a.vals, b.vals, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.vecs, b.vecs[shift:-shift])
    assert (b.vecs[:shift] == 0).all() and (b.vecs[-shift:] == 0).all()
    assert (b.mass[:shift] == 0).all()


def test_collinear_and_repeated_triangles():
    base = rough(icosphere(3))
    i, j = base.faces[0, 0], base.faces[0, 1]
    middle = (base.verts[i] + base.verts[j])[None] / 2  # on an edge: a triangle of no area fills the slit
    new = base.n_verts
    third = base.faces[0, 2]
    faces = torch.cat(
        [
            base.faces[1:],
            torch.tensor([[i, new, third], [new, j, third], [i, j, new]]),  # the last one is collinear
            torch.tensor([[5, 5, 6], [7, 7, 7]]),  # named twice: no triangles at all
        ]
    )
    mesh = Mesh(torch.cat([base.verts, middle]), faces)
    basis = eigenbasis(mesh, 30, cache=False)
    assert bool(torch.isfinite(basis.vecs).all())
    assert_eigenpairs(basis, mesh, rtol=1e-5)  # weights of the sliver are a million times the others
    torch.testing.assert_close(basis.vals, eigenbasis(base, 30, cache=False).vals, rtol=5e-3, atol=1e-9)


def test_edges_of_length_zero_and_nearly_zero():
    mesh = rough(icosphere(3))
    for weight in (0.0, 1e-9):
        verts = mesh.verts.clone()
        a, b = mesh.faces[::40, 0], mesh.faces[::40, 1]
        verts[a] = (1 - weight) * verts[b] + weight * verts[a]
        bad = mesh.with_verts(verts)
        basis = eigenbasis(bad, 30, cache=False)
        assert bool(torch.isfinite(basis.vecs).all())
        assert_eigenpairs(basis, bad, rtol=1e-5)


def test_point_cloud_of_a_sphere():
    g = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(4000, 3, generator=g, dtype=torch.float64), dim=1)
    cloud = PointCloud(points)
    basis = eigenbasis(cloud, 16, cache=False)
    assert_eigenpairs(basis, cloud)
    expected = np.repeat([2.0, 6.0, 12.0], [3, 5, 7])
    np.testing.assert_allclose(basis.vals[1:], expected, rtol=0.08)


def test_non_manifold_mesh_goes_through_the_tufted_cover():
    wing = grid(12, 12)
    turned = wing.with_verts(wing.verts[:, [2, 1, 0]])  # shares the edge x = 0 with the first
    third = wing.with_verts(wing.verts * torch.tensor([-1.0, 1.0, 1.0], dtype=wing.dtype))
    verts = torch.cat([wing.verts, turned.verts, third.verts])
    faces = torch.cat([m.faces + i * wing.n_verts for i, m in enumerate((wing, turned, third))])
    unique, label = torch.unique(verts, dim=0, return_inverse=True)
    book = Mesh(unique, label[faces])
    basis = eigenbasis(book, 20, cache=False)
    assert_eigenpairs(basis, book)
    assert int((basis.vals < 1e-9).sum()) == 1


def test_permutation_of_the_vertices():
    mesh = rough(icosphere(3))
    g = torch.Generator().manual_seed(3)
    p = torch.randperm(mesh.n_verts, generator=g)
    inverse = torch.argsort(p)
    shuffled = Mesh(mesh.verts[p], inverse[mesh.faces][torch.randperm(mesh.n_faces, generator=g)])
    a, b = eigenbasis(mesh, 40, cache=False), eigenbasis(shuffled, 40, cache=False)
    torch.testing.assert_close(a.vals, b.vals, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(a.vecs[p], b.vecs, rtol=0, atol=1e-6)


def test_rigid_motion_and_scale():
    mesh = rough(torus())
    Q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=mesh.dtype))[0]
    moved = mesh.with_verts(3 * mesh.verts @ Q.T + torch.tensor([5.0, -2.0, 1.0], dtype=mesh.dtype))
    a, b = eigenbasis(mesh, 40, cache=False), eigenbasis(moved, 40, cache=False)
    torch.testing.assert_close(b.vals, a.vals / 9, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(b.vecs, a.vecs / 3, rtol=0, atol=1e-6)


def test_signs_are_canonical():
    vecs = eigenbasis(rough(icosphere(3)), 30, cache=False).vecs
    assert (vecs.gather(0, vecs.abs().argmax(0, keepdim=True)) > 0).all()


def test_basis_of_a_repeated_eigenvalue_does_not_depend_on_the_solver(monkeypatch):
    mesh = icosphere(3)
    a = eigenbasis(mesh, 30, cache=False)  # 30 cuts an eigenvalue of multiplicity: it is completed inside
    monkeypatch.setattr(_lanczos, "BLOCKS", (16,))
    monkeypatch.setattr(_lanczos, "SHIFT", 0.3)
    b = eigenbasis(mesh, 30, cache=False)
    torch.testing.assert_close(a.vals, b.vals, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(a.vecs, b.vecs, rtol=0, atol=1e-7)
    torch.testing.assert_close(eigenbasis(mesh, 20, cache=False).vecs, a.vecs[:, :20], rtol=0, atol=1e-7)


def test_blocks_keep_their_orthogonality():
    W, M = laplacian(rough(icosphere(4), 0.005))
    factor = _lanczos.SpdFactor(W + 0.5 * sp.diags_array(M))
    start = np.random.default_rng(0).standard_normal((4, len(M)))

    def op(X):
        return np.ascontiguousarray(factor.solve((X * M).T).T)

    lanczos = _lanczos.BlockLanczos(op, lambda X: X * M, start, capacity=300)
    for _ in range(75):
        lanczos.step()
    Q = lanczos.Q[:300]
    assert np.abs(Q @ (M * Q).T - np.eye(300)).max() < 1e-6
    T = np.zeros((300, 300))
    for j in range(75):
        at = slice(4 * j, 4 * j + 4)
        T[at, at] = lanczos.diagonal[j]
        if j < 74:
            T[4 * j + 4 : 4 * j + 8, at] = lanczos.coupling[j]
            T[at, 4 * j + 4 : 4 * j + 8] = lanczos.coupling[j].T
    np.testing.assert_allclose(T, Q @ (M * op(Q)).T, atol=1e-7 * abs(T).max())
    vals, S, error = lanczos.ritz()
    np.testing.assert_allclose(vals, la.eigvalsh(T)[::-1], atol=1e-12 * vals[0])
    np.testing.assert_allclose(T @ S, S * vals, atol=1e-12 * vals[0])
    residual = op(S.T @ Q) - vals[:, None] * (S.T @ Q)
    np.testing.assert_allclose(np.sqrt(residual**2 @ M), error, atol=1e-7 * vals[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_surface(dtype):
    mesh = ellipsoid(level=2)
    basis = eigenbasis(mesh.to(dtype), 20, cache=False)
    assert basis.vals.dtype == basis.vecs.dtype == basis.mass.dtype == dtype
    reference = eigenbasis(mesh, 20, cache=False)
    torch.testing.assert_close(basis.vals.double(), reference.vals, rtol=1e-4, atol=1e-4)
    gram = basis.vecs.T @ (basis.mass[:, None] * basis.vecs)
    torch.testing.assert_close(gram, torch.eye(20, dtype=dtype), rtol=0, atol=1e-5)


def test_cache_is_keyed_on_content(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFRAME_CACHE", str(tmp_path))
    mesh = ellipsoid(level=2)
    first = eigenbasis(mesh, 10)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr("geoframe.spectral.basis._lowest_of_all", None)  # nothing may be computed now
    again = eigenbasis(Mesh(mesh.verts.clone(), mesh.faces.clone()), 10)
    assert torch.equal(again.vecs, first.vecs) and torch.equal(again.vals, first.vals)
    monkeypatch.undo()
    monkeypatch.setenv("GEOFRAME_CACHE", str(tmp_path))
    eigenbasis(mesh.with_verts(mesh.verts * 1.01), 10)
    eigenbasis(mesh, 11)
    eigenbasis(mesh, 10, mass="voronoi")
    eigenbasis(mesh, 10, kind="tufted")
    assert len(list(tmp_path.iterdir())) == 5
    file.write_bytes(file.read_bytes()[:-50])
    assert torch.equal(eigenbasis(mesh, 10).vecs, first.vecs)


def test_kind_and_mass_reach_the_operators():
    mesh = ellipsoid(level=2)
    plain = eigenbasis(mesh, 5, cache=False)
    voronoi = eigenbasis(mesh, 5, mass="voronoi", cache=False)
    assert not torch.equal(plain.mass, voronoi.mass)
    tufted = eigenbasis(mesh, 5, kind="tufted", cache=False)
    assert not torch.equal(plain.vals, tufted.vals)
    with pytest.raises(ValueError, match="kind"):
        eigenbasis(mesh, 5, kind="nonsense", cache=False)


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (43, ValueError, "k: expected at most 42, the number of vertices with area, found 43"),
        (0, ValueError, "k: expected an integer at least 1"),
        (-3, ValueError, "k: expected an integer at least 1"),
        (2.5, TypeError, "k: expected an integer"),
    ],
)
def test_bad_k(k, error, message):
    with pytest.raises(error, match=message):
        eigenbasis(icosphere(1), k)


def test_bad_surfaces():
    mesh = icosphere(1)
    with pytest.raises(ValueError, match="verts: expected finite"):
        eigenbasis(mesh.with_verts(mesh.verts * float("nan")), 3)
    with pytest.raises(ValueError, match=r"verts: expected shape"):
        eigenbasis(mesh.with_verts(mesh.verts[None].repeat(2, 1, 1)), 3)
    with pytest.raises(ValueError, match="no vertex has any area"):
        eigenbasis(Mesh(mesh.verts, torch.zeros((0, 3), dtype=torch.long)), 3)
    with pytest.raises(ValueError, match="method: expected one of 'exact', 'approximate'"):
        eigenbasis(mesh, 3, method="quick")


def test_project_lift_truncate():
    basis = eigenbasis(ellipsoid(level=2), 12, cache=False)
    c = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(basis.project(basis.lift(c)), c)
    torch.testing.assert_close(basis.project(basis.lift(c[:, 0])), c[:, 0])
    torch.testing.assert_close(basis.truncate(5).lift(c[:5]), basis.lift(c[:5]))
    assert basis.truncate(5).k == 5 and basis.to(torch.float32).vecs.dtype == torch.float32
    with pytest.raises(ValueError, match="k: expected an integer from 1 to 12, found 13"):
        basis.truncate(13)
    with pytest.raises(ValueError, match="vecs: expected 3 columns"):
        Eigenbasis(basis.vals[:3], basis.vecs, basis.mass)
    with pytest.raises(ValueError, match="mass: expected shape"):
        Eigenbasis(basis.vals, basis.vecs, basis.mass[1:])


def test_real_cat_against_arpack():
    data = os.environ.get("GEOFRAME_DATA")
    if not data:
        pytest.skip("GEOFRAME_DATA is not set: no real meshes")
    from geoframe.surface import load

    cat = load(Path(data) / "animals/cat_lion/cat-00.off")
    basis = eigenbasis(cat.to(torch.float64), 60, cache=False)
    W, M = laplacian(cat)
    vals = sla.eigsh(W, 60, M=sp.diags(M).tocsc(), sigma=-0.01, return_eigenvectors=False)
    np.testing.assert_allclose(basis.vals[1:], np.sort(vals)[1:], rtol=1e-8)
