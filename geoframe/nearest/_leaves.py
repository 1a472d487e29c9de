"""Compiled loops of `nearest_coherent`: queries gathered in small balls, and the candidates of each ball."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled, compiled_sums

LANES = 16  # scores compared at a time; tables are padded to a multiple
CHUNK = 256  # scores that are summed up at a time: their table stays in the cache


@compiled_sums
def gather_leaves(x: Any, most: int, order: Any, start: Any) -> int:
    """Halve rows of x (n, D) float32 across their longest direction until no part has more than `most`.

    `order` (n,) becomes the rows part after part, `start` (n + 1,) where parts begin, n last. Returns how many parts.
    """
    n, D = x.shape
    along = np.empty(n, x.dtype)
    stack = np.empty((n + 1, 2), np.int64)  # parts to be looked at, the first one on top
    for i in range(n):
        order[i] = i
    stack[0, 0], stack[0, 1] = 0, n
    depth, parts = 1, 0
    while depth > 0:
        depth -= 1
        a, b = stack[depth, 0], stack[depth, 1]
        middle = b
        if b - a > most:
            near = _farthest(x, order[a:b], x[order[a]])
            far = _farthest(x, order[a:b], x[near])
            total = 0.0
            for i in range(a, b):
                s, row = x.dtype.type(0), x[order[i]]
                for d in range(D):
                    s += row[d] * (x[far, d] - x[near, d])
                along[i] = s
                total += s
            middle = _parted(order, along, a, b, total / (b - a))
            if min(middle - a, b - middle) < (b - a) // 8:  # a few far rows are no half
                middle = _parted(order, along, a, b, np.median(along[a:b]))
        if a < middle < b:
            stack[depth, 0], stack[depth, 1] = middle, b
            stack[depth + 1, 0], stack[depth + 1, 1] = a, middle
            depth += 2
        else:  # small, or all alike
            start[parts] = a
            parts += 1
    start[parts] = n
    return parts


@compiled_sums
def _farthest(x: Any, rows: Any, point: Any) -> int:
    best, where = x.dtype.type(-1), rows[0]
    for r in rows:
        s, row = x.dtype.type(0), x[r]
        for d in range(len(point)):
            s += (row[d] - point[d]) ** 2
        if s > best:
            best, where = s, r
    return int(where)


@compiled
def _parted(order: Any, along: Any, a: int, b: int, limit: float) -> int:
    """Rows a to b with those up to the limit first; where the others begin."""
    i, j = a, b - 1
    while True:
        while i <= j and along[i] <= limit:
            i += 1
        while i <= j and along[j] > limit:
            j -= 1
        if i >= j:
            return i
        order[i], order[j] = order[j], order[i]
        along[i], along[j] = along[j], along[i]


@compiled_sums
def middles(x: Any, start: Any, centre: Any, radius: Any) -> None:
    """Mean (L, D) of the rows start[l] to start[l + 1] of x (n, D), and the largest distance (L,) from it."""
    D = x.shape[1]
    for m in range(len(radius)):
        a, b = start[m], start[m + 1]
        centre[m] = 0
        for i in range(a, b):
            for d in range(D):
                centre[m, d] += x[i, d]
        for d in range(D):
            centre[m, d] /= b - a
        top = x.dtype.type(0)
        for i in range(a, b):
            s = x.dtype.type(0)
            for d in range(D):
                s += (x[i, d] - centre[m, d]) ** 2
            top = max(top, s)
        radius[m] = np.sqrt(top)


@compiled
def nearest_of_leaves(
    first: int,
    scores: Any,
    start: Any,
    radius: Any,
    x: Any,
    points: Any,
    half: Any,
    exact_x: Any,
    exact_points: Any,
    reach: float,
    slack: float,
    answer: Any,
) -> None:
    """The nearest points of the rows of some leaves.

    Args:
        first: number of the first leaf.
        scores: (L, M) float32 scores ``<c, p> - |p|^2 / 2`` of the leaves' centres, M padded to LANES with -inf.
        start: row at which each leaf begins, and the end of the last.
        radius: of each leaf.
        x: (n, D) float32 rows.
        points: (N, D) float32.
        half: (N,) float32 ``|p|^2 / 2``.
        exact_x: the rows as they were given, for the decision in float64.
        exact_points: the points as they were given.
        reach: no two points are farther apart.
        slack: more than the rounding errors in the difference of two scores.
        answer: (n,) int64, written.
    """
    N, D = points.shape
    some, kept = np.empty(N, np.int64), np.empty(N, np.int64)
    table, value = np.empty((D, N), points.dtype), np.empty(N, points.dtype)
    for m in range(len(scores)):
        row, rho = scores[m], radius[first + m]
        a, b = start[first + m], start[first + m + 1]
        best = _highest(row)
        limit = best - rho * reach - slack
        n_some, top = 0, 0
        for j in range(N):
            if row[j] >= limit:
                some[n_some] = j
                n_some += 1
                if row[j] == best:
                    top = j
        n = _within(row, some[:n_some], points, points[top], best - slack, rho, kept)
        for c in range(n):
            for d in range(D):
                table[d, c] = points[kept[c], d]
        _answers(x[a:b], exact_x[a:b], table, value, kept[:n], half, exact_points, slack, answer[a:b])


@compiled
def _highest(row: Any) -> float:
    """The largest entry of a row of a multiple of LANES."""
    lanes = row[:LANES].copy()
    for j in range(LANES, len(row), LANES):
        for i in range(LANES):
            lanes[i] = row[j + i] if row[j + i] > lanes[i] else lanes[i]
    return lanes.max()  # type: ignore[no-any-return]


@compiled_sums
def _within(row: Any, some: Any, points: Any, near: Any, limit: float, rho: float, kept: Any) -> int:
    """Of `some` points those that a query at a distance of rho from the centre may prefer to `near`: how many."""
    n = 0
    for j in some:
        s, p = points.dtype.type(0), points[j]
        for d in range(len(near)):
            s += (p[d] - near[d]) ** 2
        if row[j] + rho * np.sqrt(s) >= limit:
            kept[n] = j
            n += 1
    return n


@compiled_sums
def _answers(
    x: Any,
    exact_x: Any,
    table: Any,
    value: Any,
    kept: Any,
    half: Any,
    exact_points: Any,
    slack: float,
    answer: Any,
) -> None:
    """The best of the kept points for each row: by float32, and where that leaves several by float64."""
    n, D = len(kept), len(table)
    for i in range(len(x)):
        for c in range(n):
            value[c] = -half[kept[c]]
        for a in range(0, n, CHUNK):
            part = value[a : min(a + CHUNK, n)]
            for d in range(D):
                s, line = x[i, d], table[d, a:]
                for c in range(len(part)):
                    part[c] += s * line[c]
        best, where = value[0], 0
        for c in range(1, n):
            if value[c] > best:
                best, where = value[c], c
        limit, several = best - slack, 0
        for c in range(n):
            several += value[c] >= limit
        if several > 1:
            least = np.inf
            for c in range(n):
                if value[c] >= limit:
                    p, total = exact_points[kept[c]], 0.0
                    for d in range(D):
                        total += (np.float64(exact_x[i, d]) - np.float64(p[d])) ** 2
                    if total < least:
                        least, where = total, c
        answer[i] = kept[where]
