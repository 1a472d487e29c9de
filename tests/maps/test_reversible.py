"""Reversible refinement: what it must keep, and what it must repair."""

import pytest
import torch

from geoframe.maps import coverage, cycle_error, dirichlet_energy, reversible_refine
from geoframe.spectral import eigenbasis
from geoframe.surface import laplacian
from geoframe.surface.mesh import Mesh


@pytest.fixture(scope="module")
def pair(bumpy):
    mesh = bumpy
    order = torch.randperm(mesh.n_verts, generator=torch.Generator().manual_seed(0))
    other = Mesh(3 * mesh.verts[order], torch.argsort(order)[mesh.faces])
    bases = [eigenbasis(m, 60, cache=False) for m in (mesh, other)]
    return mesh, other, *bases, laplacian(mesh)[0], laplacian(other)[0], order


def test_a_true_map_stays(pair):
    _, _, basis1, basis2, W1, W2, order = pair
    p2p_21, p2p_12 = reversible_refine(order, torch.argsort(order), basis1, basis2, W1, W2)
    assert torch.equal(p2p_21, order) and torch.equal(p2p_12, torch.argsort(order))


def test_a_noisy_map_becomes_smooth_and_reversible(pair):
    mesh1, mesh2, basis1, basis2, W1, W2, order = pair
    random = torch.Generator().manual_seed(1)
    near = torch.cdist(mesh1.verts, mesh1.verts).argsort(1)[:, :25]  # noise of up to three edges

    def blur(p2p, neighbours):
        return neighbours[p2p, torch.randint(25, p2p.shape, generator=random)]

    noisy_21 = blur(order, near)
    noisy_12 = torch.argsort(order)[blur(torch.arange(len(order)), near)]
    p2p_21, p2p_12 = reversible_refine(noisy_21, noisy_12, basis1, basis2, W1, W2)
    before = dirichlet_energy(mesh1, mesh2, noisy_21)
    assert dirichlet_energy(mesh1, mesh2, p2p_21) < 0.3 * before
    assert coverage(mesh1, p2p_21) > coverage(mesh1, noisy_21)
    after = float(cycle_error(mesh2, p2p_21, p2p_12).mean())
    assert after < 0.3 * float(cycle_error(mesh2, noisy_21, noisy_12).mean())
    error = (mesh1.verts[p2p_21] - mesh1.verts[order]).norm(dim=1).mean()
    assert error < 0.5 * (mesh1.verts[noisy_21] - mesh1.verts[order]).norm(dim=1).mean()


def test_units_do_not_matter(pair):
    _, mesh2, basis1, basis2, W1, W2, order = pair
    large = Mesh(100 * mesh2.verts, mesh2.faces)
    start = order.roll(1), torch.argsort(order).roll(1)
    one = reversible_refine(*start, basis1, basis2, W1, W2, smoothness=(1e-3,))
    two = reversible_refine(*start, basis1, eigenbasis(large, 60, cache=False), W1, W2, smoothness=(1e-3,))
    assert (one[0] == two[0]).double().mean() > 0.99


def test_bad_input(pair):
    _, _, basis1, basis2, W1, W2, p2p_21 = pair
    p2p_12 = torch.argsort(p2p_21)
    with pytest.raises(ValueError, match=r"p2p_21: expected shape"):
        reversible_refine(p2p_21[:-1], p2p_12, basis1, basis2, W1, W2)
    with pytest.raises(ValueError, match="p2p_12: expected indices"):
        reversible_refine(p2p_21, p2p_12 + basis2.n_verts, basis1, basis2, W1, W2)
    with pytest.raises(ValueError, match="W2: expected a sparse matrix"):
        reversible_refine(p2p_21, p2p_12, basis1, basis2, W1, None)
