"""Compiled loop of `geoframe.layers.harmonics`: how the points of clouds are spread around the vertical axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled_sums

ORDER = 6  # of the B-spline by which a point is spread over the bins around it


@compiled_sums
def ring_histograms(points: Any, up: int, radii: Any, heights: Any, width: float, out: Any) -> None:
    """Add up, in bins of the angle about the vertical, how much the points of clouds belong to rings.

    Args:
        points: (B, N, 3) float32.
        up: the vertical axis, 0 to 2.
        radii: (R,) of the rings, evenly spaced.
        heights: (H,) of the rings, evenly spaced.
        width: standard deviation of a ring, over the spacing of the rings.
        out: (B, A, R * H) float32, to be overwritten: bins are the angles ``2 pi a / A``.
    """
    B, N = points.shape[:2]
    A, R, H = out.shape[1], len(radii), len(heights)
    a, b = (up + 1) % 3, (up + 2) % 3
    near, high = np.empty(R, np.float32), np.empty(H, np.float32)
    ring, part = np.empty(R * H, np.float32), np.empty(ORDER)
    between = (radii[1] - radii[0], heights[1] - heights[0])
    fall = np.exp(-1 / (width * width))
    for i in range(B):
        for k in range(A):
            for q in range(R * H):
                out[i, k, q] = 0
        for n in range(N):
            x, y, z = points[i, n, a], points[i, n, b], points[i, n, up]
            r = np.sqrt(x * x + y * y)
            if r < 1e-6:
                continue  # on the axis there is no angle
            _bells((r - radii[0]) / between[0], width, fall, near)
            _bells((z - heights[0]) / between[1], width, fall, high)
            for j in range(R):
                for k in range(H):
                    ring[j * H + k] = near[j] * high[k]
            at = np.arctan2(y, x) / (2 * np.pi) * A
            low = int(np.floor(at))
            _spline(at - low, part)
            k = (low - ORDER // 2) % A
            for s in range(ORDER):
                k = k + 1 if k < A - 1 else 0
                share = np.float32(part[s])
                for q in range(R * H):
                    out[i, k, q] += share * ring[q]


@compiled_sums
def _bells(x: float, width: float, fall: float, out: Any) -> None:
    """Gaussians about 0, 1, 2, ... at x, never below exp(-30); by products, as exponentials take longer. `fall` is that
    of two that are beside each other, squared."""
    u, step = min(max(x / width, -40.0), 40.0), 1 / width
    value, ratio = np.exp(-0.5 * u * u), np.exp(u * step - 0.5 * step * step)
    for j in range(len(out)):
        out[j] = max(value, 1e-13)
        value *= ratio
        ratio *= fall


@compiled_sums
def _spline(t: float, part: Any) -> None:
    """The shares of ORDER bins in a point at t in [0, 1) between the two middle ones: a B-spline, which sums to 1."""
    part[0] = 1.0
    for n in range(1, ORDER):
        share = 1.0 / n
        part[n] = share * t * part[n - 1]
        for s in range(n - 1, 0, -1):
            part[s] = share * ((t + n - s) * part[s - 1] + (s + 1 - t) * part[s])
        part[0] = share * (1 - t) * part[0]
