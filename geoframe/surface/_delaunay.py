"""The intrinsic Delaunay triangulation: edges flipped along a surface until opposite angles make up 180° at most."""

from __future__ import annotations

import numpy as np

from geoframe._types import Floats, Ints
from geoframe.surface.operators import face_areas_intrinsic, half_cotangents
from geoframe.surface.topology import orientation

FLAT = (
    -1e-6
)  # sum of half cotangents from which an edge is Delaunay: at 0 rounding would flip it back and forth
ROUNDS = 60  # scans and animals take 3 to 8; where these are not enough, triangles are so bad that nothing is promised


def intrinsic_delaunay(faces: Ints, l_sq: Floats) -> tuple[Ints, Floats, Ints] | None:
    """The intrinsic Delaunay triangulation of a surface, its rim kept.

    In each round many edges are flipped at once, no two of the same triangle. The flat metric on the triangles stays
    what it is, so that lengths along the surface do.

    Args:
        faces: (F, 3) proper triangles, edge-manifold, of a surface of two sides.
        l_sq: (F, 3) squared lengths of the edges opposite to each corner.

    Returns:
        faces (F, 3), in which two triangles may now share more than one edge and an edge may be a loop; their squared
        lengths l_sq (F, 3); and twin (F, 3), for each edge ``3 * face + corner`` the same edge in the triangle beyond,
        -1 at a rim. None where the triangles are not such a surface or flipping does not end.

    Source: Bobenko & Springborn 2007, section 3.
    """
    faces, l_sq = faces.copy(), l_sq.copy()
    twin = _twins(faces)
    if twin is None:
        turned = orientation(faces).flip
        faces[turned], l_sq[turned] = faces[turned][:, [0, 2, 1]], l_sq[turned][:, [0, 2, 1]]
        twin = _twins(faces)
    if twin is None:
        return None
    for _ in range(ROUNDS):
        a = _to_flip(half_cotangents(l_sq).ravel(), twin)
        if not len(a):
            return faces, l_sq, twin.reshape(-1, 3)
        _flip(faces, l_sq, twin, a)
    return None


def _twins(faces: Ints) -> Ints | None:
    """(3F,) for each edge its number in the triangle beyond, -1 at a rim; None where a directed edge comes twice."""
    i, j = faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel()
    n = int(faces.max()) + 1
    key, back = i * n + j, j * n + i
    order = np.argsort(key)
    ordered = key[order]
    if (ordered[1:] == ordered[:-1]).any():
        return None
    at = np.minimum(np.searchsorted(ordered, back), len(key) - 1)
    return np.where(ordered[at] == back, order[at], -1)


def _to_flip(half_cotangent: Floats, twin: Ints) -> Ints:
    """Edges that are not Delaunay, the worst first, no two of which belong to the same triangle."""
    a = np.flatnonzero(twin > np.arange(len(twin)))
    excess = half_cotangent[a] + half_cotangent[twin[a]]
    bad = (excess < FLAT) & (a // 3 != twin[a] // 3)
    a = a[bad][np.argsort(excess[bad], kind="stable")]
    rank, first = np.arange(len(a)), np.full(len(twin) // 3, len(a))
    for side in (a, twin[a]):
        np.minimum.at(first, side // 3, rank)
    return a[(first[a // 3] == rank) & (first[twin[a] // 3] == rank)]


def _flip(faces: Ints, l_sq: Floats, twin: Ints, a: Ints) -> None:
    """Flip the edges `a`, in place: of triangles (k, i, j) and (l, j, i) to (i, l, k) and (j, k, l)."""
    f, c = np.divmod(a, 3)
    g, d = np.divmod(twin[a], 3)
    k, i, j = (faces[f, (c + n) % 3] for n in range(3))
    opposite = faces[g, d]
    ij, jk, ki = (l_sq[f, (c + n) % 3] for n in range(3))
    il, lj = (l_sq[g, (d + n) % 3] for n in (1, 2))
    base = np.sqrt(ij)  # laid out in the plane, i at 0, j at (base, 0), one corner above and one below
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (ki - jk - il + lj) / (2 * base)
        across = 2 * (face_areas_intrinsic(l_sq[f]) + face_areas_intrinsic(l_sq[g])) / base
    kl = along**2 + across**2
    old = np.concatenate([3 * f + (c + 2) % 3, 3 * g + (d + 1) % 3, 3 * g + (d + 2) % 3, 3 * f + (c + 1) % 3])
    new = np.concatenate([3 * f + 1, 3 * f + 2, 3 * g + 1, 3 * g + 2])
    number = np.arange(len(twin))
    number[old] = new
    beyond = twin[old]
    beyond = np.where(beyond >= 0, number[beyond], -1)
    twin[new] = beyond
    twin[beyond[beyond >= 0]] = new[beyond >= 0]
    twin[3 * f], twin[3 * g] = 3 * g, 3 * f
    faces[f], faces[g] = np.stack([i, opposite, k], 1), np.stack([j, k, opposite], 1)
    l_sq[f], l_sq[g] = np.stack([kl, ki, il], 1), np.stack([kl, lj, jk], 1)
