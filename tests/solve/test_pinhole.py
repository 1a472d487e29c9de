"""PnP with deformation: known poses, gradients, off-axis views, degenerate input."""

from __future__ import annotations

import pytest
import torch

from geoframe.solve import solve_pose_pinhole
from geoframe.transforms import random_rotations, rotation_angle

F64 = torch.float64
FOCAL, PRINCIPAL = torch.tensor([500.0, 520.0], dtype=F64), torch.tensor([320.0, 240.0], dtype=F64)


def problem(B=6, V=60, K=4, *, noise=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    T = torch.randn(V, 3, generator=g, dtype=F64) * torch.tensor([1.0, 0.7, 0.5], dtype=F64)
    basis = 0.2 * torch.randn(K, V, 3, generator=g, dtype=F64)
    alpha = torch.randn(B, K, generator=g, dtype=F64)
    R = random_rotations(B, generator=g, dtype=F64)
    t = torch.randn(B, 3, generator=g, dtype=F64)
    t[:, 2] = 6 + 10 * torch.rand(B, generator=g, dtype=F64)
    t[:, :2] *= 0.4 * t[:, 2:]
    Y = (T + torch.einsum("bk,kvi->bvi", alpha, basis)) @ R.mT + t[:, None]
    u = FOCAL * Y[..., :2] / Y[..., 2:] + PRINCIPAL + noise * torch.randn(B, V, 2, generator=g, dtype=F64)
    v = (torch.rand(B, V, generator=g, dtype=F64) > 0.4).to(F64)
    return u, v, T, basis, R, t, alpha


def test_exact_points_give_back_pose_and_shape():
    u, v, T, basis, R, t, alpha = problem(noise=0.0)
    sol = solve_pose_pinhole(u, v, T, basis, focal=FOCAL, principal=PRINCIPAL, ridge=0.0)
    assert sol.converged.all() and sol.residual.max() < 1e-6
    assert rotation_angle(sol.R, R).max() < 1e-8
    assert (sol.t - t).abs().max() < 1e-6 and (sol.alpha - alpha).abs().max() < 1e-6
    seen = sol.camera((480, 640)).project(sol.shape(T, basis))
    assert (seen[..., :2] - u).abs().max() < 1e-5 and seen[..., 2].min() > 0


def test_gradients():
    u, v, T, basis, *_ = problem(2, 8, 1, noise=3.0)
    ridge = torch.tensor([0.1, 0.3], dtype=F64)
    inputs = [x.requires_grad_() for x in (u, 0.1 + v, T, basis, ridge)]

    def solve(u, v, T, basis, ridge):
        s = solve_pose_pinhole(u, v, T, basis, focal=FOCAL, principal=PRINCIPAL, ridge=ridge)
        return s.R, s.t, s.alpha, s.value, s.residual

    assert torch.autograd.gradcheck(solve, inputs, eps=1e-5, atol=1e-4, rtol=1e-4, fast_mode=True)


def test_a_sample_does_not_see_its_neighbours():
    u, v, T, basis, *_ = problem()
    every = solve_pose_pinhole(u, v, T, basis, focal=FOCAL, principal=PRINCIPAL)
    T4 = T.expand(6, -1, -1)
    alone = solve_pose_pinhole(u[3], v[3], T4[3], basis, focal=FOCAL, principal=PRINCIPAL)
    assert alone.R.shape == (3, 3) and alone.alpha.shape == (4,)
    assert (alone.R - every.R[3]).abs().max() < 1e-9 and (alone.t - every.t[3]).abs().max() < 1e-8


@pytest.mark.parametrize("case", ["none", "two", "one place", "flat"])
def test_degenerate_input_is_finite(case):
    u, v, T, basis, *_ = problem()
    if case == "none":
        v = v * 0
    elif case == "two":
        v = torch.zeros_like(v)
        v[:, :2] = 1
    elif case == "one place":
        u = u * 0 + 100
    else:
        T, basis = T * torch.tensor([1.0, 1.0, 0.0], dtype=F64), basis * 0
    u.requires_grad_()
    sol = solve_pose_pinhole(u, v, T, basis, focal=FOCAL, principal=PRINCIPAL)
    (g,) = torch.autograd.grad(sol.R.sum() + sol.t.sum() + sol.value.sum(), u)
    for x in (sol.R, sol.t, sol.alpha, sol.value, sol.residual, g):
        assert torch.isfinite(x).all()
    if case in ("none", "two"):
        assert not sol.converged.any()


def test_bad_input():
    u, v, T, basis, *_ = problem()
    with pytest.raises(ValueError, match="focal: expected positive"):
        solve_pose_pinhole(u, v, T, basis, focal=-FOCAL, principal=PRINCIPAL)
    with pytest.raises(ValueError, match="principal: expected shape"):
        solve_pose_pinhole(u, v, T, basis, focal=FOCAL, principal=FOCAL[:1])


def seen(T, R, t, noise=0.0, seed=1):
    Y = T @ R.mT + t
    u = FOCAL * Y[..., :2] / Y[..., 2:] + PRINCIPAL
    return u + noise * torch.randn(u.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_three_points_are_never_unique():
    g = torch.Generator().manual_seed(1)
    T, R = torch.randn(60, 3, 3, generator=g, dtype=F64), random_rotations(60, generator=g, dtype=F64)
    u = seen(T, R, torch.tensor([0.3, -0.2, 6.0], dtype=F64))
    sol = solve_pose_pinhole(u, None, T, focal=FOCAL, principal=PRINCIPAL)
    wrong = rotation_angle(sol.R, R) > 1e-3
    assert sol.converged.double().mean() > 0.95 and not sol.unique.any() and wrong.any()
    assert (rotation_angle(sol.second.R, R)[wrong] < 1e-3).double().mean() > 0.8  # of up to four poses


def test_a_flat_target_far_away_has_two_poses():
    """Twofold under noise; where it is called unique it is right, else the true pose is one of the two."""
    g = torch.Generator().manual_seed(0)
    T = torch.randn(12, 3, generator=g, dtype=F64) * torch.tensor([1.0, 1.0, 0.0], dtype=F64)
    R = random_rotations(150, generator=g, dtype=F64)
    sol = solve_pose_pinhole(
        seen(T, R, torch.tensor([0.0, 0.0, 60.0], dtype=F64), 0.5), None, T, focal=FOCAL, principal=PRINCIPAL
    )
    other = rotation_angle(sol.second.R, R) < rotation_angle(sol.R, R) - 0.1
    assert other.sum() >= 10 and (sol.unique & other).sum() <= 0.01 * 150
    near = seen(T, R, torch.tensor([0.0, 0.0, 6.0], dtype=F64))
    sol = solve_pose_pinhole(near, None, T, focal=FOCAL, principal=PRINCIPAL)
    assert sol.unique.all() and rotation_angle(sol.R, R).max() < 1e-6


@pytest.mark.parametrize("loss", ["huber", "geman-mcclure"])
def test_outliers_do_not_turn_a_robust_pose(loss):
    g = torch.Generator().manual_seed(0)
    T = torch.randn(30, 3, generator=g, dtype=F64) * torch.tensor([1.0, 0.7, 0.5], dtype=F64)
    R = random_rotations(60, generator=g, dtype=F64)
    u = seen(T, R, torch.tensor([0.3, -0.2, 6.0], dtype=F64), 0.5)
    out = torch.rand(60, 30, generator=g).argsort(1) < 6
    u = torch.where(out[..., None], 500 * torch.rand(60, 30, 2, generator=g, dtype=F64), u)
    sol = solve_pose_pinhole(u, None, T, focal=FOCAL, principal=PRINCIPAL, loss=loss)
    assert (rotation_angle(sol.R, R).rad2deg() < 5).double().mean() >= 0.98


def test_gradients_of_a_robust_pose():
    u, v, T, basis, *_ = problem(1, 10, 1, noise=2.0)
    u[:, 0] += 100
    inputs = [x.requires_grad_() for x in (u, 0.1 + v, T, basis)]

    def solve(u, v, T, basis):
        s = solve_pose_pinhole(
            u, v, T, basis, focal=FOCAL, principal=PRINCIPAL, ridge=0.2, loss="geman-mcclure"
        )
        return s.R, s.t, s.alpha, s.value, s.residual

    assert torch.autograd.gradcheck(solve, inputs, eps=1e-5, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_autocast_changes_nothing():
    u, v, T, basis, *_ = (x.float() for x in problem())
    plain = solve_pose_pinhole(u, v, T, basis, focal=FOCAL, principal=PRINCIPAL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = solve_pose_pinhole(u, v, T, basis, focal=FOCAL, principal=PRINCIPAL)
    assert torch.equal(plain.R, cast.R) and plain.R.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_the_cpu():
    u, v, T, basis, *_ = problem(3)
    here, there = (
        solve_pose_pinhole(
            *(x.to(device) for x in (u, v, T, basis)), focal=FOCAL.to(device), principal=PRINCIPAL.to(device)
        )
        for device in ("cpu", "cuda")
    )
    for name in ("R", "t", "alpha", "value", "unique"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name).cpu(), rtol=1e-6, atol=1e-7)
