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
        edges = np.take_along_axis(
            edges, np.argsort(-hold[edges], axis=1, kind="stable"), 1
        )  # held ends first
        length = np.linalg.norm(verts[edges[:, 0]] - verts[edges[:, 1]], axis=1) / size[edges].mean(1)
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
    edges, wing, apex = edge_table(faces)
    ends = verts[edges][:, None] - verts[apex][:, :, None]  # (E, side, end, 3)
    ends /= np.linalg.norm(ends, axis=-1, keepdims=True).clip(1e-300)
    excess = np.arccos((ends[:, :, 0] * ends[:, :, 1]).sum(-1).clip(-1, 1)).sum(1) - np.pi
    wanted = np.flatnonzero(excess > 1e-6)
    new = np.sort(apex[wanted], axis=1)
    V = len(verts)
    able = ~np.isin(new @ [V, 1], edges @ [V, 1]) & (new[:, 0] != new[:, 1])
    if hold is not None:
        able &= ~(hold[new] % 2 == 1).all(1)
    wanted = wanted[able]
    rank = np.full(len(edges), len(edges))
    rank[wanted[np.argsort(-excess[wanted])]] = np.arange(len(wanted))
    first = np.full(len(faces), len(edges))
    np.minimum.at(first, wing, rank[:, None])
    pick = wanted[(first[wing[wanted]] == rank[wanted][:, None]).all(1)]
    pick = pick[np.unique(np.sort(apex[pick], axis=1) @ [V, 1], return_index=True)[1]]
    (a, b), (c, d) = edges[pick].T, apex[pick].T  # face 0 runs a -> b towards c, face 1 runs b -> a towards d
    one, two = np.stack([c, d, b], axis=1), np.stack([d, c, a], axis=1)
    before = _normals(verts[faces[wing[pick, 0]]]) + _normals(verts[faces[wing[pick, 1]]])
    ok = np.minimum(*((before * _normals(verts[f])).sum(1) for f in (one, two))) > 0
    faces = faces.copy()
    faces[wing[pick[ok], 0]], faces[wing[pick[ok], 1]] = one[ok], two[ok]
    return faces


def edge_table(faces: Ints) -> tuple[Ints, Ints, Ints]:
    """Of a closed, oriented manifold: edges (E, 2) with a < b, their faces (E, 2), the first running a -> b, and the
    corners (E, 2) of these faces opposite to the edge."""
    a, b = faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel()
    key = np.minimum(a, b) * (faces.max() + 1) + np.maximum(a, b)
    half = np.lexsort((a > b, key)).reshape(-1, 2)
    return np.stack([a[half[:, 0]], b[half[:, 0]]], axis=1), half // 3, faces.ravel()[half]


def _apart(edges: Ints, rank: Ints, n_verts: int) -> Ints:
    """Edges of lowest rank among all edges at their ends and at the neighbours of their ends."""
    low = np.full(n_verts, len(edges))
    np.minimum.at(low, edges, rank[:, None])
    near = low.copy()
    np.minimum.at(near, edges, low[edges[:, ::-1]])
    return np.flatnonzero((near[edges] == rank[:, None]).all(1) & (rank < len(edges)))


def _both_held(hold: Ints) -> Bools:
    """Of pairs (E, 2) those whose ends can neither of them move to the other: both stay, or one leaves the rim."""
    (a, b), rim = (hold >= 2).T, (hold % 2 == 1).T
    return (a & b) | (a & rim[1] & ~rim[0]) | (b & rim[0] & ~rim[1])


def _can_collapse(verts: Floats, faces: Ints, edges: Ints, place: Floats, hold: Ints) -> Bools:
    """Whether each edge can become the point `place`: no change of topology, no face turned over, and no edge
    between two vertices of a rim but along it."""
    V, F = len(verts), len(faces)
    table = edge_table(faces)[0]
    ones = np.ones(len(table), np.int32)
    A = sp.coo_matrix((ones, (table[:, 0], table[:, 1])), shape=(V, V)).tocsr()
    A = A + A.T
    common = np.asarray(A[edges[:, 0]].multiply(A[edges[:, 1]]).sum(1)).ravel()
    at = sp.coo_matrix((np.ones(3 * F), (faces.ravel(), np.repeat(np.arange(F), 3))), shape=(V, F)).tocsr()
    ok = common == 2
    rim = hold % 2 == 1
    if rim.any():
        along = A @ rim.astype(np.int32)
        shared = np.asarray(A[edges[:, 0]].multiply(A[edges[:, 1]]) @ rim.astype(np.int32)).ravel()
        onto = rim[edges[:, 0]] & ~rim[edges[:, 1]]
        ok &= ~onto | (along[edges[:, 1]] - shared == 1)
    for end in range(2):
        rows = at[edges[:, end]]
        e, f = np.repeat(np.arange(len(edges)), np.diff(rows.indptr)), rows.indices
        other = ~(faces[f] == edges[e, 1 - end][:, None]).any(1)  # the two faces at the edge go away
        e, f = e[other], f[other]
        before = verts[faces[f]]
        moved = (faces[f] == edges[e, end][:, None])[..., None]
        after = np.where(moved, place[e][:, None], before)
        turned = (_normals(before) * _normals(after)).sum(1) < 0.3
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
        ok = np.isin(tried, _apart(edges, rank, len(verts)))
    return tried[ok], place[ok]


def _merged(verts: Floats, edges: Ints, hold: Ints, on_surface: OnPoints) -> Floats:
    """(n, 3) where edges become points: their first end if only that is held, or if it stays; else the middle."""
    first, second = hold[edges].T
    stays = (first >= 2) | (first != second)
    place = verts[edges[:, 0]]
    place[~stays] = on_surface(verts[edges[~stays]].mean(1))
    return place


def _drop(n_verts: int, faces: Ints, keep: Ints, gone: Ints) -> tuple[Ints, Ints]:
    """Vertices `gone` are taken for `keep`; the vertices still in use, and the faces that are left of them."""
    number = np.arange(n_verts)
    number[gone] = keep
    faces = number[faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    used = np.unique(faces)
    number[used] = np.arange(len(used))
    return used, number[faces]


def _normals(corners: Floats) -> Floats:
    n = np.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])
    return n / np.linalg.norm(n, axis=-1, keepdims=True).clip(1e-300)
