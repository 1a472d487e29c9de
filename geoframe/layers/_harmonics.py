"""Compiled loops of `geoframe.layers.harmonics`: how points are spread around the vertical axis, and scores of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled_sums

RADII, HEIGHTS = 8, 12  # of rings; as constants, so that loops over them become few wide operations
ORDER = 6  # of the B-spline by which a point is spread over the bins around it
_RINGS = RADII * HEIGHTS
_AT_ONCE = 4  # points of a bin that are added to it together: sums are read and written a fourth as often
_ROOM = (
    20  # more columns than points: a group may reach beyond, and rows a power of 2 apart share their cache
)
_F = np.float32
# Polynomials of the angle (odd, to 4e-8 in [0, 1]) and of exp(-x) (to 1e-7 in [0, 1]).
_ATAN = (0.99999934, -0.33329861, 0.19946566, -0.1390863, 0.09642197, -0.05591233, 0.02186296, -0.00405457)


@compiled_sums
def ring_histograms(points: Any, up: int, radii: Any, heights: Any, width: float, out: Any) -> None:
    """Add up, in bins of the angle about the vertical, how much the points of clouds belong to rings.

    Points are sorted by their bin, which decides to which six bins they are added.

    Args:
        points: (B, N, 3) float32.
        up: the vertical axis, 0 to 2.
        radii: (RADII,) of the rings, evenly spaced.
        heights: (HEIGHTS,) of the rings, evenly spaced.
        width: standard deviation of a ring, over the spacing of the rings.
        out: (B, A, HEIGHTS * RADII) float32, to be overwritten: bins are the angles ``2 pi a / A``.
    """
    B, N = points.shape[:2]
    A = out.shape[1]
    unsorted, place = np.empty((3, N), _F), np.zeros((3, N + _ROOM), _F)
    near, high = np.empty((RADII, N + _ROOM), _F), np.empty((HEIGHTS, N + _ROOM), _F)
    close, part = np.zeros((N + _ROOM, RADII), _F), np.empty((ORDER, N + _ROOM), _F)
    end, ring, share = (
        np.empty(A + 1, np.int64),
        np.empty((_AT_ONCE, _RINGS), _F),
        np.empty((_AT_ONCE, ORDER), _F),
    )
    for i in range(B):
        _by_angle(points[i], up, unsorted, end, place)
        _bells(place[0], radii[0], radii[1] - radii[0], width, near)
        _bells(place[1], heights[0], heights[1] - heights[0], width, high)
        _splines(place[2], part)
        for n in range(N):
            for j in range(RADII):
                close[n, j] = near[j, n]
        table, first = out[i], 0
        table[:] = 0
        for c in range(A):
            while first < end[c]:
                for m in range(_AT_ONCE):
                    n = first + m
                    own = n < end[c] and place[0, n] >= _F(1e-6)  # on the axis there is no angle
                    for s in range(ORDER):
                        share[m, s] = part[s, n] if own else _F(0)
                    for k in range(HEIGHTS):
                        weight = high[k, n]
                        for j in range(RADII):
                            ring[m, k * RADII + j] = weight * close[n, j]
                first = min(first + _AT_ONCE, end[c])
                k = (c - ORDER // 2) % A
                for s in range(ORDER):
                    k = k + 1 if k < A - 1 else 0
                    _add(share[0, s], share[1, s], share[2, s], share[3, s], ring, table[k])


@compiled_sums
def _add(a: float, b: float, c: float, d: float, ring: Any, row: Any) -> None:
    for q in range(_RINGS):
        row[q] += a * ring[0, q] + b * ring[1, q] + c * ring[2, q] + d * ring[3, q]


@compiled_sums
def _by_angle(points: Any, up: int, unsorted: Any, end: Any, place: Any) -> None:
    """Radius, height and place in its bin of every point, the rows of `place`, sorted by bins, which end at `end`."""
    A = len(end) - 1
    _polar(points, up, _F(A / (2 * np.pi)), unsorted)
    end[:] = 0
    for n in range(len(points)):
        low = np.floor(unsorted[2, n])
        unsorted[2, n] -= low
        unsorted[0, n] = low + A if low < 0 else low
        end[int(unsorted[0, n]) + 1] += 1
    for c in range(A):
        end[c + 1] += end[c]
    for n in range(len(points)):
        c = int(unsorted[0, n])
        k = end[c]
        place[0, k], place[1, k], place[2, k] = unsorted[1, n], points[n, up], unsorted[2, n]
        end[c] = k + 1


@compiled_sums
def _polar(points: Any, up: int, bins: float, out: Any) -> None:
    """Radius and angle of points, rows 1 and 2 of `out`; the angle is in bins of a radian."""
    a, b = (up + 1) % 3, (up + 2) % 3
    for n in range(len(points)):
        x, y = points[n, a], points[n, b]
        most, least = max(abs(x), abs(y)), min(abs(x), abs(y))
        t = least / max(most, _F(1e-30))
        square, angle = t * t, _F(_ATAN[7])
        for c in (_ATAN[6], _ATAN[5], _ATAN[4], _ATAN[3], _ATAN[2], _ATAN[1], _ATAN[0]):
            angle = angle * square + _F(c)
        angle = angle * t
        angle = _F(np.pi / 2) - angle if abs(y) > abs(x) else angle
        angle = _F(np.pi) - angle if x < 0 else angle
        out[1, n] = np.sqrt(x * x + y * y)
        out[2, n] = (-angle if y < 0 else angle) * bins


@compiled_sums
def _bells(x: Any, first: float, between: float, width: float, out: Any) -> None:
    """Gaussians of x, never below exp(-30), about the first centre, the second, ..., the rows of `out`."""
    scale, step, one = _F(1 / (width * between)), 1 / width, _F(1)
    for j in range(len(out)):
        row, centre = out[j], _F(j * step)
        for n in range(len(x)):
            off = (x[n] - _F(first)) * scale - centre
            y = min(off * off, _F(60)) * _F(1 / 64)  # exp(-y) to the power of 32
            e = _F(1 / 120) - y * (_F(1 / 720) - y * _F(1 / 5040))
            e = one - y * (one - y * (_F(1 / 2) - y * (_F(1 / 6) - y * (_F(1 / 24) - y * e))))
            e *= e
            e *= e
            e *= e
            e *= e
            row[n] = e * e


@compiled_sums
def _splines(t: Any, part: Any) -> None:
    """The shares of six bins in points at t in [0, 1) between the two middle ones: a B-spline, which sums to 1."""
    f = _F(1 / 120)
    for n in range(len(t)):
        x = t[n]
        u, square = 1 - x, x * x
        part[0, n] = f * u * u * u * u * u
        part[1, n] = f * (26 + x * (-50 + x * (20 + x * (20 + x * (-20 + 5 * x)))))
        part[2, n] = f * (66 + square * (-60 + square * (30 - 10 * x)))
        part[3, n] = f * (26 + x * (50 + x * (20 + x * (-20 + x * (-20 + 10 * x)))))
        part[4, n] = f * (1 + x * (5 + x * (10 + x * (10 + x * (5 - 5 * x)))))
        part[5, n] = f * square * square * x


@compiled_sums
def score_series(sums: Any, template: Any, weights: Any, turn: Any, out: Any) -> None:
    """The series of fit and symmetry of clouds, whatever the norm of their coefficients.

    Args:
        sums: (B, Q, 2 M) float32, real parts of the Fourier coefficients, then imaginary ones.
        template: (Q, 2 M) likewise, of norm 1.
        weights: (M,) of the orders.
        turn: (2 M,) cosines and sines of twice the plane's direction times the order.
        out: (B, 4 M) float32, to be overwritten: real and imaginary parts of the fit, and of the symmetry.
    """
    B, Q, M = sums.shape[0], sums.shape[1], len(weights)
    for i in range(B):
        series = out[i]
        square = np.zeros(M, _F)
        series[:] = 0
        for q in range(Q):
            cloud, other = sums[i, q], template[q]
            for m in range(M):
                a, b, c, d = cloud[m], cloud[M + m], other[m], other[M + m]
                series[m] += a * c + b * d
                series[M + m] += b * c - a * d
                series[2 * M + m] += a * a - b * b
                series[3 * M + m] += 2 * a * b
                square[m] += a * a + b * b
        total = 0.0
        for m in range(M):
            total += square[m] * weights[m]
        fit, mirror = 1 / max(np.sqrt(total), 1e-12), 1 / max(total, 1e-24)
        for m in range(M):
            c, s = turn[m], turn[M + m]
            a, b = series[2 * M + m], series[3 * M + m]
            series[m] *= weights[m] * fit
            series[M + m] *= weights[m] * fit
            series[2 * M + m] = weights[m] * mirror * (a * c - b * s)
            series[3 * M + m] = weights[m] * mirror * (a * s + b * c)


@compiled_sums
def climb(series: Any, symmetry: float, steps: int, largest: float, angle: Any) -> None:
    """Newton's steps from angles (B,) to the highest score near them.

    Args:
        series: (B, 4 M), see `score_series`.
        symmetry: weight of its part.
        steps: how many.
        largest: of a step, radians.
        angle: (B,) float32, changed.
    """
    M = series.shape[1] // 4
    for i in range(len(angle)):
        x = float(angle[i])
        for _ in range(steps):
            slope = bend = 0.0
            for part in range(2):
                turn = (1 + part) * x
                c, s = np.cos(turn), np.sin(turn)
                cos, sin, weight = 1.0, 0.0, symmetry if part else 1.0
                for m in range(M):
                    cos, sin = cos * c - sin * s, sin * c + cos * s
                    a, b = weight * series[i, 2 * part * M + m], weight * series[i, (2 * part + 1) * M + m]
                    order = (1 + part) * (m + 1)
                    slope -= order * (a * sin + b * cos)
                    bend -= order * order * (a * cos - b * sin)
            step = slope / min(bend, -1e-6) if bend < 0 else 0.0
            x -= min(max(step, -largest), largest)
        angle[i] = x
