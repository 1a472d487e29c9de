"""First functional maps: exact where they can be, solvable where there is little to go by."""

import pytest
import torch

from geoframe.maps import fmap_from_descriptors, fmap_from_landmarks
from geoframe.spectral import eigenbasis, wks
from geoframe.surface.mesh import Mesh
from geoframe.surface.shapes import icosphere


@pytest.fixture(scope="module")
def pair(bumpy):
    """A bumpy ellipsoid and itself with another vertex order and scale."""
    order = torch.randperm(bumpy.n_verts, generator=torch.Generator().manual_seed(0))
    other = Mesh(3 * bumpy.verts[order], torch.argsort(order)[bumpy.faces])
    return eigenbasis(bumpy, 24, cache=False), eigenbasis(other, 20, cache=False), order


def truth(basis1, basis2, order, k):
    """The functional map of the known vertex map."""
    return basis2.truncate(k).project(basis1.vecs[order, :k])


def test_many_landmarks_give_the_true_map(pair):
    basis1, basis2, order = pair
    at = torch.arange(0, len(order), 3)
    C = fmap_from_landmarks(torch.stack([order[at], at], 1), basis1, basis2, 10, regularisation=1e-8)
    torch.testing.assert_close(C, truth(basis1, basis2, order, 10), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 3])
def test_fewer_landmarks_than_functions(pair, n):
    """Solvable, finite, and near-diagonal: what the landmarks leave open, the Laplacians decide."""
    basis1, basis2, order = pair
    at = torch.arange(n) * 50
    C = fmap_from_landmarks(torch.stack([order[at], at], 1), basis1, basis2, 12)
    assert torch.isfinite(C).all()
    assert C.diagonal().square().sum() > 0.5 * C.square().sum()


def test_landmark_map_does_not_depend_on_units(pair):
    basis1, basis2, order = pair
    s = 100.0
    scaled = type(basis1)(basis1.vals / s**2, basis1.vecs / s, basis1.mass * s**2)
    at = torch.arange(8) * 40
    L = torch.stack([order[at], at], 1)
    torch.testing.assert_close(
        fmap_from_landmarks(L, scaled, basis2), fmap_from_landmarks(L, basis1, basis2) / s
    )


@pytest.mark.parametrize("commutativity", [0.0, 1.0])
def test_descriptors_of_an_isometric_pair_give_the_true_map(pair, commutativity):
    basis1, basis2, order = pair
    f1 = torch.cat(
        [wks(basis1.truncate(20), 30, landmarks=[order[0], order[300]]), wks(basis1.truncate(20), 30)], 1
    )
    f2 = torch.cat([wks(basis2, 30, landmarks=[0, 300]), wks(basis2, 30)], 1)
    C = fmap_from_descriptors(f1, f2, basis1, basis2, 10, regularisation=1e-6, commutativity=commutativity)
    torch.testing.assert_close(C, truth(basis1, basis2, order, 10), atol=2e-2, rtol=2e-2)


def test_commutativity_changes_the_map(pair):
    basis1, basis2, _ = pair
    f1, f2 = wks(basis1, 3), wks(basis2, 3)
    a = fmap_from_descriptors(f1, f2, basis1, basis2, 6)
    b = fmap_from_descriptors(f1, f2, basis1, basis2, 6, commutativity=10.0)
    assert not torch.allclose(a, b, atol=1e-3)


def test_bad_input(pair):
    basis1, basis2, _ = pair
    one = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="landmarks: expected at least 1 pair"):
        fmap_from_landmarks(one[:0], basis1, basis2)
    with pytest.raises(ValueError, match=r"landmarks\[:, 1\]: expected indices"):
        fmap_from_landmarks(one + basis1.n_verts * torch.tensor([0, 1]), basis1, basis2)
    with pytest.raises(ValueError, match="k: expected an integer from 1 to 20, found 21"):
        fmap_from_landmarks(one, basis1, basis2, 21)
    with pytest.raises(ValueError, match="f2: expected 3 descriptors"):
        fmap_from_descriptors(basis1.vecs[:, :3], basis2.vecs[:, :2], basis1, basis2, 5)
    with pytest.raises(ValueError, match="f1: expected"):
        fmap_from_descriptors(basis1.vecs[1:, :3], basis2.vecs[:, :3], basis1, basis2, 5)


def test_the_orientation_term_tells_left_from_right():
    """A surface with a mirror plane, whose wave kernel is the same on both sides, and its reflected image.

    The true map of the reflected surface turns the faces inside out. Keeping them outward, the best map is the
    one that swaps the sides; without the term nothing is known about odd functions.
    """
    mesh = icosphere(3)
    x, y, z = mesh.verts.double().unbind(-1)
    r = 1 + 0.25 * torch.sin(2 * x + 1) + 0.2 * y.abs() * z + 0.15 * torch.cos(3 * z + 0.5) + 0.2 * x * z * z
    stretch = torch.tensor([1.4, 1.0, 0.75], dtype=torch.float64)
    mesh = Mesh(mesh.verts.double() * r[:, None] * stretch, mesh.faces)
    basis = eigenbasis(mesh, 60, cache=False)
    f = wks(basis, 30)
    k = 12
    flip = torch.cdist(mesh.verts * mesh.verts.new_tensor([1, -1, 1]), mesh.verts).argmin(1)
    swap = basis.truncate(k).project(basis.vecs[flip, :k])
    odd = swap.diagonal() < -0.9
    assert 3 <= odd.sum() <= 9
    settings = {"regularisation": 0.01, "commutativity": 0.1}
    blind = fmap_from_descriptors(f, f, basis, basis, k, **settings)
    assert blind.diagonal()[odd].abs().max() < 1e-3
    same = fmap_from_descriptors(f, f, basis, basis, k, **settings, orientation=0.1, meshes=(mesh, mesh))
    assert same.diagonal()[odd].min() > 0.02
    mirror = Mesh(mesh.verts, mesh.faces.flip(1))  # the same places, the other side out
    swapped = fmap_from_descriptors(f, f, basis, basis, k, **settings, orientation=0.1, meshes=(mesh, mirror))
    assert swapped.diagonal()[odd].max() < -0.02
    with pytest.raises(ValueError, match="meshes: expected both surfaces"):
        fmap_from_descriptors(f, f, basis, basis, k, orientation=0.1)
