"""Symmetric meshes of any size on the dense surface of an animal, each vertex a known point of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from geoframe._types import Bools, Floats, Ints
from geoframe.surface.closest import TriangleTree
from geoframe.surface.normals import vertex_normals
from geoframe.surface.remesh import coarsen, flip_edges
from geoframe.zoo._cage import template


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the dense template: `faces` (n,), and `weights` (n, 3) of their corners, which sum to 1."""

    faces: Ints
    weights: Floats

    def on(self, verts: Floats) -> Floats:
        """(n, ...) where the points are, given values (V, ...) of the dense vertices."""
        return np.einsum("nc,nc...->n...", self.weights, verts[template().faces[self.faces]])


def symmetric_mesh(
    verts: Floats, size: Floats, n_verts: int, pins: Ints, seed: int
) -> tuple[Points, Ints, Ints, Ints]:
    """Well-shaped triangles on a symmetric animal, itself exactly symmetric.

    Args:
        verts: (V, 3) of the dense template.
        size: (V,) relative edge lengths.
        n_verts: about how many.
        pins: dense vertices of the right half or the midline that become vertices.
        seed: of the triangulation.

    Returns:
        points (n,) of the dense template, faces (F, 3), the mirror map (n,), and the vertices that are the pins.
    """
    surface = _HalfSurface(verts)
    x, faces, hold, origin = _start(verts, n_verts // 2, pins)
    apex = len(x)  # closes the half
    faces = np.concatenate([faces, np.insert(_rim(faces)[:, ::-1], 2, apex, axis=1)])
    x, scale, hold = np.append(x, [[np.nan] * 3], 0), np.append(size[origin].mean(1), 1.0), np.append(hold, 0)
    for spare in (
        1.15,
        1.0,
    ):  # first a few more than wanted, to learn how many are on the rim and not doubled
        goal = 1 + int(spare * (n_verts + (hold % 2 == 1).sum() * (spare == 1)) / 2)
        x, faces, kept = coarsen(x, faces, goal, on_surface=surface.project, size=scale, hold=hold, seed=seed)
        hold, scale, origin = hold[kept], scale[kept], np.append(origin, [[-1, -1]], 0)[kept][:-1]
    for _ in range(14):
        faces = flip_edges(x, faces, hold)
        x = _relax(x, faces, scale, hold, surface)
    for _ in range(3):
        faces = flip_edges(x, faces, hold)
    number = np.full(len(verts), -1)
    pinned = np.flatnonzero(hold >= 2)
    number[origin[pinned, 0]] = pinned
    faces = faces[(faces < len(x) - 1).all(1)]
    points = surface.locate(x[:-1])
    return *_both_halves(points, faces, hold[:-1] % 2 == 1), number[pins]


def _start(verts: Floats, n_half: int, pins: Ints) -> tuple[Floats, Ints, Ints, Ints]:
    """The right half of the dense mesh, finer than wanted: vertices (n, 3), faces, what holds the vertices as in
    `coarsen`, and the dense vertices (n, 2) between which each of them lies."""
    t = template()
    faces = next((f for f in t.levels if f.max() > 4 * n_half), t.faces)
    used, faces = np.unique(faces[(t.side[faces] >= 0).all(1)], return_inverse=True)
    faces = faces.reshape(-1, 3)
    origin = np.stack([used, used], axis=1)
    while len(origin) < 1.3 * n_half:
        edges, which = np.unique(_edges(faces), axis=0, return_inverse=True)
        a, b, c = len(origin) + which.reshape(3, -1)
        origin = np.concatenate([origin, origin[edges][..., 0]])
        x, y, z = faces.T
        faces = np.concatenate([np.stack(f, 1) for f in ((x, a, c), (y, b, a), (z, c, b), (a, b, c))])
    hold = np.zeros(len(origin), np.int64)
    hold[_rim(faces)] = 1
    hold[np.searchsorted(used, pins)] += 2
    return verts[origin].mean(1), faces, hold, origin


def _edges(faces: Ints) -> Ints:
    """(3 F, 2) edges of the faces, each with its lower end first: all 0-1, then all 1-2, then all 2-0."""
    return np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)


def _rim(faces: Ints) -> Ints:
    """(n, 2) directed edges that have a face on their left only."""
    there = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    key = there @ [faces.max() + 1, 1]
    return there[~np.isin(key, there[:, ::-1] @ [faces.max() + 1, 1])]


