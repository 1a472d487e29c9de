"""Compiled loops of the interpolation: nearest matches through an image, and robust affine fits."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._compiled import compiled, share
from geoframe._types import Array

_TWELFTH = 12  # itself is the first


def nearest_seeds(cost: Array, seeds: Array) -> tuple[Array, Array]:
    """For every pixel the seed with the cheapest way to it, along steps to the four neighbours.

    Args:
        cost: (H, W) float32, positive; a step costs the mean of its two pixels.
        seeds: (N,) flat pixels; of several on one pixel the first counts.

    Returns:
        label: (H, W) int64, the number of the seed.
        distance: (H, W) float32.
    """
    label = np.full(cost.shape, -1, np.int64)
    distance = np.full(cost.shape, np.inf, np.float32)
    _flood(cost, seeds, label, distance)
    return label, distance


def nearest_through(start: Array, to: Array, length: Array, count: int) -> tuple[Array, Array]:
    """For every node of a graph the nearest nodes, itself first.

    Args:
        start: (N + 1,) first edge of each node.
        to: (E,) nodes the edges lead to.
        length: (E,) of the edges.
        count: how many, k.

    Returns:
        nodes (N, k) int64, -1 where there are fewer, and how far they are (N, k) float32.
    """
    N = len(start) - 1
    nodes, far = np.full((N, count), -1, np.int64), np.full((N, count), np.inf, np.float32)

    def run(first: int, last: int) -> None:
        _walk(start, to, length, first, last, nodes, far)

    share(run, [(i, min(i + 512, N)) for i in range(0, N, 512)])
    return nodes, far


def fit_affine(
    near: Array, far: Array, points: Array, motion: Array, trust: Array, reach: float, inlier: float
) -> Array:
    """Affine motions (N, 3, 2): rows are the motion at the node's own point, its change along x, along y.

    Args:
        near: (N, k) neighbours of each node.
        far: (N, k) how far they are.
        points: (N, 2) places of the nodes.
        motion: (N, 2) their motions.
        trust: (N,) weights.
        reach: a neighbour that is so many times as far as the twelfth counts 1 / e.
        inlier: residual beyond which a neighbour counts little.
    """
    out = np.zeros((len(near), 3, 2))

    def run(first: int, last: int) -> None:
        _fit(near, far, points, motion, trust, reach, inlier, first, last, out)

    share(run, [(i, min(i + 512, len(near))) for i in range(0, len(near), 512)])
    return out


@compiled
def _push(key: Any, item: Any, n: int, k: float, i: int) -> int:
    at = n
    while at > 0:
        up = (at - 1) // 2
        if key[up] <= k:
            break
        key[at], item[at] = key[up], item[up]
        at = up
    key[at], item[at] = k, i
    return n + 1


@compiled
def _pop(key: Any, item: Any, n: int) -> int:
    """Remove the first of a heap of n; it is to be read before."""
    n -= 1
    k, i = key[n], item[n]
    at = 0
    while True:
        down = 2 * at + 1
        if down >= n:
            break
        if down + 1 < n and key[down + 1] < key[down]:
            down += 1
        if key[down] >= k:
            break
        key[at], item[at] = key[down], item[down]
        at = down
    key[at], item[at] = k, i
    return n


@compiled
def _flood(cost: Any, seeds: Any, label: Any, distance: Any) -> None:
    H, W = cost.shape
    key, item = np.empty(4 * H * W + len(seeds), np.float32), np.empty(4 * H * W + len(seeds), np.int64)
    n = 0
    for s in range(len(seeds)):
        y, x = seeds[s] // W, seeds[s] % W
        if label[y, x] < 0:
            label[y, x], distance[y, x] = s, 0
            n = _push(key, item, n, np.float32(0), seeds[s])
    while n > 0:
        k, at = key[0], item[0]
        n = _pop(key, item, n)
        y, x = at // W, at % W
        if k > distance[y, x]:
            continue
        for side in range(4):
            i, j = y + (side == 0) - (side == 1), x + (side == 2) - (side == 3)
            if i < 0 or i >= H or j < 0 or j >= W:
                continue
            way = k + np.float32(0.5) * (cost[y, x] + cost[i, j])
            if way < distance[i, j]:
                distance[i, j], label[i, j] = way, label[y, x]
                n = _push(key, item, n, way, i * W + j)


@compiled
def _walk(start: Any, to: Any, length: Any, first: int, last: int, nodes: Any, far: Any) -> None:
    N, count = len(start) - 1, nodes.shape[1]
    best, stamp = np.empty(N, np.float32), np.full(N, -1, np.int64)
    key, item = np.empty(len(to) + 1, np.float32), np.empty(len(to) + 1, np.int64)
    for source in range(first, last):
        n = _push(key, item, 0, np.float32(0), source)
        best[source], stamp[source] = 0, source
        found = 0
        while n > 0 and found < count:
            k, at = key[0], item[0]
            n = _pop(key, item, n)
            if k > best[at]:
                continue
            best[at] = -1  # settled: later entries of the heap are larger
            nodes[source, found], far[source, found] = at, k
            found += 1
            for e in range(start[at], start[at + 1]):
                other, way = to[e], k + np.float32(length[e])
                if stamp[other] != source or way < best[other]:
                    best[other], stamp[other] = way, source
                    n = _push(key, item, n, way, other)


@compiled
def _fit(
    near: Any,
    far: Any,
    points: Any,
    motion: Any,
    trust: Any,
    reach: float,
    inlier: float,
    first: int,
    last: int,
    out: Any,
) -> None:
    k = near.shape[1]
    weight, robust = np.empty(k), np.empty(k)
    for i in range(first, last):
        n = 0
        while n < k and near[i, n] >= 0:
            n += 1
        scale = reach * max(far[i, min(n - 1, _TWELFTH)], np.float32(1e-6))
        n = 0
        while n < k and near[i, n] >= 0:
            weight[n] = np.exp(-far[i, n] / scale) * trust[near[i, n]]
            robust[n] = 1.0
            n += 1
        for attempt in range(5):
            s, sx, sy, sxx, sxy, syy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            u, ux, uy, v, vx, vy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for m in range(n):
                j = near[i, m]
                w = weight[m] * robust[m]
                x, y = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1]
                s += w
                sx += w * x
                sy += w * y
                sxx += w * x * x
                sxy += w * x * y
                syy += w * y * y
                u += w * motion[j, 0]
                ux += w * x * motion[j, 0]
                uy += w * y * motion[j, 0]
                v += w * motion[j, 1]
                vx += w * x * motion[j, 1]
                vy += w * y * motion[j, 1]
            s = max(s, 1e-12)
            mx, my, mu, mv = sx / s, sy / s, u / s, v / s
            ridge = (
                16.0 * s / max(n, 1) + 4.0 * s
            )  # a few pixels squared: few or collinear matches move alike
            a = sxx - s * mx * mx + ridge
            b = sxy - s * mx * my
            c = syy - s * my * my + ridge
            det = a * c - b * b
            pu, qu = ux - s * mx * mu, uy - s * my * mu
            pv, qv = vx - s * mx * mv, vy - s * my * mv
            out[i, 1, 0], out[i, 2, 0] = (c * pu - b * qu) / det, (a * qu - b * pu) / det
            out[i, 1, 1], out[i, 2, 1] = (c * pv - b * qv) / det, (a * qv - b * pv) / det
            out[i, 0, 0] = mu - out[i, 1, 0] * mx - out[i, 2, 0] * my
            out[i, 0, 1] = mv - out[i, 1, 1] * mx - out[i, 2, 1] * my
            width = inlier * (4.0 if attempt == 0 else 2.0 if attempt == 1 else 1.0)
            for m in range(n):
                j = near[i, m]
                x, y = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1]
                ru = out[i, 0, 0] + out[i, 1, 0] * x + out[i, 2, 0] * y - motion[j, 0]
                rv = out[i, 0, 1] + out[i, 1, 1] * x + out[i, 2, 1] * y - motion[j, 1]
                t = 1.0 + (ru * ru + rv * rv) / (width * width)
                robust[m] = 1.0 / (t * t)
