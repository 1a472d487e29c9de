"""Exact nearest neighbours of queries for which a near point is known already.

ZoomOut asks again and again for the nearest of points that move little from step to step, so that the answer of the
step before is a good guess. Its distance is the reach of a query: the nearest point lies in the ball of that radius
around the query. Near-by queries are gathered in cells, cells in patches; a ball around a cell holds the balls of
its queries. The points in the balls of a patch's cells, a few per cent of all, are tried against its queries.

All of it is one kind of matrix product in float32: with the row ``(-2 c, 1, |c|^2 - r^2)`` of a ball and the row
``(p, |p|^2, 1)`` of a point, their product is not above zero where the point is in the ball. Radii are rounded up by
a bound of the error, so that no nearest point is lost, and float64 decides between what is left: the answer is that
of brute force in float64, of equally near points the lowest.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from geoframe.nearest import best_of_pairs, lowest_score

PATCH = 80  # queries of a patch, at most
SPLIT = 20  # coordinates, the smoothest, along which patches are cut
RADIUS = 0.45  # of a cell, in units of the distance between unrelated rows
MANY = 64  # points in the reach of a query, on average over a patch, from which brute force is the better way
_CACHE = 2**21  # scores that stay in the cache
_UNIT = 1.02 * 2.0**-24  # rounding of float32; the excess is for terms of second order


@dataclass(frozen=True, eq=False)
class Patches:
    """Queries (Q,) cut into B patches of S, and these into G cells.

    rows: (B, S) indices, each query in one patch; the last of a smaller patch is repeated.
    cell: (B, S) number of the cell. first: B + 1 numbers, the first cell of each patch, and G.
    """

    rows: Tensor
    cell: Tensor
    first: list[int]


def patches(x: Tensor, size: int = PATCH) -> Patches:
    """Patches of at most PATCH rows, and of about `size`, of x (Q, K) on the CPU, whose columns have mean square
    one, such as eigenfunctions at unit area."""
    rows = _halves(x[:, :SPLIT].numpy(), max(min(size, PATCH), 2))
    x = x.float()[rows]
    B, S, K = x.shape
    square = x.square().sum(2)
    # Farthest point sampling in each patch, until all are near a sample. Rows that have nothing to do with each
    # other are sqrt(2 K) apart.
    limit = (RADIUS**2) * 2 * K
    distance = square.new_full((B, S), torch.inf)
    cell = torch.zeros(B, S, dtype=torch.int64)
    every, sample = torch.arange(B), torch.zeros(B, dtype=torch.int64)
    for n in range(S):
        new = x[every, sample]
        d = square + square[every, sample, None] - 2 * torch.bmm(x, new[:, :, None])[:, :, 0]
        nearer = (d < distance) & (distance.amax(1, keepdim=True) > limit)
        cell[nearer] = n
        distance = torch.where(nearer, d, distance)
        sample = distance.argmax(1)
        if float(distance.max()) <= limit:
            break
    count = cell.amax(1) + 1
    first = count.cumsum(0) - count
    return Patches(rows, cell + first[:, None], [*first.tolist(), int(count.sum())])


def _halves(x: np.ndarray, size: int) -> Tensor:
    """(B, S) indices of rows of x, halved across the longest side of each part until none has more than `size`."""
    order, start = np.arange(len(x)), np.array([0, len(x)])
    while np.diff(start).max() > size:
        ordered = x[order]
        extent = np.maximum.reduceat(ordered, start[:-1]) - np.minimum.reduceat(ordered, start[:-1])
        part = np.repeat(np.arange(len(start) - 1), np.diff(start))
        key = ordered[np.arange(len(x)), extent.argmax(1)[part]]
        order = order[np.lexsort((key, part))]
        start = np.sort(np.concatenate([start, (start[:-1] + start[1:]) // 2]))
    slot = np.minimum(start[:-1, None] + np.arange(np.diff(start).max()), start[1:, None] - 1)
    return torch.from_numpy(order[slot])


def nearest_by_guess(query: Tensor, points: Tensor, guess: Tensor, cut: Patches, *, block: int) -> Tensor:
    """Index (Q,) of the nearest point of each query, as if computed in float64 by brute force; ties to the lowest.

    Args:
        query: (Q, D) and points: (N, D), float64 on the CPU. guess: (Q,) into points, the nearer the faster.
        cut: patches of the queries, or of what is near where these are near.
        block: number of scores held at a time (4 bytes each).
    """
    D = query.shape[1]
    q, p = query.float(), _point_rows(points)
    q_size, p_size = q.norm(dim=1), p[:, D].max().sqrt()
    if not 1e-12 < float(p_size + q_size.max()) < 1e12:  # squares could leave the range of float32
        return lowest_score(query, points, block=block)
    wide = (
        1 + (D + 8) * _UNIT
    )  # rounding of a norm; that of query and point is less than _UNIT times their size
    reach = ((q - p[guess, :D]).norm(dim=1) + 3 * _UNIT * (q_size + p_size)) * wide
    centre, radius = _around(q, reach, cut)
    cells = _ball_rows(centre, radius * wide, p_size)
    balls = _ball_rows(q, reach, p_size)
    found = []
    for rows, near in zip(cut.rows, _inside(cells, cut.first, p, block), strict=True):
        i, j, score = _pairs(balls[rows], p, near)
        if len(i) > MANY * len(rows):
            i, j = torch.arange(len(rows)), lowest_score(query[rows], points, block=block)
            score = torch.zeros(len(rows))
        found.append((rows[i], j, score))
    i, j, score = (torch.cat(x) for x in zip(*found, strict=True))
    error = _error(q_size, reach, p_size, D)
    best = torch.full_like(error, torch.inf).scatter_reduce(0, i, score, "amin")
    keep = score <= (best + 2 * error)[i]
    return best_of_pairs(query, points, None, i[keep], j[keep], block)


def _point_rows(points: Tensor) -> Tensor:
    """(N, D + 2) float32 rows ``(p, |p|^2, 1)``."""
    D = points.shape[1]
    out = torch.empty(len(points), D + 2)
    out[:, :D] = points
    out[:, D] = out[:, :D].square().sum(1)
    out[:, D + 1] = 1
    return out


def _ball_rows(centre: Tensor, radius: Tensor, p_size: Tensor) -> Tensor:
    """(M, D + 2) rows ``(-2 c, 1, |c|^2 - r^2)``, a little lower: times the row of a point inside it is not above 0."""
    D = centre.shape[1]
    out = torch.empty(len(centre), D + 2)
    torch.mul(centre, -2, out=out[:, :D])
    out[:, D] = 1
    square = centre.square().sum(1)
    out[:, D + 1] = square - radius.square() - _error(square.sqrt(), radius, p_size, D)
    return out


def _error(size: Tensor, radius: Tensor, p_size: Tensor, D: int) -> Tensor:
    """Bound of what rounding does to the product of a ball's row and a point's."""
    return (2 * D + 16) * _UNIT * ((size + p_size).square() + radius.square())


def _around(q: Tensor, reach: Tensor, cut: Patches) -> tuple[Tensor, Tensor]:
    """Centres (G, D) and radii (G,) of balls around the cells that hold the balls of their queries."""
    G, cell, rows = cut.first[-1], cut.cell.view(-1), cut.rows.view(-1)
    members = q[rows]
    centre = (
        q.new_zeros(G, q.shape[1]).index_add_(0, cell, members) / torch.bincount(cell, minlength=G)[:, None]
    )
    spread = members.sub_(centre[cell]).norm(dim=1) + reach[rows]
    return centre, q.new_zeros(G).scatter_reduce(0, cell, spread, "amax")


def _inside(cells: Tensor, first: list[int], p: Tensor, block: int) -> Iterator[Tensor]:
    """For each patch the points (n,) inside the balls of its cells."""
    N = len(p)
    most = max(min(block, _CACHE) // N, max(b - a for a, b in pairwise(first)))  # cells at a time
    buffer = p.new_empty(most * N)
    start = stop = 0
    while stop < len(first) - 1:
        start, stop = stop, bisect(first, first[stop] + most) - 1
        part = cells[first[start] : first[stop]]
        scores = torch.mm(part, p.T, out=buffer[: len(part) * N].view(len(part), N))
        for least in scores.split([b - a for a, b in pairwise(first[start : stop + 1])]):
            yield torch.from_numpy(np.flatnonzero((least.amin(0) <= 0).numpy()))


def _pairs(balls: Tensor, p: Tensor, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of the points `near` are in which ball: indices of balls and points, and the products of their rows."""
    score = p.index_select(0, near) @ balls.T
    hit = torch.from_numpy(np.flatnonzero((score <= 0).numpy()))  # torch.nonzero takes ten times as long
    return hit % len(balls), near[hit // len(balls)], score.view(-1)[hit]
