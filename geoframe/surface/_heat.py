"""Heat-method distances from many vertices at once."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from geoframe._types import Floats, Ints
from geoframe.linalg import SpdFactor
from geoframe.surface._delaunay import intrinsic_delaunay
from geoframe.surface.operators import (
    cotangent_laplacian_intrinsic,
    face_areas_intrinsic,
    mass_barycentric_intrinsic,
    mollify_intrinsic,
)

TOGETHER = 8  # sources that are solved for at once; never fewer, so that rounding does not depend on how many are asked


class HeatSolver:
    """The heat method on the intrinsic Delaunay triangulation of one connected manifold surface of two sides.

    What potpourri3d does source by source is done here for a block of them: two solves and two sparse products.

    Args:
        verts: (V, 3) positions, edges of about unit length.
        faces: (F, 3).
        t_coef: diffusion time in squared mean edge lengths.

    Raises:
        ValueError: the triangles are no such surface, or too degenerate.

    Source: Crane, Weischedel & Wardetzky 2013, Geodesics in Heat, algorithm 1.
    """

    def __init__(self, verts: Floats, faces: Ints, t_coef: float) -> None:
        corners = verts[faces]
        sides = corners[:, [1, 2, 0]] - corners[:, [2, 0, 1]]
        found = intrinsic_delaunay(faces, mollify_intrinsic(np.einsum("fci,fci->fc", sides, sides)))
        if found is None:
            raise ValueError("faces: expected a manifold surface of two sides without extreme triangles")
        faces, l_sq, twin = found
        n = len(verts)
        edges = np.where(twin < 0, 1.0, 0.5)  # of each triangle's; a shared one comes twice
        mean_edge = (edges * np.sqrt(l_sq)).sum() / edges.sum()
        W = cotangent_laplacian_intrinsic(l_sq, faces, n)
        mass = mass_barycentric_intrinsic(l_sq, faces, n)
        with np.errstate(divide="ignore", invalid="ignore"):  # of triangles without area: it ends in an error
            self._heat = SpdFactor(W + sp.diags(mass / (t_coef * mean_edge**2)))
            self._gradient = _gradient(faces, l_sq, n)
        self._poisson = SpdFactor(W[1:, 1:])  # up to a constant, which is told by the source
        self._divergence = (self._gradient.T @ sp.diags(np.tile(face_areas_intrinsic(l_sq), 2))).tocsr()
        self._n = n

    def rows(self, sources: Ints) -> Floats:
        """(S, V) distances from each of the S sources."""
        out = np.empty((len(sources), self._n))
        spikes = np.zeros((self._n, TOGETHER))
        for start in range(0, len(sources), TOGETHER):
            part = sources[start : start + TOGETHER]
            at = part, np.arange(len(part))
            spikes[at] = 1
            found = self._integrated(spikes)[:, : len(part)]
            out[start : start + len(part)] = (found - found[at]).T
            spikes[at] = 0
        return out

    def nearest(self, sources: Ints) -> Floats:
        """(V,) distances to the nearest of the sources."""
        if len(sources) == 1:
            return self.rows(sources)[0]
        spikes = np.zeros((self._n, 1))
        spikes[sources] = 1
        found = self._integrated(spikes)[:, 0]
        return found - found[sources].mean()

    def _integrated(self, spikes: Floats) -> Floats:
        """(V, S) functions whose gradients point away from the S columns of `spikes` (V, S) and have length 1."""
        with np.errstate(over="ignore", invalid="ignore"):
            flow = (self._gradient @ self._heat.solve(spikes)).reshape(2, -1, spikes.shape[1])
            size = np.sqrt(flow[0] * flow[0] + flow[1] * flow[1])
            flow /= -np.where(size > 0, size, 1)
        out = np.zeros_like(spikes)
        out[1:] = self._poisson.solve((self._divergence @ flow.reshape(-1, spikes.shape[1]))[1:])
        if not np.isfinite(out).all():
            raise ValueError("verts: expected triangles that heat passes, found too degenerate ones")
        return out


def _gradient(faces: Ints, l_sq: Floats, n_verts: int) -> sp.csr_matrix:
    """(2F, V): along corner 0 to corner 1 of every triangle, and below that across, to the side of corner 2."""
    base = np.sqrt(l_sq[:, 2])
    x = (l_sq[:, 2] + l_sq[:, 1] - l_sq[:, 0]) / (2 * base)
    y = 2 * face_areas_intrinsic(l_sq) / base
    one = 1 / base
    along = np.stack([-one, one, np.zeros_like(one)], 1)
    across = np.stack([(x * one - 1) / y, -x * one / y, 1 / y], 1)
    rows = np.repeat(np.arange(2 * len(faces)), 3)
    G = sp.coo_matrix((np.concatenate([along, across]).ravel(), (rows, np.tile(faces, (2, 1)).ravel())))
    G.resize(2 * len(faces), n_verts)
    return G.tocsr()


class OneByOne:
    """The heat method of potpourri3d, which takes any triangles, with the methods of `HeatSolver`.

    Source: Sharp & Crane 2020, A Laplacian for Nonmanifold Triangle Meshes (the tufted cover).
    """

    def __init__(self, verts: Floats, faces: Ints, t_coef: float) -> None:
        import potpourri3d

        self._solver = potpourri3d.MeshHeatMethodDistanceSolver(verts, faces, t_coef, use_robust=True)

    def rows(self, sources: Ints) -> Floats:
        """(S, V) distances from each of the S sources."""
        return np.stack([self._solver.compute_distance(s) for s in sources])

    def nearest(self, sources: Ints) -> Floats:
        """(V,) distances to the nearest of the sources."""
        return np.asarray(self._solver.compute_distance_multisource(sources))
