"""Closest points of a triangle mesh."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from geoframe._types import Floats, Ints


class TriangleTree:
    """Closest points of a triangle mesh among the triangles that have a known place nearby.

    The places are the centres of the triangles. With `spread`, triangles of more than twice the mean area have
    random places of their own in proportion to their area (at most 1,000), so that those far larger than their
    neighbours are not passed over.
    """

    def __init__(self, verts: Floats, faces: Ints, *, spread: bool = False) -> None:
        self.corners = verts[faces]  # (F, 3, 3)
        self._owner = np.arange(len(faces))
        places = self.corners.mean(1)
        if spread:
            area = np.linalg.norm(self.face_normals_scaled, axis=1) / 2
            count = np.minimum(area / area.mean(), 1000).astype(int)
            count[count < 2] = 0
            large = np.repeat(self._owner, count)
            weights = np.random.default_rng(0).dirichlet(np.ones(3), len(large))
            places = np.concatenate([places, np.einsum("nc,ncd->nd", weights, self.corners[large])])
            self._owner = np.concatenate([self._owner, large])
        self.tree = cKDTree(places)

    @property
    def face_normals_scaled(self) -> Floats:
        """(F, 3) normals as long as twice the area."""
        a, b, c = (self.corners[:, i] for i in range(3))
        return np.cross(b - a, c - a)

    def closest(self, points: Floats, n_near: int = 10) -> tuple[Ints, Floats]:
        """Faces (n,) and weights (n, 3) of the points closest to `points` (n, 3), of `n_near` places looked at."""
        near = self._owner[self.tree.query(points, k=np.arange(1, min(n_near, len(self._owner)) + 1))[1]]
        weights = closest_weights(points[:, None], self.corners[near])
        gap = np.einsum("nkc,nkcd->nkd", weights, self.corners[near]) - points[:, None]
        best = (gap**2).sum(-1).argmin(1)
        row = np.arange(len(points))
        return near[row, best], weights[row, best]

    def places(self, faces: Ints, weights: Floats) -> Floats:
        """(n, 3) the points with these weights (n, 3) in these faces (n,)."""
        return np.einsum("nc,ncd->nd", weights, self.corners[faces])


def closest_weights(points: Floats, corners: Floats) -> Floats:
    """(..., 3) barycentric weights of the point of a triangle (..., 3, 3) closest to a point (..., 3).

    Source: Ericson 2005, Real-Time Collision Detection, section 5.1.5 (regions of the plane).
    """
    a, b, c = (corners[..., i, :] for i in range(3))
    ab, ac = b - a, c - a

    def dot(x: Floats, y: Floats) -> Floats:
        return np.einsum("...d,...d->...", x, y)

    d1, d2 = dot(ab, points - a), dot(ac, points - a)
    d3, d4 = dot(ab, points - b), dot(ac, points - b)
    d5, d6 = dot(ab, points - c), dot(ac, points - c)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    total = np.maximum(va + vb + vc, 1e-300)
    w = np.stack([va, vb, vc], -1) / total[..., None]

    def onto(x: Floats, y: Floats) -> Floats:
        return x / np.where(np.abs(y) < 1e-300, 1e-300, y)

    zero = np.zeros_like(d1)
    t_ab, t_ac, t_bc = onto(d1, d1 - d3), onto(d2, d2 - d6), onto(d4 - d3, (d4 - d3) + (d5 - d6))
    for where, value in (
        ((va <= 0) & (d4 - d3 >= 0) & (d5 - d6 >= 0), (zero, 1 - t_bc, t_bc)),
        ((vb <= 0) & (d2 >= 0) & (d6 <= 0), (1 - t_ac, zero, t_ac)),
        ((vc <= 0) & (d1 >= 0) & (d3 <= 0), (1 - t_ab, t_ab, zero)),
        ((d6 >= 0) & (d5 <= d6), (zero, zero, zero + 1)),
        ((d3 >= 0) & (d4 <= d3), (zero, zero + 1, zero)),
        ((d1 <= 0) & (d2 <= 0), (zero + 1, zero, zero)),
    ):
        w = np.where(where[..., None], np.stack(value, -1), w)
    return w
