"""The To-The-Point layer: optimality, gradients, global starts, degenerate input."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from geoframe.solve import Solution, _moments, _search, _weak, solve_pose
from geoframe.transforms import random_rotations, rotation_angle, rotvec_to_rotation

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


@pytest.mark.parametrize("scale", ["given", "std", "free"])
def test_an_alternation_goes_on_from_a_solution(scale):
    """Twice three is six at once, both poses are followed, and gradients are those of the steps after the start."""
    u, v, T, basis, _, s, _ = problem(3, 9, 2, noise=0.05)
    v = 0.1 + v * torch.rand(v.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    way = {"ridge": 0.05, "scale": s if scale == "given" else scale}
    once, whole = (solve_pose(u, v, T, basis, steps=n, **way) for n in (3, 6))
    twice = solve_pose(u, v, T, basis, steps=3, start=once, **way)
    assert bool((twice.value < once.value).all())
    for name in ("R", "t", "scale", "alpha", "value", "residual", "unique"):
        torch.testing.assert_close(getattr(twice, name), getattr(whole, name), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(twice.second.value, whole.second.value, rtol=1e-6, atol=1e-9)
    alone = solve_pose(
        u[:1],
        v[:1],
        T,
        basis,
        steps=3,
        start=_row(once),
        **(way | ({"scale": s[:1]} if scale == "given" else {})),
    )
    torch.testing.assert_close(alone.value, twice.value[:1])

    def solve(u, v, T, basis):
        sol = solve_pose(u, v, T, basis, steps=2, start=once, **way)
        return sol.R, sol.t, sol.alpha, sol.value, sol.residual

    inputs = [x.requires_grad_() for x in (u, v, T, basis)]
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)
    with pytest.raises(ValueError, match="start: expected one for mode 'alternation'"):
        solve_pose(u, v, T, basis, mode="joint", start=once)
    with pytest.raises(ValueError, match="samples of shape \\(3,\\)"):
        solve_pose(u, v, T, basis, start=_row(once))


def _row(found):
    """The first sample of a solution."""
    second = type(found.second)(*(x[:1] for x in found.second))
    return replace(
        found,
        second=second,
        **{f.name: getattr(found, f.name)[:1] for f in fields(found) if f.name != "second"},
    )


def test_products_made_once_for_many_samples_are_those_of_each(monkeypatch):
    u, v, T, basis, *_ = problem(3, 12, 4)
    each = _moments.moments(u, v, T, basis)
    monkeypatch.setattr(_moments, "MANY", 1)
    once = _moments.moments(u, v, T, basis)
    for a, b in zip(once, each, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    inputs = [x.requires_grad_() for x in (u, v, T, basis)]
    assert torch.autograd.gradcheck(lambda *x: tuple(_moments.moments(*x)), inputs, fast_mode=True)


def test_value_is_the_objective():
    u, v, T, basis, *_ = problem()
    for mode in ("alternation", "joint"):
        for scale in ("std", "free"):
            sol = solve_pose(u, v, T, basis, ridge=0.3, scale=scale, mode=mode)
            assert isinstance(sol, Solution)
            assert torch.allclose(sol.value, objective(u, v, T, basis, 0.3, sol), rtol=1e-10)


def test_the_scale_of_the_paper_is_the_deviation_of_the_visible_points():
    u, v, T, basis, *_ = problem()
    sol = solve_pose(u, v, T, basis)
    for i in range(len(u)):
        seen = u[i][v[i] > 0]
        assert sol.scale[i].item() == pytest.approx((seen - seen.mean(0)).square().mean().sqrt().item())


def test_coefficients_are_equation_seven():
    """The last step of the alternation, from the 2N x K matrix Omega of the paper."""
    u, v, T, basis, _, s, _ = problem()
    sol = solve_pose(u, v, T, basis, ridge=0.3, scale=s)
    for i in range(len(u)):
        w = v[i] / v[i].sum()
        C = s[i] * sol.R[i, :2]
        centred = basis - (w[:, None] * basis).sum(1, keepdim=True)
        omega = (centred @ C.T).flatten(1).T
        upsilon = (u[i] - (w[:, None] * u[i]).sum(0) - (T - (w[:, None] * T).sum(0)) @ C.T).flatten()
        X = torch.diag(v[i].repeat_interleave(2))
        alpha = torch.linalg.solve(omega.T @ X @ omega + 0.3 * torch.eye(5, dtype=F64), omega.T @ X @ upsilon)
        assert torch.allclose(sol.alpha[i], alpha, atol=1e-9)


def test_alternation_descends_to_the_joint_minimum():
    u, v, T, basis, *_ = problem(8)
    values = [solve_pose(u, v, T, basis, ridge=0.3, steps=n).value for n in (1, 2, 4, 300)]
    joint = solve_pose(u, v, T, basis, ridge=0.3, mode="joint")
    for worse, better in zip(values, [*values[1:], joint.value], strict=True):
        assert (better <= worse + 1e-9).all()
    assert (values[0] > joint.value + 1e-6).any()
    assert torch.allclose(values[-1], joint.value, rtol=1e-6)


def best_of_scipy(u, v, T, basis, ridge, s, n_starts, seed):
    """Lowest objective that scipy's least_squares reaches from random starts."""
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    u, v, T, basis = (x.numpy() for x in (u, v, T, basis))
    K, root = len(basis), v[:, None] ** 0.5

    def residuals(p):
        X = T + (p[5:] @ basis.reshape(K, -1)).reshape(-1, 3)
        R = Rotation.from_rotvec(p[:3]).as_matrix()
        away = root * (u - s * X @ R[:2].T - p[3:5])
        return [*away.ravel(), *(ridge**0.5 * p[5:])]

    rng, best = np.random.default_rng(seed), float("inf")
    for _ in range(n_starts):
        start = [*Rotation.random(random_state=rng).as_rotvec(), 0, 0, *[0] * K]
        best = min(best, 2 * least_squares(residuals, start, method="lm", xtol=1e-12, ftol=1e-12).cost)
    return best


