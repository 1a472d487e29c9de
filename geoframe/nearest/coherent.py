"""Exact nearest neighbours of many queries that lie near each other, such as the embeddings of an image's pixels.

Queries are gathered in small balls. Let c be the middle of a ball, r its radius, s(p) = <c, p> - |p|^2 / 2 the score
by which points are compared, and t the best point of c. For a query x = c + d of the ball the score of p grows over
that of t by at most s(p) - s(t) + r |p - t|; where this is negative p is not the nearest of any query of the ball. So
all points are tried against the middles only, which is one matrix product, and some ten against the queries. It does
not matter how far queries are from all points, as it would with the triangle inequality.

As everywhere in this package the answer is that of brute force in float64, of equally near points the lowest.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from geoframe.nearest.dense import check_neighbours, lowest_score, score_dtype

LEAF = 48  # queries of a ball, at most
WINDOW = 8192  # queries that are sorted at a time
FEW = 256  # points for which brute force is as fast
_ERROR = 1.02 * 2.0**-24


def nearest_coherent(query: Tensor, points: Tensor, *, block: int = 2**21) -> Tensor:
    """(Q,) int64: the nearest of `points` for every query, as if computed in float64 by brute force.

    On the CPU ten to thirty times faster than brute force where queries have many queries near them, in whatever
    order they come; on other devices it is brute force.

    Args:
        query: (Q, D) floating.
        points: (N, D) floating, on the same device.
        block: number of scores held at a time (4 bytes each).

    Raises:
        TypeError, ValueError: not floating, shapes or devices that do not fit, NaN.
    """
    check_neighbours(query, points, 1, block)
    Q, N = len(query), len(points)
    plain = query.device.type != "cpu" or score_dtype(query.device) != torch.float32
    if plain or N < FEW or Q < FEW:
        return lowest_score(query, points, block=block)
    from geoframe._compiled import share
    from geoframe.nearest._leaves import LANES, gather_leaves, middles, nearest_of_leaves

    x, p = query.contiguous().float(), points.contiguous().float()
    half = p.double().square().sum(1).div_(2).float()
    x_size, p_size = (float(y.norm(dim=1).max()) for y in (x, p))
    size = x_size + p_size
    if not 1e-12 < size < 1e12:  # products could leave the range of float32
        return lowest_score(query, points, block=block)
    order, starts = np.empty(Q, np.int64), [np.empty(0, np.int64)] * -(-Q // WINDOW)

    def sort(w: int) -> None:
        a, b = w * WINDOW, min((w + 1) * WINDOW, Q)
        start = np.empty(b - a + 1, np.int64)
        n = gather_leaves(x[a:b].numpy(), LEAF, order[a:b], start)
        order[a:b] += a
        starts[w] = start[:n] + a

    share(sort, [(w,) for w in range(len(starts))])
    start = np.concatenate([*starts, [Q]])
    perm = torch.from_numpy(order)
    exact = query[perm]
    x = exact.float()
    L = len(start) - 1
    centre, radius = torch.empty(L, x.shape[1]), torch.empty(L)
    middles(x.numpy(), start, centre.numpy(), radius.numpy())
    radius.mul_(1 + 1e-4).add_(2 * (x.shape[1] + 8) * _ERROR * x_size)
    slack = 4 * (x.shape[1] + 8) * _ERROR * size * p_size
    # scores of the middles: a column of ones takes |p|^2 / 2 along, beyond the last point they are -inf
    rows = pad(torch.cat([p, -half[:, None]], 1), (0, 0, 0, -N % LANES))
    rows[N:, -1] = -torch.inf
    M = len(rows)
    step = max(block // M, 1)
    buffer = x.new_empty(min(step, L) * M)
    answer = np.empty(Q, np.int64)
    arrays = x.numpy(), p.numpy(), half.numpy(), exact.numpy(), points.contiguous().numpy()
    for first in range(0, L, step):
        part = pad(centre[first : first + step], (0, 1), value=1.0)
        n = len(part)
        scores = torch.mm(part, rows.T, out=buffer[: n * M].view(n, M)).numpy()

        def run(a: int, first: int = first, scores: np.ndarray = scores) -> None:
            nearest_of_leaves(
                first + a, scores[a : a + 32], start, radius.numpy(), *arrays, 2 * p_size, slack, answer
            )

        share(run, [(a,) for a in range(0, n, 32)])
    out = torch.empty(Q, dtype=torch.int64)
    out[perm] = torch.from_numpy(answer)
    return out
