"""`repair`: mend a mesh, only where asked to, and say where every vertex and face went."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_int
from geoframe._types import Bools, Floats, Ints
from geoframe.surface import topology
from geoframe.surface.health import flat_faces, numpy_pose, outliers, patch_facing
from geoframe.surface.mesh import Mesh


@dataclass(frozen=True, eq=False)
class Repair:
    """A mended mesh and the ways between it and the mesh it comes from.

    Attributes:
        mesh: the new mesh, V' vertices and F' faces, with colours and texture coordinates carried along.
        vertex_map: (V,) int64, the new index of each old vertex, -1 for removed. Merged vertices share one.
        face_map: (F,) int64, the new index of each old face, -1 for removed.
        vertex_source: (V',) int64, the old vertex that each new one is (a copy of): f_new = f_old[vertex_source].
    """

    mesh: Mesh
    vertex_map: Tensor
    face_map: Tensor
    vertex_source: Tensor


@dataclass(frozen=True, eq=False)
class _Work:
    """The mesh while it is worked on: vertices are only marked or added, and leave at the end."""

    verts: Floats  # (W, 3)
    source: Ints  # (W,) old vertex of each
    is_dropped: Bools  # (W,)
    vertex_map: Ints  # (V,) working vertex that stands for each old one
    faces: Ints  # (F', 3)
    uv_faces: Ints | None  # (F', 3), -1: none
    face_source: Ints  # (F',) old face, -1: new

    def keep(self, faces: Bools) -> _Work:
        uv_faces = None if self.uv_faces is None else self.uv_faces[faces]
        return replace(self, faces=self.faces[faces], uv_faces=uv_faces, face_source=self.face_source[faces])

    def turn(self, faces: Bools) -> _Work:
        def turned(x: Ints) -> Ints:
            return np.where(faces[:, None], x[:, [0, 2, 1]], x)

        return replace(
            self,
            faces=turned(self.faces),
            uv_faces=None if self.uv_faces is None else turned(self.uv_faces),
        )


def repair(
    mesh: Mesh,
    *,
    drop_nonfinite: bool = False,
    drop_outliers: bool = False,
    merge_vertices: bool = False,
    drop_degenerate: bool = False,
    drop_duplicates: bool = False,
    split_nonmanifold: bool = False,
    keep_largest: bool = False,
    orient: bool = False,
    fill_holes: int = 0,
    drop_unreferenced: bool = False,
) -> Repair:
    """Mend what the switches name, in this order; with none set the mesh comes back as it is.

    What stays keeps its order. Repairing twice with the same switches changes nothing the second time, unless
    they join `merge_vertices` with `split_nonmanifold`: the copies that one makes are twins for the other.

    Args:
        mesh: one pose, (V, 3).
        drop_nonfinite: remove vertices with NaN or infinite coordinates, and their faces.
        drop_outliers: remove vertices that lie very far from all others (see `Health.outlier_vertices`), and
            their faces.
        merge_vertices: vertices at exactly the same place become the first of them. Corners keep their
            texture coordinates.
        drop_degenerate: remove faces that name a vertex twice. A face whose three vertices stand in a line is
            flipped with its neighbour across the longest edge, which leaves no crack; where that is not
            possible it is removed.
        drop_duplicates: of faces with the same three vertices the first stays.
        split_nonmanifold: give each fan of faces around a vertex its own copy of it (new vertices come last).
            Edges of three or more faces come apart into sheets with boundaries, touching solids into solids.
        keep_largest: remove all components but the one with the most area.
        orient: turn faces so that neighbours agree, and pieces so that they face outward (also the inner
            walls of hollow solids). One-sided pieces stay.
        fill_holes: close boundary loops of at most this many edges without adding vertices, by the
            triangulation of least area; loops that meet themselves, or that only flat faces or edges already
            there could close, stay.
        drop_unreferenced: remove vertices of no face.

    Raises:
        TypeError: not a `Mesh`.
        ValueError: a batch of poses, or `fill_holes` outside 0 to 1000.
    """
    verts, faces = numpy_pose(mesh)
    check_int(fill_holes, "fill_holes", low=0, high=1000)
    uv_faces = None if mesh.uv_faces is None else mesh.uv_faces.cpu().numpy()
    if merge_vertices and mesh.uv is not None and uv_faces is None:
        uv_faces = faces
    V = len(verts)
    work = _Work(verts, np.arange(V), np.zeros(V, bool), np.arange(V), faces, uv_faces, np.arange(len(faces)))
    steps = (
        (drop_nonfinite, lambda w: _drop(w, np.flatnonzero(~np.all(np.isfinite(w.verts), axis=1)))),
        (drop_outliers, lambda w: _drop(w, outliers(w.verts))),
        (merge_vertices, _merge_vertices),
        (drop_degenerate, _drop_degenerate),
        (drop_duplicates, _drop_duplicates),
        (split_nonmanifold, _split_nonmanifold),
        (keep_largest, _keep_largest),
        (orient, _make_consistent),
        (fill_holes > 0, lambda w: _fill_holes(w, fill_holes)),
        (orient, _face_outward),
        (drop_unreferenced, _drop_unreferenced),
    )
    for wanted, step in steps:
        if wanted:
            work = step(work)
    return _finish(mesh, work)


def _finish(mesh: Mesh, work: _Work) -> Repair:
    """Number what is left and gather the tensors, gradients included."""
    kept = ~work.is_dropped
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    vertex_map = np.where(work.vertex_map >= 0, number[work.vertex_map], -1)
    face_map = np.full(mesh.n_faces, -1)
    old = work.face_source >= 0
    face_map[work.face_source[old]] = np.flatnonzero(old)

    def tensor(x: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, np.int64)).to(mesh.device)

    source = tensor(work.source[kept])
    uv, uv_faces = mesh.uv, None
    if uv is not None and work.uv_faces is None:
        uv = uv[source]
    elif uv is not None and work.uv_faces is not None:
        missing = work.uv_faces < 0
        uv_faces = tensor(np.where(missing, len(uv), work.uv_faces))
        if missing.any():
            uv = torch.cat([uv, uv.new_full((1, 2), torch.nan)])
    colors = None if mesh.colors is None else mesh.colors[source]
    mended = Mesh(mesh.verts[source], tensor(number[work.faces]), colors, uv, uv_faces)
    return Repair(mended, tensor(vertex_map), tensor(face_map), source)


def _drop(work: _Work, which: Ints) -> _Work:
    """Without some vertices, by number, and their faces."""
    bad = np.zeros(len(work.verts), bool)
    bad[which] = True
    return replace(work.keep(~np.any(bad[work.faces], axis=1)), is_dropped=work.is_dropped | bad)


def _merge_vertices(work: _Work) -> _Work:
    first = topology.first_equal_rows(work.verts)
    gone = first != np.arange(len(first))
    return replace(
        work, faces=first[work.faces], vertex_map=first[work.vertex_map], is_dropped=work.is_dropped | gone
    )


def _drop_degenerate(work: _Work) -> _Work:
    work = work.keep(~topology.collapsed_faces(work.faces))
    while True:
        flipped = _flip_flat_faces(work)
        if flipped is None:
            return work.keep(~flat_faces(work.verts, work.faces))
        work = flipped


def _flip_flat_faces(work: _Work) -> _Work | None:
    """One pass of edge flips, each turning a flat face b, a, c and its neighbour d, c, a into two with area.

    Every flip leaves one flat face less, so that passes come to an end; None when no flip is possible.
    """
    flat = flat_faces(work.verts, work.faces)
    table = topology.edges(work.faces)
    known = set(map(tuple, table.verts.tolist())) if flat.any() else set()
    faces, uv_faces = work.faces.copy(), None if work.uv_faces is None else work.uv_faces.copy()
    touched = flat.copy()
    n_flips = 0
    for f in np.flatnonzero(flat).tolist():
        corners = work.verts[faces[f]]
        k = int(np.argmax(((corners[[1, 2, 0]] - corners[[2, 0, 1]]) ** 2).sum(1)))
        e = table.face_edges[f, k]
        if table.n_faces[e] != 2:
            continue
        g = int(table.faces[e].sum() - f)
        m = int(np.argmax(table.face_edges[g] == e))
        b, a, c = faces[f, [k, (k + 1) % 3, (k + 2) % 3]]
        d = faces[g, m]
        new = np.array([[b, a, d], [b, d, c]])
        agree = faces[g, (m + 1) % 3] == c
        key = (int(min(b, d)), int(max(b, d)))
        if touched[g] or not agree or b == d or key in known or flat_faces(work.verts, new).any():
            continue
        faces[[f, g]] = new
        if uv_faces is not None:
            tb, ta, tc = uv_faces[f, [k, (k + 1) % 3, (k + 2) % 3]]
            td = uv_faces[g, m]
            uv_faces[[f, g]] = [[tb, ta, td], [tb, td, tc]]
        known.add(key)
        touched[g] = True
        n_flips += 1
    return replace(work, faces=faces, uv_faces=uv_faces) if n_flips else None


def _drop_duplicates(work: _Work) -> _Work:
    keep = np.ones(len(work.faces), bool)
    keep[topology.duplicate_faces(work.faces)] = False
    return work.keep(keep)


def _split_nonmanifold(work: _Work) -> _Work:
    n_fans, fans = topology.corner_fans(work.faces)
    whole = fans >= 0
    vertex = np.empty(n_fans, np.int64)
    vertex[fans[whole]] = work.faces[whole]
    extra = np.ones(n_fans, bool)
    extra[np.unique(vertex, return_index=True)[1]] = False
    target = vertex.copy()
    target[extra] = len(work.verts) + np.arange(extra.sum())
    copied = vertex[extra]
    faces = work.faces.copy()
    faces[whole] = target[fans[whole]]
    return replace(
        work,
        verts=np.concatenate([work.verts, work.verts[copied]]),
        source=np.concatenate([work.source, work.source[copied]]),
        is_dropped=np.concatenate([work.is_dropped, np.zeros(len(copied), bool)]),
        faces=faces,
    )


def _keep_largest(work: _Work) -> _Work:
    n, label = topology.vertex_components(work.faces, len(work.verts))
    if not n:
        return work
    a, b, c = (work.verts[work.faces[:, i]] for i in range(3))
    area = np.nan_to_num(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    of_face = label[work.faces].min(1)
    best = int(np.argmax(np.bincount(of_face[of_face >= 0], area[of_face >= 0], minlength=n)))
    gone = (label >= 0) & (label != best)
    return replace(work.keep((label[work.faces] == best).all(1)), is_dropped=work.is_dropped | gone)


def _make_consistent(work: _Work) -> _Work:
    return work.turn(topology.orientation(work.faces).flip)


def _face_outward(work: _Work) -> _Work:
    turn = topology.orientation(work.faces)
    judged = np.all(np.isfinite(work.verts), axis=1)[work.faces].all(1) & ~turn.one_sided
    inward = patch_facing(work.verts, work.faces[judged], turn.patches[judged]) < 0
    faces = np.isin(turn.patches, np.flatnonzero(inward)) & ~turn.one_sided
    return work.turn(faces)


def _drop_unreferenced(work: _Work) -> _Work:
    used = np.bincount(work.faces.ravel(), minlength=len(work.verts)) > 0
    return replace(work, is_dropped=work.is_dropped | ~used)


def _fill_holes(work: _Work, longest: int) -> _Work:
    table = topology.edges(work.faces)
    free = {(int(i), int(j)) for i, j in table.verts[table.n_faces == 1]}
    place = topology.first_equal_rows(work.verts)  # edges and faces count as known also between twin vertices
    known = {(min(i, j), max(i, j)) for i, j in place[table.verts].tolist()}
    existing = {tuple(sorted(f)) for f in place[work.faces].tolist()}
    patches: list[list[int]] = []
    for loop in topology.boundary_loops(work.faces, table):
        spots = place[loop].tolist()
        closing = (int(min(loop[0], loop[-1])), int(max(loop[0], loop[-1])))
        if not 3 <= len(loop) <= longest or len(set(spots)) < len(loop) or closing not in free:
            continue
        patch = _least_area_patch(work.verts[loop], spots, known)
        if patch is None or (len(loop) == 3 and tuple(sorted(spots)) in existing):
            continue
        patches += [loop[f].tolist() for f in patch]
        known |= {
            (min(spots[i], spots[j]), max(spots[i], spots[j])) for f in patch for i, j in combinations(f, 2)
        }
        existing |= {tuple(sorted(spots[i] for i in f)) for f in patch}
    if not patches:
        return work
    new = np.array(patches)
    uv_faces = None if work.uv_faces is None else np.concatenate([work.uv_faces, np.full_like(new, -1)])
    return replace(
        work,
        faces=np.concatenate([work.faces, new]),
        uv_faces=uv_faces,
        face_source=np.concatenate([work.face_source, np.full(len(new), -1)]),
    )


def _least_area_patch(p: Floats, spots: list[int], known: set[tuple[int, int]]) -> list[list[int]] | None:
    """Triangles, as positions in a loop of points p (n, 3), that close it, running it backwards; None if none do.

    Least sum of areas (and, a thousandth of it, of squared lengths of new edges: among equals short ones win)
    over all triangulations of the loop, by dynamic programming over its sub-chains; O(n^3). No new edge joins
    two `spots` whose pair is `known`, no face is flat.
    """
    n = len(p)
    length2 = ((p[:, None] - p[None]) ** 2).sum(-1)
    cost = np.full((n, n), np.inf)
    middle = np.zeros((n, n), np.int64)
    cost[np.arange(n - 1), np.arange(1, n)] = 0
    for span in range(2, n):
        for i in range(n - span):
            j = i + span
            inner = span < n - 1
            if inner and (min(spots[i], spots[j]), max(spots[i], spots[j])) in known:
                continue
            m = np.arange(i + 1, j)
            corners = np.stack([np.full_like(m, i), m, np.full_like(m, j)], axis=1)
            area = np.linalg.norm(np.cross(p[m] - p[i], p[j] - p[i]), axis=1) / 2
            total = cost[i, m] + cost[m, j] + area + (1e-3 * length2[i, j] if inner else 0)
            total[flat_faces(p, corners)] = np.inf
            best = int(np.argmin(total))
            cost[i, j], middle[i, j] = total[best], m[best]
    if not np.isfinite(cost[0, n - 1]):
        return None
    triangles, chains = [], [(0, n - 1)]
    while chains:
        i, j = chains.pop()
        if j - i > 1:
            k = int(middle[i, j])
            triangles.append([j, k, i])
            chains += [(i, k), (k, j)]
    return triangles
