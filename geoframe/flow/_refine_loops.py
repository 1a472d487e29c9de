"""Compiled loops of the variational refinement."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled, compiled_sums, share
from geoframe._types import Array

_SMALL = 0.001**2  # of the robust penalty sqrt(x + small), in squared grey values or pixels
_FLAT = 0.1**2  # added to squared gradients where data terms are normalised by them
_OVER = 1.9  # relaxation
_ROWS = 16  # of the image that a thread takes at a time


def data_terms(images: Array, inside: Array, weights: Array) -> Array:
    """Matrix and right side of the linearised data terms.

    Args:
        images: (3, 3, C, H, W): of the colours and of their two gradients the derivatives along x and y and the
            difference in time.
        inside: (H, W) bool, where image 1 is seen.
        weights: (3,) of the colours and of the two gradients.

    Returns:
        (5, H, W) float32: a11, a12, a22, b1, b2.
    """
    H, W = inside.shape
    out = np.zeros((5, H, W), np.float32)

    def run(first: int, last: int) -> None:
        _data_rows(images, inside, weights, first, last, out)

    share(run, [(y, min(y + _ROWS, H)) for y in range(0, H, _ROWS)])
    return out


def smoothness(flow: Array, keep: Array) -> tuple[Array, Array]:
    """Weights (H, W) of the differences to the right neighbour and to the one below; zero at the border."""
    H, W = keep.shape
    right, down = np.zeros((H, W), np.float32), np.zeros((H, W), np.float32)
    _smoothness(flow, keep, right, down)
    return right, down


def relax(system: Array, flow: Array, right: Array, down: Array, n_sweeps: int) -> Array:
    """The step (2, H, W) that solves the linear system, by successive over-relaxation."""
    step = np.zeros_like(flow)
    _relax(system, flow, right, down, n_sweeps, step)
    return step


@compiled_sums
def _data_rows(images: Any, inside: Any, weights: Any, first: int, last: int, out: Any) -> None:
    W = images.shape[4]
    for y in range(first, last):
        for x in range(W):
            if inside[y, x]:
                _data_terms(images, weights, y, x, out)


@compiled_sums
def _data_terms(images: Any, weights: Any, y: int, x: int, out: Any) -> None:
    C = images.shape[2]
    for term in range(2):  # the two gradients share one penalty
        total = 0.0
        a11, a12, a22, b1, b2 = 0.0, 0.0, 0.0, 0.0, 0.0
        for t in range(term, 2 * term + 1):
            for c in range(C):
                dx, dy, dt = images[t, 0, c, y, x], images[t, 1, c, y, x], images[t, 2, c, y, x]
                w = 1.0 / (dx * dx + dy * dy + _FLAT)
                total += w * dt * dt
                a11 += w * dx * dx
                a12 += w * dx * dy
                a22 += w * dy * dy
                b1 -= w * dx * dt
                b2 -= w * dy * dt
        robust = weights[term] / (2.0 * np.sqrt(total + _SMALL))
        out[0, y, x] += robust * a11
        out[1, y, x] += robust * a12
        out[2, y, x] += robust * a22
        out[3, y, x] += robust * b1
        out[4, y, x] += robust * b2


@compiled
def _smoothness(flow: Any, keep: Any, right: Any, down: Any) -> None:
    H, W = keep.shape
    strength = np.empty((H, W), np.float32)
    for y in range(H):
        for x in range(W):
            total = 0.0
            for c in range(2):
                f = flow[c]
                dx = (f[y, min(x + 1, W - 1)] - f[y, max(x - 1, 0)]) / 2
                dy = (f[min(y + 1, H - 1), x] - f[max(y - 1, 0), x]) / 2
                total += dx * dx + dy * dy
            strength[y, x] = keep[y, x] / (2.0 * np.sqrt(total + _SMALL))
    for y in range(H):
        for x in range(W):
            if x + 1 < W:
                right[y, x] = (strength[y, x] + strength[y, x + 1]) / 2
            if y + 1 < H:
                down[y, x] = (strength[y, x] + strength[y + 1, x]) / 2


@compiled_sums
def _relax(system: Any, flow: Any, right: Any, down: Any, n_sweeps: int, step: Any) -> None:
    """What a sweep does not change is computed before; a frame of zeros stands for neighbours outside the image."""
    H, W = right.shape
    over = np.float32(_OVER)
    across, below = np.zeros((H + 2, W + 2), np.float32), np.zeros((H + 2, W + 2), np.float32)
    across[1:-1, 1:-1], below[1:-1, 1:-1] = right, down
    wide = np.zeros((2, H + 2, W + 2), np.float32)
    wide[:, 1:-1, 1:-1] = flow
    given = np.empty((H, W, 5), np.float32)  # right sides of u and v, inverse diagonals, what couples u and v
    for y in range(H):
        for x in range(W):
            i, j = y + 1, x + 1
            left, next_, above, under = across[i, j - 1], across[i, j], below[i - 1, j], below[i, j]
            total = np.float32(1e-6) + left + next_ + above + under
            for c in range(2):
                f = wide[c]
                given[y, x, c] = system[3 + c, y, x] + (
                    left * (f[i, j - 1] - f[i, j])
                    + next_ * (f[i, j + 1] - f[i, j])
                    + above * (f[i - 1, j] - f[i, j])
                    + under * (f[i + 1, j] - f[i, j])
                )
                given[y, x, 2 + c] = np.float32(1) / (system[2 * c, y, x] + total)
            given[y, x, 4] = system[1, y, x]
    wide[:] = 0
    du, dv = wide[0], wide[1]
    for _ in range(n_sweeps):
        for y in range(H):
            for x in range(W):
                i, j = y + 1, x + 1
                left, next_, above, under = across[i, j - 1], across[i, j], below[i - 1, j], below[i, j]
                su = next_ * du[i, j + 1] + above * du[i - 1, j] + under * du[i + 1, j] + left * du[i, j - 1]
                sv = next_ * dv[i, j + 1] + above * dv[i - 1, j] + under * dv[i + 1, j] + left * dv[i, j - 1]
                couple = given[y, x, 4]
                u = du[i, j] + over * ((given[y, x, 0] - couple * dv[i, j] + su) * given[y, x, 2] - du[i, j])
                v = dv[i, j] + over * ((given[y, x, 1] - couple * u + sv) * given[y, x, 3] - dv[i, j])
                du[i, j], dv[i, j] = u, v
    step[:] = wide[:, 1:-1, 1:-1]
