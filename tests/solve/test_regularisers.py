"""Edge, Laplacian, normal and volume terms: closed forms, invariances, finite gradients."""

from __future__ import annotations

import pytest
import torch

from geoframe.solve import edge_energy, laplacian_energy, normal_energy, volume_energy
from geoframe.surface import Mesh, shapes
from geoframe.transforms import random_rotations

F64 = torch.float64
ENERGIES = (edge_energy, normal_energy, volume_energy)


def mesh() -> Mesh:
    return shapes.ellipsoid((1.0, 0.7, 0.5), level=2).to(F64)


@pytest.mark.parametrize("energy", ENERGIES)
def test_zero_under_rigid_motion_and_batched(energy):
    m = mesh()
    R = random_rotations(3, generator=torch.Generator().manual_seed(0), dtype=F64)
    moved = m.verts @ R.mT + 2.0
    assert energy(m, moved).shape == (3,) and energy(m, moved).abs().max() < 1e-20
    bent = moved + 0.1 * torch.sin(5 * moved)
    assert energy(m, bent).min() > 1e-6
    assert torch.allclose(energy(m, bent), torch.stack([energy(m, x) for x in bent]))


def test_closed_forms_under_scaling():
    m = mesh()
    assert edge_energy(m, 1.1 * m.verts).item() == pytest.approx(0.01)
    assert volume_energy(m, 1.1 * m.verts).item() == pytest.approx((1.1**3 - 1) ** 2)
    assert normal_energy(m, 1.1 * m.verts).item() == pytest.approx(0, abs=1e-20)


def test_a_fold_has_the_normal_energy_of_its_angle():
    v = torch.tensor([[0.0, 0, 0], [0, 1, 0], [1, 0, 0], [-1, 0, 0]], dtype=F64)
    flat = Mesh(v, torch.tensor([[0, 2, 1], [0, 1, 3]]))
    angle = torch.tensor(0.7, dtype=F64)
    folded = v.clone()
    folded[3] = torch.stack([-angle.cos(), angle * 0, angle.sin()])
    assert normal_energy(flat, folded).item() == pytest.approx((1 - angle.cos().item()) ** 2)


def test_laplacian_energy_of_spherical_harmonics():
    """W z = 2 M z on the unit sphere, so the energy of z is 4 times its squared norm, 4 pi / 3."""
    errors = []
    for level in (2, 3, 4):
        m = shapes.icosphere(level).to(F64)
        errors.append(abs(laplacian_energy(m, m.verts[:, 2:]).item() - 16 * torch.pi / 3))
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.06
    assert laplacian_energy(m, torch.ones(2, m.n_verts, 3, dtype=F64)).abs().max() < 1e-15


@pytest.mark.parametrize("energy", [*ENERGIES, laplacian_energy])
def test_gradients(energy):
    m = shapes.icosahedron().to(F64)
    x = (m.verts + 0.2 * torch.sin(3 * m.verts)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: energy(m, x), x)
    (g,) = torch.autograd.grad(energy(m, x * 0), x)  # all in one point
    assert torch.isfinite(g).all()


def test_bad_input():
    m = shapes.icosahedron()
    with pytest.raises(ValueError, match="verts: expected shape"):
        edge_energy(m, torch.zeros(5, 3))
    with pytest.raises(ValueError, match="mesh: expected an enclosed volume, found 0"):
        volume_energy(shapes.grid(3, 3), shapes.grid(3, 3).verts)
