"""What the network sees: even and odd under mirrors, free of motion and scale, exact derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe import zoo
from geoframe.canonical.surface import Surface
from geoframe.landmarking.inputs import N_EVEN, N_ODD, Inputs, _gradient_at, network_inputs
from geoframe.surface import Mesh
from geoframe.surface.shapes import grid, icosphere


@pytest.fixture(scope="module")
def dog():
    return zoo.animal("dog", 900, seed=3, pose=2)


@pytest.fixture(scope="module")
def seen(dog) -> Inputs:
    return network_inputs(Surface.of(dog.mesh))


def test_shapes_and_unit_area(seen, dog):
    S = dog.mesh.n_verts
    assert seen.even.shape == (S, N_EVEN) and seen.odd.shape == (S, N_ODD)
    assert float(seen.mass.sum()) == pytest.approx(1.0, abs=1e-5)
    gram = seen.vecs.T @ (seen.mass[:, None] * seen.vecs)
    torch.testing.assert_close(gram, torch.eye(128), atol=1e-3, rtol=0)


def test_a_mirror_image_changes_the_sign_of_the_odd_inputs_alone(dog, seen):
    flipped = Mesh(dog.mesh.verts * torch.tensor([1.0, 1.0, -1.0]).double(), dog.mesh.faces.flip(1))
    other = network_inputs(Surface.of(flipped))
    torch.testing.assert_close(other.even, seen.even, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(other.odd, -seen.odd, atol=1e-3, rtol=1e-3)
    assert float(seen.odd.abs().mean()) > 0.005


def test_both_sides_of_a_symmetric_animal_at_rest():
    a = zoo.animal("cat", 700)
    x = network_inputs(Surface.of(a.mesh))
    torch.testing.assert_close(x.even[a.symmetry], x.even, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(x.odd[a.symmetry], -x.odd, atol=2e-3, rtol=2e-3)


def test_motion_scale_and_inward_faces_change_nothing(dog, seen):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    turn = turn * torch.linalg.det(turn)
    moved = Mesh(7.0 * dog.mesh.verts @ turn.T + 3.0, dog.mesh.faces.flip(1))
    other = network_inputs(Surface.of(moved))
    for name in ("even", "odd", "mass", "vals"):
        torch.testing.assert_close(getattr(other, name), getattr(seen, name), atol=2e-3, rtol=2e-3)


def test_lengths_of_gradients_do_not_depend_on_the_frame(dog, seen):
    turn = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).double()
    other = network_inputs(Surface.of(Mesh(dog.mesh.verts @ turn.T, dog.mesh.faces)))
    lengths = [(x.grad_x**2 + x.grad_y**2)[:, 1:20].sqrt() for x in (seen, other)]
    torch.testing.assert_close(*lengths, atol=0.02, rtol=1e-2)


def test_the_gradient_is_exact_for_linear_functions():
    mesh = grid(9, 7, (2.0, 1.0))
    x = mesh.verts.double()
    f = x @ torch.tensor([[3.0, 0.0], [-2.0, 1.0], [0.0, 0.0]]).double()
    some = np.array([0, 5, 20, 33])
    slope = _gradient_at(Surface.of(Mesh(x, mesh.faces)), some, f.numpy())
    expected = np.array([[3.0, 0.0], [-2.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(slope, np.broadcast_to(expected, (4, 3, 2)), atol=1e-12)


def test_few_vertices_stand_for_many():
    mesh = icosphere(3)  # 642 vertices
    x = network_inputs(Surface.of(Mesh(mesh.verts.double(), mesh.faces)), n_samples=200)
    assert len(x.vertex) == len(x.vertex.unique()) == 200
    assert float(x.mass.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(x.mass.max()) < 3 / 200  # of equal shares, on a sphere
    gram = x.vecs[:, :9].T @ (x.mass[:, None] * x.vecs[:, :9])
    torch.testing.assert_close(gram, torch.eye(9), atol=0.05, rtol=0)


def test_vertices_without_area_are_not_seen():
    mesh = icosphere(3)
    loose = Mesh(torch.cat([mesh.verts.double(), 2 * torch.ones(5, 3).double()]), mesh.faces)
    x = network_inputs(Surface.of(loose), n_samples=200)
    assert len(x.vertex.unique()) == 200 and int(x.vertex.max()) < mesh.n_verts
    assert float(x.mass.sum()) == pytest.approx(1.0, abs=1e-5) and float(x.mass.min()) > 0


def test_a_surface_of_few_vertices_has_fewer_functions():
    mesh = icosphere(1)  # 42 vertices
    assert network_inputs(Surface.of(mesh)).vals.shape == (42,)


def test_a_surface_without_area_is_refused():
    with pytest.raises(ValueError, match="no vertex has any area"):
        network_inputs(Surface.of(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))))
