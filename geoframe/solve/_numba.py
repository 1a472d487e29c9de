"""Newton's method of `geoframe.solve._weak` compiled for the CPU: the same iteration, one problem after another.

Chosen by measurement: the torch loop takes some thirty operations a step on matrices of 3 x 3, and launching them
costs more than their arithmetic: on two cores 64 rigid poses take 0.2 ms against 1.7 ms. The first call compiles for
some ten seconds; the machine code is kept on disk. Everything in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from geoframe._compiled import compiled, share
from geoframe._types import Array
from geoframe.solve._moments import LIFT, Moments

Limits = tuple[float, float, int]
_ALONE = 2**23  # multiplications, about, that are not worth a second thread


def newton(
    mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, maps: tuple[Tensor, Tensor], limits: Limits
) -> tuple[Tensor, ...]:
    """The fields of `geoframe.solve._weak.Optimum`, from R (N, 3, 3) and s (N,).

    `maps` are the constants of `geoframe.solve._weak` that turn moments into derivatives, `limits` its ENOUGH, ASKED
    and MOST_STEPS.
    """
    N, n = mom.G.shape[:2]
    given = *arrays(mom.G, mom.H, mom.uu, ridge, *maps), limits
    found = arrays(R.clone(), s.clone(), *_empty((N,), maps))

    def run(first: int, last: int) -> None:
        _newton(*given, first, last, *found)

    in_parts(run, N, n * n * 50)
    return tuple(torch.from_numpy(x) for x in found)


def alternate(
    mom: Moments,
    R: Tensor,
    s: Tensor,
    ridge: Tensor,
    maps: tuple[Tensor, Tensor],
    limits: Limits,
    n: int,
) -> tuple[Tensor, ...]:
    """The fields of n further `geoframe.solve._weak.Optimum`, stacked (n, N, ...), as `_weak.alternate`."""
    N, K = len(s), mom.G.shape[1] - 1
    given = *arrays(mom.G, mom.H, mom.uu, ridge, *maps), limits
    found = arrays(R.expand(n + 1, N, 3, 3).clone(), s.expand(n + 1, N).clone(), *_empty((n + 1, N), maps))

    def run(first: int, last: int) -> None:
        _alternate(*given, first, last, *found)

    in_parts(run, N, n * (K * K * (20 + K // 3) + 1000))
    return tuple(torch.from_numpy(x)[1:] for x in found)


def arrays(*tensors: Tensor) -> list[Array]:
    """The contents of tensors on the CPU, contiguous."""
    return [x.detach().contiguous().numpy() for x in tensors]


def _empty(shape: tuple[int, ...], maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Room for values, strict and steps."""
    values = torch.empty(*shape, maps[0].shape[1], dtype=torch.float64)
    return values, torch.empty(shape, dtype=torch.bool), torch.empty(shape, dtype=torch.int64)


