"""Pose and deformation of a template seen by a perspective camera: PnP with a basis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import check_float, check_shape
from geoframe.camera import Pinhole
from geoframe.solve import _weak, pose
from geoframe.solve._moments import moments, or_one
from geoframe.solve.implicit import implicit_solution
from geoframe.transforms import rotation_angle, rotvec_to_rotation, skew

STARTS = 3  # poses of the weak perspective search that are refined
MOST_STEPS = 60  # Levenberg-Marquardt steps


@dataclass(frozen=True, eq=False)
class PinholeSolution:
    """What `solve_pose_pinhole` found, for samples of any leading shape (...).

    Attributes:
        R: (..., 3, 3) rotation and t: (..., 3) translation, world to camera, so that ``Y = R X + t``; every
            visible point has positive depth. alpha: (..., K) coefficients of the basis.
        value: (...) the objective. residual: (...) root of the weighted mean squared distance, in pixels.
        converged: (...) bool, as in `Solution`. steps: (...) int64.
        focal, principal: (..., 2) of the camera, as given.
    """

    R: Tensor
    t: Tensor
    alpha: Tensor
    value: Tensor
    residual: Tensor
    converged: Tensor
    steps: Tensor
    focal: Tensor
    principal: Tensor

    def shape(self, template: Tensor, basis: Tensor) -> Tensor:
        """(..., V, 3) the deformed template ``T + sum_k alpha_k B_k``, not moved."""
        return pose.deformed(template, basis, self.alpha)

    def camera(self, size: tuple[int, int]) -> Pinhole:
        """The cameras, for images of `size` (H, W)."""
        return Pinhole(self.R, self.t, self.focal, self.principal, size)


def solve_pose_pinhole(
    points: Tensor,
    visibility: Tensor | None,
    template: Tensor,
    basis: Tensor | None = None,
    *,
    focal: Tensor,
    principal: Tensor,
    ridge: float | Tensor = 1.0,
) -> PinholeSolution:
    """Pose and coefficients that project a deformable template onto 2D points by a perspective camera.

    Minimises, for each sample on its own, ``sum_i v_i |u_i - pi(R X_i + t)|^2 + ridge |alpha|^2`` over R, t and
    alpha, ``pi(Y) = focal Y_xy / Y_z + principal``, ``X = T + sum_k alpha_k B_k``. The starts are the lowest
    weak perspective minima (`solve_pose`, mode "joint") of the rays turned to the optical axis; then
    Levenberg-Marquardt steps on all unknowns.

    Args:
        points: u (..., V, 2) pixels. visibility, template, basis, ridge: as in `solve_pose`.
        focal, principal: (2,) or (..., 2) pixels.

    Gradients reach all tensors but the camera's through the optimality conditions.

    Raises:
        TypeError, ValueError: as `solve_pose`; a focal length that is not positive.
    """
    u, v, T, B, gamma, _, batch = pose.prepare(points, visibility, template, basis, ridge, "free")
    for name, x in (("focal", focal), ("principal", principal)):
        check_shape(check_float(x, name), "... 2", name)
    if not bool((focal > 0).all()):
        raise ValueError(f"focal: expected positive numbers, found {float(focal.min()):.3g}")
    f, pp = (x.detach().double().expand(*batch, 2).reshape(-1, 2) for x in (focal, principal))
    data = tuple(x.double() for x in (u, v, T, B, gamma))
    with torch.no_grad():
        plain = _Data(*[x.detach() for x in (*data, f, pp)])
        R, x = _starts(plain)
        each = torch.arange(len(u), device=u.device).repeat_interleave(STARTS)
        R, x, good, steps = _lowest(*_minimise(R, x, plain, each))

    def gradient(x: Tensor, *data: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            return torch.autograd.grad(_energy(x, R, _Data(*[*data, f, pp])).sum(), x, create_graph=True)[0]

    if any(d.requires_grad for d in data):
        hessian = _hessian(gradient, x, list(plain[:5]))
        strict = good & (torch.linalg.eigvalsh(hessian)[:, 0] > 0)
        x = implicit_solution(x, hessian, strict, gradient, *data)
    value = _energy(x, R, _Data(*[*data, f, pp]))
    R = R + skew(x[:, :3]) @ R
    fit = (value - data[4] * x[:, 6:].square().sum(1)) / or_one(data[1].sum(1))
    residual = fit.clamp_min(1e-300).sqrt()
    good = good & ((v > 0).sum(1) >= 3)
    R, t, c, value, residual = (
        y.to(points.dtype).reshape(batch + y.shape[1:]) for y in (R, x[:, 3:6], x[:, 6:], value, residual)
    )
    return PinholeSolution(
        R, t, c, value, residual, good.reshape(batch), steps.reshape(batch), focal, principal
    )


class _Data(NamedTuple):
    """The problem in float64: u (N, V, 2), v (N, V), T (V, 3) or (N, V, 3), basis likewise, ridge (N,), focal and
    principal (N, 2)."""

    u: Tensor
    v: Tensor
    T: Tensor
    basis: Tensor
    ridge: Tensor
    f: Tensor
    pp: Tensor

    def take(self, rows: Tensor) -> _Data:
        T = self.T if self.T.ndim == 2 else self.T[rows]
        basis = self.basis if self.basis.ndim == 3 else self.basis[rows]
        return _Data(self.u[rows], self.v[rows], T, basis, self.ridge[rows], self.f[rows], self.pp[rows])


def _starts(data: _Data) -> tuple[Tensor, Tensor]:
    """Rotations (STARTS * B, 3, 3) and unknowns (STARTS * B, 6 + K) from weak perspective."""
    u, v, f = data.u, data.v, data.f
    eye = torch.eye(3, dtype=u.dtype, device=u.device)
    rays = torch.cat([(u - data.pp[:, None]) / f[:, None], torch.ones_like(u[..., :1])], -1)
    z = (v[..., None] * torch.nn.functional.normalize(rays, dim=-1)).sum(1) + 1e-12 * eye[2]
    z = torch.nn.functional.normalize(z, dim=1)
    x = torch.nn.functional.normalize(torch.linalg.cross(eye[[1]], z))
    ahead = torch.stack([x, torch.linalg.cross(z, x), z], 1)  # rows: the axes of a camera that looks along z
    rays = rays @ ahead.mT
    mom = moments(rays[..., :2] / rays[..., 2:].clamp_min(1e-3), v, data.T, data.basis)
    s, gamma = pose.affine_scale(mom), data.ridge / f.square().mean(1)
    R = _weak.starts(mom, s, gamma, STARTS).flatten(0, 1)
    each = torch.arange(len(s), device=s.device).repeat_interleave(STARTS)
    mom, s, gamma, ahead = mom.take(each), s[each], gamma[each], ahead[each]
    found = _weak.minimise(mom, R, s, gamma, free=True)
    c = _weak.model(mom, found.R, found.s, gamma, free=True).c
    centre = (found.R @ mom.collapse(c).mean_f[:, 0, :, None])[..., 0]
    at = torch.cat([mom.mean_u, torch.ones_like(s)[:, None]], 1) / found.s[:, None]
    t = (ahead.mT @ (at - centre)[..., None])[..., 0]
    return ahead.mT @ found.R, torch.cat([torch.zeros_like(t), t, c], 1)


def _turned(x: Tensor, R: Tensor, data: _Data) -> Tensor:
    """(N, V, 3) turned shape, exact to second order in the rotation vector x[:, :3]."""
    W = skew(x[:, :3])
    return pose.deformed(data.T, data.basis, x[:, 6:]) @ (R + W @ (R + W @ R / 2)).mT


def _energy(x: Tensor, R: Tensor, data: _Data) -> Tensor:
    """(N,) objective at the unknowns x (N, 6 + K): rotation vector on top of R, translation, coefficients."""
    Y = _turned(x, R, data) + x[:, None, 3:6]
    away = data.u - data.f[:, None] * Y[..., :2] / Y[..., 2:] - data.pp[:, None]
    return (data.v * away.square().sum(-1)).sum(1) + data.ridge * x[:, 6:].square().sum(1)


def _linearise(x: Tensor, R: Tensor, data: _Data) -> tuple[Tensor, Tensor, Tensor]:
    """Objective (N,), infinite where a visible point is not in front; gradient and Gauss-Newton matrix, halved."""
    turned = _turned(x, R, data)
    Y = turned + x[:, None, 3:6]
    front = Y[..., 2] > 1e-6 * Y[..., 2].abs().amax(1, keepdim=True)
    v = torch.where(front, data.v, 0.0)
    z = torch.where(front, Y[..., 2], 1.0)[..., None]
    xy = Y[..., :2] / z
    away = data.u - data.f[:, None] * xy - data.pp[:, None]
    E = (v * away.square().sum(-1)).sum(1) + data.ridge * x[:, 6:].square().sum(1)
    E = torch.where(((data.v > 0) & ~front).any(1), torch.inf, E)
    # rows of the Jacobian: dY by rotation, translation, coefficients; then through the projection
    N, V = v.shape
    by_c = (data.basis.flatten(-3, -2) @ R.mT).reshape(N, -1, V, 3)
    eye = torch.eye(3, dtype=x.dtype, device=x.device)[:, None].expand(N, 3, V, 3)
    dY = torch.cat([torch.linalg.cross(eye, turned[:, None].expand(N, 3, V, 3)), eye, by_c], 1)
    J = ((data.f[:, None] / z)[:, None] * (dY[..., :2] - xy[:, None] * dY[..., 2:])).flatten(2)  # (N, P, 2 V)
    weighted = v.repeat_interleave(2, 1)[:, None] * J
    g = -(weighted @ away.flatten(1)[..., None])[..., 0]
    g[:, 6:] += data.ridge[:, None] * x[:, 6:]
    A = weighted @ J.mT
    A.diagonal(dim1=1, dim2=2)[:, 6:] += data.ridge[:, None]
    return E, g, A


def _minimise(R: Tensor, x: Tensor, data: _Data, each: Tensor) -> tuple[Tensor, ...]:
    """Levenberg-Marquardt on the samples `each` (N,) of the data, one start a row, those not yet done at a time.

    R, unknowns (with rotation vector zero), objective, whether at a strict minimum, and steps, (N, ...) each.
    """
    x, R = x.clone(), R.clone()
    damping, steps = torch.full_like(x[:, 0], 1e-3), torch.zeros_like(x[:, 0])
    decrement = torch.full_like(damping, torch.inf)
    size = (data.v * (data.u - data.pp[:, None]).square().sum(-1)).sum(1)[each]
    E, g, A = _linearise(x, R, data.take(each))
    rows = torch.arange(len(x), device=x.device)
    for _ in range(MOST_STEPS):
        diagonal = A[rows].diagonal(dim1=1, dim2=2)
        lift = diagonal * damping[rows, None] + 1e-12 * diagonal.amax(1, keepdim=True) + 1e-300
        step = -torch.linalg.solve_ex(A[rows] + torch.diag_embed(lift), g[rows][..., None])[0][..., 0]
        decrement[rows] = -(g[rows] * step).sum(1)
        active = (decrement[rows] > 1e-21 * size[rows]) & (damping[rows] < 1e12)
        rows, step = rows[active], step[active]
        if not len(rows):
            break
        turned = rotvec_to_rotation(step[:, :3]) @ R[rows]
        moved = torch.cat([torch.zeros_like(step[:, :3]), (x[rows] + step)[:, 3:]], 1)
        trial = _linearise(moved, turned, data.take(each[rows]))
        better = trial[0] <= E[rows] + 1e-14 * size[rows]
        damping[rows] *= torch.where(better, 0.1, 10.0)
        steps[rows] += 1
        new = rows[better]
        x[new], R[new] = moved[better], turned[better]
        E[new], g[new], A[new] = (y[better] for y in trial)
    lam = torch.linalg.eigvalsh(A / A.diagonal(dim1=1, dim2=2).amax(1)[:, None, None].clamp_min(1e-300))
    strict = (decrement <= 1e-14 * size) & (lam[:, 0] > 1e-12) & torch.isfinite(E)
    return R, x, E, strict, steps.long()


def _lowest(
    R: Tensor, x: Tensor, E: Tensor, strict: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each sample's STARTS results the lowest; converged where it is strict and no other pose is as low."""
    E, all_R = E.reshape(-1, STARTS), R.reshape(-1, STARTS, 3, 3)
    best, rows = E.argmin(1), torch.arange(len(E), device=E.device)
    low = E[rows, best][:, None]
    rival = (E - low <= 1e-9 * low) & (rotation_angle(all_R, all_R[rows, best][:, None]) > 1e-3)
    pick = rows * STARTS + best
    return R[pick], x[pick], strict[pick] & ~rival.any(1), steps[pick]


def _hessian(gradient: Callable[..., Tensor], x: Tensor, data: list[Tensor]) -> Tensor:
    """(N, P, P) exact second derivatives of the objective by the unknowns, sample by sample independent."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        g = gradient(x, *data)
        rows = [torch.autograd.grad(g[:, j].sum(), x, retain_graph=True)[0] for j in range(x.shape[1])]
    H = torch.stack(rows, 1)
    return (H + H.mT) / 2
