"""As-rigid-as-possible: zero for rigid motions, plain loops, libigl, broken meshes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import geoframe
from geoframe.solve import Arap, ArapSolver, arap_energy
from geoframe.surface import Mesh, shapes
from geoframe.transforms import random_rotations, rotvec_to_rotation

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sphere() -> Mesh:
    return shapes.ellipsoid((1.0, 0.7, 0.5), level=2).to(F64)


def bent(mesh: Mesh, size: float = 0.2) -> torch.Tensor:
    return mesh.verts + size * torch.sin(3 * mesh.verts[:, [1, 2, 0]])


def cotangent_weights(mesh: Mesh) -> dict[tuple[int, int], float]:
    """(cot a + cot b) / 2 by directed edge, from angles."""
    weights: dict[tuple[int, int], float] = {}
    v = mesh.verts.numpy()
    for f in mesh.faces.numpy():
        for c in range(3):
            o, i, j = f[c], f[(c + 1) % 3], f[(c + 2) % 3]
            a, b = v[i] - v[o], v[j] - v[o]
            cot = float(a @ b / np.linalg.norm(np.cross(a, b)))
            for key in ((i, j), (j, i)):
                weights[key] = weights.get(key, 0.0) + cot / 2
    return weights


def test_zero_under_rigid_motion():
    mesh = sphere()
    R = random_rotations(5, generator=generator(), dtype=F64)
    moved = mesh.verts @ R.mT + torch.randn(5, 1, 3, generator=generator(), dtype=F64)
    assert arap_energy(mesh, moved).max() < 1e-12
    assert arap_energy(mesh, moved * 1.1).min() > 1e-3


def test_energy_is_the_double_loop():
    mesh = shapes.icosphere(1).to(F64)
    x, t = bent(mesh).numpy(), mesh.verts.numpy()
    weights = cotangent_weights(mesh)
    total = 0.0
    for i in range(mesh.n_verts):
        ring = [(j, w) for (a, j), w in weights.items() if a == i]
        S = sum(w * np.outer(x[i] - x[j], t[i] - t[j]) for j, w in ring)
        U, _, Vh = np.linalg.svd(S)
        R = U @ np.diag([1, 1, np.linalg.det(U @ Vh)]) @ Vh
        total += sum(w * np.sum((x[i] - x[j] - R @ (t[i] - t[j])) ** 2) for j, w in ring)
    assert arap_energy(mesh, torch.from_numpy(x)).item() == pytest.approx(total, rel=1e-10)


def test_gradient_to_deformation_and_rest():
    mesh = shapes.icosahedron().to(F64)
    x = bent(mesh, 0.4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: arap_energy(mesh, x), x, atol=1e-6, fast_mode=True)
    cells, rest = Arap(mesh), mesh.verts.clone().requires_grad_()

    def of_rest(rest):  # the weights are constants
        cells.mesh = mesh.with_verts(rest)
        return cells.energy(x.detach())

    assert torch.autograd.gradcheck(of_rest, rest, atol=1e-6, fast_mode=True)


def test_batches_and_basis_components():
    mesh = sphere()
    basis = 0.1 * torch.randn(4, mesh.n_verts, 3, generator=generator(), dtype=F64)
    batch = arap_energy(mesh, mesh.verts + basis)
    assert torch.allclose(batch, torch.stack([arap_energy(mesh, mesh.verts + b) for b in basis]))
    assert batch.shape == (4,)


def test_collapsed_and_broken_input_is_finite():
    verts = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 1, 0], [1, 1, 0], [5, 5, 5]], dtype=F64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [2, 4, 3]])  # a line, a good one, a point; a lone vertex
    mesh = Mesh(verts, faces)
    for x in (verts * 0, verts.clone(), verts.flip(0)):
        x = x.requires_grad_()
        E = arap_energy(mesh, x)
        (g,) = torch.autograd.grad(E, x)
        assert torch.isfinite(E) and torch.isfinite(g).all()
    assert arap_energy(mesh, verts).abs() < 1e-12


def test_clamping_bounds_the_energy_below():
    thin = Mesh(
        torch.tensor([[0, 0, 0], [4, 0, 0], [2, 0.3, 0], [2, -0.3, 0.1]], dtype=F64),
        torch.tensor([[0, 1, 2], [1, 0, 3]]),
    )
    assert Arap(thin, clamp=False).weights.min() < 0 < Arap(thin).weights.min()
    x = thin.verts.clone()
    x[:2] *= 3
    assert arap_energy(thin, x) > 0 > arap_energy(thin, x, clamp=False)


def handles(mesh: Mesh, share: float = 0.03) -> tuple[torch.Tensor, torch.Tensor]:
    """Both ends of the longest axis, one of them turned by half a radian and moved."""
    v = mesh.verts
    axis = int((v.amax(0) - v.amin(0)).argmax())
    order, n = v[:, axis].argsort(), max(4, int(share * len(v)))
    ends = torch.cat([order[:n], order[-n:]])
    to = v[ends].clone()
    turn = torch.zeros(3, dtype=F64)
    turn[axis] = 0.5
    middle = to[n:].mean(0)
    to[n:] = (to[n:] - middle) @ rotvec_to_rotation(turn).T + middle
    to[n:] += 0.1 * (v[:, axis].max() - v[:, axis].min())
    return ends, to


def test_solver_keeps_handles_and_lowers_the_energy():
    mesh = sphere()
    ends, to = handles(mesh, 0.1)
    solver = ArapSolver(mesh, ends)
    energies = [solver.solve(to, max_steps=n).energy for n in (1, 3, 10, 200)]
    assert energies == sorted(energies, reverse=True) and energies[0] > energies[-1]
    done = solver.solve(to, max_steps=3000, tolerance=1e-9)
    assert done.converged and torch.equal(done.verts[ends], to)
    x = done.verts.clone().requires_grad_()
    (g,) = torch.autograd.grad(arap_energy(mesh, x), x)
    g[ends] = 0
    assert g.abs().max() < 1e-6  # a stationary point of the very function
    again = solver.solve(to, init=done.verts)
    assert again.steps == 1 and (again.verts - done.verts).abs().max() < 1e-7


def test_rigidly_moved_handles_move_everything_rigidly():
    mesh = sphere()
    ends, _ = handles(mesh, 0.1)
    R = random_rotations(1, generator=generator(3), dtype=F64)[0]
    sol = ArapSolver(mesh, ends).solve(mesh.verts[ends] @ R.T + 1, max_steps=2000, tolerance=1e-10)
    assert sol.energy < 1e-9 and (sol.verts - (mesh.verts @ R.T + 1)).abs().max() < 1e-4


def test_all_vertices_held():
    mesh = shapes.icosahedron()
    sol = ArapSolver(mesh, torch.arange(12)).solve(mesh.verts * 2)
    assert sol.converged and sol.steps == 0 and sol.verts.dtype == mesh.dtype
    assert torch.equal(sol.verts, mesh.verts * 2)


@pytest.mark.parametrize("name", ["spot_low_resolution", "fish_low_resolution"])
@pytest.mark.parametrize("steps", [10, 100])
def test_as_libigl(name, steps):
    igl = pytest.importorskip("igl")
    data = os.environ.get("GEOFRAME_DATA")
    if not data:
        pytest.skip("needs GEOFRAME_DATA")
    mesh = geoframe.load(Path(data) / "objects" / f"{name}.obj").to(F64)
    ends, to = handles(mesh)
    ours = ArapSolver(mesh, ends, clamp=False).solve(to, max_steps=steps, tolerance=1e-12)
    theirs = igl.ARAPData()
    theirs.max_iter, theirs.energy = steps, igl.ARAP_ENERGY_TYPE_SPOKES
    V = mesh.verts.numpy()
    igl.arap_precomputation(V, mesh.faces.numpy(), 3, ends.numpy().astype(np.int32), theirs)
    U = torch.from_numpy(igl.arap_solve(to.numpy(), theirs, V.copy()))
    assert (ours.verts - U).abs().max() < 1e-4 * np.ptp(V, axis=0).max()
    assert ours.energy == pytest.approx(arap_energy(mesh, U, clamp=False).item(), rel=1e-4)


def test_bad_input():
    mesh = shapes.icosahedron()
    two = Mesh(torch.cat([mesh.verts, mesh.verts + 5]), torch.cat([mesh.faces, mesh.faces + 12]))
    with pytest.raises(ValueError, match=r"handles: .*component, found none in 1, such as that of vertex 12"):
        ArapSolver(two, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="handles: expected different"):
        ArapSolver(mesh, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"targets: expected shape \(2, 3\)"):
        ArapSolver(mesh, torch.tensor([0, 1])).solve(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="targets: expected finite"):
        ArapSolver(mesh, torch.tensor([0])).solve(torch.full((1, 3), torch.nan))
    with pytest.raises(ValueError, match="verts: expected shape"):
        arap_energy(mesh, torch.zeros(3, 3))
