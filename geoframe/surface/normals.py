"""Vertex normals of arrays; of a `Mesh` they are `Mesh.vertex_normals`."""

from __future__ import annotations

import numpy as np

from geoframe._types import Floats, Ints


def vertex_normals(verts: Floats, faces: Ints) -> Floats:
    """(V, 3) area-weighted unit normals, zero where a vertex has no area around it.

    Args:
        verts: (V, 3) positions.
        faces: (F, 3) triangles, counter-clockwise seen from outside.
    """
    a, b, c = verts[faces].transpose(1, 0, 2)
    n = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(n[:, k], 3), len(verts)) for k in range(3)], axis=1
    )
    return total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-300)
