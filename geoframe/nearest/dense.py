"""Exact nearest neighbours in any dimension, with memory bounded by a block size.

`nearest` is what one usually wants. `lowest_score` is its core for many dimensions: the `k` smallest of
``bias_j - 2 query_i . points_j``, one matrix product; with ``bias_j = |points_j|^2`` it is the nearest
neighbour, with other biases a weighted one. It returns indices only, and is the faster for it.

How an answer in float32 is made exact. Let ``e`` bound the rounding error of every float32 score of a row and
``t`` be the k-th smallest score seen. A point whose exact score is among the k smallest has a float32 score of
at most ``t + 2 e``, so the points below that line are certain to hold the answer; where they are more than
one, float64 decides between them. Ties go to the lowest index, in every path.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geoframe._check import as_floats, check_finite, check_float, check_int, check_shape

_BLOCK = 2**23
_CACHE = 2**20  # scores that stay in a processor's cache: products are read once or twice again
_GROUP = 16  # the minima of groups of scores take one pass; single scores are looked at in few groups


def nearest(query: Tensor, points: Tensor, *, k: int = 1, block: int = _BLOCK) -> tuple[Tensor, Tensor]:
    """The `k` nearest of `points` for every row of `query`, as if computed in float64 by brute force.

    Args:
        query: (Q, D) floating; tensors, arrays and lists are taken.
        points: (N, D) on the same device, N >= k.
        k: how many neighbours.
        block: number of scores held at a time (4 bytes each; 20 where all tie).

    Returns:
        index: (Q,) int64 into `points`, or (Q, k) nearest first when k > 1; equal distances by lower index.
        distance: Euclidean, same shape, in the dtype of `query`, without gradient (gather and subtract
            for one).

    Raises:
        TypeError, ValueError: not floating, shapes or devices that do not fit, NaN, k not in 1..N.
    """
    query, points = as_floats(query, "query"), as_floats(points, "points")
    check_neighbours(query, points, k, block)
    with torch.no_grad():
        q, p = query.double(), points.double()
        if query.device.type == "cpu" and query.shape[1] <= 3:
            index = _nearest_tree(q, p, k)
        else:
            index = _lowest(q, p, None, k, block)
        row = torch.arange(len(q), device=q.device).repeat_interleave(k)
        distance = _score_pairs(q, p, None, row, index.reshape(-1), block).sqrt().to(query.dtype).view(-1, k)
    return (index[:, 0], distance[:, 0]) if k == 1 else (index, distance)


def lowest_score(
    query: Tensor, points: Tensor, bias: Tensor | None = None, *, k: int = 1, block: int = _BLOCK
) -> Tensor:
    """The `k` points with the smallest ``bias_j - 2 query_i . points_j``, as if computed in float64.

    Args:
        query: (Q, D) floating; tensors, arrays and lists are taken.
        points: (N, D) on the same device, N >= k.
        bias: (N,) floating; None stands for ``|points_j|^2``, which gives the nearest.
        k: how many.
        block: number of scores held at a time (4 bytes each; 20 where all tie).

    Returns:
        (Q,) int64 into `points`, or (Q, k) lowest first when k > 1; equal scores by lower index.

    Raises:
        TypeError, ValueError: not floating, shapes or devices that do not fit, NaN, k not in 1..N.
    """
    query, points = as_floats(query, "query"), as_floats(points, "points")
    check_neighbours(query, points, k, block)
    if bias is not None:
        bias = as_floats(bias, "bias")
        if bias.shape != (len(points),):
            raise ValueError(f"bias: expected shape ({len(points)},), one a point, found {tuple(bias.shape)}")
        check_finite(bias, "bias")
        bias = bias.double()
    with torch.no_grad():
        index = _lowest(query.double(), points.double(), bias, k, block)
    return index[:, 0] if k == 1 else index


def check_neighbours(query: Tensor, points: Tensor, k: int, block: int) -> None:
    """Require query (Q, D) and points (N, D), floating, finite, on one device, with N >= k."""
    D = check_shape(check_float(query, "query"), "Q D", "query")["D"]
    N = check_shape(check_float(points, "points"), "N D", "points")["N"]
    if points.shape[1] != D:
        raise ValueError(f"points: expected {D} columns as query, found {points.shape[1]}")
    if points.device != query.device:
        raise ValueError(f"points: expected device {query.device} as query, found {points.device}; use .to()")
    if N == 0:
        raise ValueError("points: expected at least one point, found none")
    check_int(k, "k", low=1, high=N)
    check_int(block, "block", low=1)
    for x, name in ((query, "query"), (points, "points")):
        if not bool(x.sum().isfinite()):  # one pass, nothing allocated
            check_finite(x, name)


def _nearest_tree(q: Tensor, p: Tensor, k: int) -> Tensor:
    """Index (Q, k) by a k-d tree; more neighbours are asked for while the last one ties with the k-th."""
    N, Q = len(p), len(q)
    x, y = q.numpy(), p.numpy()
    tree = cKDTree(y)
    index = np.empty((Q, k), np.int64)
    rows, m = np.arange(Q), min(k + 1, N)
    while len(rows):
        d, i = (out.reshape(len(rows), m) for out in tree.query(x[rows], m, workers=torch.get_num_threads()))
        d_sq = ((x[rows, None] - y[i]) ** 2).sum(-1)
        index[rows] = np.take_along_axis(i, np.lexsort((i, d_sq))[:, :k], 1)
        if m == N:
            break
        rows = rows[d[:, -1] <= d[:, k - 1] * (1 + 1e-12)]
        m = min(2 * m, N)
    return torch.as_tensor(index)


def _lowest(
    q: Tensor, p: Tensor, bias: Tensor | None, k: int, block: int, dtype: torch.dtype | None = None
) -> Tensor:
    """Core of both, on float64: (Q, k) index; without `bias` the score is the squared distance.

    Where products in `dtype` leave many candidates (a far outlier among the points makes the error bound
    large), the rows are sieved once more by products in float64.
    """
    Q, N = len(q), len(p)
    dtype = dtype or score_dtype(q.device)
    block = min(block, _CACHE) if q.device.type == "cpu" else block
    group = _GROUP if 4 * _GROUP * k <= N else 1
    q_low, p_low, error = _rounded(q, p, bias, dtype, -(-N // group) * group)
    tile = min(len(p_low), max(block // 512 // group, 1) * group)
    rows = max(block // tile, 1)
    buffer = q_low.new_empty(min(rows, Q) * tile)
    index = torch.empty(Q, k, dtype=torch.int64, device=q.device)
    for start in range(0, Q, rows):
        part = slice(start, start + rows)
        i, j = _candidates(q_low[part], p_low, 2 * error[part], k, group, tile, buffer)
        i, j = i[j < N], j[j < N]
        if len(i) > 16 * k * len(q[part]) and dtype != torch.float64:
            sieve = _lowest_of_different if k == 1 else _lowest
            index[part] = sieve(q[part], p, bias, k, block, torch.float64)
        elif k == 1:
            index[part, 0] = best_of_pairs(q[part], p, bias, i, j, block)
        else:
            index[part] = _decide(i, j, _score_pairs(q[part], p, bias, i, j, block), k)[1]
    return index


def _lowest_of_different(
    q: Tensor, p: Tensor, bias: Tensor | None, k: int, block: int, dtype: torch.dtype
) -> Tensor:
    """As `_lowest` for k = 1, of equal queries and of equal points one each: they would all tie with each other."""
    rows = p if bias is None else torch.cat([p, bias[:, None]], dim=1)
    first = np.sort(np.unique(rows.cpu().numpy(), axis=0, return_index=True)[1])  # the lowest index of each
    kept, same = np.unique(q.cpu().numpy(), axis=0, return_inverse=True)
    few, queries, back = (torch.as_tensor(x, device=q.device) for x in (first, kept, same.reshape(-1)))
    return few[_lowest(queries, p[few], None if bias is None else bias[few], k, block, dtype)][back]


def best_of_pairs(q: Tensor, p: Tensor, bias: Tensor | None, i: Tensor, j: Tensor, block: int) -> Tensor:
    """(Q,) for each query the best j of the pairs (i, j) with points, in float64; each query is in one pair or more."""
    index = torch.empty(len(q), dtype=torch.int64, device=q.device)
    index[i] = j
    several = torch.bincount(i, minlength=len(q))[i] > 1
    i, j = i[several], j[several]
    row, best = _decide(i, j, _score_pairs(q, p, bias, i, j, block), 1)
    index[row] = best[:, 0]
    return index


def _rounded(
    q: Tensor, p: Tensor, bias: Tensor | None, dtype: torch.dtype, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``(q, 1)`` (Q, D + 1) and ``(-2 p, bias)`` (length, D + 1) in `dtype` such that their products are, up to
    a shift and a factor of each query, the scores, or infinite beyond the last point; and for each query a bound (Q,)
    of their error, that of the float64 scores included."""
    D, N = q.shape[1], len(p)
    # Shifts that change all scores of a row alike: smaller numbers have smaller rounding errors.
    centre = p.mean(0)
    q_near, p_near = (q - centre if bias is None else q), p - centre
    q_norm, p_norm = q_near.norm(dim=1), p_near.norm(dim=1)
    b = p_norm**2 if bias is None else bias
    b = b - (b.max() + b.min()) / 2
    q_size, p_size, b_size = (float(x.abs().max()) if len(x) else 0.0 for x in (q_norm, p_norm, b))
    scale_q = max(q_size, 1e-150)  # so that float32 does not overflow, whatever the unit
    scale_p = max(p_size, b_size / scale_q, 1e-150)
    # |computed - exact| <= (D + 5) u (2 |q| |p| + |b|): rounded inputs, D + 1 products and sums, in any order;
    # two more for the comparison itself.
    error = torch.finfo(dtype).eps / 2 * (2 * q_norm * p_size + b_size)
    if bias is None:
        error += 2.0**-52 * (q_norm + p_size) ** 2
    else:
        error += 2.0**-52 * (2 * q_norm * p.norm(dim=1).max() + bias.abs().max())
    error *= 1.02 * (D + 7) / scale_q / scale_p
    q_low, p_low = q.new_ones(len(q), D + 1, dtype=dtype), q.new_zeros(length, D + 1, dtype=dtype)
    q_low[:, :D] = q_near / scale_q
    p_low[:N, :D] = p_near.mul_(-2 / scale_p)
    p_low[:N, D] = b / scale_q / scale_p
    p_low[N:, D] = torch.inf
    return q_low, p_low, ((error + 1e-30) * (1 + 1e-6)).to(dtype)


