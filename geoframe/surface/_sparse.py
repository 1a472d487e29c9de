"""Compiled loop of `geoframe.surface.outliers`: how far the nearest points of clouds are."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled_sums


@compiled_sums
def neighbour_distances(points: Any, seen: Any, k: int, distance: Any, index: Any) -> None:
    """For every one of points (N, 3) the squared distances (N, k) to its nearest of points[seen], and which they are.

    `seen` (M,) is sorted by the first coordinate, along which the search goes both ways until nothing nearer can come.
    A point is no neighbour of itself.
    """
    N, M = len(points), len(seen)
    table = np.empty((M, 3), points.dtype)
    for m in range(M):
        for c in range(3):
            table[m, c] = points[seen[m], c]
    far = points.dtype.type(np.inf)
    near, which = np.empty(k, points.dtype), np.empty(k, np.int64)
    for i in range(N):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for n in range(k):
            near[n], which[n] = far, i
        low, high = 0, M
        while low < high:
            middle = (low + high) // 2
            if table[middle, 0] < x:
                low = middle + 1
            else:
                high = middle
        for way in range(2):
            m = low if way == 0 else low - 1
            while 0 <= m < M:
                a = table[m, 0] - x
                d = a * a
                if d >= near[k - 1]:
                    break
                b, c = table[m, 1] - y, table[m, 2] - z
                d += b * b + c * c
                if d < near[k - 1] and seen[m] != i:
                    n = k - 1
                    while n > 0 and near[n - 1] > d:
                        near[n], which[n] = near[n - 1], which[n - 1]
                        n -= 1
                    near[n], which[n] = d, seen[m]
                m += 1 if way == 0 else -1
        for n in range(k):
            distance[i, n], index[i, n] = near[n], which[n]
