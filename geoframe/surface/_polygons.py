"""Polygons of a file cut into triangles: fans where they are exact, else ears or the other diagonal.

A polygon need not be planar. It is judged in the projection along its mean normal (the sum of the cross products
of neighbouring corners, twice its area if it is planar): where all triangles of the fan from its first corner
face that way, the fan is taken, which it always is for a convex polygon.
"""

from __future__ import annotations

import numpy as np

from geoframe._types import Bools, Floats, Ints

CORNERS = 10_000  # of a concave polygon; the work grows with the square (about 3 s here)
_FLAT = 1e-12  # area of a triangle, relative to its polygon's, below which it counts as a line


def triangulate(verts: Floats, flat: Ints, counts: Ints) -> Ints:
    """(T, 3) positions in the flat corner list of polygons, of the triangles that each is cut into.

    A polygon of n corners gives n - 2 triangles of the same orientation; polygons keep their order. Where a
    polygon crosses itself no triangulation is right, and what cannot be cut into ears stays a fan.

    Args:
        verts: (V, 3) positions.
        flat: (sum of counts,) vertex of every corner, polygon after polygon.
        counts: (P,) corners of each polygon, 3 or more.

    Raises:
        ValueError: a concave polygon of more than `CORNERS` corners.

    Source: Meisters 1975, Polygons have ears; O'Rourke 1998, Computational Geometry in C, section 1.4.
    """
    out = fan(counts)
    if not len(counts) or counts.max() == 3:
        return out
    polygon = np.repeat(np.arange(len(counts)), counts - 2)
    many = np.flatnonzero(counts[polygon] > 3)
    corners = verts[flat[out[many]]]
    with np.errstate(invalid="ignore", over="ignore"):
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        total = np.stack([np.bincount(polygon[many], x, minlength=len(counts)) for x in normal.T], axis=1)
        facing = np.einsum("td,td->t", normal, total[polygon[many]])
        least = -_FLAT * np.einsum("pd,pd->p", total, total)[polygon[many]]
        concave = np.unique(polygon[many][facing < least])
    first_corner, first_triangle = np.cumsum(counts) - counts, np.cumsum(counts - 2) - (counts - 2)
    for p in concave.tolist():
        n, start = int(counts[p]), int(first_corner[p])
        if n > CORNERS:
            raise ValueError(
                f"polygon {p}: it is concave and has {n} corners, expected at most {CORNERS}; "
                "export the file as triangles"
            )
        cut = _ears(_project(verts[flat[start : start + n]], total[p]))
        out[first_triangle[p] : first_triangle[p] + n - 2] = start + cut
    return out


def fan(counts: Ints) -> Ints:
    """(T, 3) positions, in the flat corner list of polygons with `counts` corners, of their triangle fans."""
    start = np.cumsum(counts) - counts
    n_tri = counts - 2
    k = np.arange(n_tri.sum()) - np.repeat(np.cumsum(n_tri) - n_tri, n_tri)
    s = np.repeat(start, n_tri)
    return np.stack([s, s + k + 1, s + k + 2], axis=1)


def _project(points: Floats, normal: Floats) -> Floats:
    """(n, 2) coordinates in the plane across `normal`, counter-clockwise seen from its tip, of size about 1."""
    normal = normal / np.linalg.norm(normal)
    axis = np.eye(3)[np.abs(normal).argmin()]
    u = np.cross(axis, normal)
    u /= np.linalg.norm(u)
    centred = points - points.mean(0)
    flat = np.stack([centred @ u, centred @ np.cross(normal, u)], axis=1)
    return flat / np.abs(flat).max()


def _ears(points: Floats) -> Ints:
    """(n - 2, 3) triangles of a simple polygon in the plane, corners (n, 2) counter-clockwise.

    Of all ears the one of the best shape is cut off first. Only its two neighbours can become ears by that, or
    stop being one, so that each cut costs two looks at all corners.
    """
    n, points = len(points), np.asfortranarray(points)
    before, after = np.roll(np.arange(n), 1), np.roll(np.arange(n), -1)
    left = np.ones(n, bool)
    quality = np.array([_ear_quality(points, left, before, after, i) for i in range(n)])
    triangles = np.empty((n - 2, 3), np.int64)
    for k in range(n - 3):
        ear = int(quality.argmax())
        if quality[ear] == -np.inf:  # no ear: the polygon crosses itself
            rest = np.flatnonzero(left)
            triangles[k:] = rest[fan(np.array([len(rest)]))]
            return triangles
        i, j = before[ear], after[ear]
        triangles[k] = i, ear, j
        left[ear], quality[ear] = False, -np.inf
        after[i], before[j] = j, i
        for corner in (i, j):
            quality[corner] = _ear_quality(points, left, before, after, corner)
    triangles[-1] = np.flatnonzero(left)
    return triangles


def _ear_quality(points: Floats, left: Bools, before: Ints, after: Ints, i: int) -> float:
    """Area over squared perimeter of the triangle at corner i, 0 if it is flat, -inf if it is not an ear."""
    a, b, c = points[before[i]], points[i], points[after[i]]
    double_area = _cross(b - a, c - a)
    if double_area < -_FLAT:
        return -np.inf
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    x, y = points.T
    others = points[left & (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])]
    inside = (
        (_cross(b - a, others - a) >= 0) & (_cross(c - b, others - b) >= 0) & (_cross(a - c, others - c) >= 0)
    )
    same = (others == a).all(1) | (others == b).all(1) | (others == c).all(1)
    if (inside & ~same).any():
        return -np.inf
    sides = [np.hypot(*(q - p)) for p, q in ((a, b), (b, c), (c, a))]
    around = float(sum(sides)) ** 2
    return max(float(double_area), 0.0) / around if around > 0 else 0.0


def _cross(u: Floats, v: Floats) -> Floats:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
