"""Combinatorics of a triangle list: edges, components, boundary loops, manifoldness, orientation, genus.

Everything here looks at indices only: `faces` is an (F, 3) int64 array. A face that names a vertex twice has no
inside and takes no part (its edges and corners are -1). A *fan* is a set of corners at one vertex that hang
together through edges of exactly two faces; a manifold vertex has one fan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from geoframe._types import Array, Bools, Ints


class Edges(NamedTuple):
    """Undirected edges in lexicographic order, and how the faces use them.

    verts (E, 2) with verts[:, 0] < verts[:, 1] · n_faces (E,) faces around each edge ·
    faces (E, 2) the two lowest of them, -1 for none · face_edges (F, 3) the edge opposite to each corner, -1 in a
    collapsed face · forward (F, 3) whether the face, going round, runs that edge from its lower to its higher vertex.
    """

    verts: Ints
    n_faces: Ints
    faces: Ints
    face_edges: Ints
    forward: Bools


def edges(faces: Ints) -> Edges:
    """Edge table of a triangle list."""
    F = len(faces)
    tail, head = faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]
    whole = np.repeat(~collapsed_faces(faces), 3)
    low, high = np.minimum(tail, head).ravel()[whole], np.maximum(tail, head).ravel()[whole]
    n = int(faces.max()) + 1 if F else 1
    keys, inverse, n_faces = np.unique(low * n + high, return_inverse=True, return_counts=True)
    verts = np.stack([keys // n, keys % n], axis=1)
    face_edges = np.full(3 * F, -1, np.int64)
    face_edges[whole] = inverse
    first = np.cumsum(n_faces) - n_faces
    by_edge = (np.flatnonzero(whole) // 3)[np.argsort(inverse, kind="stable")]
    pair = np.full((len(keys), 2), -1, np.int64)
    pair[:, 0] = by_edge[first]
    several = n_faces > 1
    pair[several, 1] = by_edge[first[several] + 1]
    return Edges(verts, n_faces, pair, face_edges.reshape(F, 3), tail < head)


def collapsed_faces(faces: Ints) -> Bools:
    """(F,) whether a face names a vertex twice."""
    a, b, c = faces.T
    return (a == b) | (b == c) | (c == a)


def first_equal_rows(rows: Array) -> Ints:
    """(n,) for each row of an (n, d) array the index of the first row equal to it; NaN equals nothing."""
    n = len(rows)
    order = np.lexsort(rows.T[::-1]) if n else np.empty(0, np.int64)
    ordered = rows[order]
    is_new = np.ones(n, bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    out = np.empty(n, np.int64)
    out[order] = order[np.maximum.accumulate(np.where(is_new, np.arange(n), 0))] if n else order
    return out


def duplicate_faces(faces: Ints) -> Ints:
    """(n,) faces with the same three vertices as an earlier face, in any order."""
    return np.flatnonzero(first_equal_rows(np.sort(faces, axis=1)) != np.arange(len(faces)))


def _components(i: Ints, j: Ints, n: int) -> Ints:
    """(n,) component labels of the undirected graph with links i -- j."""
    graph = sp.coo_matrix((np.ones(len(i), bool), (i, j)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _number_in_order(labels: Ints, used: Bools) -> tuple[int, Ints]:
    """The labels of the used entries, numbered 0, 1, ... as they first appear; -1 elsewhere."""
    names, first, inverse = np.unique(labels[used], return_index=True, return_inverse=True)
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(first)] = np.arange(len(names))
    out = np.full(len(labels), -1, np.int64)
    out[used] = rank[inverse]
    return len(names), out


def vertex_components(faces: Ints, n_verts: int) -> tuple[int, Ints]:
    """Number of connected components, and (V,) the component of each vertex, -1 where no face uses it.

    Components hang together through shared vertices and are numbered by their lowest vertex.
    """
    faces = faces[~collapsed_faces(faces)]
    a, b, c = faces.T
    i, j = np.r_[a, b], np.r_[b, c]
    used = np.zeros(n_verts, bool)
    used[faces.ravel()] = True
    return _number_in_order(_components(i, j, n_verts), used)


def corner_fans(faces: Ints, table: Edges | None = None) -> tuple[int, Ints]:
    """Number of fans, and (F, 3) the fan of each corner, -1 in a collapsed face; numbered by lowest corner."""
    table = edges(faces) if table is None else table
    F = len(faces)
    glued = np.flatnonzero(table.n_faces == 2)
    f, g = table.faces[glued].T
    u, v = table.verts[glued].T

    def corner(face: Ints, vertex: Ints) -> Ints:
        return 3 * face + np.argmax(faces[face] == vertex[:, None], axis=1)

    i, j = np.r_[corner(f, u), corner(f, v)], np.r_[corner(g, u), corner(g, v)]
    n_fans, fans = _number_in_order(_components(i, j, 3 * F), np.repeat(~collapsed_faces(faces), 3))
    return n_fans, fans.reshape(F, 3)


def nonmanifold_edges(faces: Ints, table: Edges | None = None) -> Ints:
    """(n, 2) vertices of the edges that three or more faces share."""
    table = edges(faces) if table is None else table
    return table.verts[table.n_faces > 2]


def nonmanifold_vertices(faces: Ints, table: Edges | None = None) -> Ints:
    """(n,) vertices whose faces form more than one fan: two sheets touch there or an edge is not manifold."""
    n_fans, fans = corner_fans(faces, table)
    vertex = np.empty(n_fans, np.int64)
    vertex[fans[fans >= 0]] = faces[fans >= 0]
    names, counts = np.unique(vertex, return_counts=True)
    return names[counts > 1]


def boundary_loops(faces: Ints, table: Edges | None = None) -> list[Ints]:
    """Vertex lists of the boundary, each in the order in which its faces run it, from its lowest vertex.

    Where sheets touch in a vertex each sheet has its own loop. A boundary that ends at an edge of three or more
    faces is an open list. Sorted by first vertex.
    """
    table = edges(faces) if table is None else table
    face, corner = np.nonzero(np.isin(table.face_edges, np.flatnonzero(table.n_faces == 1)))
    if not len(face):
        return []
    fans = corner_fans(faces, table)[1]
    tail, head = fans[face, (corner + 1) % 3], fans[face, (corner + 2) % 3]
    vertex_of = dict(zip(tail.tolist(), faces[face, (corner + 1) % 3].tolist(), strict=True))
    vertex_of.update(zip(head.tolist(), faces[face, (corner + 2) % 3].tolist(), strict=True))
    touching: dict[int, list[int]] = {}
    ends = np.stack([tail, head], axis=1).tolist()
    for e, (t, h) in enumerate(ends):
        touching.setdefault(t, []).append(e)
        touching.setdefault(h, []).append(e)
    starts = sorted(touching, key=lambda fan: (len(touching[fan]) == 2, vertex_of[fan]))
    free = set(range(len(ends)))
    loops = []
    for start in starts:
        way = [e for e in touching[start] if e in free]
        if not way:
            continue
        step: int | None = next((e for e in way if ends[e][0] == start), way[0])
        fan, walk, along = start, [start], 0
        while step is not None:
            free.discard(step)
            t, h = ends[step]
            along += 1 if t == fan else -1
            fan = h if t == fan else t
            step = next((e for e in touching[fan] if e in free), None)
            if fan != start:
                walk.append(fan)
        if along < 0:
            walk = [walk[0], *walk[:0:-1]] if fan == start else walk[::-1]
        loops.append(np.array([vertex_of[fan] for fan in walk], np.int64))
    return sorted(loops, key=lambda loop: tuple(loop[:2]))


class Orientation(NamedTuple):
    """Do the faces agree, which (F,) no turning helps, which (F,) to turn round, and the patch (F,) of each.

    Two faces that share an edge agree if they run it in opposite directions; edges of three or more faces bind
    nobody. A patch is a set of faces that edges of two faces hold together; the smaller part of it is turned. In
    a one-sided patch (a Moebius strip) nothing is turned.
    """

    is_consistent: bool
    one_sided: Bools
    flip: Bools
    patches: Ints


def orientation(faces: Ints, table: Edges | None = None) -> Orientation:
    """Agreement of the faces' orientations, by components of the double cover (each face, and it turned)."""
    table = edges(faces) if table is None else table
    F = len(faces)
    glued = np.flatnonzero(table.n_faces == 2)
    f, g = table.faces[glued].T
    f_forward, g_forward = (
        table.forward[face, np.argmax(table.face_edges[face] == glued[:, None], 1)] for face in (f, g)
    )
    clash = f_forward == g_forward
    i, j = np.r_[f, f + F], np.r_[np.where(clash, g + F, g), np.where(clash, g, g + F)]
    labels = _components(i, j, 2 * F)
    kept, turned = labels[:F], labels[F:]
    _, first, patches = np.unique(np.minimum(kept, turned), return_index=True, return_inverse=True)
    flip = kept > turned
    share = np.bincount(patches, flip) / np.bincount(patches) if F else np.empty(0)
    swap = (share > 0.5) | ((share == 0.5) & flip[first])
    one_sided = kept == turned
    return Orientation(not bool(clash.any()), one_sided, (flip ^ swap[patches]) & ~one_sided, patches)


def euler_characteristic(faces: Ints, table: Edges | None = None) -> int:
    """V - E + F over the vertices, edges and faces in use (collapsed faces do not count)."""
    table = edges(faces) if table is None else table
    whole = faces[~collapsed_faces(faces)]
    return len(np.unique(whole)) - len(table.verts) + len(whole)


def genus(faces: Ints, table: Edges | None = None) -> int | None:
    """Number of handles, summed over components, holes taken as filled; None where not manifold or one-sided."""
    table = edges(faces) if table is None else table
    n_components = vertex_components(faces, int(faces.max(initial=0)) + 1)[0]
    if (
        not n_components
        or len(nonmanifold_vertices(faces, table))
        or orientation(faces, table).one_sided.any()
    ):
        return None
    return genus_from_counts(
        n_components, len(boundary_loops(faces, table)), euler_characteristic(faces, table)
    )


def genus_from_counts(n_components: int, n_loops: int, euler: int) -> int:
    """Handles of an oriented manifold: each component has Euler characteristic 2 - 2 genus - loops."""
    return (2 * n_components - n_loops - euler) // 2