def coefficients(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor) -> Tensor:
    """As `geoframe.solve._weak.coefficients`."""
    N, n = mom.G.shape[:2]
    given = arrays(mom.G, mom.H, R, s, ridge)
    c = np.empty((N, n))

    def run(first: int, last: int) -> None:
        _best_coefficients(*given, first, last, c)

    in_parts(run, N, n * n * (9 + n // 3))
    return torch.from_numpy(c)[:, 1:]


def in_parts(run: Callable[[int, int], None], n: int, each: int) -> None:
    """``run(first, last)`` for n problems of about `each` multiplications, by several threads where it is worth it."""
    parts = 1 if n * each < _ALONE else min(4 * torch.get_num_threads(), n)
    share(run, list(pairwise([n * i // parts for i in range(parts + 1)])))


@compiled
def _newton(G, H, uu, ridge, to_values, to_cross, limits, first, last, R, s, out, strict, steps):
    room = _room(G.shape[1], to_cross.shape[1])
    for p in range(first, last):
        s[p], strict[p], steps[p] = _descend(
            *(G[p], H[p], uu[p], ridge[p], to_values, to_cross, limits, R[p], s[p], out[p], room)
        )


@compiled
def _alternate(G, H, uu, ridge, to_values, to_cross, limits, first, last, R, s, out, strict, steps):
    """R (T + 1, N, 3, 3), s, values, strict and steps likewise: number 0 is given, one after another is found."""
    n = G.shape[1]
    A, L, c, room = (
        np.empty((n - 1, n - 1)),
        np.empty((n - 1, n - 1)),
        np.empty(n),
        _room(1, to_cross.shape[1]),
    )
    each, g, h = np.empty(9 * n), np.empty(9), np.empty(6)
    rigid, seen = g.reshape(1, 1, 3, 3), h.reshape(1, 2, 3)
    for p in range(first, last):
        for i in range(1, len(R)):
            _coefficients(G[p], H[p], R[i - 1, p], s[i - 1, p], ridge[p], A, L, c)
            _weighted(G[p].reshape(n, 9 * n), c, each)  # collapsed to the one shape of these coefficients
            _weighted(each.reshape(n, 9), c, g)
            _weighted(H[p].reshape(n, 6), c, h)
            _copy(R[i - 1, p], R[i, p])
            s[i, p], strict[i, p], steps[i, p] = _descend(
                *(rigid, seen, uu[p], 0.0, to_values, to_cross, limits),
                *(R[i, p], s[i - 1, p], out[i, p], room),
            )


@compiled
def _weighted(x, c, out):
    """out (m,) becomes the sum of the c[k] x[k]."""
    for i in range(len(out)):
        out[i] = 0.0
    for k in range(len(c)):
        for i in range(len(out)):
            out[i] += c[k] * x[k, i]


@compiled
def _room(n, d):
    """Memory of `_descend` and, first, of `_evaluate`."""
    K = n - 1
    inner = np.empty((K, K)), np.empty((K, K)), np.empty(n), np.empty((n, 9)), np.empty((K, d))
    return inner, np.empty(1 + d + d * d), np.empty((d, d)), np.empty((d, d)), np.empty((d, d)), np.empty(d)


@compiled
def _descend(G, H, uu, ridge, to_values, to_cross, limits, R, s, values, room):
    """From R, changed in place, and s to a minimum: s there, whether it is strict, steps; `values` are filled."""
    inner, trial, hessian, L, V, step = room
    enough, asked, most = limits
    d, turned = len(step), np.empty((3, 3))
    size = uu + s * s * (G[0, 0, 0, 0] + G[0, 0, 1, 1] + G[0, 0, 2, 2])
    _copy(R, turned)
    scale, values[0], radius, length, decrement, steps = s, np.inf, 0.35, 0.0, np.inf, 0
    while True:
        _evaluate(G, H, uu, ridge, turned, scale, to_values, to_cross, inner, trial)
        if trial[0] <= values[0] + 1e-14 * size:
            _copy(turned, R)
            _copy(trial, values)
            s, radius = scale, min(2 * radius, 1.0)
        else:
            radius = min(radius, length) / 4
        decrement = _step(values, hessian, L, V, step)
        if radius <= 1e-9 or not decrement > asked * size or steps == most:
            break
        length = 0.0
        for k in range(d):
            length += step[k] * step[k]
        length = math.sqrt(length)
        for k in range(d):
            step[k] *= min(radius / max(length, 1e-300), 1.0)
        _turn_by(step, R, turned)
        scale = s * math.exp(step[3]) if d == 4 else s
        steps += 1
    _take_hessian(values, hessian)
    _eigen(hessian, V, step)
    return s, decrement <= enough * size and min(step) > 1e-9 * max(step), steps


@compiled
def _evaluate(G, H, uu, ridge, R, s, to_values, to_cross, room, values):
    """Objective, gradient and Hessian at the best coefficients, as `geoframe.solve._weak.model`."""
    A, L, c, each, cross = room
    n, d = len(c), to_cross.shape[1]
    solved = _coefficients(G, H, R, s, ridge, A, L, c)
    Y, Z, z = np.zeros(9), np.zeros(6), np.empty(15)
    _weighted(G.reshape(n, 9 * n), c, each.reshape(9 * n))
    _weighted(each, c, Y)
    for k in range(1, n):  # G_kl is the transpose of G_lk
        for i, j in ((1, 3), (2, 6), (5, 7)):
            each[k, i], each[k, j] = each[k, j], each[k, i]
    _weighted(H.reshape(n, 6), c, Z)
    _turned(Y, Z, R, s, z)
    values[:] = 0.0
    for i in range(15):
        for j in range(len(values)):
            values[j] += z[i] * to_values[i, j]
    values[0] += uu
    for k in range(1, n):
        values[0] += ridge * c[k] * c[k]
    if not solved:
        return
    for k in range(n - 1):
        _turned(each[k + 1], H[k + 1].reshape(6), R, s, z)
        for j in range(d):
            total = 0.0
            for i in range(15):
                total += z[i] * to_cross[i, j]
            for m in range(k):  # forward substitution
                total -= L[k, m] * cross[m, j]
            cross[k, j] = total / L[k, k]
        for i in range(d):
            for j in range(d):
                values[1 + d + i * d + j] -= cross[k, i] * cross[k, j] / 2


@compiled
def _best_coefficients(G, H, R, s, ridge, first, last, c):
    K = G.shape[1] - 1
    A, L = np.empty((K, K)), np.empty((K, K))
    for p in range(first, last):
        _coefficients(G[p], H[p], R[p], s[p], ridge[p], A, L, c[p])


@compiled
def _coefficients(G, H, R, s, ridge, A, L, c):
    """c (n,): one, then the best coefficients. L the factor of their equations; returned, whether there is one."""
    K = len(A)
    c[:] = 0.0
    c[0] = 1.0
    S = np.empty((3, 3))
    for a in range(3):
        for b in range(3):
            S[a, b] = s * s * (R[0, a] * R[0, b] + R[1, a] * R[1, b])
    trace = 0.0
    for k in range(K):
        for m in range(-1, k + 1):
            total = 0.0
            for a in range(3):
                for b in range(3):
                    total += G[k + 1, m + 1, a, b] * S[a, b]
            if m < 0:
                c[k + 1] = -total
            else:
                A[k, m] = total
        for a in range(3):
            c[k + 1] += s * (R[0, a] * H[k + 1, 0, a] + R[1, a] * H[k + 1, 1, a])
        trace += A[k, k]
    lift = ridge + LIFT * trace
    for k in range(K):
        A[k, k] += lift if lift > 0 else 1.0
    solved = _cholesky(A, L)
    if solved:
        _solve(L, c[1:])
    else:
        c[1:] = 0.0
    return solved


@compiled
def _turned(Y, Z, R, s, z):
    """z (15,): moments Y (9,) and Z (6,) turned by R and scaled by s."""
    for i in range(3):
        for j in range(3):
            total = 0.0
            for a in range(3):
                total += R[j, a] * (R[i, 0] * Y[a] + R[i, 1] * Y[3 + a] + R[i, 2] * Y[6 + a])
            z[3 * i + j] = s * s * total
    for i in range(2):
        for j in range(3):
            z[9 + 3 * i + j] = s * (Z[3 * i] * R[j, 0] + Z[3 * i + 1] * R[j, 1] + Z[3 * i + 2] * R[j, 2])


@compiled
def _step(values, hessian, L, V, step):
    """Newton's step, where needed with the eigenvalues' absolute values; returned, the decrement."""
    d = len(step)
    _take_hessian(values, hessian)
    for k in range(d):
        step[k] = -values[1 + k]
    if _cholesky(hessian, L):
        _solve(L, step)
    else:
        lam = np.empty(d)
        _eigen(hessian, V, lam)
        least = 0.0
        for k in range(d):
            least = max(least, 1e-12 * abs(lam[k]), 1e-300)
            step[k] = 0.0
        for k in range(d):
            along = 0.0
            for i in range(d):
                along += V[i, k] * values[1 + i]
            for i in range(d):
                step[i] -= V[i, k] * along / max(abs(lam[k]), least)
    decrement = 0.0
    for k in range(d):
        decrement -= values[1 + k] * step[k]
    return decrement


@compiled
def _take_hessian(values, hessian):
    d = len(hessian)
    for i in range(d):
        for j in range(d):
            hessian[i, j] = values[1 + d + i * d + j]


@compiled
def _copy(x, out):
    for i in np.ndindex(x.shape):
        out[i] = x[i]


@compiled
def _cholesky(A, L):
    """L with ``L L^T = A`` from the lower half of A; False, and half done, where A is not positive definite."""
    for k in range(len(A)):
        for m in range(k + 1):
            total = A[k, m]
            for i in range(m):
                total -= L[k, i] * L[m, i]
            if m < k:
                L[k, m] = total / L[m, m]
            elif total > 0:
                L[k, k] = math.sqrt(total)
            else:
                return False
    return True


@compiled
def _solve(L, x):
    """x becomes ``(L L^T)^-1 x``."""
    for k in range(len(x)):
        for m in range(k):
            x[k] -= L[k, m] * x[m]
        x[k] /= L[k, k]
    for k in range(len(x) - 1, -1, -1):
        for m in range(k + 1, len(x)):
            x[k] -= L[m, k] * x[m]
        x[k] /= L[k, k]


@compiled
def _eigen(A, V, lam):
    """Eigenvalues and eigenvectors (columns of V) of a small symmetric matrix by Jacobi's rotations; uses A up."""
    d = len(A)
    V[:] = 0.0
    for i in range(d):
        V[i, i] = 1.0
    for _ in range(30):
        off = total = 0.0
        for i in range(d):
            for j in range(d):
                total += A[i, j] * A[i, j]
                off += A[i, j] * A[i, j] if i < j else 0.0
        if off <= 1e-33 * total:
            break
        for i in range(d):
            for j in range(i + 1, d):
                if A[i, j] == 0:
                    continue
                slope = (A[j, j] - A[i, i]) / (2 * A[i, j])
                t = (1.0 if slope >= 0 else -1.0) / (abs(slope) + math.sqrt(slope * slope + 1))
                cos = 1 / math.sqrt(t * t + 1)
                sin = t * cos
                for k in range(d):
                    A[k, i], A[k, j] = cos * A[k, i] - sin * A[k, j], sin * A[k, i] + cos * A[k, j]
                for k in range(d):
                    A[i, k], A[j, k] = cos * A[i, k] - sin * A[j, k], sin * A[i, k] + cos * A[j, k]
                    V[k, i], V[k, j] = cos * V[k, i] - sin * V[k, j], sin * V[k, i] + cos * V[k, j]
    for i in range(d):
        lam[i] = A[i, i]


@compiled
def _turn_by(w, R, out):
    """R turned by Cayley's rotation of the first three of w, as in `geoframe.solve._weak`."""
    x, y, z = w[0] / 2, w[1] / 2, w[2] / 2
    f = 2 / (1 + x * x + y * y + z * z)
    Q = np.empty((3, 3))
    Q[0, 0], Q[0, 1], Q[0, 2] = 1 - f * (y * y + z * z), f * (x * y - z), f * (x * z + y)
    Q[1, 0], Q[1, 1], Q[1, 2] = f * (x * y + z), 1 - f * (x * x + z * z), f * (y * z - x)
    Q[2, 0], Q[2, 1], Q[2, 2] = f * (x * z - y), f * (y * z + x), 1 - f * (x * x + y * y)
    for i in range(3):
        for j in range(3):
            out[i, j] = Q[i, 0] * R[0, j] + Q[i, 1] * R[1, j] + Q[i, 2] * R[2, j]
