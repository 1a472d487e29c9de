"""The weak-perspective objective on moments: value, derivatives, global starts and Newton's method.

Everything happens in the camera's frame: the moments are turned by R and scaled by s, so that the projection is
``[I 0]`` and its derivatives by a rotation vector w (``R -> exp(skew(w)) R``) and by log s are constants.
The coefficients are eliminated: ``c = argmin`` is a K x K solve for any R and s (variable projection), and the
Hessian is that of the reduced objective, exact. All in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoframe.solve._moments import LIFT, Moments, with_one
from geoframe.solve._search import starts
from geoframe.transforms import quaternion_to_rotation, skew

ENOUGH = 1e-16  # of the Newton decrement, twice the decrease still to come, relative to the size of the terms
ASKED = 1e-21  # where the iteration stops; rounding may keep an ill-conditioned problem from getting there
MOST_STEPS = 60  # Newton steps; a handful is usual
SAME = 1e-3  # radians: minima nearer to each other are one
SADDLE = -1e-6  # smallest over largest eigenvalue of the Hessian below which a stationary pose is left
KICK = 0.1  # radians, by how much it is left
REFLECTED = (
    0.1  # of the squares of the points: a reflected pose whose objective is higher by more is not refined
)


class Optimum(NamedTuple):
    """Where the iteration ended, for N problems: R (N, 3, 3), s (N,), values (N, 1 + d + d * d) of the objective
    with its gradient and Hessian, whether it is at a strict minimum (N,) bool, and steps (N,) int."""

    R: Tensor
    s: Tensor
    values: Tensor
    strict: Tensor
    steps: Tensor

    def pick(self, column: Tensor) -> Optimum:
        """Of fields (N, m, ...) the ones in the columns (N, 1)."""
        row = column[:, 0] + torch.arange(0, self.s.numel(), self.s.shape[1], device=column.device)
        return Optimum(*(x.flatten(0, 1).index_select(0, row) for x in self))

    def at(self, i: int) -> Optimum:
        """Of fields (m, N, ...) number i."""
        return Optimum(*(x[i] for x in self))


class Model(NamedTuple):
    """The objective around a pose: coefficients c (N, K), values (N, 1 + d + d * d), the mixed derivatives with
    the coefficients cross (N, K, d) and half the second ones, inner (N, K, K)."""

    c: Tensor
    values: Tensor
    cross: Tensor
    inner: Tensor

    def hessian(self) -> Tensor:
        """(N, d + K, d + K) second derivatives by pose and coefficients: the elimination undone."""
        d, inner = self.cross.shape[2], 2 * self.inner
        corner = self.values[:, d + 1 :].reshape(-1, d, d)
        corner = corner + self.cross.mT @ torch.linalg.solve_ex(inner, self.cross)[0]
        return torch.cat([torch.cat([corner, self.cross.mT], 2), torch.cat([self.cross, inner], 2)], 1)


def minimise(
    mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, *, free: bool, which: Tensor | None = None
) -> Optimum:
    """Newton's method from R (N, 3, 3) and s (N,), each problem on its own; with `which` (N,) on these of the problems.

    Where the Hessian is not positive definite its eigenvalues count by their absolute value, so that saddles
    repel; the step is at most a trust radius long, which shrinks where the objective would grow. Converged
    problems are frozen. On the CPU compiled loops do the same, `geoframe.solve._numba`.
    """
    if mom.G.device.type == "cpu":
        from geoframe.solve import _numba

        return Optimum(*_numba.newton(mom, which, R, s, ridge, _method(free)))
    if which is not None:
        mom, ridge = mom.take(which), ridge[which]
    return minimise_in_torch(mom, R, s, ridge, free=free)


@lru_cache(maxsize=2)
def _method(free: bool) -> Any:
    """The constants of the compiled loops."""
    from geoframe.solve import _numba

    return _numba.Method.of(_linear_maps(torch.device("cpu"), free), (ENOUGH, ASKED, MOST_STEPS))


def minimise_in_torch(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, *, free: bool) -> Optimum:
    """`minimise` on any device, all problems at once; the reference."""
    evaluate = _rigid(mom, free) if mom.G.shape[1] == 1 else _deformable(mom, ridge, free)
    d = 4 if free else 3
    values = evaluate(R, s)
    radius, steps, decrement = torch.full_like(s, 0.7), torch.zeros_like(s), torch.zeros_like(s)
    size = mom.uu + s**2 * mom.G[:, 0, 0].diagonal(dim1=1, dim2=2).sum(1)
    asked = ASKED * size
    for _ in range(MOST_STEPS):
        step, decrement = _newton_step(values, d)
        active = torch.where(radius > 1e-9, decrement, 0.0) > asked
        if not bool(active.any()):
            break
        length = torch.linalg.vector_norm(step, dim=1)
        step = step * (radius / length.clamp_min(1e-300)).clamp_max(1.0)[:, None]
        turned = _cayley(step[:, :3]) @ R
        scale = s * step[:, 3].exp() if free else s
        trial = evaluate(turned, scale)
        better = active & (trial[:, 0] <= values[:, 0] + 1e-14 * size)
        values = torch.where(better[:, None], trial, values)
        R = torch.where(better[:, None, None], turned, R)
        s = torch.where(better, scale, s) if free else s
        radius = torch.where(better, (2 * radius).clamp_max(1.0), torch.minimum(radius, length) / 4)
        steps += active
    lam = torch.linalg.eigvalsh(values[:, d + 1 :].reshape(-1, d, d))
    strict = (decrement <= ENOUGH * size) & (lam[:, 0] > 1e-9 * lam[:, -1])
    return Optimum(R, s, values, strict, steps.long())


def alternate(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, n: int, *, free: bool) -> Optimum:
    """Coefficients for the last pose and a rigid pose for the last shape, in turn from R (N, 3, 3) and s (N,): the n
    poses, fields (n, N, ...), each with the objective of its own rigid problem."""
    if mom.G.device.type == "cpu":
        from geoframe.solve import _numba

        return Optimum(*_numba.alternate(mom, R, s, ridge, _method(free), n))
    return alternate_in_torch(mom, R, s, ridge, n, free=free)


def alternate_in_torch(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, n: int, *, free: bool) -> Optimum:
    """`alternate` on any device; the reference."""
    poses: list[Optimum] = []
    for _ in range(n):
        rigid = mom.collapse(coefficients_in_torch(mom, R, s, ridge))
        poses.append(minimise_in_torch(rigid, R, s, torch.zeros_like(ridge), free=free))
        R, s = poses[-1].R, poses[-1].s
    return Optimum(*map(torch.stack, zip(*poses, strict=True)))


def _newton_step(values: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Step (N, d) and decrement (N,), about twice the decrease to come."""
    g, hessian = values[:, 1 : d + 1], values[:, d + 1 :].reshape(-1, d, d)
    L, info = torch.linalg.cholesky_ex(hessian)
    bad = info != 0
    if bool(bad.any()):
        lam, V = torch.linalg.eigh(hessian[bad])
        lam = lam.abs().clamp_min(1e-300)
        lam = lam.maximum(1e-12 * lam.amax(1, keepdim=True))
        L[bad] = torch.linalg.cholesky_ex((V * lam[:, None]) @ V.mT)[0]
    step = -torch.cholesky_solve(g[..., None], L)[..., 0]
    return step, -(g * step).sum(1)


