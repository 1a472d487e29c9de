"""The compiled loops of `geoframe.surface.closest`: points of triangles that are closest to others."""

from __future__ import annotations

import numpy as np

from geoframe._compiled import compiled
from geoframe._types import Floats, Ints


def weights_of(points: Floats, corners: Floats) -> Floats:
    """(n, 3) barycentric weights of the points of triangles (n, 3, 3) closest to points (n, 3)."""
    out = np.empty((len(points), 3))
    _each(_plain(points), _plain(corners), out)
    return out


def nearest_of(points: Floats, corners: Floats, near: Ints) -> tuple[Ints, Floats]:
    """Of triangles `near` (n, k) the one (n,) that comes closest to each point (n, 3), and weights (n, 3) there."""
    face, out = np.empty(len(points), np.int64), np.empty((len(points), 3))
    _nearest(_plain(points), _plain(corners), near, face, out)
    return face, out


def _plain(x: Floats) -> Floats:
    """As the loops are compiled for."""
    return np.require(x, np.float64, ["C", "W"])


@compiled
def _dot(u, v, w, x, y, z):
    return u * x + v * y + w * z


@compiled
def _over(x, y):
    return x / (1e-300 if abs(y) < 1e-300 else y)


@compiled
def _weights(px, py, pz, t):
    """By the regions of the plane (Ericson 2005, Real-Time Collision Detection, section 5.1.5)."""
    ux, uy, uz = t[1, 0] - t[0, 0], t[1, 1] - t[0, 1], t[1, 2] - t[0, 2]
    vx, vy, vz = t[2, 0] - t[0, 0], t[2, 1] - t[0, 1], t[2, 2] - t[0, 2]
    x, y, z = px - t[0, 0], py - t[0, 1], pz - t[0, 2]
    d1, d2 = _dot(ux, uy, uz, x, y, z), _dot(vx, vy, vz, x, y, z)
    if d1 <= 0 and d2 <= 0:
        return 1.0, 0.0, 0.0
    x, y, z = px - t[1, 0], py - t[1, 1], pz - t[1, 2]
    d3, d4 = _dot(ux, uy, uz, x, y, z), _dot(vx, vy, vz, x, y, z)
    if d3 >= 0 and d4 <= d3:
        return 0.0, 1.0, 0.0
    x, y, z = px - t[2, 0], py - t[2, 1], pz - t[2, 2]
    d5, d6 = _dot(ux, uy, uz, x, y, z), _dot(vx, vy, vz, x, y, z)
    if d6 >= 0 and d5 <= d6:
        return 0.0, 0.0, 1.0
    vc = d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        s = _over(d1, d1 - d3)
        return 1 - s, s, 0.0
    vb = d5 * d2 - d1 * d6
    if vb <= 0 and d2 >= 0 and d6 <= 0:
        s = _over(d2, d2 - d6)
        return 1 - s, 0.0, s
    va = d3 * d6 - d5 * d4
    if va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        s = _over(d4 - d3, (d4 - d3) + (d5 - d6))
        return 0.0, 1 - s, s
    total = max(va + vb + vc, 1e-300)
    return va / total, vb / total, vc / total


@compiled
def _each(points, corners, out):
    for i in range(len(points)):
        a, b, c = _weights(points[i, 0], points[i, 1], points[i, 2], corners[i])
        out[i, 0], out[i, 1], out[i, 2] = a, b, c


@compiled
def _nearest(points, corners, near, face, out):
    for i in range(len(points)):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        least = np.inf
        for k in range(near.shape[1]):
            f = near[i, k]
            t = corners[f]
            a, b, c = _weights(px, py, pz, t)
            x = a * t[0, 0] + b * t[1, 0] + c * t[2, 0] - px
            y = a * t[0, 1] + b * t[1, 1] + c * t[2, 1] - py
            z = a * t[0, 2] + b * t[1, 2] + c * t[2, 2] - pz
            gap = x * x + y * y + z * z
            if k == 0 or gap < least:
                least = gap
                face[i] = f
                out[i, 0], out[i, 1], out[i, 2] = a, b, c
