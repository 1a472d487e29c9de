"""Compiled loops over the points of clouds: how far the nearest ones are."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled_sums

_CELLS = 10  # a side of the grid
_WIDE = 64  # numbers that are worked on at once
_NONE: Any = np.int64(0x7FFFFFFFFFFFFFFF)  # farther than any point


@compiled_sums
def spacings_around(clouds: Any, seen: Any, k: int, own: Any, around: Any) -> None:
    """As `spacing_around`, of clouds (B, N, 3)."""
    for i in range(len(clouds)):
        spacing_around(clouds[i], seen, k, own[i], around[i])


@compiled_sums
def spacing_around(points: Any, seen: Any, k: int, own: Any, around: Any) -> None:
    """Mean distances (N,) from points (N, 3) float32 to their k nearest of points[seen], and the means of these.

    A point is no neighbour of itself. Points lie in the cells of a grid about the middle of those of `seen`; what is
    outside counts in the outer cells. The cells around a cell are gathered once for all points in it, which is enough
    for most of them; for the others shells of cells follow until nothing nearer can come.
    """
    N, M, G = len(points), len(seen), _CELLS
    cell, inset, side = _cells(points, seen)
    start, member = _sorted(cell, seen)
    first, order = _sorted(cell, np.arange(N))
    table = np.empty((M, 3), np.float32)
    for m in range(M):
        table[m] = points[member[m]]
    near, which = np.empty(k, np.float32), np.empty((N, k), np.int64)
    some, number, key = (
        np.zeros((4, M + _WIDE), np.float32),
        np.zeros(M + _WIDE, np.int64),
        np.empty(M + _WIDE, np.int64),
    )
    for j in range(G**3):
        if first[j] == first[j + 1]:
            continue
        first_shells = _gather(table, member, start, j, 0, some, number, 0)
        first_shells = _gather(table, member, start, j, 1, some, number, first_shells)
        for t in range(first[j], first[j + 1]):
            i, n, r = order[t], first_shells, 2
            _take(points[i], i, some, number, n, key, near, which[i])
            while r < G and near[k - 1] > ((r - 1 + inset[i]) * side) ** 2:
                n = _gather(table, member, start, j, r, some, number, n)
                _take(points[i], i, some, number, n, key, near, which[i])
                r += 1
            total = 0.0
            for s in range(k):
                total += np.sqrt(near[s])
            own[i] = total / k
    for i in range(N):
        total = 0.0
        for s in range(k):
            total += own[which[i, s]]
        around[i] = total / k


@compiled_sums
def _cells(points: Any, seen: Any) -> Any:
    """Numbers (N,) of the cells of points, how far (N,) these are from the walls of theirs, in sides, and the side."""
    N, M, G = len(points), len(seen), _CELLS
    middle, rms = np.zeros(3), 0.0
    for m in range(M):
        for c in range(3):
            middle[c] += points[seen[m], c] / M
    for m in range(M):
        for c in range(3):
            rms += (points[seen[m], c] - middle[c]) ** 2 / M
    side = max(5 * np.sqrt(rms / 3) / G, 1e-30)
    cell, inset = np.zeros(N, np.int64), np.ones(N)
    for i in range(N):
        for c in range(3):
            t = (points[i, c] - middle[c]) / side + G / 2
            at = int(min(max(t, 0.0), G - 1.0))
            cell[i] = cell[i] * G + at
            inset[i] = min(inset[i], max(min(t - at, at + 1 - t), 0.0))
    return cell, inset, side


@compiled_sums
def _sorted(cell: Any, rows: Any) -> Any:
    """Where the rows in every cell start, and the rows by their cells."""
    start = np.zeros(_CELLS**3 + 1, np.int64)
    for m in range(len(rows)):
        start[cell[rows[m]] + 1] += 1
    for j in range(_CELLS**3):
        start[j + 1] += start[j]
    place, member = start[:-1].copy(), np.empty(len(rows), np.int64)
    for m in range(len(rows)):
        j = cell[rows[m]]
        member[place[j]] = rows[m]
        place[j] += 1
    return start, member


@compiled_sums
def _gather(table: Any, member: Any, start: Any, j: int, r: int, some: Any, number: Any, n: int) -> int:
    """Put the points of the shell r of cells around cell j behind the first n of `some` and `number`; how many now."""
    G = _CELLS
    ca, cb, cc = j // (G * G), j // G % G, j % G
    for a in range(max(ca - r, 0), min(ca + r + 1, G)):
        for b in range(max(cb - r, 0), min(cb + r + 1, G)):
            inner = abs(a - ca) < r and abs(b - cb) < r
            for half in range(2 if inner else 1):  # of a column both ends, or all of it at once
                low, high = max(cc - r, 0), min(cc + r, G - 1)
                if inner:
                    low = high = cc - r if half == 0 else cc + r
                if low < 0 or high >= G:
                    continue
                at = (a * G + b) * G
                for m in range(start[at + low], start[at + high + 1]):
                    number[n] = member[m]
                    some[0, n], some[1, n], some[2, n] = table[m, 0], table[m, 1], table[m, 2]
                    n += 1
    return n


@compiled_sums
def _take(point: Any, i: int, some: Any, number: Any, n: int, key: Any, near: Any, which: Any) -> None:
    """The nearest of the first n of `some` (3 and a free row, M) to point i: squared distances and numbers.

    Distance and place are one whole number, as floating numbers from 0 on are ordered like their bits: the lowest is
    found without a branch, and as often as neighbours are asked for. Arrays have room for `_WIDE` more than M, as
    rounds of a loop that do not fill a wide operation are slow.
    """
    x, y, z = point[0], point[1], point[2]
    distance = some[3]
    bits, last = distance.view(np.int32), (n + _WIDE - 1) // _WIDE * _WIDE
    least: Any = np.int64(-1)
    for m in range(last):
        distance[m] = (some[0, m] - x) ** 2 + (some[1, m] - y) ** 2 + (some[2, m] - z) ** 2
    for m in range(last):
        key[m] = _NONE if number[m] == i else np.int64(bits[m]) << 32 | m
    key[n:last] = _NONE
    for s in range(len(near)):
        before, least = least, _NONE
        for m in range(last):
            least = min(least, key[m] if key[m] > before else _NONE)
        if least == _NONE:
            near[s], which[s] = np.inf, i
        else:
            m = least & 0xFFFFFFFF
            near[s], which[s] = distance[m], number[m]


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


@compiled_sums
def boxes(points: Any, low: Any, high: Any) -> None:
    """Lowest and highest corners (B, 3) of clouds (B, N, 3); NaN where a coordinate of the cloud is not finite."""
    for i in range(len(points)):
        a, b, c = points[i, 0, 0], points[i, 0, 1], points[i, 0, 2]
        d, e, f = a, b, c
        nothing = 0 * a
        for n in range(points.shape[1]):
            x, y, z = points[i, n, 0], points[i, n, 1], points[i, n, 2]
            nothing += 0 * x + 0 * y + 0 * z
            a, b, c = min(a, x), min(b, y), min(c, z)
            d, e, f = max(d, x), max(e, y), max(f, z)
        low[i, 0], low[i, 1], low[i, 2] = a + nothing, b + nothing, c + nothing
        high[i, 0], high[i, 1], high[i, 2] = d + nothing, e + nothing, f + nothing