def _cayley(w: Tensor) -> Tensor:
    """Rotations that agree with the exponential map to second order, by the quaternions (w / 2, 1)."""
    q = torch.cat([w / 2, torch.ones_like(w[:, :1])], 1)
    q = q * q.square().sum(1, keepdim=True).rsqrt()
    return ((q[:, :, None] * q[:, None]).flatten(1) @ _from_products(w.device)).view(-1, 3, 3)


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # what is kept serves callers with a gradient, too
def _from_products(device: torch.device) -> Tensor:
    """Rotations (9,) as linear functions (16, 9) of the products of a quaternion's components x, y, z, w."""
    eye = torch.eye(4, dtype=torch.float64)

    def form(q: Tensor) -> Tensor:  # quadratic in q, the rotation where q is a unit
        return quaternion_to_rotation(q) + (q @ q - 1) * torch.eye(3, dtype=q.dtype)

    rows = [(form(a + b) - form(a) - form(b)) / 2 for a in eye for b in eye]
    return torch.stack(rows).flatten(1).to(device)


def _rigid(mom: Moments, free: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Values at (R, s) of problems without coefficients: linear in the turned moments, hence one product."""
    both = torch.cat([mom.G[:, 0, 0], mom.H[:, 0]], 1)  # (N, 5, 3)
    to_values, _ = _linear_maps(both.device, free)

    def evaluate(R: Tensor, s: Tensor) -> Tensor:
        right = both @ R.mT
        s = s[:, None]
        z = torch.cat([s * s * (R @ right[:, :3]).flatten(1), s * right[:, 3:].flatten(1)], 1)
        values = z @ to_values
        values[:, 0] += mom.uu
        return values

    return evaluate


def _deformable(mom: Moments, ridge: Tensor, free: bool) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda R, s: model(mom, R, s, ridge, free=free).values


def model(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, *, free: bool) -> Model:
    """The objective at (R, s) with the best coefficients, its gradient and Hessian in (R, s) alone."""
    to_values, to_cross = _linear_maps(R.device, free)
    d = to_cross.shape[1]
    z = _turned(mom.G, mom.H, R, s)
    P, q = _projected(*z)
    inner = _inner(P, ridge)
    L, info = torch.linalg.cholesky_ex(inner)
    good = (info == 0)[:, None]
    c = torch.where(good, torch.cholesky_solve((q[:, 1:] - P[:, 1:, 0])[..., None], L)[..., 0], 0.0)
    each, total = _contracted(*z, c)
    cross = each[:, 1:] @ to_cross
    values = total @ to_values
    values[:, 0] += mom.uu + ridge * c.square().sum(1)
    if c.shape[1]:
        values[:, d + 1 :] -= (cross.mT @ torch.cholesky_solve(cross, L)).flatten(1) / 2
    return Model(c, values, cross, inner)


def full_gradient(
    G: Tensor, H: Tensor, R: Tensor, s: Tensor, c: Tensor, ridge: Tensor, *, free: bool
) -> Tensor:
    """Gradient (N, d + K) by pose and coefficients, differentiable in the moments, the scale and the ridge."""
    to_values, to_cross = _linear_maps(R.device, free)
    z = _turned(G, H, R, s)
    P, q = _projected(*z)
    by_c = (P @ with_one(c)[..., None])[:, 1:, 0] - q[:, 1:] + ridge[:, None] * c
    return torch.cat([_contracted(*z, c)[1] @ to_values[:, 1 : 1 + to_cross.shape[1]], 2 * by_c], 1)


def coefficients(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor) -> Tensor:
    """Best coefficients (N, K) for a pose, differentiable.

    Source: To The Point, eq. 7, with the visibility inside the moments.
    """
    if R.device.type == "cpu" and not any(x.requires_grad for x in (mom.G, mom.H, R, s, ridge)):
        from geoframe.solve import _numba

        return _numba.coefficients(mom, R, s, ridge)[0]
    return coefficients_in_torch(mom, R, s, ridge)


def coefficients_and_value(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor]:
    """Best coefficients (N, K) for a pose and the objective there (N,), to the rounding of the moments; no gradient."""
    if R.device.type == "cpu":
        from geoframe.solve import _numba

        return _numba.coefficients(mom, R, s, ridge)
    there = model(mom, R, s, ridge, free=False)
    return there.c, there.values[:, 0]


def coefficients_in_torch(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor) -> Tensor:
    """`coefficients` on any device, and with a gradient; the reference."""
    N, n = mom.G.shape[:2]
    M = s[:, None, None] * R[:, :2]
    P = (mom.G.flatten(3).flatten(1, 2) @ (M.mT @ M).flatten(1)[..., None]).reshape(N, n, n)
    q = (mom.H.flatten(2) @ M.flatten(1)[..., None])[..., 0]
    return torch.linalg.solve_ex(_inner(P, ridge), (q[:, 1:] - P[:, 1:, 0])[..., None])[0][..., 0]


def _inner(P: Tensor, ridge: Tensor) -> Tensor:
    """Matrix (N, K, K) of the coefficients' equations; a coefficient that nothing sees and no ridge holds becomes 0."""
    K = P.shape[1] - 1
    P = P[:, 1:, 1:]
    trace = P.detach().diagonal(dim1=1, dim2=2).sum(1)
    lift = ridge + LIFT * trace
    lift = torch.where(lift > 0, lift, torch.ones_like(lift))
    return P + lift[:, None, None] * torch.eye(K, dtype=P.dtype, device=P.device)


def _turned(G: Tensor, H: Tensor, R: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Moments (N, K+1, K+1, 9) and (N, K+1, 6) of the shapes turned by R and scaled by s."""
    N, n = G.shape[:2]
    s = s[:, None, None]
    twice = (s * R)[:, :, None, :, None] * (s * R)[:, None, :, None, :]  # [a, b, i, j] = s^2 R_ai R_bj
    G = G.reshape(N, n * n, 9) @ twice.reshape(N, 9, 9).mT
    return G.reshape(N, n, n, 9), (H.reshape(N, 2 * n, 3) @ (s * R).mT).reshape(N, n, 6)


def _projected(G: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """``P_kl = tr(M G_kl M^T)`` (N, K+1, K+1) and ``q_k = <M, H_k>`` (N, K+1) of turned moments, M = [I 0]."""
    return G[..., 0] + G[..., 4], H[..., 0] + H[..., 4]


def _contracted(G: Tensor, H: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """``(sum_l c_l G_kl, H_k)`` (N, K+1, 15) and the sum over k of c_k times it (N, 15), of turned moments."""
    c = with_one(c)[:, None]
    each = (c @ G.flatten(2)).reshape(*G.shape[:2], 9)
    each = torch.cat([each, H], 2)
    return each, (c @ each)[:, 0]


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept serves callers with a gradient, too
def _linear_maps(device: torch.device, free: bool) -> tuple[Tensor, Tensor]:
    """Objective, gradient and Hessian (15, 1 + d + d * d) as linear functions of the turned moments Y (3 x 3) and
    Z (2 x 3), and the gradient's derivative (15, d) by a coefficient from its own moments.

    With ``M = [I 0]``, ``E = tr(M Y M^T) - 2 <M, Z>``, and M_j, M_jk the derivatives of ``M exp(skew(w))`` (and
    of ``exp(sigma) M``): ``E_j = 2 <M_j, M Y - Z>``, ``E_jk = 2 <M_j Y, M_k> + 2 <M_jk, M Y - Z>``.
    """
    eye = torch.eye(3, dtype=torch.float64)
    W = torch.stack([*skew(eye), eye][: 4 if free else 3])
    first = W[:, :2]
    second = ((W[:, None] @ W[None] + W[None] @ W[:, None]) / 2)[:, :, :2]
    d = len(W)
    value = torch.cat([(eye[:2].mT @ eye[:2]).flatten(), -2 * eye[:2].flatten()])[None]

    def upper(M: Tensor) -> Tensor:  # <M, (M Y - Z)> twice: rows (..., 15)
        return 2 * torch.cat([M.flatten(-2), torch.zeros_like(M[..., 0, :]), -M.flatten(-2)], -1)

    gradient, hessian = upper(first), upper(second)
    hessian[..., :9] += 2 * torch.einsum("jpa,kpb->jkab", first, first).flatten(-2)
    cross = gradient.clone()
    cross[:, :9] += gradient[:, :9].reshape(d, 3, 3).mT.flatten(1)
    to_values = torch.cat([value, gradient, hessian.flatten(0, 1)]).T.contiguous()
    return to_values.to(device), cross.T.contiguous().to(device)


def two_lowest(
    mom: Moments, s: Tensor, ridge: Tensor, n_starts: int, *, free: bool
) -> tuple[Optimum, Optimum, Tensor]:
    """The lowest minimum over pose and coefficients, the second lowest, and whether there is a second one (B,) bool.

    Minimised from the best rotations of the search, and from the best minimum reflected in depth and in the
    shape's plane: a flat shape explains the points as well so, an almost flat one almost as well. Where there is no
    second minimum, the second is the first.
    """
    found = minima(mom, s, ridge, n_starts, free=free)
    E = found.values[:, :, 0]
    first = E.argmin(1, keepdim=True)
    best = found.pick(first)
    apart = (found.R - best.R[:, None]).square().sum((2, 3)) > 2 * SAME**2  # 8 sin(angle / 2)^2
    second = torch.where(apart, E, torch.inf).argmin(1, keepdim=True)
    told = apart.gather(1, second)
    return best, found.pick(torch.where(told, second, first)), told[:, 0]


def minima(mom: Moments, s: Tensor, ridge: Tensor, n_starts: int, *, free: bool) -> Optimum:
    """The minima (B, n_starts + 1, ...) from the best rotations of the search, and from the best of them reflected."""
    each = torch.arange(len(s), device=s.device).repeat_interleave(n_starts)
    R = starts(mom, s, ridge, n_starts).flatten(0, 1)
    found = minimise(mom, R, s.repeat_interleave(n_starts), ridge, free=free, which=each)
    found = _off_saddles(mom, each, found, ridge, free)
    found = Optimum(*(x.view(len(s), n_starts, *x.shape[1:]) for x in found))
    other = reflected(mom, found.pick(found.values[:, :, 0].argmin(1, keepdim=True)), ridge, free=free)
    return Optimum(*(torch.cat([x, y[:, None]], 1) for x, y in zip(found, other, strict=True)))


def _off_saddles(mom: Moments, each: Tensor, found: Optimum, ridge: Tensor, free: bool) -> Optimum:
    """Iterations on the problems `each` that ended on a saddle, where symmetry held them, go on from beside it."""
    d = 4 if free else 3
    hard = (~found.strict).nonzero()[:, 0]
    if not len(hard):
        return found
    lam, V = torch.linalg.eigh(found.values[hard, d + 1 :].view(-1, d, d))
    down = lam[:, 0] < SADDLE * lam[:, -1].abs()
    hard, w = hard[down], V[down, :3, 0]
    if not len(hard):
        return found
    R = _cayley(KICK * w) @ found.R[hard]
    again = minimise(mom, R, found.s[hard], ridge, free=free, which=each[hard])
    for old, new in zip(found, again, strict=True):
        old[hard] = new
    return found


def reflected(mom: Moments, best: Optimum, ridge: Tensor, *, free: bool) -> Optimum:
    """The minimum next to each pose reflected in depth and in the plane of its shape; the pose itself where the
    reflection explains much less, or is the pose."""
    if mom.G.device.type == "cpu":
        from geoframe.solve import _numba

        return Optimum(*_numba.reflected(mom, best, ridge, _method(free), (REFLECTED, SAME)))
    return reflected_in_torch(mom, best, ridge, free=free)


def reflected_in_torch(mom: Moments, best: Optimum, ridge: Tensor, *, free: bool) -> Optimum:
    """`reflected` on any device; the reference."""
    c = coefficients_in_torch(mom, best.R, best.s, ridge)
    normal = torch.linalg.eigh(mom.collapse(c).G[:, 0, 0])[1][:, :, 0]
    R = best.R - 2 * (best.R @ normal[:, :, None]) * normal[:, None]
    R = torch.cat([R[:, :2], -R[:, 2:]], 1)
    E = model(mom, R, best.s, ridge, free=free).values[:, 0]
    near = (E - best.values[:, 0] <= REFLECTED * mom.uu) & ((R - best.R).square().sum((1, 2)) > 2 * SAME**2)
    rows = near.nonzero()[:, 0]
    out = Optimum(*(x.clone() for x in best))
    if len(rows):
        again = minimise_in_torch(mom.take(rows), R[rows], best.s[rows], ridge[rows], free=free)
        for old, new in zip(out, again, strict=True):
            old[rows] = new
    return out