def test_joint_mode_finds_the_global_minimum():
    """A few of the thousand problems of experiments/global_pose."""
    u, v, T, basis, _, s, _ = problem(6, 25, 3, seed=5)
    sol = solve_pose(u, v, T, basis, ridge=0.1, scale=s, mode="joint")
    assert sol.converged.all()
    for i in range(len(u)):
        best = best_of_scipy(u[i], v[i], T, basis, 0.1, s[i].item(), 8, i)
        assert sol.value[i].item() == pytest.approx(best, rel=1e-6)


def test_implicit_gradient_is_the_unrolled_one():
    """Preconditioned descent on rotation vector and coefficients, differentiated step by step."""
    u, v, T, basis, _, s, _ = problem(2, 15, 2, noise=0.05)
    sol = solve_pose(u.requires_grad_(), v, T, basis, ridge=0.3, scale=s, mode="joint")
    weight = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=F64)
    (implicit,) = torch.autograd.grad((weight * sol.R).sum() + sol.alpha.sum(), u)

    w = (v / v.sum(1, keepdim=True))[..., None]
    uc = u - (w * u).sum(1, keepdim=True)
    F = torch.cat([T[None], basis])
    Fc = F - (w[:, None] * F).sum(2, keepdim=True)
    R, alpha = sol.R.detach(), sol.alpha.detach()
    x = torch.cat([torch.zeros_like(R[:, 0]), alpha], 1).requires_grad_()

    def gradient(x):
        X = Fc[:, 0] + torch.einsum("bk,bkvi->bvi", x[:, 3:], Fc[:, 1:])
        away = uc - s[:, None, None] * (X @ (rotvec_to_rotation(x[:, :3]) @ R)[:, :2].mT)
        E = (v * away.square().sum(-1)).sum() + 0.3 * x[:, 3:].square().sum()
        return torch.autograd.grad(E, x, create_graph=True)[0]

    hessian = torch.autograd.functional.jacobian(lambda x: gradient(x).sum(0), x).transpose(0, 1)
    inverse = torch.linalg.inv(hessian).detach()
    x = x + 0.02
    for _ in range(25):
        x = x - (inverse @ gradient(x)[..., None])[..., 0]
    value = (weight * (rotvec_to_rotation(x[:, :3]) @ R)).sum() + x[:, 3:].sum()
    (unrolled,) = torch.autograd.grad(value, u)
    assert (implicit - unrolled).abs().max() < 1e-4 * implicit.abs().max()


