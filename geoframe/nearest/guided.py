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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe.nearest.dense import best_of_pairs, lowest_score, score_dtype

PATCH = 160  # queries of a patch, at most
SPLIT = 20  # coordinates, the smoothest, along which patches are cut
RADIUS = 0.4  # of a cell, in units of the distance between unrelated rows
MANY = 64  # points equally near in float32, on average over a patch, that are too many to list
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
    """Patches of rows that lie close together.

    Args:
        x: (Q, K) on the CPU, whose columns have mean square one, such as eigenfunctions at unit area.
        size: rows of a patch, about; at most PATCH.
    """
    from geoframe.nearest._scan import cells_of_patches

    rows = _halves(x[:, :SPLIT].numpy(), max(min(size, PATCH), 2))
    # Farthest point sampling in each patch, until all are near a sample. Rows that have nothing to do with each
    # other are sqrt(2 K) apart.
    cell = cells_of_patches(x.float(), rows, (RADIUS**2) * 2 * x.shape[1])
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


def nearest_by_guess(
    query: Tensor,
    points: Tensor,
    guess: Tensor,
    cut: Patches,
    *,
    block: int,
    bias: Tensor | None = None,
    whole: Tensor | None = None,
) -> Tensor:
    """Index (Q,) of the nearest point of each query, as if computed in float64 by brute force; ties to the lowest.

    Args:
        query: (Q, D) float64 on the CPU.
        points: (N, D) likewise.
        guess: (Q,) into points, the nearer the faster.
        cut: patches of the queries, or of what is near where these are near.
        block: number of scores held at a time (4 bytes each).
        bias: (N,) where query and points are short for longer vectors, the squared length of those of the points.
        whole: (Q, E) then those of the queries, linear in `query`: ``|whole_i|^2 + bias_j - 2 query_i . points_j`` are
            the squared distances.
    """
    if score_dtype(query.device) != torch.float32:  # products would have fewer bits than the bound counts on
        return lowest_score(query, points, bias, block=block)
    q, p = query.float(), _point_rows(points, bias)
    x = q if whole is None else whole.float()
    square, far = x.square().sum(1), _Far.of(p)
    if not 1e-24 < far.square + float(square.max()) < 1e24:  # products could leave the range of float32
        return lowest_score(query, points, bias, block=block)
    known = p[guess]
    reach = (square + known[:, -2] - 2 * (q * known[:, :-2]).sum(1)).clamp_(min=0)
    reach = (reach + far.error(q, square, reach)).sqrt_()
    cells = _ball_rows(*_around(q, x, reach, cut), far)
    balls = _ball_rows(q, square, reach, far)
    slack = 2 * far.error(q, square, reach)
    found, dense = [], []
    for rows, pair in zip(cut.rows, _pairs(cells, balls, p, slack, cut, block), strict=True):
        if pair is None:  # too many points are equally near
            dense.append(rows)
        else:
            found.append(pair)
    if dense:
        rows = torch.cat(dense)
        found.append((rows, lowest_score(query[rows], points, bias, block=block)))
    i, j = (torch.cat(x) for x in zip(*found, strict=True))
    return best_of_pairs(query, points, bias, i, j, block)


def _point_rows(points: Tensor, bias: Tensor | None) -> Tensor:
    """(N, D + 2) float32 rows ``(p, bias, 1)``; without bias it is ``|p|^2``."""
    D = points.shape[1]
    out = torch.empty(len(points), D + 2)
    out[:, :D] = points
    out[:, D] = out[:, :D].square().sum(1) if bias is None else bias
    out[:, D + 1] = 1
    return out


@dataclass(frozen=True)
class _Far:
    """The longest point: as part of products, and the square of its length."""

    product: float
    square: float

    @classmethod
    def of(cls, p: Tensor) -> _Far:
        return cls(float(p[:, :-2].norm(dim=1).max()), float(p[:, -2].max()))

    def error(self, c: Tensor, square: Tensor, radius: Tensor) -> Tensor:
        """Bound (M,) of the rounding errors in a product of the rows of a ball and of a point.

        Sums of D products, of D or 2 D squares and of the queries of a cell, in any order, inputs rounded.
        """
        size = square + radius.square() + self.square + 2 * self.product * c.norm(dim=1)
        return (3 * c.shape[1] + 2 * PATCH + 20) * _UNIT * size


def _ball_rows(c: Tensor, square: Tensor, radius: Tensor, far: _Far) -> Tensor:
    """(M, D + 2) rows ``(-2 c, 1, |c|^2 - r^2)``, a little lower: times the row of a point inside it is not above 0."""
    D = c.shape[1]
    out = torch.empty(len(c), D + 2)
    torch.mul(c, -2, out=out[:, :D])
    out[:, D] = 1
    out[:, D + 1] = square - radius.square() - far.error(c, square, radius)
    return out


def _around(q: Tensor, x: Tensor, reach: Tensor, cut: Patches) -> tuple[Tensor, Tensor, Tensor]:
    """Balls around the cells that hold the balls of their queries: centres (G, D), their squares and radii (G,)."""
    G, cell, rows = cut.first[-1], cut.cell.view(-1), cut.rows.view(-1)
    count = torch.bincount(cell, minlength=G)[:, None]
    members = x[rows]
    middle = x.new_zeros(G, x.shape[1]).index_add_(0, cell, members) / count
    centre = middle if x is q else q.new_zeros(G, q.shape[1]).index_add_(0, cell, q[rows]) / count
    spread = members.sub_(middle[cell]).norm(dim=1) + reach[rows]
    return centre, middle.square().sum(1), spread.new_zeros(G).scatter_reduce(0, cell, spread, "amax")


def _pairs(
    cells: Tensor, balls: Tensor, p: Tensor, slack: Tensor, cut: Patches, block: int
) -> Iterator[tuple[Tensor, Tensor] | None]:
    """For each patch pairs (query, point) that are certain to hold the nearest, None if there are too many.

    A query is only tried against the points in the ball of its cell.
    """
    from geoframe._compiled import share
    from geoframe.nearest._scan import pairs_in_cells

    N, first = len(p), cut.first
    most = max(min(block, _CACHE) // N, max(b - a for a, b in pairwise(first)))  # cells at a time
    buffer = p.new_empty(most * N)
    arrays = balls.numpy(), p.numpy(), slack.numpy()
    rows, cell, room = cut.rows.numpy(), cut.cell.numpy(), MANY * cut.rows.shape[1]
    found: list[Any] = [None] * len(rows)
    start = stop = 0
    while stop < len(rows):
        start, stop = stop, bisect(first, first[stop] + most) - 1
        part = cells[first[start] : first[stop]]
        scores = torch.mm(part, p.T, out=buffer[: len(part) * N].view(len(part), N)).numpy()
        begin = first[start]

        def run(b: int, begin: int = begin, scores: Any = scores) -> None:
            inside = scores[first[b] - begin : first[b + 1] - begin]
            found[b] = pairs_in_cells(inside, *arrays, rows[b], cell[b] - first[b], room)

        share(run, [(b,) for b in range(start, stop)])
    for pair in found:
        yield None if pair is None else (torch.from_numpy(pair[0]), torch.from_numpy(pair[1]))
