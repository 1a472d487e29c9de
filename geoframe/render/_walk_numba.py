"""From face to face of a surface on the screen, compiled for the CPU: which faces meet, and where a surface ends
between two pixels."""

from __future__ import annotations

import numpy as np

from geoframe._compiled import compiled
from geoframe._types import Array

MOST_STEPS = 4096  # faces between two pixels; a surface so fine within a pixel is noise


def across_edges(faces: Array) -> Array:
    """(F, 3) the half-edge 4 g + j on the other side of edge i of face f; negative at borders and where three faces
    meet. (Shifts are quicker than divisions by 3.)"""
    if not len(faces):
        return np.empty((0, 3), np.int64)
    low = int(faces.min())
    return _matched(faces, low, int(faces.max()) - low + 1)


@compiled
def _matched(faces, low, n_verts):
    F = faces.shape[0]
    first, after = np.full(n_verts, -1), np.empty(4 * F, np.int64)
    across = np.full((F, 3), -1)
    for f in range(F):
        for i in range(3):
            p, q = faces[f, i], faces[f, (i + 1) % 3]
            if p == q:
                continue
            start = min(p, q) - low
            h = first[start]
            while h >= 0:
                g, j = h >> 2, h & 3
                a, b = faces[g, j], faces[g, (j + 1) % 3]
                if (a == p and b == q) or (a == q and b == p):
                    break
                h = after[h]
            if h < 0:
                after[4 * f + i] = first[start]
                first[start] = 4 * f + i
            elif across[h >> 2, h & 3] == -1:
                across[h >> 2, h & 3], across[f, i] = 4 * f + i, h
            elif across[h >> 2, h & 3] >= 0:  # a third face: all of them end here
                other = across[h >> 2, h & 3]
                across[h >> 2, h & 3] = across[other >> 2, other & 3] = -2
    return across


@compiled
def walk(screen, faces, across, f, goal, x, y, sideways, step):
    """From a pixel centre over the faces to the next one: the half-edge where the surface ends in between, or -1.

    v is across the way, u along it: the way is v = 0 from u = 0 to u = 1.
    """
    along, beside = 1 - sideways, sideways
    u0, v0 = (x, y) if sideways else (y, x)
    edge, most = -1, -np.inf
    for i in range(3):
        p, q = faces[f, i], faces[f, (i + 1) % 3]
        vp, vq = screen[p, beside] - v0, screen[q, beside] - v0
        if (vp >= 0) != (vq >= 0):
            up, uq = step * (screen[p, along] - u0), step * (screen[q, along] - u0)
            u = up + (uq - up) * (vp / (vp - vq))
            if u > most:
                edge, most = i, u
    if edge < 0:
        return -1
    side = turn_of(screen, faces, f)
    for _ in range(MOST_STEPS):
        if most >= 1:
            return -1
        h = across[f, edge]
        if h < 0:
            return 3 * f + edge
        g, j = h >> 2, h & 3
        if faces[g, j] == faces[f, edge]:  # the neighbour is wound the other way
            side = -side
        if turn_of(screen, faces, g) * side < 0:
            return 3 * f + edge
        f = g
        if f == goal:
            return -1
        following = j + 1 if j < 2 else 0
        opposite = following + 1 if following < 2 else 0
        third, p = faces[f, opposite], faces[f, following]
        vp = screen[third, beside] - v0
        if (vp >= 0) != (screen[p, beside] - v0 >= 0):
            edge = following
        else:
            edge, p = opposite, faces[f, j]
        vq = screen[p, beside] - v0
        if vp == vq:
            return -1
        up, uq = step * (screen[third, along] - u0), step * (screen[p, along] - u0)
        most = up + (uq - up) * (vp / (vp - vq))
    return -1


@compiled
def turn_of(screen, faces, f):
    """Which way a face is wound on the screen: 1, -1, or 0 seen from its edge."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = screen[a, 0], screen[a, 1]
    twice = (screen[b, 0] - ax) * (screen[c, 1] - ay) - (screen[b, 1] - ay) * (screen[c, 0] - ax)
    return 1 if twice > 0 else (-1 if twice < 0 else 0)