@pytest.mark.parametrize("mode", ["alternation", "joint"])
def test_invariance(mode):
    """Batch mates, shared or repeated templates, units of points and template, turning the template."""
    u, v, T, basis, *_ = problem(5)
    sol = solve_pose(u, v, T, basis, ridge=0.3, mode=mode)
    alone = solve_pose(u[2], v[2], T, basis, ridge=0.3, mode=mode)
    assert alone.R.shape == (3, 3) and alone.t.shape == (2,) and alone.value.shape == ()
    assert (alone.R - sol.R[2]).abs().max() < 1e-9
    many = solve_pose(u.expand(2, 5, -1, -1), v, T.expand(5, -1, -1), basis, ridge=0.3, mode=mode)
    assert many.alpha.shape == (2, 5, 5) and (many.alpha - sol.alpha).abs().max() < 1e-9
    Q = random_rotations(1, generator=torch.Generator().manual_seed(9), dtype=F64)[0]
    turned = solve_pose(100 * u + 7, v, T @ Q.T + 3, basis @ Q.T, ridge=0.3e4, mode=mode)
    assert (turned.R @ Q - sol.R).abs().max() < 1e-8
    assert torch.allclose(turned.value, 1e4 * sol.value, rtol=1e-8)
    single = solve_pose(u.float(), v.float(), T.float(), basis.float(), ridge=0.3, mode=mode)
    assert single.R.dtype == torch.float32 and (single.R - sol.R).abs().max() < 1e-5


@pytest.mark.parametrize("mode", ["alternation", "joint"])
@pytest.mark.parametrize("scale", ["std", "free"])
@pytest.mark.parametrize(
    "case", ["hidden", "one", "two", "one place", "line", "flat", "all zero", "mirrored"]
)
def test_degenerate_input_is_defined(case, mode, scale):
    u, v, T, basis, *_ = problem(3)
    if case in ("hidden", "one", "two"):
        v = torch.zeros_like(v)
        v[:, : ("hidden", "one", "two").index(case)] = 1
    elif case == "one place":
        u = u * 0 + 3
    elif case == "line":
        T, basis = T * torch.tensor([1.0, 0, 0], dtype=F64), basis * 0
    elif case == "flat":
        T, basis = T * torch.tensor([1.0, 1.0, 0], dtype=F64), basis * 0
        u = (
            2
            * T[:, :2]
            @ random_rotations(3, generator=torch.Generator().manual_seed(4), dtype=F64)[:, :2, :2].mT
        )
    elif case == "all zero":
        T, basis = T * 0, basis * 0
    else:
        u = u * torch.tensor([-1.0, 1.0], dtype=F64)
    inputs = [x.clone().requires_grad_() for x in (u, v, T, basis)]
    sol = solve_pose(*inputs, mode=mode, scale=scale)
    eye = torch.eye(3, dtype=F64)
    assert (sol.R @ sol.R.mT - eye).abs().max() < 1e-9 and (torch.linalg.det(sol.R) - 1).abs().max() < 1e-9
    total = sol.R.sum() + sol.t.sum() + sol.scale.sum() + sol.alpha.sum() + sol.value.sum()
    for x in (sol.t, sol.scale, sol.alpha, sol.value, sol.residual, *torch.autograd.grad(total, inputs)):
        assert torch.isfinite(x).all()
    # a mirrored object has a definite best pose; it only fits badly. A flat one has two.
    assert sol.converged.all() if case in ("mirrored", "flat") else not sol.converged.any()
    assert sol.unique.all() if case == "mirrored" else not sol.unique.any()


def test_bad_input():
    u, v, T, basis, *_ = problem()
    for bad, match in (
        ((u[..., :1], v, T, basis), "points: expected shape"),
        ((u, v[:, 1:], T, basis), "visibility: expected shape"),
        ((u, -v, T, basis), "visibility: expected weights of at least 0, found -1"),
        ((u, v, T[1:], basis), "template: expected shape"),
        ((u, v, T, basis[:, 1:]), "basis: expected shape"),
        ((u * torch.nan, v, T, basis), "points: expected finite"),
    ):
        with pytest.raises(ValueError, match=match):
            solve_pose(*bad)
    with pytest.raises(TypeError, match="points: expected a floating"):
        solve_pose(u.long(), v, T, basis)
    with pytest.raises(ValueError, match="mode: expected one of"):
        solve_pose(u, v, T, basis, mode="both")
    with pytest.raises(ValueError, match="steps: expected an integer at least 1"):
        solve_pose(u, v, T, basis, steps=0)
    with pytest.raises(ValueError, match="ridge: expected at least 0"):
        solve_pose(u, v, T, basis, ridge=-1.0)
    with pytest.raises(ValueError, match=r"ridge: expected a number or shape \(4,\)"):
        solve_pose(u, v, T, basis, ridge=torch.ones(3))
    with pytest.raises(ValueError, match="scale: expected one of"):
        solve_pose(u, v, T, basis, scale="best")
    with pytest.raises(ValueError, match="scale: expected 'free' or numbers with loss='huber'"):
        solve_pose(u, v, T, basis, loss="huber")
    with pytest.raises(ValueError, match="loss: expected one of"):
        solve_pose(u, v, T, basis, loss="l1")
    with pytest.raises(ValueError, match="scale: expected positive"):
        solve_pose(u, v, T, basis, scale=torch.zeros(4))


