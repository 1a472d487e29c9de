"""Loops over masks and vertices of `geoframe.fitting.outlines`, compiled for the CPU."""

from __future__ import annotations

import math

import numpy as np

from geoframe._compiled import compiled


@compiled
def distances(mask, first, last, out):
    """`out` (B, H, W): how far the centre of each pixel of masks (B, H, W) is from the nearest one outside, where it is
    inside, and the other way round; 0 where there is none. Source: Felzenszwalb & Huttenlocher 2012, columns then rows;
    a row is searched outwards until nothing nearer can come."""
    _, H, W = mask.shape
    along, none = np.empty((H, W)), float(H + W) ** 2  # squared, to the nearest other one of the column
    for b in range(first, last):
        m = mask[b]
        for x in range(W):
            away = float(H + W)
            for y in range(H):
                away = away + 1 if y == 0 or m[y, x] == m[y - 1, x] else 1.0
                along[y, x] = away * away
            away = float(H + W)
            for y in range(H - 1, -1, -1):
                away = away + 1 if y == H - 1 or m[y, x] == m[y + 1, x] else 1.0
                along[y, x] = min(along[y, x], away * away)
        for y in range(H):
            for x in range(W):
                best, step = along[y, x], 1
                while step * step < best and step < W:
                    square = float(step * step)
                    for other in (x - step, x + step):
                        if 0 <= other < W:
                            more = along[y, other] if m[y, other] == m[y, x] else 0.0
                            best = min(best, square + more)
                    step += 1
                out[b, y, x] = math.sqrt(best) if best < none else 0.0


@compiled
def pulls(screen, near, points, ends, reach, first, last, weight, pull):
    """Add to `weight` (B, V) and `pull` (B, V, 2) how each of the points (n, 2), of which those of mask b end at
    `ends[b]`, pulls the nearest of the vertices `near` (B, V) on the screen (B, V, 2)."""
    V = screen.shape[1]
    some = np.empty(V, np.int64)
    for b in range(first, last):
        n = 0
        for v in range(V):
            if near[b, v]:
                some[n] = v
                n += 1
        for i in range(ends[b - 1] if b else 0, ends[b] if n else 0):
            vertex, least = 0, np.inf
            for k in range(n):
                square = (points[i, 0] - screen[b, some[k], 0]) ** 2 + (
                    points[i, 1] - screen[b, some[k], 1]
                ) ** 2
                if square < least:
                    vertex, least = some[k], square
            if least < reach * reach:
                counted = 1 / (1 + 4 * least / (reach * reach))
                weight[b, vertex] += counted
                for j in range(2):
                    pull[b, vertex, j] += counted * (points[i, j] - screen[b, vertex, j])
