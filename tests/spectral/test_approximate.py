"""Approximate eigenbases: how far they are from the exact ones, and what holds exactly nevertheless."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.spectral import approximate, eigenbasis
from geoframe.spectral.approximate import approximate_pairs, bumps, geodesic_cells
from geoframe.surface import Mesh, PointCloud, laplacian
from geoframe.surface.shapes import ellipsoid, grid, icosphere, torus

K = 30


@pytest.fixture(scope="module")
def shape():
    """An ellipsoid of 10,242 vertices: W, mass, points and its exact basis."""
    mesh = ellipsoid(level=5)
    W, M = laplacian(mesh)
    return mesh, W, M, mesh.verts.numpy(), eigenbasis(mesh, K, cache=False)


def test_what_holds_exactly(shape):
    mesh, W, M, _, exact = shape
    basis = eigenbasis(mesh, K, method="approximate", cache=False)
    U = basis.vecs.numpy()
    np.testing.assert_allclose(U.T @ (M[:, None] * U), np.eye(K), atol=1e-12)
    energy = U.T @ (W @ U)
    np.testing.assert_allclose(energy, np.diag(basis.vals), atol=1e-8)
    assert basis.vals[0] == 0 and U[:, 0].std() < 1e-12
    assert (basis.vals.numpy()[1:] >= exact.vals.numpy()[1:] * (1 - 1e-10)).all()  # upper bounds
    assert not torch.equal(basis.vals, exact.vals)  # it did not fall back to the exact solver


def test_error_is_as_stated(shape):
    mesh, M, exact = shape[0], shape[2], shape[4]
    basis = eigenbasis(mesh, K, method="approximate", cache=False)
    error = (basis.vals / exact.vals - 1)[1:]
    assert float(error.max()) < 0.02 and float(error.mean()) < 0.004
    overlap = exact.vecs.T @ (torch.from_numpy(M)[:, None] * basis.vecs[:, : K - 8])
    outside = (1 - (overlap**2).sum(0)).clamp(min=0).sqrt()
    assert float(outside.max()) < 0.05


def test_more_samples_and_sweeps_give_smaller_errors(shape, monkeypatch):
    _, W, M, points, exact = shape

    def error():
        vals = approximate_pairs(W, M, points, K)[0]
        return float((vals[1:] / exact.vals.numpy()[1:K] - 1).mean())

    stated = error()
    monkeypatch.setattr(approximate, "RELAX", 0)
    unrelaxed = error()
    monkeypatch.setattr(approximate, "SAMPLES", 10)
    coarse = error()
    assert stated < 0.7 * unrelaxed < 0.5 * coarse


def testbumps_reproduce_constants_and_nearly_linear_functions(shape):
    _, W, M, points, _ = shape
    label, sample = geodesic_cells(W, M, points, 400)
    assert len(np.unique(sample)) == 400 and (label[sample] == np.arange(400)).all()
    P = bumps(W, M, points, label, sample)
    np.testing.assert_allclose(P.sum(1), 1, atol=1e-12)
    size = np.sqrt(M.sum() / 400)
    assert np.abs(P @ points[sample] - points).max() < 0.2 * size
    assert 5 < P.nnz / len(M) < 25


def test_plane_closed_form():
    n, k = 120, 20
    vals = eigenbasis(grid(n, n), k, method="approximate", cache=False).vals.numpy()
    i, j = np.meshgrid(np.arange(8), np.arange(8))
    expected = np.sort((np.pi**2 * (i**2 + j**2)).ravel())[:k]
    np.testing.assert_allclose(vals[1:], expected[1:], rtol=0.02)


def test_repeated_eigenvalues_of_a_sphere():
    vals = eigenbasis(icosphere(5), 25, method="approximate", cache=False).vals.numpy()
    expected = np.repeat([x * (x + 1) for x in range(5)], [2 * x + 1 for x in range(5)])
    np.testing.assert_allclose(vals, expected, rtol=0.02)


def test_components_and_unreferenced_vertices():
    ball, ring = ellipsoid(level=5), torus()
    moved = ring.verts + torch.tensor([5.0, 0, 0], dtype=torch.float64)
    loose = torch.zeros(1, 3, dtype=torch.float64)
    mesh = Mesh(torch.cat([ball.verts, moved, loose]), torch.cat([ball.faces, ring.faces + ball.n_verts]))
    exact, basis = (eigenbasis(mesh, 24, method=m, cache=False) for m in ("exact", "approximate"))
    torch.testing.assert_close(basis.vals, exact.vals, rtol=0.02, atol=1e-9)
    assert int((basis.vals == 0).sum()) == 2 and bool((basis.vecs[-1] == 0).all())


def test_point_cloud():
    g = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(6000, 3, generator=g, dtype=torch.float64), dim=1)
    exact, basis = (
        eigenbasis(PointCloud(points), 16, method=m, cache=False) for m in ("exact", "approximate")
    )
    torch.testing.assert_close(basis.vals, exact.vals, rtol=0.02, atol=1e-9)


def test_small_surfaces_are_solved_exactly():
    mesh = ellipsoid(level=3)
    exact, basis = (eigenbasis(mesh, 20, method=m, cache=False) for m in ("exact", "approximate"))
    assert torch.equal(exact.vals, basis.vals) and torch.equal(exact.vecs, basis.vecs)


def test_the_same_every_time(shape):
    mesh = shape[0]
    a, b = (eigenbasis(mesh, K, method="approximate", cache=False) for _ in range(2))
    torch.testing.assert_close(a.vecs, b.vecs, rtol=0, atol=1e-8)
    single = eigenbasis(mesh.to(torch.float32), K, method="approximate", cache=False)
    assert single.vecs.dtype == torch.float32


def test_the_cache_tells_the_methods_apart(shape, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFRAME_CACHE", str(tmp_path))
    mesh = shape[0]
    exact, basis = (eigenbasis(mesh, 12, method=m) for m in ("exact", "approximate"))
    assert not torch.equal(exact.vals, basis.vals) and len(list(tmp_path.iterdir())) == 2
    assert torch.equal(eigenbasis(mesh, 12, method="approximate").vecs, basis.vecs)
