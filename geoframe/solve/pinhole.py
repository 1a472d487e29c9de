"""Pose and deformation of a template seen by a perspective camera: PnP with a basis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_choice, check_float, check_shape
from geoframe._precision import full_precision
from geoframe.camera import Pinhole
from geoframe.solve import _judged, _robust, _robust_weak, _weak, pose
from geoframe.solve._moments import moments, or_one
from geoframe.solve.implicit import implicit_solution
from geoframe.transforms import rotation_angle, rotvec_to_rotation, skew

STARTS = 3  # poses of the weak perspective search that are refined
MOST_STEPS = 60  # Levenberg-Marquardt steps
REWEIGHTED = 10  # rounds of new weights with a robust loss


@dataclass(frozen=True, eq=False)
class PinholeSolution:
    """What `solve_pose_pinhole` found, for samples of any leading shape (...).

    Attributes:
        R: (..., 3, 3) rotation, world to camera: ``Y = R X + t``.
        t: (..., 3) translation, in the unit of the template; every visible point has positive depth.
        alpha: (..., K) coefficients of the basis.
        value: (...) the objective.
        residual: (...) root of the weighted mean squared distance, in pixels.
        converged: (...) bool, as in `Solution`.
        unique: (...) bool, as in `Solution`, with ``nu = 2 N - 6``. Three points have up to four poses and are never
            called unique.
        second: the second-best minimum found, a `Rival`, its scale one.
        steps: (...) int64.
        weights: (..., V) what each point counted.
        focal, principal: (..., 2) of the camera, as given.
    """

    R: Tensor
    t: Tensor
    alpha: Tensor
    value: Tensor
    residual: Tensor
    converged: Tensor
    unique: Tensor
    second: _judged.Rival
    steps: Tensor
    weights: Tensor
    focal: Tensor
    principal: Tensor

    def shape(self, template: Tensor, basis: Tensor) -> Tensor:
        """(..., V, 3) the deformed template ``T + sum_k alpha_k B_k``, not moved."""
        return _judged.deformed(template, basis, self.alpha)

    def camera(self, size: tuple[int, int]) -> Pinhole:
        """The cameras, for images of `size` (H, W)."""
        return Pinhole(self.R, self.t, self.focal, self.principal, size)


@full_precision
def solve_pose_pinhole(
    points: Tensor,
    visibility: Tensor | None,
    template: Tensor,
    basis: Tensor | None = None,
    *,
    focal: Tensor,
    principal: Tensor,
    ridge: float | Tensor = 1.0,
    loss: str = "squared",
) -> PinholeSolution:
    """Pose and coefficients that project a deformable template onto 2D points by a perspective camera.

    Minimises, for each sample on its own, ``sum_i v_i |u_i - pi(R X_i + t)|^2 + ridge |alpha|^2`` over R, t and
    alpha, ``pi(Y) = focal Y_xy / Y_z + principal``, ``X = T + sum_k alpha_k B_k``. The starts are the lowest
    weak perspective minima (`solve_pose`, mode "joint") of the rays turned to the optical axis; then
    Levenberg-Marquardt steps on all unknowns.

    Args:
        points: u (..., V, 2) in pixels.
        visibility: as in `solve_pose`.
        template: as in `solve_pose`.
        basis: as in `solve_pose`.
        focal: (2,) or (..., 2) focal lengths in pixels, positive.
        principal: (2,) or (..., 2) principal point in pixels.
        ridge: as in `solve_pose`.
        loss: as in `solve_pose`.

    Returns:
        PinholeSolution. Gradients reach all tensors but the camera's through the optimality conditions.

    Raises:
        TypeError, ValueError: as `solve_pose`; a focal length that is not positive.
    """
    focal, principal = (as_tensor(x, name) for x, name in ((focal, "focal"), (principal, "principal")))
    check_choice(loss, _robust.LOSSES, "loss")
    u, v, T, B, gamma, _, batch = pose.prepare(points, visibility, template, basis, ridge, "free")
    for name, x in (("focal", focal), ("principal", principal)):
        check_shape(check_float(x, name), "... 2", name)
    if not bool((focal > 0).all()):
        raise ValueError(f"focal: expected positive numbers, found {float(focal.min()):.3g}")
    f, pp = (x.detach().double().expand(*batch, 2).reshape(-1, 2) for x in (focal, principal))
    data = tuple(x.double() for x in (u, v, T, B, gamma))
    with torch.no_grad():
        plain = _Data(*[x.detach() for x in (*data, f, pp)])
        if loss != "squared":
            plain = plain._replace(v=_reweighted(plain, loss))
        found = _two_lowest(plain)
    finish = _finished if loss == "squared" else _robustly_finished
    R, x, good, value, weights = finish(found.best, data, plain, loss)
    square = _squares(x, R, _Data(*[*data, f, pp]))
    residual = ((weights * square).sum(1) / or_one(weights.sum(1))).clamp_min(1e-300).sqrt()
    R = R + skew(x[:, :3]) @ R
    good = good & ((v > 0).sum(1) >= 3)
    unique = good & found.unique & ((v > 0).sum(1) >= 4)
    fields = (R, x[:, 3:6], x[:, 6:], value, residual, good, unique, found.best.steps, weights)
    R, t, c, value, residual, good, unique, steps, weights = (
        (y.to(u.dtype) if y.is_floating_point() else y).reshape(batch + y.shape[1:]) for y in fields
    )
    second = _judged.Rival(*(y.to(u.dtype).reshape(batch + y.shape[1:]) for y in found.second))
    return PinholeSolution(R, t, c, value, residual, good, unique, second, steps, weights, focal, principal)


class _Minimum(NamedTuple):
    """Where the iteration ended: rotation (B, 3, 3), unknowns (B, 6 + K), objective, whether strict, steps (B,)."""

    R: Tensor
    x: Tensor
    E: Tensor
    strict: Tensor
    steps: Tensor


class _Found(NamedTuple):
    """The lowest minimum, the second one, and whether they are told apart (B,)."""

    best: _Minimum
    second: _judged.Rival
    unique: Tensor


def _finished(
    best: _Minimum, data: tuple[Tensor, ...], plain: _Data, _: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rotation, unknowns as functions of the data, whether converged, objective and weights: the squared loss."""
    R, x, good = best.R, best.x, best.strict

    def gradient(x: Tensor, *data: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            energy = _energy(x, R, _Data(*[*data, plain.f, plain.pp])).sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]

    if any(d.requires_grad for d in data):
        hessian = _hessian(gradient, x, list(plain[:5]))
        strict = good & (torch.linalg.eigvalsh(hessian)[:, 0] > 0)
        x = implicit_solution(x, hessian, strict, gradient, *data)
    return R, x, good, _energy(x, R, _Data(*[*data, plain.f, plain.pp])), data[1]


