"""Conversion between functional maps and vertex maps: the definition, the inverse pair, units, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.maps import fmap_to_p2p, p2p_to_fmap
from geoframe.spectral import Eigenbasis, eigenbasis
from geoframe.surface import Mesh
from geoframe.surface.shapes import ellipsoid


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return ellipsoid((1.0, 0.7, 0.5), level=3)


@pytest.fixture(scope="module")
def bases(mesh):
    """V1 = 642 and V2 = 162, a coarser ellipsoid whose vertices are the first of the fine one; K1 = 30, K2 = 24."""
    return eigenbasis(mesh, 30), eigenbasis(ellipsoid((1.0, 0.7, 0.5), level=2), 24)


@pytest.fixture(scope="module")
def noise():
    g = torch.Generator().manual_seed(0)
    b = [
        Eigenbasis(
            torch.arange(k, dtype=torch.float64),
            torch.randn(n, k, generator=g, dtype=torch.float64),
            torch.rand(n, generator=g, dtype=torch.float64),
        )
        for n, k in ((50, 9), (41, 7))
    ]
    return b[0], b[1], torch.randn(7, 9, generator=g, dtype=torch.float64)


def test_functional_map_is_the_definition(noise):
    basis1, basis2, _ = noise
    p2p_21 = torch.randint(50, (41,), generator=torch.Generator().manual_seed(1))
    C_12 = p2p_to_fmap(p2p_21, basis1, basis2)
    assert C_12.shape == (7, 9)
    expected = np.zeros((7, 9))
    for j in range(41):
        u1, u2 = basis1.vecs[p2p_21[j]].numpy(), basis2.vecs[j].numpy()
        expected += float(basis2.mass[j]) * np.outer(u2, u1)
    np.testing.assert_allclose(C_12.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_vertex_map_is_the_definition(noise, adjoint, block):
    basis1, basis2, C_12 = noise
    A1, A2 = float(basis1.mass.sum()), float(basis2.mass.sum())
    U1, U2 = basis1.vecs.numpy() * A1**0.5, basis2.vecs.numpy() * A2**0.5
    C = C_12.numpy() * (A1 / A2) ** 0.5
    expected = []
    for u2 in U2:
        distances = [np.linalg.norm(u1 - C.T @ u2 if adjoint else C @ u1 - u2) for u1 in U1]
        expected.append(int(np.argmin(distances)))
    found = fmap_to_p2p(C_12, basis1, basis2, adjoint=adjoint, block=block)
    assert found.shape == (41,) and found.dtype == torch.int64
    assert found.tolist() == expected


def test_a_map_of_vertices_comes_back(bases):
    """V1 != V2, K1 != K2: the coarse ellipsoid's vertices are the first of the fine one's, and p2p_21 says so."""
    basis1, basis2 = bases
    p2p_21 = torch.arange(basis2.n_verts)
    C_12 = p2p_to_fmap(p2p_21, basis1, basis2)
    assert C_12.shape == (24, 30)
    # C_12 carries functions 1 -> 2 with the map that carries vertices 2 -> 1
    c1 = torch.zeros(30, dtype=torch.float64)
    c1[:8] = torch.arange(8)
    error = basis2.lift(C_12 @ c1) - basis1.lift(c1)[p2p_21]
    assert float(error.norm() / basis1.lift(c1)[p2p_21].norm()) < 0.02
    back = fmap_to_p2p(C_12, basis1, basis2)
    assert float((back == p2p_21).double().mean()) > 0.95
    # the transposed reading is not the same thing: it does not even fit
    with pytest.raises(ValueError, match="at most 24 columns, as functions in basis1"):
        fmap_to_p2p(C_12, basis2, basis1)


def test_every_vertex_comes_back_with_a_complete_basis():
    """With K = V the functional map of a permutation is orthogonal and both readings invert it."""
    mesh = ellipsoid((1.0, 0.7, 0.5), level=1)
    basis = eigenbasis(mesh, 42)
    order = torch.randperm(42, generator=torch.Generator().manual_seed(2))
    permuted = Eigenbasis(basis.vals, basis.vecs[order], basis.mass[order])
    C_12 = p2p_to_fmap(order, basis, permuted)
    torch.testing.assert_close(C_12, torch.eye(42, dtype=C_12.dtype), atol=1e-9, rtol=0)
    for adjoint in (False, True):
        assert torch.equal(fmap_to_p2p(C_12, basis, permuted, adjoint=adjoint), order)


def test_units_do_not_matter(bases):
    basis1, basis2 = bases
    C_12 = p2p_to_fmap(torch.arange(basis2.n_verts), basis1, basis2)
    C_12 = C_12 + 0.1 * torch.randn(C_12.shape, generator=torch.Generator().manual_seed(3), dtype=C_12.dtype)
    s = 1000.0  # surface 1 in millimetres
    scaled = Eigenbasis(basis1.vals / s**2, basis1.vecs / s, basis1.mass * s**2)
    # the same map of functions has other coefficients there: U1 c1 = (U1 / s) (s c1)
    assert torch.equal(fmap_to_p2p(C_12 / s, scaled, basis2), fmap_to_p2p(C_12, basis1, basis2))


def test_dtype_follows_the_bases(bases):
    basis1, basis2 = (b.to(torch.float32) for b in bases)
    C_12 = p2p_to_fmap(torch.arange(basis2.n_verts, dtype=torch.int32), basis1, basis2)
    assert C_12.dtype == torch.float32
    assert fmap_to_p2p(C_12, basis1, basis2).dtype == torch.int64


@pytest.mark.parametrize("adjoint", [False, True])
def test_agrees_with_pyfm(noise, adjoint):
    convert = pytest.importorskip("pyFM.spectral.convert")
    basis1, basis2, C_12 = noise
    unit = [Eigenbasis(b.vals, b.vecs * b.mass.sum().sqrt(), b.mass / b.mass.sum()) for b in (basis1, basis2)]
    U1, U2 = (b.vecs.numpy() for b in unit)
    expected = convert.FM_to_p2p(C_12.numpy(), U1, U2, use_adj=adjoint)
    p2p_21 = fmap_to_p2p(C_12, *unit, adjoint=adjoint)
    assert p2p_21.tolist() == expected.tolist()
    expected = convert.p2p_to_FM(p2p_21.numpy(), U1, U2, A2=unit[1].mass.numpy())
    np.testing.assert_allclose(p2p_to_fmap(p2p_21, *unit).numpy(), expected, atol=1e-12)


def test_bad_input(noise):
    basis1, basis2, C_12 = noise
    good = torch.zeros(41, dtype=torch.int64)
    for p2p, error, match in (
        (good[:40], ValueError, r"p2p_21: expected shape \(41,\)"),
        (good + 50, ValueError, r"p2p_21: expected indices in \[0, 49\]"),
        (good.double(), TypeError, "p2p_21: expected an integer dtype"),
        ("41 zeros", TypeError, "p2p_21: expected a tensor, a NumPy array or a list"),
    ):
        with pytest.raises(error, match=match):
            p2p_to_fmap(p2p, basis1, basis2)
    for C, error, match in (
        (C_12[0], ValueError, r"C_12: expected shape \(K2, K1\)"),
        (C_12.long(), TypeError, "C_12: expected a floating dtype"),
        (torch.zeros(8, 9), ValueError, "at most 7 rows, as functions in basis2"),
        (C_12 * torch.nan, ValueError, "NaN"),
    ):
        with pytest.raises(error, match=match):
            fmap_to_p2p(C, basis1, basis2)
    with pytest.raises(ValueError, match="block: expected an integer at least 1"):
        fmap_to_p2p(C_12, basis1, basis2, block=0)
