"""Closed manifold meshes made coarser, with well-shaped triangles: collapse short edges, flip, even out.

Every step works on many edges at once, on a set of edges so far apart that they do not meet.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from geoframe._types import Bools, Floats, Ints

OnPoints = Callable[[Floats], Floats]


def coarsen(
    verts: Floats,
    faces: Ints,
    n_verts: int,
    *,
    on_surface: OnPoints,
    size: Floats | None = None,
    hold: Ints | None = None,
    seed: int = 0,
) -> tuple[Floats, Ints, Ints]:
    """Collapse edges, short ones first, until `n_verts` vertices are left; the topology is kept.

    Args:
        verts: (V, 3).
        faces: (F, 3), closed, manifold, oriented. A surface with a rim is closed by a vertex at NaN, joined to the rim:
            its faces never count.
        n_verts: how many vertices to leave.
        on_surface: moves points (n, 3) to the surface.
        size: (V,) relative edge length wanted around each vertex; equal everywhere by default.
        hold: (V,) 0 for free vertices, 1 for those of a rim, which move along it only, 2 for those that stay
            where they are, 3 for those of a rim that stay. All free by default.
        seed: of the order in which edges of about one length go.

    Returns:
        verts (n_verts, 3), faces, and the numbers (n_verts,) that the vertices had; more vertices than asked
        for where no further edge can go without a fold or a change of topology.
    """
    size = np.ones(len(verts)) if size is None else size
    hold = np.zeros(len(verts), np.int64) if hold is None else hold
    rng = np.random.default_rng(seed)
    number = np.arange(len(verts))
    a, b, c = verts[faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2 / size[faces].mean(1) ** 2
    goal = np.sqrt(np.nansum(area) / n_verts)  # side of a square for each vertex, relative to size
    short = 0.7 * goal
    while len(verts) > n_verts and short < 100 * goal:
        edges = edge_table(faces)[0]
        a, b = edges.T
        edges = np.where((hold[b] > hold[a])[:, None], edges[:, ::-1], edges)  # held ends first
        length = _norm(verts.T[:, a] - verts.T[:, b]) / ((size[a] + size[b]) / 2)
        wanted = (length < short) & ~_both_held(hold[edges])
        pick, place = _collapsible(verts, faces, edges, wanted, hold, on_surface, rng)
        if len(pick) < 0.002 * len(verts):  # few are left: take longer ones, too
            short *= 1.05
        if len(pick) == 0:
            continue
        first = np.argsort(length[pick])[: len(verts) - n_verts]
        keep, gone = edges[pick[first]].T
        verts, size = verts.copy(), size.copy()
        verts[keep] = place[first]
        size[keep] = np.minimum(size[keep], size[gone])
        used, faces = _drop(len(verts), faces, keep, gone)
        verts, size, hold, number = verts[used], size[used], hold[used], number[used]
        faces = flip_edges(verts, faces, hold)  # else slivers soon stop the way
    return verts, faces, number


def flip_edges(verts: Floats, faces: Ints, hold: Ints | None = None) -> Ints:
    """One round of flips of edges whose opposite angles sum to more than pi; no edge is made twice.

    With `hold` as in `coarsen`, no edge is made between two vertices of a rim.
    """
    half = _halves(faces)
    edges, wing, apex = _table(faces, half)
    excess = _angles(verts, faces).ravel()[half].sum(1) - np.pi
    wanted = np.flatnonzero(excess > 1e-6)
    new = np.sort(apex[wanted], axis=1)
    V = len(verts)
    able = ~_among(new @ np.array([V, 1]), edges @ np.array([V, 1])) & (new[:, 0] != new[:, 1])
    if hold is not None:
        able &= ~(hold[new] % 2 == 1).all(1)
    wanted = wanted[able]
    rank = np.full(len(edges), len(edges))
    rank[wanted[np.argsort(-excess[wanted])]] = np.arange(len(wanted))
    first = np.full(len(faces), len(edges))
    np.minimum.at(first, wing[wanted], rank[wanted][:, None])
    pick = wanted[(first[wing[wanted]] == rank[wanted][:, None]).all(1)]
    pick = pick[np.unique(np.sort(apex[pick], axis=1) @ [V, 1], return_index=True)[1]]
    (a, b), (c, d) = edges[pick].T, apex[pick].T  # face 0 runs a -> b towards c, face 1 runs b -> a towards d
    one, two = np.stack([c, d, b], axis=1), np.stack([d, c, a], axis=1)
    before = _normals(verts, faces[wing[pick, 0]]) + _normals(verts, faces[wing[pick, 1]])
    ok = np.minimum(*(_dot(before, _normals(verts, f)) for f in (one, two))) > 0
    faces = faces.copy()
    faces[wing[pick[ok], 0]], faces[wing[pick[ok], 1]] = one[ok], two[ok]
    return faces


def edge_table(faces: Ints) -> tuple[Ints, Ints, Ints]:
    """Of a closed, oriented manifold: edges (E, 2) with a < b, their faces (E, 2), the first running a -> b, and the
    corners (E, 2) of these faces opposite to the edge."""
    return _table(faces, _halves(faces))


def _halves(faces: Ints) -> Ints:
    """(E, 2) corners, numbered through all faces, that are opposite to each edge; first that of the face a -> b."""
    a, b = faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel()
    key = np.minimum(a, b) * (faces.max() + 1) + np.maximum(a, b)
    return np.argsort(2 * key + (a > b)).reshape(-1, 2)  # no two are equal


def _table(faces: Ints, half: Ints) -> tuple[Ints, Ints, Ints]:
    face, place = half[:, 0] // 3, half[:, 0] % 3
    ends = np.stack([faces[face, (place + 1) % 3], faces[face, (place + 2) % 3]], axis=1)
    return ends, half // 3, faces.ravel()[half]


def _apart(edges: Ints, rank: Ints, n_verts: int) -> Ints:
    """Edges of lowest rank among all edges at their ends and at the neighbours of their ends."""
    low = np.full(n_verts, len(edges))
    np.minimum.at(low, edges, rank[:, None])
    near = low.copy()
    np.minimum.at(near, edges, low[edges[:, ::-1]])
    a, b = edges.T
    return np.flatnonzero((near[a] == rank) & (near[b] == rank) & (rank < len(edges)))


def _both_held(hold: Ints) -> Bools:
    """Of pairs (E, 2) those whose ends can neither of them move to the other: both stay, or one leaves the rim."""
    (a, b), rim = (hold >= 2).T, (hold % 2 == 1).T
    return (a & b) | (a & rim[1] & ~rim[0]) | (b & rim[0] & ~rim[1])


def _can_collapse(verts: Floats, faces: Ints, edges: Ints, place: Floats, hold: Ints) -> Bools:
    """Whether each edge can become the point `place`: no change of topology, no face turned over, and no edge
    between two vertices of a rim but along it."""
    V, F = len(verts), len(faces)
    ones = np.ones(3 * F, np.int32)  # each edge is run through once either way
    A = sp.coo_matrix((ones, (faces.ravel(), faces[:, [1, 2, 0]].ravel())), shape=(V, V)).tocsr()
    common = np.asarray(A[edges[:, 0]].multiply(A[edges[:, 1]]).sum(1)).ravel()
    at = sp.coo_matrix((np.ones(3 * F), (faces.ravel(), np.repeat(np.arange(F), 3))), shape=(V, F)).tocsr()
    ok = common == 2
    rim = hold % 2 == 1
    if rim.any():
        along = A @ rim.astype(np.int32)
        shared = np.asarray(A[edges[:, 0]].multiply(A[edges[:, 1]]) @ rim.astype(np.int32)).ravel()
        onto = rim[edges[:, 0]] & ~rim[edges[:, 1]]
        ok &= ~onto | (along[edges[:, 1]] - shared == 1)
    normals = _normals(verts, faces)
    for end in range(2):
        rows = at[edges[:, end]]
        e, f = np.repeat(np.arange(len(edges)), np.diff(rows.indptr)), rows.indices
        corners, opposite = faces.T[:, f], edges[e, 1 - end]
        a, b, c = corners == opposite
        other = ~(a | b | c)  # the two faces at the edge go away
        e, f, corners = e[other], f[other], corners[:, other]
        after = np.where(corners == edges[e, end], V + e, corners).T
        turned = _dot(normals[:, f], _normals(np.concatenate([verts, place]), after)) < 0.3
        ok[e[turned]] = False
    return ok


def _collapsible(
    verts: Floats,
    faces: Ints,
    edges: Ints,
    wanted: Bools,
    hold: Ints,
    on_surface: OnPoints,
    rng: np.random.Generator,
) -> tuple[Ints, Floats]:
    """Of the wanted edges those (n,) that can go at the same time, and the points (n, 3) they become."""
    chance = rng.permutation(len(edges))  # ranked by length, few edges are lowest around
    rank = np.where(wanted, chance, len(edges))
    tried = _apart(edges, rank, len(verts))
    place = _merged(verts, edges[tried], hold, on_surface)
    ok = _can_collapse(verts, faces, edges[tried], place, hold)
    if ok.sum() <= len(ok) / 2:  # look at all, so that the neighbours of those that cannot go have a turn
        tried = np.flatnonzero(wanted)
        place = _merged(verts, edges[tried], hold, on_surface)
        ok = _can_collapse(verts, faces, edges[tried], place, hold)
        rank[tried[~ok]] = len(edges)
        ok = _among(tried, _apart(edges, rank, len(verts)))
    return tried[ok], place[ok]


def _merged(verts: Floats, edges: Ints, hold: Ints, on_surface: OnPoints) -> Floats:
    """(n, 3) where edges become points: their first end if only that is held, or if it stays; else the middle."""
    first, second = hold[edges].T
    stays = (first >= 2) | (first != second)
    place = verts[edges[:, 0]]
    if not stays.all():
        place[~stays] = on_surface(verts[edges[~stays]].mean(1))
    return place


def _drop(n_verts: int, faces: Ints, keep: Ints, gone: Ints) -> tuple[Ints, Ints]:
    """Vertices `gone` are taken for `keep`; the vertices still in use, and the faces that are left of them."""
    number = np.arange(n_verts)
    number[gone] = keep
    faces = number[faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    kept = np.zeros(n_verts, bool)
    kept[faces.ravel()] = True
    used = np.flatnonzero(kept)
    number[used] = np.arange(len(used))
    return used, number[faces]


def _among(values: Ints, sorted_ones: Ints) -> Bools:
    """Whether each value is one of others that are sorted already."""
    return np.searchsorted(sorted_ones, values) < np.searchsorted(sorted_ones, values, side="right")


def _angles(verts: Floats, faces: Ints) -> Floats:
    """(F, 3) the angle at each corner."""
    along = [verts.T[:, faces[:, (i + 1) % 3]] - verts.T[:, faces[:, i]] for i in range(3)]  # each (3, F)
    along = [x / _norm(x).clip(1e-300) for x in along]
    return np.stack([np.arccos((-_dot(along[i], along[i - 1])).clip(-1, 1)) for i in range(3)], axis=1)


def _normals(verts: Floats, faces: Ints) -> Floats:
    """(3, F) unit normals; coordinates come first here, so that each is contiguous."""
    a, b, c = (verts.T[:, faces[:, i]] for i in range(3))
    (ux, uy, uz), (vx, vy, vz) = b - a, c - a
    n = np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx])
    return n / _norm(n).clip(1e-300)


def _norm(x: Floats) -> Floats:
    return np.sqrt(_dot(x, x))


def _dot(x: Floats, y: Floats) -> Floats:
    """(n,) products of vectors (3, n)."""
    return x[0] * y[0] + x[1] * y[1] + x[2] * y[2]
