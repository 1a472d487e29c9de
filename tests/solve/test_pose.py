"""The To-The-Point layer: optimality, gradients, global starts, degenerate input."""

from __future__ import annotations

import pytest
import torch

from geoframe.solve import Solution, solve_pose
from geoframe.transforms import random_rotations, rotation_angle

F64 = torch.float64


def problem(B=4, V=40, K=5, *, noise=0.02, hidden=0.4, seed=0):
    """Points u, visibility v, template T, basis, ridge and the rotation, scale and coefficients behind them."""
    g = torch.Generator().manual_seed(seed)
    T = torch.randn(V, 3, generator=g, dtype=F64) * torch.tensor([1.0, 0.7, 0.5], dtype=F64)
    basis = 0.2 * torch.randn(K, V, 3, generator=g, dtype=F64)
    alpha = torch.randn(B, K, generator=g, dtype=F64)
    R = random_rotations(B, generator=g, dtype=F64)
    scale = 1 + torch.rand(B, generator=g, dtype=F64)
    u = scale[:, None, None] * ((T + torch.einsum("bk,kvi->bvi", alpha, basis)) @ R.mT)[..., :2]
    u = u + torch.randn(B, 1, 2, generator=g, dtype=F64)
    u = u + noise * torch.randn(u.shape, generator=g, dtype=F64)
    v = (torch.rand(B, V, generator=g, dtype=F64) > hidden).to(F64)
    return u, v, T, basis, R, scale, alpha


def objective(u, v, T, basis, ridge, sol):
    """Eq. 4 from all points, without moments."""
    X = T + torch.einsum("bk,kvi->bvi", sol.alpha, basis)
    projected = sol.scale[:, None, None] * (X @ sol.R.mT)[..., :2] + sol.t[:, None]
    return (v * (u - projected).square().sum(-1)).sum(1) + ridge * sol.alpha.square().sum(1)


@pytest.mark.parametrize("mode", ["alternation", "joint"])
def test_exact_points_give_back_the_pose(mode):
    _, v, T, _, R, scale, _ = problem()
    rigid = scale[:, None, None] * (T @ R.mT)[..., :2] + 7.0
    sol = solve_pose(rigid, v, T, scale=scale, mode=mode)
    assert sol.converged.all()
    assert rotation_angle(sol.R, R).max() < 1e-9
    assert (sol.t - 7).abs().max() < 1e-9 and sol.residual.max() < 1e-9


@pytest.mark.parametrize("mode", ["alternation", "joint"])
@pytest.mark.parametrize("scale", ["given", "std", "free"])
def test_gradients(mode, scale):
    u, v, T, basis, _, s, _ = problem(2, 9, 2, noise=0.05)
    v = 0.1 + v * torch.rand(v.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    ridge = torch.tensor([0.1, 0.3], dtype=F64)
    inputs = [x.requires_grad_() for x in (u, v, T, basis, ridge, s)]

    def solve(u, v, T, basis, ridge, s=None):
        sol = solve_pose(u, v, T, basis, ridge=ridge, scale=scale if s is None else s, mode=mode, steps=2)
        return sol.R, sol.t, sol.scale, sol.alpha, sol.value, sol.residual

    inputs = inputs if scale == "given" else inputs[:-1]
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_value_is_the_objective():
    u, v, T, basis, *_ = problem()
    for mode in ("alternation", "joint"):
        for scale in ("std", "free"):
            sol = solve_pose(u, v, T, basis, ridge=0.3, scale=scale, mode=mode)
            assert isinstance(sol, Solution)
            assert torch.allclose(sol.value, objective(u, v, T, basis, 0.3, sol), rtol=1e-10)
