"""Vertices evenly spread over a surface, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled
from geoframe._types import Floats, Ints


def spread_vertices(points: Floats, mass: Floats, n: int) -> tuple[Ints, Floats]:
    """`n` of some points, each the farthest from those before it, and the mass nearest to each.

    Args:
        points: (N, 3), N >= n; the first one chosen is the farthest from the origin.
        mass: (N,).
        n: how many.

    Returns:
        chosen: (n,) int64.
        share: (n,), the sum of `mass` over the points that are nearest to each.
    """
    chosen = np.empty(n, np.int64)
    nearest = _spread(np.ascontiguousarray(points.T), chosen)
    return chosen, np.bincount(nearest, mass, minlength=n).astype(np.float64)


@compiled
def _spread(points: Any, chosen: Any) -> Any:
    x, y, z = points
    gap = np.full(len(x), np.inf)
    nearest = np.zeros(len(x), np.int64)
    best = 0
    for i in range(len(x)):
        if x[i] ** 2 + y[i] ** 2 + z[i] ** 2 > x[best] ** 2 + y[best] ** 2 + z[best] ** 2:
            best = i
    for k in range(len(chosen)):
        chosen[k] = best
        a, b, c = x[best], y[best], z[best]
        best, widest = 0, -1.0
        for i in range(len(x)):
            d = (x[i] - a) ** 2 + (y[i] - b) ** 2 + (z[i] - c) ** 2
            if d < gap[i]:
                gap[i] = d
                nearest[i] = k
            if gap[i] > widest:
                widest = gap[i]
                best = i
    return nearest