def test_what_is_kept_under_inference_mode_serves_gradients_later():
    kept = (_weak._from_products, _weak._linear_maps, _search._half_sphere)
    u, v, T, basis, _, scale, _ = problem(2)
    for cached in kept:
        cached.cache_clear()
    with torch.inference_mode():
        solve_pose(u, v, T, basis, ridge=0.1, scale=scale, mode="joint")
        _weak._from_products(u.device)
    assert not any(
        x.is_inference()
        for x in (
            _weak._from_products(u.device),
            *_weak._linear_maps(u.device, False),
            *_search._half_sphere(u.device),
        )
    )
    u.requires_grad_()
    solve_pose(u, v, T, basis, ridge=0.1, scale=scale, mode="joint").R.sum().backward()
    assert u.grad is not None and torch.isfinite(u.grad).all()


def flat_views(thickness, *, n=200, noise=0.0, seed=0):
    """Points of a template that is `thickness` thick along z, seen from everywhere, and the rotations."""
    g = torch.Generator().manual_seed(seed)
    T = torch.randn(12, 3, generator=g, dtype=F64) * torch.tensor([1.0, 1.0, thickness], dtype=F64)
    R = random_rotations(n, generator=g, dtype=F64)
    u = 2 * (T @ R.mT)[..., :2]
    return u + noise * torch.randn(u.shape, generator=g, dtype=F64), T, R


@pytest.mark.parametrize("scale", ["free", 2.0])
@pytest.mark.parametrize("mode", ["alternation", "joint"])
@pytest.mark.parametrize("thickness", [0.0, 0.001, 0.01])
def test_flat_templates_reach_the_global_minimum(thickness, mode, scale):
    u, T, R = flat_views(thickness)
    scale = scale if scale == "free" else torch.full((200,), scale, dtype=F64)
    sol = solve_pose(u, None, T, scale=scale, mode=mode)
    assert sol.converged.all() and sol.residual.max() < 1e-8
    if thickness:
        assert sol.unique.all() and rotation_angle(sol.R, R).max() < 1e-6
    else:  # mirrored in depth it explains the points as well; that is the second pose
        assert not sol.unique.any() and sol.second.residual.max() < 1e-8
        assert rotation_angle(sol.R, R).minimum(rotation_angle(sol.second.R, R)).max() < 1e-5


@pytest.mark.parametrize("axis", [0, 1])
def test_a_plane_met_head_on_is_tilted_out_of_its_saddle(axis):
    _, T, _ = flat_views(0.0)
    w = torch.zeros(3, dtype=F64)
    w[axis] = 15 * torch.pi / 180
    sol = solve_pose((T @ rotvec_to_rotation(w).T)[:, :2], None, T, scale="free")
    assert sol.residual < 1e-10 and sol.second.residual < 1e-10 and not sol.unique
    assert rotation_angle(sol.R, sol.second.R).item() == pytest.approx(2 * w.norm().item(), abs=1e-6)


@pytest.mark.parametrize("mode", ["alternation", "joint"])
def test_without_a_second_minimum_the_second_pose_is_the_best(mode):
    u, v, T, basis, _, scale, _ = problem(B=16)
    sol = solve_pose(u, v, T, basis, ridge=0.01, scale=scale, mode=mode)
    alone = sol.second.value.isinf()
    assert alone.any()
    for name in ("R", "t", "scale", "alpha"):
        torch.testing.assert_close(getattr(sol.second, name)[alone], getattr(sol, name)[alone])


def test_reversal_in_depth_is_the_second_pose():
    """Of a nearly flat template under noise: not unique, and the true pose is one of the two."""
    u, T, R = flat_views(0.001, noise=0.02)
    sol = solve_pose(u, None, T, scale="free")
    assert sol.converged.all() and not sol.unique.any() and torch.isfinite(sol.second.residual).all()
    nearest = rotation_angle(sol.R, R).minimum(rotation_angle(sol.second.R, R))
    assert nearest.max() < 0.3 and rotation_angle(sol.R, R).max() > 0.5


def test_three_points_have_two_poses():
    g = torch.Generator().manual_seed(1)
    T, R = torch.randn(100, 3, 3, generator=g, dtype=F64), random_rotations(100, generator=g, dtype=F64)
    sol = solve_pose((T @ R.mT)[..., :2], None, T, scale="free")
    assert not sol.unique.any() and sol.second.residual.max() < 1e-8
    assert rotation_angle(sol.R, R).minimum(rotation_angle(sol.second.R, R)).max() < 1e-5


