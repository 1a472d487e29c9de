"""`resize`: a surface in as many well-shaped triangles as asked for, each vertex a known point of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geoframe._check import check_index, check_int
from geoframe._types import Bools, Floats, Ints
from geoframe.surface import topology
from geoframe.surface.closest import TriangleTree, closest_weights
from geoframe.surface.health import flat_faces, numpy_pose, outliers
from geoframe.surface.mesh import Mesh
from geoframe.surface.remesh import coarsen, flip_edges

PIECES = 2e6  # triangles into which all may be cut, and 20 more a vertex wanted: some 10 s and 1 GB
SHARP = 0.6  # cosine of the angle between the normals at a sharp edge: 53 degrees
SNAP = 0.4  # of the edge length: vertices nearer than that to a sharp edge move onto it


@dataclass(frozen=True, eq=False)
class Resized:
    """A surface in new triangles, and where its vertices lie on the old ones.

    Attributes:
        mesh: the new mesh, V' vertices, in the dtype and on the device of the old one; geometry only.
        source: (V', 3) int64 vertices of the old mesh.
        weights: (V', 3) floating, of sum 1, so that
            ``f_new = (weights[..., None] * f_old[source]).sum(1)`` carries functions f_old (V, D).
        pins: (P,) int64, the new numbers of the vertices that were to stay.
    """

    mesh: Mesh
    source: Tensor
    weights: Tensor
    pins: Tensor


def resize(mesh: Mesh, n_verts: int, *, pins: Tensor | None = None, seed: int = 0) -> Resized:
    """Remesh a surface to `n_verts` vertices: long edges are split, short ones collapsed, the rest evened out.

    The vertices lie on the old triangles, those of a boundary on the old boundary; the topology is kept. Where
    the old vertices show a strong bend edges are up to 2.5 times shorter than elsewhere.

    Args:
        mesh: one pose (V, 3), manifold and oriented; boundaries are welcome.
        n_verts: vertices wanted. More are left where fewer could not keep the topology (many handles or holes).
        pins: (P,) vertices that stay where they are.
        seed: of the order in which edges go.

    Raises:
        TypeError, ValueError: not such a mesh, a pin out of range, more pins than half of `n_verts`.
    """
    verts, faces = numpy_pose(mesh)
    check_int(n_verts, "n_verts", low=20)
    pinned = np.zeros(len(verts), bool)
    if pins is not None:
        pinned[check_index(pins, len(verts), "pins", what="vertices").cpu().numpy()] = True
    _check_sound(verts, faces)
    if pinned.sum() > n_verts // 2:
        raise ValueError(
            f"pins: expected at most {n_verts // 2} for {n_verts} vertices, found {pinned.sum()}"
        )
    far = outliers(verts)
    if len(far):
        raise ValueError(
            f"mesh: expected no outliers, found {len(far)} very far from all other vertices, first {far[0]}; see "
            "health(mesh), and remove them with repair(mesh, drop_outliers=True)"
        )
    old = _Dense(verts, faces, n_verts)
    hold = old.is_rim + 2 * np.append(pinned, np.zeros(len(old.verts) - len(verts), bool))
    x, new_faces, size, apex = old.verts, old.faces, old.size, len(old.verts)
    if len(old.rim):
        new_faces = np.concatenate([new_faces, np.insert(old.rim[:, ::-1], 2, apex, axis=1)])
        x, size, hold = np.append(x, [[np.nan] * 3], 0), np.append(size, 1.0), np.append(hold, 0)
    goal = n_verts + bool(len(old.rim))
    x, new_faces, number = coarsen(
        x, new_faces, goal, on_surface=old.project, size=size, hold=hold, seed=seed
    )
    size, hold = size[number], hold[number]
    for _ in range(10):
        new_faces = flip_edges(x, new_faces, hold)
        x = _relax(x, new_faces, size, hold, old)
    for _ in range(3):
        new_faces = flip_edges(x, new_faces, hold)
    if len(old.rim):  # the vertex that closed the holes comes last
        x, hold, number = x[:-1], hold[:-1], number[:-1]
        new_faces = new_faces[(new_faces < len(x)).all(1)]
    source, weights = old.locate(x, hold % 2 == 1)
    stays = np.flatnonzero(hold >= 2)
    source[stays], weights[stays] = number[stays, None], (1.0, 0.0, 0.0)
    place = np.full(len(verts), -1)
    place[number[stays]] = stays
    new_pins = np.zeros(0, np.int64) if pins is None else place[pins.cpu().numpy()]

    def tensor(a: Ints | Floats) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a)).to(mesh.device)

    positions = tensor(np.einsum("vc,vcd->vd", weights, verts[source])).to(mesh.dtype)
    carried = tensor(weights).to(mesh.dtype)
    return Resized(Mesh(positions, tensor(new_faces)), tensor(source), carried, tensor(new_pins))


def _check_sound(verts: Floats, faces: Ints) -> None:
    """Refuse what cannot be remeshed; `repair` mends all of it but one-sidedness."""
    table = topology.edges(faces)
    ok = len(faces) and np.isfinite(verts[faces]).all() and not topology.collapsed_faces(faces).any()
    ok = ok and not len(topology.nonmanifold_vertices(faces, table))
    if not (ok and topology.orientation(faces, table).is_consistent):
        raise ValueError(
            "mesh: expected finite triangles, manifold and oriented, found a mesh with problems; see "
            "health(mesh), and mend them with repair"
        )


def _check_pieces(verts: Floats, faces: Ints, longest: float, limit: float) -> None:
    """Refuse surfaces with edges so long beside the triangles wanted that halving them would not end.

    A round of `_split_long` makes three of a thin triangle, which has two long edges, and four of a fat one.
    """
    corners = verts[faces]
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2) / longest
        shortest, middle, most = np.sort(np.maximum(lengths, 1), axis=1).T
        pieces = (most / middle) * (middle / shortest) ** np.log2(3) * shortest**2
    if not pieces.sum() < limit:
        raise ValueError(
            f"mesh: its longest edges are {most.max():.3g} times as long as those wanted; ask for more vertices, or "
            "subdivide or remove the long triangles first"
        )


class _Segments:
    """Closest points of line segments `ends` (n, 2, 3) that are short beside the distances that matter."""

    def __init__(self, ends: Floats) -> None:
        self.start, self.step = ends[:, 0], ends[:, 1] - ends[:, 0]
        self.tree = cKDTree(ends.mean(1)) if len(ends) else None

    def __len__(self) -> int:
        return len(self.start)

    def closest(self, points: Floats) -> tuple[Floats, Ints]:
        """The closest point (n, 3) to each of `points` (n, 3), and the segment (n,) it lies on."""
        assert self.tree is not None
        near = self.tree.query(points, k=np.arange(1, min(8, len(self)) + 1))[1]
        start, step = self.start[near], self.step[near]
        t = ((points[:, None] - start) * step).sum(-1) / (step**2).sum(-1).clip(1e-300)
        place = start + t.clip(0, 1)[..., None] * step
        best = ((place - points[:, None]) ** 2).sum(-1).argmin(1)
        row = np.arange(len(points))
        return place[row, best], near[row, best]


class _Dense:
    """The surface in triangles that are small beside those wanted, and closest points on it.

    Attributes:
        verts: (N, 3), the old ones first.
        faces: (G, 3).
        size: (N,) relative edge length wanted.
        rim: (n, 2) directed edges with a face on their left only.
        is_rim: (N,) 1 for their vertices.
    """

    def __init__(self, verts: Floats, faces: Ints, n_verts: int) -> None:
        area = np.linalg.norm(_area_vectors(verts[faces]), axis=1).sum() / 2
        length = np.sqrt(2 / np.sqrt(3) * area / n_verts)  # of the edges if all triangles were equilateral
        self.old_verts, self.old_faces = verts, faces
        size = _follow_bends(verts, faces, length)
        longest = 0.75 * length
        _check_pieces(verts, faces, longest, PIECES + 20 * n_verts)
        split = _split_long(verts, faces, longest)
        while len(split[0]) < 1.5 * n_verts:
            longest *= 0.75
            split = _split_long(verts, faces, longest)
        self.verts, self.faces, self.parent, ends = split
        self.size = size
        for pair in ends:
            self.size = np.append(self.size, self.size[pair].mean(1))
        table = topology.edges(self.faces)
        face, corner = np.nonzero(np.isin(table.face_edges, np.flatnonzero(table.n_faces == 1)))
        self.rim = np.stack([self.faces[face, (corner + i) % 3] for i in (1, 2)], axis=1)
        self.rim_parent = self.parent[face]
        self.is_rim = np.zeros(len(self.verts), np.int64)
        self.is_rim[self.rim] = 1
        self._solid = np.flatnonzero(~flat_faces(self.verts, self.faces))
        self._surface = TriangleTree(self.verts, self.faces[self._solid])
        self.rim_line, self.length = _Segments(self.verts[self.rim]), length
        normal = _area_vectors(self.verts[self.faces])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-300)
        glued = np.flatnonzero(table.n_faces == 2)
        turn = (normal[table.faces[glued, 0]] * normal[table.faces[glued, 1]]).sum(1)
        self.crease_line = _Segments(self.verts[table.verts[glued[turn < SHARP]]])

    def project(self, points: Floats) -> Floats:
        """(n, 3) points to the closest ones of the surface; those at NaN stay there."""
        out, finite = points.copy(), np.isfinite(points).all(1)
        if finite.any():
            face, weights = self._surface.closest(points[finite])
            out[finite] = np.einsum("nc,ncd->nd", weights, self._surface.corners[face])
        return out

    def locate(self, points: Floats, on_rim: Bools) -> tuple[Ints, Floats]:
        """Old vertices (n, 3) and weights (n, 3) of points (n, 3) of the surface."""
        parent = np.empty(len(points), np.int64)
        parent[~on_rim] = self.parent[self._solid[self._surface.closest(points[~on_rim])[0]]]
        if on_rim.any():
            parent[on_rim] = self.rim_parent[self.rim_line.closest(points[on_rim])[1]]
        source = self.old_faces[parent]
        return source, closest_weights(points, self.old_verts[source])


def _follow_bends(verts: Floats, faces: Ints, length: float) -> Floats:
    """(V,) relative edge lengths: `length`, but at most 1.6 radii of curvature and no less than its 2.5th part."""
    normal = Mesh(torch.from_numpy(verts), torch.from_numpy(faces)).vertex_normals.numpy()
    i, j = topology.edges(faces).verts.T
    i, j = np.r_[i, j], np.r_[j, i]
    apart = np.linalg.norm(verts[i] - verts[j], axis=1)
    bend = np.linalg.norm(normal[i] - normal[j], axis=1) / np.maximum(apart, 0.5 * length)
    degree = np.bincount(i, minlength=len(verts)).clip(1)
    sharp = np.zeros(len(verts))
    np.maximum.at(sharp, i, bend)
    wanted = np.clip(1.6 / np.maximum(sharp, 1e-300), length / 2.5, length)
    for _ in range(6):  # graded, so that triangles stay well shaped
        wanted = np.minimum(wanted, (wanted + np.bincount(i, wanted[j], len(verts)) / degree) / 2)
    return wanted / length


def _split_long(verts: Floats, faces: Ints, longest: float) -> tuple[Floats, Ints, Ints, list[Ints]]:
    """Halve all edges longer than `longest`, again and again: vertices, faces, the old face of each face, and the
    ends (n, 2) of the edges halved in each round (their middles are numbered on)."""
    parent = np.arange(len(faces))
    rounds: list[Ints] = []
    while True:
        table = topology.edges(faces)
        ends = table.verts
        long = np.linalg.norm(verts[ends[:, 0]] - verts[ends[:, 1]], axis=1) > longest
        if not long.any():
            return verts, faces, parent, rounds
        middle = np.where(long, len(verts) + np.cumsum(long) - 1, -1)[table.face_edges]
        verts = np.concatenate([verts, verts[ends[long]].mean(1)])
        rounds.append(ends[long])
        faces, of = _split_faces(verts, faces, middle)
        parent = parent[of]


def _split_faces(verts: Floats, faces: Ints, middle: Ints) -> tuple[Ints, Ints]:
    """Faces (F, 3) with new vertices `middle` (F, 3) on the edges opposite to their corners, -1 for none, as
    triangles, and the face each of these is part of."""
    n: Ints = (middle >= 0).sum(1)
    odd = np.where(n == 2, (middle < 0).argmax(1), (middle >= 0).argmax(1))  # the edge unlike the others
    turn = (odd[:, None] + np.arange(3)) % 3
    (a, b, c), (p, q, r) = (
        np.take_along_axis(x, turn, 1).T for x in (faces, middle)
    )  # p on bc, q on ca, r on ab
    two: Bools = n == 2
    across = np.zeros(len(faces), bool)
    across[two] = ((verts[r[two]] - verts[c[two]]) ** 2).sum(1) < ((verts[q[two]] - verts[b[two]]) ** 2).sum(
        1
    )
    parts = [
        (n == 0, (a, b, c)),
        *((n == 1, t) for t in ((a, b, p), (a, p, c))),
        *((two & across, t) for t in ((a, r, q), (r, b, c), (r, c, q))),
        *((two & ~across, t) for t in ((a, r, q), (r, b, q), (b, c, q))),
        *((n == 3, t) for t in ((a, r, q), (r, b, p), (q, p, c), (p, q, r))),
    ]
    return (
        np.concatenate([np.stack(t, 1)[which] for which, t in parts]),
        np.concatenate([np.flatnonzero(which) for which, _ in parts]),
    )


def _relax(x: Floats, faces: Ints, size: Floats, hold: Ints, old: _Dense) -> Floats:
    """Free vertices go half way to the mean of their neighbours, small ones counting more, along the surface;
    those of the rim along it."""
    i, j = faces.ravel(), np.roll(faces, -1, 1).ravel()  # every edge of a closed mesh, both ways
    rim, whole = hold % 2 == 1, np.asarray(np.isfinite(x).all(1))
    good = whole[i] & whole[j] & (rim[j] | ~rim[i])
    i, j = i[good], j[good]
    weight = 1 / size[j]
    total = np.bincount(i, weight, len(x))
    mean = np.stack([np.bincount(i, weight * x[j, d], len(x)) for d in range(3)], axis=1)
    step = mean / total.clip(1e-300)[:, None] - x
    there = torch.from_numpy(np.ascontiguousarray(faces[whole[faces].all(1)]))
    normal = Mesh(torch.from_numpy(np.nan_to_num(x)), there).vertex_normals.numpy()
    step -= (step * normal).sum(1, keepdims=True) * normal * ~rim[:, None]  # else sharp edges wear away
    moved = x.copy()
    inner, along = (np.flatnonzero((hold == h) & (total > 0)) for h in (0, 1))
    moved[inner] = old.project(x[inner] + 0.5 * step[inner])
    if len(along):
        moved[along] = old.rim_line.closest(x[along] + 0.5 * step[along])[0]
    if len(old.crease_line):
        place = old.crease_line.closest(moved[inner])[0]
        near = np.linalg.norm(place - moved[inner], axis=1) < SNAP * old.length * size[inner]
        moved = _move_soundly(moved, inner[near], place[near], there.numpy())
    return moved


def _move_soundly(x: Floats, which: Ints, place: Floats, faces: Ints) -> Floats:
    """Vertices `which` (n,) at `place` (n, 3), those excepted that would turn a face over or make it a sliver."""
    before = _area_vectors(x[faces])
    for _ in range(3):
        moved = x.copy()
        moved[which] = place
        corners = moved[faces]
        after = _area_vectors(corners)
        squares = ((corners - np.roll(corners, 1, axis=1)) ** 2).sum((1, 2))
        aligned = (before * after).sum(1) / np.linalg.norm(before, axis=1).clip(1e-300)
        bad = np.isin(which, faces[aligned < 0.06 * squares])  # 0.29 is equilateral
        if not bad.any():
            return moved
        which, place = which[~bad], place[~bad]
    return x


def _area_vectors(corners: Floats) -> Floats:
    """(F, 3) normals as long as twice the area of triangles (F, 3, 3)."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