def _robustly_finished(
    best: _Minimum, data: tuple[Tensor, ...], plain: _Data, loss: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `_finished` with a robust loss: Newton's method on all conditions."""
    R, x, K = best.R, best.x, best.x.shape[1] - 6
    for _ in range(2):  # the rotation vector starts at zero in the second pass, where its form is exact
        frame = R

        def squares(x: Tensor, *data: Tensor, frame: Tensor = frame) -> Tensor:
            return _squares(x, frame, _Data(*[*data, plain.f, plain.pp]))

        problem = _robust.Problem(loss, squares, slice(6, 6 + K))
        fit = problem.polished(x, *data)
        R = rotvec_to_rotation(fit.y[:, :3]) @ frame
        x = torch.cat([torch.zeros_like(fit.y[:, :3]), fit.y[:, 3:-1]], 1)
    y = fit.y
    if any(d.requires_grad for d in data):
        y = implicit_solution(y, fit.jacobian.mT, fit.strict, problem.conditions, *data)
    return frame, y[:, :-1], best.strict & fit.strict, problem.value(y, *data), problem.weights(y, *data)


def _reweighted(data: _Data, loss: str) -> Tensor:
    """(B, V) weights that outliers have lost, from the rays by weak perspective first, then by the pinhole."""
    rays, _ = _rays_ahead(data)
    start = _judged.Given(rays, data.v, data.T, data.basis, data.ridge / data.f.square().mean(1))
    w = _robust_weak.inlier_weights(start)
    least = _robust.LEAST_SCALE * _robust.deviation(data.u, data.v)
    rows = torch.arange(len(data.u), device=data.u.device)
    best = _two_lowest(data._replace(v=w)).best
    for k in range(REWEIGHTED):
        square = _squares(best.x, best.R, data)
        kind = "geman-mcclure" if k < REWEIGHTED // 2 else loss
        w = data.v * _robust.weight(square, _robust.noise_scale(square, data.v, least, kind), kind)
        best = _Minimum(*_minimise(best.R, best.x, data._replace(v=w), rows))
    return w


def _two_lowest(data: _Data) -> _Found:
    """The lowest minima from the starts by weak perspective."""
    B = len(data.u)
    R, x, new = _starts(data)
    each = torch.arange(B, device=R.device).repeat_interleave(STARTS + 1)
    rows = new.nonzero()[:, 0]
    E = torch.full_like(x[:, 0], torch.inf)
    strict, steps = torch.zeros_like(new), torch.zeros_like(each)
    found = _minimise(R[rows], x[rows], data, each[rows])
    for out, y in zip((R, x, E, strict, steps), found, strict=True):
        out[rows] = y
    every = _Minimum(*(y.view(B, STARTS + 1, *y.shape[1:]) for y in (R, x, E, strict, steps)))
    first, i = every.E.argmin(1), torch.arange(B, device=R.device)
    best = _Minimum(*(y[i, first] for y in every))
    away = rotation_angle(every.R, best.R[:, None]) > _weak.SAME
    rest = torch.where(away & every.strict, every.E, torch.inf)
    other = _Minimum(*(y[i, rest.argmin(1)] for y in every))
    value = rest.amin(1)
    residual = (_squares(other.x, other.R, data) * data.v).sum(1) / or_one(data.v.sum(1))
    residual = residual.clamp_min(0).sqrt().where(torch.isfinite(value), value)
    none = torch.isinf(value).view(-1, 1)
    x = torch.where(none, best.x, other.x)
    R = torch.where(none[..., None], best.R, other.R)
    second = _judged.Rival(R, x[:, 3:6], torch.ones_like(value), x[:, 6:], value, residual)
    mine = second._replace(value=best.E)
    return _Found(best, second, _judged.told_apart(_judged.extent(data.u, data.v), data.v, mine, second, 6))


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


def _rays_ahead(data: _Data) -> tuple[Tensor, Tensor]:
    """Points (N, V, 2) in the plane at distance one of a camera turned to their middle, and that turn (N, 3, 3)."""
    eye = torch.eye(3, dtype=data.u.dtype, device=data.u.device)
    rays = (data.u - data.pp[:, None]) / data.f[:, None]
    rays = torch.cat([rays, torch.ones_like(rays[..., :1])], -1)
    z = (data.v[..., None] * torch.nn.functional.normalize(rays, dim=-1)).sum(1) + 1e-12 * eye[2]
    z = torch.nn.functional.normalize(z, dim=1)
    x = torch.nn.functional.normalize(torch.linalg.cross(eye[[1]], z))
    ahead = torch.stack([x, torch.linalg.cross(z, x), z], 1)  # rows: the axes of a camera that looks along z
    rays = rays @ ahead.mT
    return rays[..., :2] / rays[..., 2:].clamp_min(1e-3), ahead


def _starts(data: _Data) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations (B (STARTS + 1), 3, 3), unknowns (..., 6 + K) and whether each differs from those before it.

    The lowest minima by weak perspective, and the lowest of all reflected in depth, next to which a flat or distant
    template has its other pose.
    """
    rays, ahead = _rays_ahead(data)
    mom = moments(rays, data.v, data.T, data.basis)
    s, gamma = _judged.affine_scale(mom), data.ridge / data.f.square().mean(1)
    B = len(s)
    found = _weak.minima(mom, s, gamma, STARTS, free=True)  # (B, STARTS + 1, ...)
    apart = [torch.ones_like(found.s[:, 0], dtype=torch.bool)]
    for k in range(1, STARTS + 1):
        close = rotation_angle(found.R[:, :k], found.R[:, k : k + 1]) < _weak.SAME
        apart.append(~close.any(1))
    each = torch.arange(B, device=s.device).repeat_interleave(STARTS + 1)
    R, s = found.R.flatten(0, 1), found.s.flatten()
    mom, gamma, ahead = mom.take(each), gamma[each], ahead[each]
    c = _weak.model(mom, R, s, gamma, free=True).c
    centre = (R @ mom.collapse(c).mean_f[:, 0, :, None])[..., 0]
    at = torch.cat([mom.mean_u, torch.ones_like(s)[:, None]], 1) / s[:, None]
    t = (ahead.mT @ (at - centre)[..., None])[..., 0]
    x = torch.cat([torch.zeros_like(t), t, c], 1)
    return ahead.mT @ R, x, torch.stack(apart, 1).flatten()


def _turned(x: Tensor, R: Tensor, data: _Data) -> Tensor:
    """(N, V, 3) turned shape, exact to second order in the rotation vector x[:, :3]."""
    W = skew(x[:, :3])
    return _judged.deformed(data.T, data.basis, x[:, 6:]) @ (R + W @ (R + W @ R / 2)).mT


def _squares(x: Tensor, R: Tensor, data: _Data) -> Tensor:
    """(N, V) squared distances in pixels at the unknowns x (N, 6 + K): rotation vector on top of R, translation,
    coefficients."""
    Y = _turned(x, R, data) + x[:, None, 3:6]
    return (data.u - data.f[:, None] * Y[..., :2] / Y[..., 2:] - data.pp[:, None]).square().sum(-1)


def _energy(x: Tensor, R: Tensor, data: _Data) -> Tensor:
    """(N,) objective at the unknowns."""
    return (data.v * _squares(x, R, data)).sum(1) + data.ridge * x[:, 6:].square().sum(1)


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


def _hessian(gradient: Callable[..., Tensor], x: Tensor, data: list[Tensor]) -> Tensor:
    """(N, P, P) exact second derivatives of the objective by the unknowns, sample by sample independent."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        g = gradient(x, *data)
        rows = [torch.autograd.grad(g[:, j].sum(), x, retain_graph=True)[0] for j in range(x.shape[1])]
    H = torch.stack(rows, 1)
    return (H + H.mT) / 2
