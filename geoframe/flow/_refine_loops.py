"""Compiled loops of the variational refinement."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled, compiled_sums, share
from geoframe._types import Array

_SMALL = 0.001**2  # of the robust penalty sqrt(x + small), in squared grey values or pixels
_FLAT = 0.1**2  # added to squared gradients where data terms are normalised by them
_OVER = 1.9  # relaxation
_ROWS = 32  # of the image that a thread takes at a time


def data_terms(first: Array, second: Array, flow: Array, weights: Array) -> Array:
    """Matrix and right side of the data terms, linearised around a flow.

    Args:
        first: (C, H, W) float32, image 0.
        second: (C, H1, W1) float32, image 1.
        flow: (2, H, W) float32.
        weights: (2,) of the constancy of the image and of that of its two gradients.

    Returns:
        (5, H, W) float32: a11, a12, a22, b1, b2; zeros where the flow leads out of image 1.
    """
    H, W = flow.shape[1:]
    out = np.zeros((5, H, W), np.float32)
    weights = weights.astype(np.float32)

    def run(low: int, high: int) -> None:
        _data_rows(first, second, flow, weights, low, high, out)

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
def _data_rows(first: Any, second: Any, flow: Any, weights: Any, low: int, high: int, out: Any) -> None:
    """Data terms of a strip of rows, from two rows more above and below: gradients of gradients reach so far."""
    (C, H, W), (H1, W1) = first.shape, second.shape[1:]
    top, n = max(low - 2, 0), min(high + 2, H) - max(low - 2, 0)
    wide = np.empty((12, n, W + 2), np.float32)  # a column more on each side, which continues the border
    mean, change, mean_x, mean_y, change_x, change_y, xx, xy, yx, yy = wide[:10]
    sums = np.zeros((2, 6, n, W), np.float32)
    for c in range(C):
        _warp_rows(first[c], second[c], flow, top, mean, change)
        _slopes(mean, mean_x, mean_y)
        _slopes(change, change_x, change_y)
        _slopes(mean_x, xx, xy)
        _slopes(mean_y, yx, yy)
        _add_terms(mean_x, mean_y, change, sums[0])
        _add_terms(xx, xy, change_x, sums[1])
        _add_terms(yx, yy, change_y, sums[1])
    robust = np.empty(W, np.float32)
    for t in range(2):  # the two gradients share one penalty
        for y in range(low, high):
            u, v, total = flow[0, y], flow[1, y], sums[t, 0, y - top]
            for x in range(W):
                at_x, at_y = x + np.float32(0.5) + u[x], y + np.float32(0.5) + v[x]
                seen = (at_x >= 0) & (at_x <= W1) & (at_y >= 0) & (at_y <= H1)
                robust[x] = seen * weights[t] / (np.float32(2) * np.sqrt(total[x] + np.float32(_SMALL)))
            for k in range(5):
                part, goal = sums[t, k + 1, y - top], out[k, y]
                for x in range(W):
                    goal[x] += robust[x] * part[x]


@compiled_sums
def _warp_rows(first: Any, second: Any, flow: Any, top: int, mean: Any, change: Any) -> None:
    """One channel: means of image 0 and of image 1 where the flow leads, and their difference; the border goes on."""
    (H1, W1), (n, W) = second.shape, (mean.shape[0], flow.shape[2])
    for i in range(n):
        y = top + i
        for x in range(W):
            at_x = min(max(x + flow[0, y, x], np.float32(0)), np.float32(W1 - 1))
            at_y = min(max(y + flow[1, y, x], np.float32(0)), np.float32(H1 - 1))
            left, above = int(at_x), int(at_y)
            right, below = min(left + 1, W1 - 1), min(above + 1, H1 - 1)
            u, v = at_x - np.float32(left), at_y - np.float32(above)
            upper = second[above, left] + u * (second[above, right] - second[above, left])
            lower = second[below, left] + u * (second[below, right] - second[below, left])
            warped = upper + v * (lower - upper)
            mean[i, x + 1] = np.float32(0.5) * (first[y, x] + warped)
            change[i, x + 1] = warped - first[y, x]
        mean[i, 0], mean[i, W + 1] = mean[i, 1], mean[i, W]
        change[i, 0], change[i, W + 1] = change[i, 1], change[i, W]


@compiled_sums
def _slopes(values: Any, along: Any, down: Any) -> None:
    """Central differences of a strip; one-sided at its border."""
    n, wide = values.shape
    half = np.float32(0.5)
    for i in range(n):
        above, here, below = values[max(i - 1, 0)], values[i], values[min(i + 1, n - 1)]
        a, d = along[i], down[i]
        for x in range(1, wide - 1):
            a[x] = half * (here[x + 1] - here[x - 1])
        for x in range(wide):
            d[x] = half * (below[x] - above[x])
        a[0], a[wide - 1] = a[1], a[wide - 2]


@compiled_sums
def _add_terms(dx: Any, dy: Any, dt: Any, sums: Any) -> None:
    """Squares and products of the linearised constancy, beside its slope."""
    for i in range(sums.shape[1]):
        x, y, t, total = dx[i, 1:], dy[i, 1:], dt[i, 1:], sums[0, i]
        a11, a12, a22, b1, b2 = sums[1, i], sums[2, i], sums[3, i], sums[4, i], sums[5, i]
        for k in range(len(total)):
            w = np.float32(1) / (x[k] * x[k] + y[k] * y[k] + np.float32(_FLAT))
            wx, wy, wt = w * x[k], w * y[k], w * t[k]
            total[k] += wt * t[k]
            a11[k] += wx * x[k]
            a12[k] += wx * y[k]
            a22[k] += wy * y[k]
            b1[k] -= wx * t[k]
            b2[k] -= wy * t[k]


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
            u, v = np.float32(0), np.float32(0)  # of the pixel on the left, not read again from memory
            for x in range(W):
                i, j = y + 1, x + 1
                left, next_, above, under = across[i, j - 1], across[i, j], below[i - 1, j], below[i, j]
                su = next_ * du[i, j + 1] + above * du[i - 1, j] + under * du[i + 1, j] + left * u
                sv = next_ * dv[i, j + 1] + above * dv[i - 1, j] + under * dv[i + 1, j] + left * v
                couple = given[y, x, 4]
                u = du[i, j] + over * ((given[y, x, 0] - couple * dv[i, j] + su) * given[y, x, 2] - du[i, j])
                v = dv[i, j] + over * ((given[y, x, 1] - couple * u + sv) * given[y, x, 3] - dv[i, j])
                du[i, j], dv[i, j] = u, v
    step[:] = wide[:, 1:-1, 1:-1]
