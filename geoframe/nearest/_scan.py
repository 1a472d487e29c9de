"""Compiled passes over tables of scores, for exact nearest neighbours on the CPU.

A product of matrices is soon done; reading its result with one tensor operation after another takes as long again.
These read it once or twice, as fast as it comes from the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._compiled import compiled, compiled_sums, share
from geoframe._types import Array


def near_minima(scores: Tensor, best: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """Entries (row, column), each (n,) int64, of `scores` (N, R) that are at most ``best + slack`` of their column.

    `best` (R,) is first lowered to the minima of the columns; `slack` (R,) is not negative.
    """
    table, low, more = scores.numpy(), best.numpy(), slack.numpy()
    _minima(table, low)
    limit = low + more
    room = 4 * table.shape[1] + 64
    while True:
        found = np.empty((2, room), np.int64)
        n = _up_to(table, limit, found)
        if n <= room:
            return torch.from_numpy(found[0, :n]), torch.from_numpy(found[1, :n])
        room = n


@compiled
def _minima(scores: Any, low: Any) -> None:
    for i in range(scores.shape[0]):
        row = scores[i]
        for r in range(len(row)):
            low[r] = min(low[r], row[r])


@compiled
def _up_to(scores: Any, limit: Any, found: Any) -> int:
    """How many entries are at most the limit of their column; as many as there is room for are listed."""
    n, height = 0, 32
    lowest = np.empty(scores.shape[1], scores.dtype)
    for start in range(0, scores.shape[0], height):
        part = scores[start : start + height]
        lowest[:] = np.inf
        _minima(part, lowest)
        for r in range(len(lowest)):
            if lowest[r] <= limit[r]:
                for i in range(part.shape[0]):
                    if part[i, r] <= limit[r]:
                        if n < found.shape[1]:
                            found[0, n], found[1, n] = start + i, r
                        n += 1
    return n


def pairs_in_cells(
    inside: Array,
    balls: Array,
    points: Array,
    slack: Array,
    rows: Array,
    cell: Array,
    room: int,
) -> tuple[Array, Array] | None:
    """Pairs (ball, point) that are certain to hold, for each ball, the point with the lowest product.

    Args:
        inside: (G, N) float32; where it is at most zero, the point is one for the balls of the cell.
        balls: (Q, E) float32 rows.
        points: (N, E) float32 rows.
        slack: (Q,) how far above the lowest product a pair is kept.
        rows: (S,) the balls that are asked for.
        cell: (S,) in 0..G-1, the cell of each.
        room: pairs to return at most.

    Returns:
        Two (n,) int64, or None if there is more than room for.
    """
    found = np.empty((2, room), np.int64)
    n = _in_cells(inside, balls, points, slack, rows, cell, found)
    return None if n > room else (found[0, :n], found[1, :n])


@compiled
def _in_cells(inside: Any, balls: Any, points: Any, slack: Any, rows: Any, cell: Any, found: Any) -> int:
    G, N = inside.shape
    lowest = np.full(N, np.inf, inside.dtype)
    _minima(inside, lowest)
    some = np.flatnonzero(lowest <= 0)
    near, members = np.empty(len(some), np.int64), np.empty(len(rows), np.int64)
    table = np.empty((4, len(some)), inside.dtype)
    n = 0
    for g in range(G):
        row = inside[g]
        n_near = 0
        for j in some:
            if row[j] <= 0:
                near[n_near] = j
                n_near += 1
        n_members = 0
        for s in range(len(rows)):
            if cell[s] == g:
                members[n_members] = rows[s]
                n_members += 1
        for first in range(0, n_members, 4):
            four = members[first : min(first + 4, n_members)]
            _products(balls, four, points, near[:n_near], table)
            for m in range(len(four)):
                scores = table[m, :n_near]
                limit = scores.min() + slack[four[m]]
                for i in range(n_near):
                    if scores[i] <= limit:
                        if n < found.shape[1]:
                            found[0, n], found[1, n] = four[m], near[i]
                        n += 1
    return n


@compiled_sums
def _products(balls: Any, four: Any, points: Any, near: Any, table: Any) -> None:
    """Rows of `table`: products of one to four balls with the points `near`."""
    last = len(four) - 1
    a, b = balls[four[0]], balls[four[min(1, last)]]
    c, d = balls[four[min(2, last)]], balls[four[last]]
    zero = table.dtype.type(0)
    for i in range(len(near)):
        p = points[near[i]]
        s, t, u, v = zero, zero, zero, zero
        for e in range(len(p)):
            s += a[e] * p[e]
            t += b[e] * p[e]
            u += c[e] * p[e]
            v += d[e] * p[e]
        table[0, i] = s
        table[min(1, last), i] = t
        table[min(2, last), i] = u
        table[last, i] = v


def cells_of_patches(x: Tensor, rows: Tensor, limit: float) -> Tensor:
    """Cells (B, S) int64 of the rows (B, S) of x (Q, K): 0, 1, ... in each patch, that of the nearest sample.

    The samples are the first of a patch and then always the farthest from all before, until no squared distance
    is above `limit`.
    """
    points, members = x.numpy(), rows.numpy()
    cell = np.zeros(members.shape, np.int64)

    def run(b: int) -> None:
        _cells(points, members[b], limit, cell[b])

    share(run, [(b,) for b in range(len(members))])
    return torch.from_numpy(cell)


@compiled_sums
def _cells(points: Any, members: Any, limit: float, cell: Any) -> None:
    S = len(members)
    nearest = np.full(S, np.inf)
    sample, n = 0, 0
    while True:
        at = points[members[sample]]
        for s in range(S):
            row, total = points[members[s]], points.dtype.type(0)
            for k in range(len(at)):
                total += (row[k] - at[k]) ** 2
            if total < nearest[s]:
                nearest[s], cell[s] = total, n
        sample = int(np.argmax(nearest))
        n += 1
        if nearest[sample] <= limit or n == S:
            return
