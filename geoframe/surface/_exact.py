"""Exact geodesics on one manifold component, and what pygeodesic needs to be right on thin triangles.

pygeodesic (Mitchell, Mount & Papadimitriou 1987) ends the process on non-manifold meshes, and around edges of
length zero and triangles with an angle of almost 180 degrees it loses vertices or finds detours. Here such
meshes are refused, such edges merged and such triangles flipped away first: neither moves the surface.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from geoframe._optional import require
from geoframe._types import Floats, Ints
from geoframe.surface.topology import collapsed_faces, duplicate_faces, nonmanifold_vertices

CAP_COSINE = -1 + 1e-5  # a triangle with a wider angle (179.7 degrees) is flipped away
PASSES = 100  # over all triangles, of flips; a chain of n collinear vertices on an edge needs about n
LOST = 1e100  # pygeodesic's infinity


class ExactPiece:
    """Exact distances on one connected component, verts (V, 3) of edge length about 1 and faces (F, 3).

    Raises:
        ValueError: not manifold.
        ImportError: without the extra `geometry`.
    """

    def __init__(self, verts: Floats, faces: Ints) -> None:
        module = require("pygeodesic.geodesic", extra="geometry")
        same, faces = _merge_equal(verts, faces)
        if len(nonmanifold_vertices(faces)):
            raise ValueError(
                "faces: expected a manifold mesh for method='exact', found edges or vertices shared by several "
                "sheets; use method='heat' or 'dijkstra', or repair it first (geoframe.surface.repair)"
            )
        faces = _flip_caps(verts, faces)
        used, compact = np.unique(faces, return_inverse=True)
        local = np.full(len(verts), -1)
        local[used] = np.arange(len(used))
        self._local = local[same]
        self._solver = (
            module.PyGeodesicAlgorithmExact(verts[used], compact.reshape(-1, 3)) if len(used) else None
        )

    def distances(self, source: int, targets: Ints | None = None, reach: float = np.inf) -> Floats:
        """Distances from `source` to `targets` (all without), of which none is further than `reach`."""
        target = self._local if targets is None else self._local[targets]
        start = self._local[source]
        if self._solver is None:  # all triangles are points
            return np.zeros(len(target))
        try:
            if min(start, target.min()) < 0:
                raise OverflowError("a vertex has only collapsed triangles")
            if targets is None:
                d = self._solver.geodesicDistances(np.array([start]), None)[0][target]
            else:
                d = self._solver.geodesicDistances(np.array([start]), target, min(reach, LOST))[0]
        except OverflowError:  # an unset index of pygeodesic: a vertex was not reached
            d = np.full(len(target), np.inf)
        if not (d < LOST).all():
            raise ValueError(
                "verts: exact geodesics did not reach every vertex, the triangles are too degenerate; "
                "repair them first (geoframe.surface.repair) or use method='heat' or 'dijkstra'"
            )
        return d


def _merge_equal(verts: Floats, faces: Ints) -> tuple[Ints, Ints]:
    """For each vertex the first of those that edges of length zero join to it; the triangles that remain.

    Of triangles over the same three vertices one is kept: the others add no path.
    """
    V = len(verts)
    i, j = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    zero = (verts[i] == verts[j]).all(1)
    same = np.arange(V)
    if zero.any():
        graph = sp.coo_matrix((np.ones(zero.sum()), (i[zero], j[zero])), shape=(V, V))
        labels = connected_components(graph, directed=False)[1]
        same = np.unique(labels, return_index=True)[1][labels]
        faces = same[faces]
        faces = faces[~collapsed_faces(faces)]
    return same, np.delete(faces, duplicate_faces(faces), axis=0)


def _flip_caps(verts: Floats, faces: Ints) -> Ints:
    """Flip the longest edge of triangles with an angle of almost 180 degrees, where it can be flipped.

    The wide corner c lies on the edge ab but for a height of at most 0.3 % of its shorter edge; with the
    neighbour abd the pair becomes adc, dbc, the same surface up to that height.
    """
    faces = faces.copy()
    for _ in range(PASSES):
        edge = verts[faces[:, [1, 2, 0]]] - verts[faces]  # edge k leaves corner k
        edge /= np.linalg.norm(edge, axis=2, keepdims=True)
        cosine = -np.einsum("fkd,fkd->fk", edge, np.roll(edge, 1, axis=1))
        done: set[int] = set()
        for t in np.flatnonzero(cosine.min(1) < CAP_COSINE).tolist():
            k = int(cosine[t].argmin())
            c, a, b = faces[t, [k, (k + 1) % 3, (k + 2) % 3]]
            at_ab = np.flatnonzero(((faces == a) | (faces == b)).sum(1) == 2)
            other = at_ab[at_ab != t]
            if t in done or len(other) != 1 or int(other[0]) in done:
                continue  # already changed, or a boundary edge
            d = faces[other[0]].sum() - a - b
            if (((faces == c) | (faces == d)).sum(1) == 2).any() or (verts[c] == verts[d]).all():
                continue  # c and d have an edge already, or would have one of length zero
            faces[t], faces[other[0]] = (a, d, c), (d, b, c)
            done |= {t, int(other[0])}
        if not done:
            break
    return faces