def test_what_is_called_unique_is_right():
    """Flat templates of all thicknesses under noise: at most 1 in 100 of the unique poses is the wrong one."""
    wrong = told = 0
    for thickness in (0.01, 0.03, 0.1):
        for noise in (0.01, 0.05):
            u, T, R = flat_views(thickness, n=400, noise=noise)
            sol = solve_pose(u, None, T, scale="free")
            other = rotation_angle(sol.R, R) > rotation_angle(sol.second.R, R)
            wrong, told = wrong + int((sol.unique & other).sum()), told + int(sol.unique.sum())
    assert told > 1000 and wrong <= 0.01 * told


@pytest.mark.parametrize("mode", ["alternation", "joint"])
def test_a_basis_that_moves_nothing(mode):
    u, _, T, basis, *_ = problem(2)
    basis = (0 * basis).requires_grad_()
    T.requires_grad_()
    sol = solve_pose(u, None, T, basis, ridge=0.0, mode=mode)
    assert not sol.converged.any() and (sol.alpha == 0).all()
    for g in torch.autograd.grad(sol.R.sum() + sol.alpha.sum(), [T, basis]):
        assert torch.isfinite(g).all()


def with_outliers(n=100, share=0.2, noise=0.02):
    g = torch.Generator().manual_seed(0)
    T = torch.randn(30, 3, generator=g, dtype=F64) * torch.tensor([1.0, 0.7, 0.5], dtype=F64)
    R = random_rotations(n, generator=g, dtype=F64)
    u = 2 * (T @ R.mT)[..., :2] + 2 * noise * torch.randn(n, 30, 2, generator=g, dtype=F64)
    out = torch.rand(n, 30, generator=g).argsort(1) < share * 30
    away = 10 * (torch.rand(n, 30, 2, generator=g, dtype=F64) - 0.5)
    return torch.where(out[..., None], away, u), T, R, out


@pytest.mark.parametrize("loss", ["huber", "geman-mcclure"])
def test_outliers_do_not_turn_a_robust_pose(loss):
    u, T, R, out = with_outliers()
    sol = solve_pose(u, None, T, scale="free", loss=loss)
    degrees = rotation_angle(sol.R, R).rad2deg()
    assert (degrees < 5).double().mean() >= 0.99
    assert sol.weights[out].mean() < 0.4 * sol.weights[~out].mean()
    squared = solve_pose(u, None, T, scale="free")
    assert (rotation_angle(squared.R, R).rad2deg() > 5).double().mean() > 0.9


@pytest.mark.parametrize("loss", [pytest.param("huber", marks=pytest.mark.slow), "geman-mcclure"])
def test_gradients_of_robust_poses(loss):
    """Through the median that sets the scale of the loss, too."""
    u, v, T, basis, _, s, _ = problem(1, 10, 1, noise=0.05)
    u[:, :2] += 3.0
    v = 0.2 + v
    inputs = [x.requires_grad_() for x in (u, v, T, basis, s)]

    def solve(u, v, T, basis, s):
        sol = solve_pose(u, v, T, basis, ridge=0.2, scale=s, loss=loss)
        return sol.R, sol.t, sol.alpha, sol.value, sol.residual

    assert torch.autograd.gradcheck(solve, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_autocast_changes_nothing_and_arrays_are_taken():
    u, v, T, basis, *_ = (x.float() for x in problem())
    plain = solve_pose(u, v, T, basis, ridge=0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = solve_pose(u, v, T, basis, ridge=0.3)
    assert torch.equal(plain.R, cast.R) and torch.equal(plain.residual, cast.residual)
    arrays = solve_pose(*(x.numpy() for x in (u, v, T, basis)), ridge=0.3)
    assert torch.equal(arrays.R, plain.R)
    half = solve_pose(u.bfloat16(), v, T, basis, ridge=0.3)
    assert half.R.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("options", [{}, {"mode": "joint"}, {"loss": "huber"}])
def test_cuda_agrees_with_the_cpu(options):
    u, v, T, basis, _, scale, _ = problem(3)
    found = []
    for device in ("cpu", "cuda"):
        leaves = [x.to(device).requires_grad_() for x in (u, v + 0.1, T, basis)]
        sol = solve_pose(*leaves, scale=scale.to(device), ridge=0.1, **options)
        grads = torch.autograd.grad(sol.R.sum() + sol.t.sum() + sol.alpha.sum(), leaves)
        found.append([x.cpu() for x in (sol.R, sol.t, sol.alpha, sol.second.value, sol.unique, *grads)])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-7)
