"""Which faces of a surface meet at which edges, compiled for the CPU."""

from __future__ import annotations

import numpy as np

from geoframe._compiled import compiled
from geoframe._types import Array


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
