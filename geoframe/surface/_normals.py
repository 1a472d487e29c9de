"""Sums of the faces' normals at the vertices, compiled for the CPU; `Mesh.vertex_normals` is the public name."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geoframe._compiled import compiled


def summed(verts: Tensor, faces: Tensor) -> Tensor:
    """(B, V, 3) sums over the faces at each vertex of normals whose length is twice the face's area; no gradient."""
    points = verts.detach().numpy()
    out = np.zeros(points.shape, points.dtype)
    _summed(points, faces.numpy(), out)
    return torch.from_numpy(out)


@compiled
def _summed(points, faces, out):
    for k in range(points.shape[0]):
        for f in range(faces.shape[0]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ux, vx = points[k, b, 0] - points[k, a, 0], points[k, c, 0] - points[k, a, 0]
            uy, vy = points[k, b, 1] - points[k, a, 1], points[k, c, 1] - points[k, a, 1]
            uz, vz = points[k, b, 2] - points[k, a, 2], points[k, c, 2] - points[k, a, 2]
            x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            for v in (a, b, c):
                out[k, v, 0] += x
                out[k, v, 1] += y
                out[k, v, 2] += z