class _HalfSurface:
    """The right half of a dense animal: the flank, and the midline where z is 0."""

    def __init__(self, verts: Floats) -> None:
        t = template()
        self.own = np.flatnonzero((t.side[t.faces] >= 0).all(1))
        self.flank = TriangleTree(verts, t.faces[self.own])
        self.verts, self.faces = verts, t.faces
        face, corner = np.nonzero(
            (t.side[t.faces[self.own]] == 0) & (t.side[np.roll(t.faces[self.own], -1, 1)] == 0)
        )
        self.rim_face, self.rim_corner = self.own[face], corner
        self.start = verts[t.faces[self.rim_face, corner]]
        self.step = verts[t.faces[self.rim_face, (corner + 1) % 3]] - self.start
        self.rim_tree = cKDTree(self.start + self.step / 2)

    def locate(self, points: Floats) -> Points:
        """The closest points of the dense template; of points with z == 0 exactly, those on the midline."""
        faces, weights = np.zeros(len(points), np.int64), np.zeros((len(points), 3))
        middle = points[:, 2] == 0
        local, near = self.flank.closest(points[~middle])
        on_rim = np.einsum("nc,nc->n", near, self.flank.corners[local, :, 2]) <= 0
        near[on_rim] = 0.7 * near[on_rim] + 0.1  # what is not of the midline stays off it
        faces[~middle], weights[~middle] = self.own[local], near
        close = self.rim_tree.query(points[middle], k=8)[1]
        step = self.step[close]
        t = (((points[middle, None] - self.start[close]) * step).sum(-1) / (step**2).sum(-1)).clip(0, 1)
        gap = self.start[close] + t[..., None] * step - points[middle, None]
        best = (gap**2).sum(-1).argmin(1)
        row = np.arange(len(best))
        edge = close[row, best]
        here = np.flatnonzero(middle)
        faces[here] = self.rim_face[edge]
        weights[here, self.rim_corner[edge]] = 1 - t[row, best]
        weights[here, (self.rim_corner[edge] + 1) % 3] = t[row, best]
        return Points(faces, weights)

    def project(self, points: Floats) -> Floats:
        """(n, 3) points to the closest ones; points at NaN stay there."""
        out, finite = points.copy(), np.isfinite(points).all(1)
        out[finite] = self.locate(points[finite]).on(self.verts)
        return out


def _relax(x: Floats, faces: Ints, size: Floats, hold: Ints, surface: _HalfSurface) -> Floats:
    """Free vertices go half way to the mean of their neighbours, small ones counting more, along the surface; those
    of the rim along it."""
    i, j = faces.ravel(), np.roll(faces, -1, 1).ravel()  # every edge of a closed mesh, both ways
    rim = hold % 2 == 1
    good = np.isfinite(x[i]).all(1) & np.isfinite(x[j]).all(1) & (rim[j] | ~rim[i])
    i, j = i[good], j[good]
    weight = 1 / size[j]
    total = np.bincount(i, weight, len(x))
    mean = np.stack([np.bincount(i, weight * x[j, c], len(x)) for c in range(3)], axis=1)
    free = (hold < 2) & (total > 0)
    step = mean[free] / total[free, None] - x[free]
    normal = vertex_normals(x, faces[(faces < len(x) - 1).all(1)])
    normal[rim, 2] = 0
    normal = (normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-300))[free]
    step -= (step * normal).sum(1, keepdims=True) * normal  # else sharp edges wear away
    moved = x.copy()
    moved[free] = surface.project(x[free] + 0.5 * step)
    return moved


def follow_curvature(verts: Floats, size: Floats, n_verts: int) -> Floats:
    """(V,) relative edge lengths made shorter where about `n_verts` vertices would lose sharp edges and tips.

    The edge length is at most 1.6 radii of curvature, but no less than a third of what it was.
    """
    faces = template().faces
    a, b, c = verts[faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    length = (
        np.sqrt(1.15 * (area / size[faces].mean(1) ** 2).sum() / n_verts) * size
    )  # about that of the edges
    normal = vertex_normals(verts, faces)
    i, j = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    bend = np.linalg.norm(normal[i] - normal[j], axis=1) / np.linalg.norm(verts[i] - verts[j], axis=1).clip(
        1e-12
    )
    sharp = np.zeros(len(verts))
    np.maximum.at(sharp, i, bend)
    wanted = np.clip(1.6 / np.maximum(sharp, 1e-9), length / 3, length)
    degree = np.bincount(i, minlength=len(verts))
    for _ in range(6):  # graded, so that triangles stay well shaped
        wanted = np.minimum(wanted, 0.5 * wanted + 0.5 * np.bincount(i, wanted[j], len(verts)) / degree)
    return wanted


def _both_halves(points: Points, faces: Ints, rim: Bools) -> tuple[Points, Ints, Ints]:
    """The half and its mirror image, joined along the rim: points, faces and the mirror map of the vertices."""
    t = template()
    n, inner = len(rim), np.flatnonzero(~rim)
    other = np.arange(n)
    other[inner] = n + np.arange(len(inner))
    key = np.sort(t.faces, axis=1) @ np.array([1, len(t.side), len(t.side) ** 2])
    order = np.argsort(key)
    corners = t.mirror[t.faces[points.faces[inner]]]
    where = order[
        np.searchsorted(key[order], np.sort(corners, axis=1) @ np.array([1, len(t.side), len(t.side) ** 2]))
    ]
    match = (t.faces[where][:, :, None] == corners[:, None]).argmax(2)
    weights = np.take_along_axis(points.weights[inner], match, axis=1)
    both = Points(np.concatenate([points.faces, where]), np.concatenate([points.weights, weights]))
    mirror = np.concatenate([other, inner])
    return both, np.concatenate([faces, other[faces][:, ::-1]]), mirror