def score_dtype(device: torch.device) -> torch.dtype:
    """float32, unless float32 products are allowed to use fewer bits, where the error bound would not hold."""
    try:
        reduced = torch.get_float32_matmul_precision() != "highest"
        if device.type == "cuda":
            reduced = reduced or torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:  # set by torch's newer switches, which these do not read
        reduced = True
    return torch.float64 if reduced else torch.float32


def _candidates(
    q: Tensor, p: Tensor, slack: Tensor, k: int, group: int, tile: int, buffer: Tensor
) -> tuple[Tensor, Tensor]:
    """Pairs (query, point) that are certain to hold the k lowest scores ``p q`` of every query."""
    R = len(q)
    if k == 1 and q.device.type == "cpu":
        return _candidates_of_one(q, p, slack, tile, buffer)
    best = q.new_full((k, R), torch.inf)
    found = []
    for start in range(0, len(p), tile):
        p_part = p[start : start + tile]
        n = len(p_part)
        scores = torch.mm(p_part, q.T, out=buffer[: n * R].view(n, R))
        # k lowest group minima are scores of k different points: the k-th lowest score is not above them
        grouped = scores.view(group, n // group, R)
        minima = grouped.amin(0)
        best = _smallest(torch.cat([best, _smallest(minima, k)]), k)
        limit = best[-1] + slack
        at = true_at(minima <= limit)
        g, i = at // R, at % R
        few = grouped[:, g, i]
        at = true_at(few <= limit[i])
        member, pair = at // len(i), at % len(i)
        found.append((i[pair], g[pair] + member * (n // group) + start, few[member, pair]))
    i, j, s = (torch.cat(x) for x in zip(*found, strict=True))
    keep = s <= limit[i]  # the line of the last tile is the lowest
    return i[keep], j[keep]


def _candidates_of_one(
    q: Tensor, p: Tensor, slack: Tensor, tile: int, buffer: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_candidates` for k = 1, by a compiled pass over the scores."""
    from geoframe.nearest._scan import near_minima

    R = len(q)
    best = q.new_full((R,), torch.inf)
    found = []
    for start in range(0, len(p), tile):
        p_part = p[start : start + tile]
        scores = torch.mm(p_part, q.T, out=buffer[: len(p_part) * R].view(len(p_part), R))
        j, i = near_minima(scores, best, slack)
        found.append((i, j + start, scores[j, i]))
    if len(found) == 1:
        return found[0][:2]
    i, j, s = (torch.cat(x) for x in zip(*found, strict=True))
    keep = s <= (best + slack)[i]  # the line of the last tile is the lowest
    return i[keep], j[keep]


def true_at(mask: Tensor) -> Tensor:
    """Ascending indices of the true entries of ``mask.flatten()``; `Tensor.nonzero` takes ten times as long."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero()[:, 0]


def _smallest(x: Tensor, k: int) -> Tensor:
    """The (at most) k smallest of every column, ascending."""
    return x.amin(0, keepdim=True) if k == 1 else x.topk(min(k, len(x)), dim=0, largest=False).values


def _score_pairs(q: Tensor, p: Tensor, bias: Tensor | None, i: Tensor, j: Tensor, block: int) -> Tensor:
    """Float64 scores of pairs, a few at a time."""
    step = max(block // 2 // max(q.shape[1], 1), 1)
    out = []
    for a in range(0, len(i), step):
        rows, columns = i[a : a + step], j[a : a + step]
        x, y = q[rows], p[columns]
        out.append(x.sub_(y).square_().sum(1) if bias is None else bias[columns] - 2 * x.mul_(y).sum(1))
    return torch.cat(out) if out else q.new_empty(0)


def _decide(i: Tensor, j: Tensor, s: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows (R,) that occur in `i`, and for each the k lowest pairs (R, k) by score and then by index."""
    if k == 1:  # without sorting
        row, place = torch.unique(i, return_inverse=True)
        best = s.new_full((len(row),), torch.inf).scatter_reduce_(0, place, s, "amin")
        low = s <= best[place]
        first = j.new_full((len(row),), torch.iinfo(j.dtype).max)
        return row, first.scatter_reduce_(0, place[low], j[low], "amin")[:, None]
    for column in (1, 2, 0):  # stable sorts: the last key counts most
        order = torch.argsort((i, j, s)[column], stable=True)
        i, j, s = i[order], j[order], s[order]
    row, count = torch.unique_consecutive(i, return_counts=True)
    first = count.cumsum(0) - count
    return row, j[first[:, None] + torch.arange(k, device=i.device)]
