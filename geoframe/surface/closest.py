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
        from geoframe.surface._closest_loops import nearest_of

        near = self._owner[self.tree.query(points, k=np.arange(1, min(n_near, len(self._owner)) + 1))[1]]
        return nearest_of(points, self.corners, near)

    def places(self, faces: Ints, weights: Floats) -> Floats:
        """(n, 3) the points with these weights (n, 3) in these faces (n,)."""
        return np.einsum("nc,ncd->nd", weights, self.corners[faces])


def closest_weights(points: Floats, corners: Floats) -> Floats:
    """(..., 3) barycentric weights of the point of a triangle (..., 3, 3) closest to a point (..., 3).

    Source: Ericson 2005, Real-Time Collision Detection, section 5.1.5 (regions of the plane).
    """
    from geoframe.surface._closest_loops import weights_of

    shape = np.broadcast_shapes(points.shape[:-1], corners.shape[:-2])
    points, corners = np.broadcast_to(points, (*shape, 3)), np.broadcast_to(corners, (*shape, 3, 3))
    return weights_of(points.reshape(-1, 3), corners.reshape(-1, 3, 3)).reshape(*shape, 3)
