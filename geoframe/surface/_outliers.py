"""Compiled loops of `geoframe.surface.outliers`: middles of clouds, and the layers at their bottoms."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled_sums

_FEW = 16  # values between two bounds that are sorted


@compiled_sums
def centred(clouds: Any, by_median: bool, origin: Any, size: Any, out: Any) -> None:
    """Clouds (B, N, 3) about their medians, over the median or the maximum of the points' largest coordinates.

    Args:
        clouds: (B, N, 3).
        by_median: whether the median of the largest coordinates is the unit (unless it is 0), or their maximum.
        origin: (B, 3), to be overwritten: the medians.
        size: (B,), to be overwritten: the unit.
        out: (B, N, 3), to be overwritten.
    """
    B, N = clouds.shape[:2]
    x, far = np.empty((3, N), clouds.dtype), np.empty(N, clouds.dtype)
    for i in range(B):
        for c in range(3):
            for n in range(N):
                x[c, n] = clouds[i, n, c]
            middle = _ranked(x[c], (N - 1) // 2)
            origin[i, c] = middle
            for n in range(N):
                x[c, n] -= middle
        most = 0.0
        for n in range(N):
            far[n] = max(abs(x[0, n]), abs(x[1, n]), abs(x[2, n]))
            most = max(most, far[n])
        usual = _ranked(far, (N - 1) // 2) if by_median else most
        size[i] = usual if usual > 0 else most
        scale = 1 / max(size[i], 1e-300)
        for n in range(N):
            for c in range(3):
                out[i, n, c] = x[c, n] * scale


@compiled_sums
def medians(rows: Any, out: Any) -> None:
    """The lower median (R,) of each of several rows (R, N)."""
    for i in range(len(rows)):
        out[i] = _ranked(rows[i], (rows.shape[1] - 1) // 2)


@compiled_sums
def _ranked(x: Any, rank: int) -> float:
    """The value of x (N,) that has `rank` values before it in their order.

    Bounds are halved until few values lie between them: counting takes a fraction of the time of moving values about.
    """
    low = high = x[0]
    for n in range(len(x)):
        low, high = min(low, x[n]), max(high, x[n])
    below, upto, closed = 0, len(x), True  # how many are below `low`, and below `high`, or up to it at first
    while upto - below > _FEW:
        middle = low / 2 + high / 2
        if not low < middle < high:
            break
        count = 0
        for n in range(len(x)):
            count += x[n] < middle
        if count > rank:
            high, upto, closed = middle, count, False
        else:
            low, below = middle, count
    if upto - below > _FEW:  # neighbouring numbers, or infinite ones
        return np.sort(x)[rank]
    few, n_few = np.empty(_FEW, x.dtype), 0
    for n in range(len(x)):
        if low <= x[n] and (x[n] < high or (closed and x[n] == high)):
            s = n_few
            while s > 0 and few[s - 1] > x[n]:
                few[s] = few[s - 1]
                s -= 1
            few[s] = x[n]
            n_few += 1
    return few[rank - below]


@compiled_sums
def layers(clouds: Any, up: int, thick: float, reach: float, level: Any, slab: Any, counts: Any) -> None:
    """The lowest layers of clouds, and how much of them reaches beyond what is above.

    Args:
        clouds: (B, N, 3).
        up: the vertical axis.
        thick: of the layer, over the smaller one of the height and the longest side of the cloud.
        reach: beyond the box of what is above, over its longest horizontal side.
        level: (B, 2), to be overwritten: heights of the layers, and their thickness.
        slab: (B, N) bool, to be overwritten: points within a layer's thickness of it, and all below.
        counts: (B, 2) int64, to be overwritten: points of the layer, and those that reach beyond.
    """
    B, N = clouds.shape[:2]
    a, b = (up + 1) % 3, (up + 2) % 3
    z, low, high = np.empty(N, clouds.dtype), np.empty(3, clouds.dtype), np.empty(3, clouds.dtype)
    for i in range(B):
        cloud = clouds[i]
        low[:], high[:] = cloud[0], cloud[0]
        for n in range(N):
            z[n] = cloud[n, up]
            for c in range(3):
                low[c], high[c] = min(low[c], cloud[n, c]), max(high[c], cloud[n, c])
        level[i, 0] = _ranked(z, round(0.02 * (N - 1)))
        size = high - low
        level[i, 1] = thick * min(size.max(), size[up])
        low[:], high[:] = np.inf, -np.inf
        counts[i] = 0
        for n in range(N):
            slab[i, n] = abs(z[n] - level[i, 0]) <= level[i, 1] or z[n] < level[i, 0]
            if slab[i, n]:
                counts[i, 0] += 1
                continue
            for c in range(3):
                low[c], high[c] = min(low[c], cloud[n, c]), max(high[c], cloud[n, c])
        beyond = reach * max(high[a] - low[a], high[b] - low[b])
        for n in range(N):
            x, y = cloud[n, a], cloud[n, b]
            across = x < low[a] - beyond or x > high[a] + beyond
            along = y < low[b] - beyond or y > high[b] + beyond
            counts[i, 1] += slab[i, n] and (across or along)
