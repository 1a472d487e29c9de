"""Compiled loops of the variational refinement."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled, compiled_sums, share
from geoframe._types import Array

_SMALL = 0.001**2  # of the robust penalty sqrt(x + small), in squared grey values or pixels
_FLAT = 0.1**2  # added to squared gradients where data terms are normalised by them
_OVER = 1.9  # relaxation


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

    def run(y: int) -> None:
        _data_row(images, inside, weights, y, out)

    share(run, [(y,) for y in range(H)])
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
def _data_row(images: Any, inside: Any, weights: Any, y: int, out: Any) -> None:
    C, W = images.shape[2], images.shape[4]
    for x in range(W):
        if not inside[y, x]:
            continue
        for term in range(3):
            if term == 2:
                continue  # the two gradients share one penalty
            total = 0.0
            a11, a12, a22, b1, b2 = 0.0, 0.0, 0.0, 0.0, 0.0
            for t in range(1 if term == 0 else 2):
                for c in range(C):
                    dx, dy = images[term + t, 0, c, y, x], images[term + t, 1, c, y, x]
                    dt = images[term + t, 2, c, y, x]
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
    H, W = right.shape
    over = np.float32(_OVER)
    du, dv, u, v = step[0], step[1], flow[0], flow[1]
    for _ in range(n_sweeps):
        for y in range(H):
            for x in range(W):
                total, su, sv = np.float32(1e-6), np.float32(0), np.float32(0)
                if x > 0:
                    w = right[y, x - 1]
                    total += w
                    su += w * (u[y, x - 1] + du[y, x - 1] - u[y, x])
                    sv += w * (v[y, x - 1] + dv[y, x - 1] - v[y, x])
                if x + 1 < W:
                    w = right[y, x]
                    total += w
                    su += w * (u[y, x + 1] + du[y, x + 1] - u[y, x])
                    sv += w * (v[y, x + 1] + dv[y, x + 1] - v[y, x])
                if y > 0:
                    w = down[y - 1, x]
                    total += w
                    su += w * (u[y - 1, x] + du[y - 1, x] - u[y, x])
                    sv += w * (v[y - 1, x] + dv[y - 1, x] - v[y, x])
                if y + 1 < H:
                    w = down[y, x]
                    total += w
                    su += w * (u[y + 1, x] + du[y + 1, x] - u[y, x])
                    sv += w * (v[y + 1, x] + dv[y + 1, x] - v[y, x])
                a12 = system[1, y, x]
                a = (system[3, y, x] - a12 * dv[y, x] + su) / (system[0, y, x] + total)
                du[y, x] += over * (a - du[y, x])
                b = (system[4, y, x] - a12 * du[y, x] + sv) / (system[2, y, x] + total)
                dv[y, x] += over * (b - dv[y, x])
