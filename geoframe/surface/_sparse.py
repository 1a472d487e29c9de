"""Compiled loops over the points of clouds: how far the nearest ones are."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled_sums

_CELLS = 12  # a side of the grid


@compiled_sums
def spacing_around(points: Any, seen: Any, k: int, own: Any, around: Any) -> None:
    """Mean distances (N,) from points (N, 3) to their k nearest of points[seen], and the means of these over the k.

    A point is no neighbour of itself. The points of `seen` lie in the cells of a grid about their middle, and cells are
    looked at in shells around a point's own until nothing nearer can come; what is outside counts in the outer cells.
    """
    N, M, G = len(points), len(seen), _CELLS
    middle, rms = np.zeros(3), 0.0
    for m in range(M):
        for c in range(3):
            middle[c] += points[seen[m], c] / M
    for m in range(M):
        for c in range(3):
            rms += (points[seen[m], c] - middle[c]) ** 2 / M
    side = max(5 * np.sqrt(rms / 3) / G, 1e-30)
    cell, start = np.empty((N, 3), np.int64), np.zeros(G**3 + 1, np.int64)
    table = np.empty((M, 3), points.dtype)
    for i in range(N):
        for c in range(3):
            cell[i, c] = int(min(max((points[i, c] - middle[c]) / side + G / 2, 0.0), G - 1.0))
    for m in range(M):
        a, b, c = cell[seen[m]]
        start[(a * G + b) * G + c + 1] += 1
    for j in range(G**3):
        start[j + 1] += start[j]
    place, member = start[:-1].copy(), np.empty(M, np.int64)
    for m in range(M):
        a, b, c = cell[seen[m]]
        j = (a * G + b) * G + c
        member[place[j]] = seen[m]
        table[place[j]] = points[seen[m]]
        place[j] += 1
    near, which = np.empty(k, points.dtype), np.empty((N, k), np.int64)
    for i in range(N):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        ca, cb, cc = cell[i, 0], cell[i, 1], cell[i, 2]
        for n in range(k):
            near[n], which[i, n] = np.inf, i
        inset = 1.0  # from the point to the nearest wall of its cell
        for c in range(3):
            t = (points[i, c] - middle[c]) / side + G / 2 - cell[i, c]
            inset = min(inset, max(min(t, 1 - t), 0.0))
        for r in range(1, G):
            if near[k - 1] <= ((r - 1 + inset) * side) ** 2:
                break
            for a in range(max(ca - r, 0), min(ca + r + 1, G)):
                for b in range(max(cb - r, 0), min(cb + r + 1, G)):
                    inner = r > 1 and abs(a - ca) < r and abs(b - cb) < r
                    j = (a * G + b) * G
                    for half in range(2 if inner else 1):  # of a column both ends, or all of it at once
                        low, high = max(cc - r, 0), min(cc + r, G - 1)
                        if inner:
                            low = high = cc - r if half == 0 else cc + r
                        if low < 0 or high >= G:
                            continue
                        for m in range(start[j + low], start[j + high + 1]):
                            d = (table[m, 0] - x) ** 2 + (table[m, 1] - y) ** 2 + (table[m, 2] - z) ** 2
                            if d < near[k - 1] and member[m] != i:
                                n = k - 1
                                while n > 0 and near[n - 1] > d:
                                    near[n], which[i, n] = near[n - 1], which[i, n - 1]
                                    n -= 1
                                near[n], which[i, n] = d, member[m]
        total = 0.0
        for n in range(k):
            total += np.sqrt(near[n])
        own[i] = total / k
    for i in range(N):
        total = 0.0
        for n in range(k):
            total += own[which[i, n]]
        around[i] = total / k


@compiled_sums
def least_distances(query: Any, points: Any, distance: Any) -> None:
    """For every one of query (B, Q, 3) the squared distance (B, Q) to the nearest of points (B, N, 3)."""
    B, Q = query.shape[:2]
    x = np.empty((3, Q), query.dtype)
    for i in range(B):
        for q in range(Q):
            distance[i, q] = np.inf
            for c in range(3):
                x[c, q] = query[i, q, c]
        for n in range(points.shape[1]):
            a, b, c = points[i, n, 0], points[i, n, 1], points[i, n, 2]
            for q in range(Q):
                d = (x[0, q] - a) ** 2 + (x[1, q] - b) ** 2 + (x[2, q] - c) ** 2
                distance[i, q] = d if d < distance[i, q] else distance[i, q]
