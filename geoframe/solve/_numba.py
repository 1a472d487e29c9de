"""Newton's method of `geoframe.solve._weak` compiled for the CPU: the same iteration, one problem after another.

Chosen by measurement: the torch loop takes some thirty operations a step on matrices of 3 x 3, and launching them
costs more than their arithmetic: on two cores 64 rigid poses take 0.2 ms against 1.7 ms. The first call compiles for
some ten seconds; the machine code is kept on disk. Everything in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe._compiled import compiled, share
from geoframe._types import Array
from geoframe.solve._moments import LIFT, Moments
from geoframe.solve._numba_algebra import cholesky, copy, eigen, solve, turn_by, weighted

_ALONE = 2**23  # multiplications, about, that are not worth a second thread


class Method(NamedTuple):
    """How poses are found: the constants of `geoframe.solve._weak` that turn moments into derivatives, `to_values` (15,
    1 + d + d * d) and `to_cross` (15, d), and its limits ENOUGH, ASKED and MOST_STEPS."""

    to_values: Array
    to_cross: Array
    enough: float
    asked: float
    most: int

    @staticmethod
    def of(maps: tuple[Tensor, Tensor], limits: tuple[float, float, int]) -> Method:
        """From the tensors."""
        to_values, to_cross = arrays(*maps)
        return Method(to_values, to_cross, *limits)


class _Problems(NamedTuple):
    """Moments G (N, n, n, 3, 3), H (N, n, 2, 3) and uu (N,), and ridge (N,); or those of one problem."""

    G: Array
    H: Array
    uu: Array | float
    ridge: Array | float

    @staticmethod
    def of(mom: Moments, ridge: Tensor) -> _Problems:
        """From the tensors."""
        return _Problems(*arrays(mom.G, mom.H, mom.uu, ridge))


class _Found(NamedTuple):
    """The fields of `geoframe.solve._weak.Optimum`, to be filled. R and s hold the start."""

    R: Array
    s: Array
    values: Array
    strict: Array
    steps: Array

    @staticmethod
    def room(R: Tensor, s: Tensor, method: Method) -> _Found:
        """Room for as many poses as there are in R (..., 3, 3) and s (...), which are copied."""
        shape = tuple(s.shape)
        values = np.empty((*shape, method.to_values.shape[1]))
        start = arrays(R.clone(), s.clone())
        return _Found(start[0], start[1], values, np.empty(shape, np.bool_), np.empty(shape, np.int64))

    def tensors(self) -> tuple[Tensor, ...]:
        """The same memory."""
        return tuple(torch.from_numpy(x) for x in self)


def newton(
    mom: Moments, which: Tensor | None, R: Tensor, s: Tensor, ridge: Tensor, method: Method
) -> tuple[Tensor, ...]:
    """The fields of `geoframe.solve._weak.Optimum`, from R (N, 3, 3) and s (N,) of the problems `which` (N,)."""
    N, n = len(s), mom.G.shape[1]
    problems, found = _Problems.of(mom, ridge), _Found.room(R, s, method)
    rows = np.arange(N) if which is None else arrays(which)[0]

    def run(first: int, last: int) -> None:
        _newton(problems, rows, method, first, last, found)

    in_parts(run, N, n * n * 50)
    return found.tensors()


def alternate(
    mom: Moments, R: Tensor, s: Tensor, ridge: Tensor, method: Method, n: int
) -> tuple[Tensor, ...]:
    """The fields of n further `geoframe.solve._weak.Optimum`, stacked (n, N, ...), as `_weak.alternate`."""
    N, K = len(s), mom.G.shape[1] - 1
    problems = _Problems.of(mom, ridge)
    found = _Found.room(R.expand(n + 1, N, 3, 3), s.expand(n + 1, N), method)

    def run(first: int, last: int) -> None:
        _alternate(problems, method, first, last, found)

    in_parts(run, N, n * (K * K * (20 + K // 3) + 1000))
    return tuple(x[1:] for x in found.tensors())


def reflected(
    mom: Moments, best: tuple[Tensor, ...], ridge: Tensor, method: Method, near: tuple[float, float]
) -> tuple[Tensor, ...]:
    """The fields of the `geoframe.solve._weak.Optimum` next to the poses `best` reflected, as `_weak.reflected`; `near`
    are its REFLECTED and SAME."""
    N, n = len(ridge), mom.G.shape[1]
    problems, found = _Problems.of(mom, ridge), _Found(*arrays(*(x.clone() for x in best)))

    def run(first: int, last: int) -> None:
        _reflected(problems, method, near, first, last, found)

    in_parts(run, N, n * n * 50)
    return found.tensors()


def arrays(*tensors: Tensor) -> list[Array]:
    """The contents of tensors on the CPU, contiguous."""
    return [x.detach().contiguous().numpy() for x in tensors]


def coefficients(mom: Moments, R: Tensor, s: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor]:
    """As `geoframe.solve._weak.coefficients`, and the objective there (N,)."""
    N, n = mom.G.shape[:2]
    problems, given = _Problems.of(mom, ridge), arrays(R, s)
    c, value = np.empty((N, n)), np.empty(N)

    def run(first: int, last: int) -> None:
        _best_coefficients(problems, *given, first, last, c, value)

    in_parts(run, N, n * n * (9 + n // 3))
    return torch.from_numpy(c)[:, 1:], torch.from_numpy(value)


def in_parts(run: Callable[[int, int], None], n: int, each: int) -> None:
    """``run(first, last)`` for n problems of about `each` multiplications, by several threads where it is worth it."""
    parts = 1 if n * each < _ALONE else min(4 * torch.get_num_threads(), n)
    share(run, list(pairwise([n * i // parts for i in range(parts + 1)])))


@compiled
def _one(problems, p):
    """One of the problems."""
    return _Problems(problems.G[p], problems.H[p], problems.uu[p], problems.ridge[p])


@compiled
def _newton(problems, which, method, first, last, found):
    room = _room(problems.G.shape[1], method.to_cross.shape[1])
    for i in range(first, last):
        _into(
            found,
            i,
            _descend(_one(problems, which[i]), method, found.R[i], found.s[i], found.values[i], room),
        )


@compiled
def _into(found, i, ended):
    """Scale, strictness and steps of one pose; rotation and values are there already."""
    found.s[i], found.strict[i], found.steps[i] = ended


@compiled
def _alternate(problems, method, first, last, found):
    """`found` with one axis more in front: number 0 is given, one after another is found."""
    n = problems.G.shape[1]
    spare, c, room = _factors(n), np.empty(n), _room(1, method.to_cross.shape[1])
    rigid, each = _Problems(np.empty((1, 1, 3, 3)), np.empty((1, 2, 3)), 0.0, 0.0), np.empty(9 * n)
    for p in range(first, last):
        one = _one(problems, p)
        for i in range(1, len(found.s)):
            R, s = found.R[i - 1, p], found.s[i - 1, p]
            _coefficients(one, R, s, spare, c)
            _collapse(one, c, each, rigid)
            copy(R, found.R[i, p])
            shape = _Problems(rigid.G, rigid.H, one.uu, 0.0)
            found.s[i, p], found.strict[i, p], found.steps[i, p] = _descend(
                shape, method, found.R[i, p], s, found.values[i, p], room
            )


@compiled
def _reflected(problems, method, near, first, last, found):
    n, d = problems.G.shape[1], method.to_cross.shape[1]
    spare, c, room, values = _factors(n), np.empty(n), _room(n, d), np.empty(1 + d + d * d)
    rigid, each = _Problems(np.empty((1, 1, 3, 3)), np.empty((1, 2, 3)), 0.0, 0.0), np.empty(9 * n)
    V, lam, R, along = np.empty((3, 3)), np.empty(3), np.empty((3, 3)), np.empty(3)
    furthest, same = near
    for p in range(first, last):
        one, best, s = _one(problems, p), found.R[p], found.s[p]
        _coefficients(one, best, s, spare, c)
        _collapse(one, c, each, rigid)
        eigen(rigid.G[0, 0], V, lam)
        thin = np.argmin(lam)
        for i in range(3):
            along[i] = best[i, 0] * V[0, thin] + best[i, 1] * V[1, thin] + best[i, 2] * V[2, thin]
        away = 0.0
        for i in range(3):
            for j in range(3):
                R[i, j] = (-1.0 if i == 2 else 1.0) * (best[i, j] - 2 * along[i] * V[j, thin])
                away += (R[i, j] - best[i, j]) ** 2
        if not away > 2 * same * same:
            continue
        _evaluate(one, method, R, s, room[0], values)
        if values[0] - found.values[p, 0] <= furthest * one.uu:
            copy(R, best)
            _into(found, p, _descend(one, method, best, s, found.values[p], room))


@compiled
def _collapse(one, c, each, rigid):
    """The rigid problem of the shape with the coefficients c (n,), one first; `each` (9 n,) is spare memory."""
    n = len(c)
    weighted(one.G.reshape(n, 9 * n), c, each)
    weighted(each.reshape(n, 9), c, rigid.G.reshape(9))
    weighted(one.H.reshape(n, 6), c, rigid.H.reshape(6))


@compiled
def _factors(n):
    """Matrix and Cholesky factor of the equations of n - 1 coefficients."""
    return np.empty((n - 1, n - 1)), np.empty((n - 1, n - 1))


@compiled
def _room(n, d):
    """Memory of `_descend` and, first, of `_evaluate`."""
    inner = _factors(n), np.empty(n), np.empty((n, 9)), np.empty((n - 1, d))
    return inner, np.empty(1 + d + d * d), np.empty((d, d)), np.empty((d, d)), np.empty((d, d)), np.empty(d)


@compiled
def _descend(one, method, R, s, values, room):
    """From R, changed in place, and s to a minimum: s there, whether it is strict, steps; `values` are filled."""
    inner, trial, hessian, L, V, step = room
    d, turned = len(step), np.empty((3, 3))
    size = one.uu + s * s * (one.G[0, 0, 0, 0] + one.G[0, 0, 1, 1] + one.G[0, 0, 2, 2])
    copy(R, turned)
    scale, values[0], radius, length, decrement, steps = s, np.inf, 0.35, 0.0, np.inf, 0
    while True:
        _evaluate(one, method, turned, scale, inner, trial)
        if trial[0] <= values[0] + 1e-14 * size:
            copy(turned, R)
            copy(trial, values)
            s, radius = scale, min(2 * radius, 1.0)
        else:
            radius = min(radius, length) / 4
        decrement = _step(values, hessian, L, V, step)
        if radius <= 1e-9 or not decrement > method.asked * size or steps == method.most:
            break
        length = 0.0
        for k in range(d):
            length += step[k] * step[k]
        length = math.sqrt(length)
        for k in range(d):
            step[k] *= min(radius / max(length, 1e-300), 1.0)
        turn_by(step, R, turned)
        scale = s * math.exp(step[3]) if d == 4 else s
        steps += 1
    _take_hessian(values, hessian)
    eigen(hessian, V, step)
    return s, decrement <= method.enough * size and min(step) > 1e-9 * max(step), steps


@compiled
def _evaluate(one, method, R, s, room, values):
    """Objective, gradient and Hessian at the best coefficients, as `geoframe.solve._weak.model`."""
    spare, c, each, cross = room
    n, d, L = len(c), method.to_cross.shape[1], spare[1]
    solved = _coefficients(one, R, s, spare, c)
    Y, Z, z = np.zeros(9), np.zeros(6), np.empty(15)
    weighted(one.G.reshape(n, 9 * n), c, each.reshape(9 * n))
    weighted(each, c, Y)
    for k in range(1, n):  # G_kl is the transpose of G_lk
        for i, j in ((1, 3), (2, 6), (5, 7)):
            each[k, i], each[k, j] = each[k, j], each[k, i]
    weighted(one.H.reshape(n, 6), c, Z)
    _turned(Y, Z, R, s, z)
    values[:] = 0.0
    for i in range(15):
        for j in range(len(values)):
            values[j] += z[i] * method.to_values[i, j]
    values[0] += one.uu
    for k in range(1, n):
        values[0] += one.ridge * c[k] * c[k]
    if not solved:
        return
    for k in range(n - 1):
        _turned(each[k + 1], one.H[k + 1].reshape(6), R, s, z)
        for j in range(d):
            total = 0.0
            for i in range(15):
                total += z[i] * method.to_cross[i, j]
            for m in range(k):  # forward substitution
                total -= L[k, m] * cross[m, j]
            cross[k, j] = total / L[k, k]
        for i in range(d):
            for j in range(d):
                values[1 + d + i * d + j] -= cross[k, i] * cross[k, j] / 2


@compiled
def _best_coefficients(problems, R, s, first, last, c, value):
    """The objective at the best coefficients is that of the template less ``c^T A c``, with the factor L of A."""
    n = problems.G.shape[1]
    spare = _factors(n)
    for p in range(first, last):
        one = _one(problems, p)
        solved = _coefficients(one, R[p], s[p], spare, c[p])
        value[p] = one.uu
        for i in range(2):
            for a in range(3):
                along = 0.0
                for b in range(3):
                    along += one.G[0, 0, a, b] * R[p, i, b]
                value[p] += s[p] * R[p, i, a] * (s[p] * along - 2 * one.H[0, i, a])
        for m in range(n - 1 if solved else 0):
            along = 0.0
            for k in range(m, n - 1):
                along += spare[1][k, m] * c[p, k + 1]
            value[p] -= along * along


@compiled
def _coefficients(one, R, s, spare, c):
    """c (n,): one, then the best coefficients. The factor of their equations is in `spare`; returned, whether there is
    one."""
    A, L = spare
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
                    total += one.G[k + 1, m + 1, a, b] * S[a, b]
            if m < 0:
                c[k + 1] = -total
            else:
                A[k, m] = total
        for a in range(3):
            c[k + 1] += s * (R[0, a] * one.H[k + 1, 0, a] + R[1, a] * one.H[k + 1, 1, a])
        trace += A[k, k]
    lift = one.ridge + LIFT * trace
    for k in range(K):
        A[k, k] += lift if lift > 0 else 1.0
    solved = cholesky(A, L)
    if solved:
        solve(L, c[1:])
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
    if cholesky(hessian, L):
        solve(L, step)
    else:
        lam = np.empty(d)
        eigen(hessian, V, lam)
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
