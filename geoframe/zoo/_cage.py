"""The one control cage of all animals: quadrilaterals around a body, four limbs, a tail, ears and horns.

The cage is only connectivity. A species puts its vertices somewhere, Catmull-Clark subdivision makes a smooth
surface of it, and since all species share the cage, equal vertices (and barycentric points) of the subdivided
surfaces correspond exactly.

The body is a tube of rings of 12 vertices, from the rump to the nose; number 0 of a ring is its dorsal midline, 3 its
right flank, 6 its ventral midline. Limbs are tubes of rings of 10 that replace a patch of the body's right (left)
side, number 0 in front, 2 and 3 outside, 5 behind, 7 and 8 inside. A limb ends in four digits and a thumb, an ear is
a tube of 6, a horn and a digit are tubes of 4; the tail, a tube of 6, leaves the cap of the rump.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from geoframe._types import Ints

Key = tuple[str, str, int, int]  # part, side ("left", "right" or "" where it exists once), ring, number

BODY_RINGS, LIMB_RINGS, TAIL_RINGS, EAR_RINGS, HORN_RINGS, DIGIT_RINGS = 27, 12, 7, 4, 4, 3
HIND_PATCH, FORE_PATCH, EAR_GAP, HORN_GAP = 0, 8, 16, 17  # first ring of the body that each replaces
LEVEL = 3  # of subdivision of the dense template


@dataclass(frozen=True, eq=False)
class Cage:
    """Connectivity shared by all animals.

    Attributes:
        keys: (n,) what each vertex of the cage is.
        number: its inverse, key -> vertex.
        quads: (Q, 4), outward.
        mirror: (n,) the vertex on the other side, an involution.
    """

    keys: tuple[Key, ...]
    number: dict[Key, int]
    quads: Ints
    mirror: Ints


@dataclass(frozen=True, eq=False)
class Template:
    """The cage subdivided: dense vertex positions are `smooth @ cage positions`.

    Attributes:
        smooth: (V, n) sparse, rows sum to 1: points of the limit surface; its first n rows belong to the
            cage's own vertices. levels: (F, 3) faces after each subdivision, coarse ones first, on the first
            vertices. mirror: (V,) involution. side: (V,) +1 right, -1 left, 0 midline.
    """

    smooth: sp.csr_matrix
    levels: tuple[Ints, ...]
    mirror: Ints
    side: Ints

    @property
    def faces(self) -> Ints:
        """(F, 3) of the dense template, the finest level."""
        return self.levels[-1]


@cache
def cage() -> Cage:
    """The cage; the same object at every call."""
    right = _body_quads() + _tail_quads() + _ear_quads() + _horn_quads()
    right += _limb_quads("fore", FORE_PATCH) + _limb_quads("hind", HIND_PATCH)
    quads = {frozenset(q): q for q in right}
    for q in right:
        other = tuple(mirrored(k) for k in reversed(q))
        quads.setdefault(frozenset(other), other)
    keys = tuple(sorted({k for q in quads.values() for k in q}))
    number = {k: i for i, k in enumerate(keys)}
    table = np.array([[number[k] for k in q] for q in quads.values()])
    return Cage(keys, number, table, np.array([number[mirrored(k)] for k in keys]))


@cache
def template() -> Template:
    """The dense template of about 60,000 vertices; the same object at every call."""
    c = cage()
    n = len(c.keys)
    smooth, quads = sp.identity(n, format="csr"), c.quads
    levels = []
    for _ in range(LEVEL):
        step, quads = catmull_clark(quads, smooth.shape[0])
        smooth = (step @ smooth).tocsr()
        levels.append(_triangles(quads))
    smooth = (limit_points(quads, smooth.shape[0]) @ smooth).tocsr()
    sign = np.array([{"right": 1.0, "left": -1.0, "": 0.0}[side_of(k)] for k in c.keys])
    side = np.sign(np.round(smooth @ sign, 9)).astype(np.int64)
    return Template(smooth, tuple(levels), _mirror_of_dense(smooth, c.mirror), side)


def _triangles(quads: Ints) -> Ints:
    """Subdivided quads cut from corner 0, an older vertex, to corner 2, a face point: mirror images stay so."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def mirrored(key: Key) -> Key:
    """The vertex on the other side of the animal."""
    part, side, ring, k = key
    if side:
        return part, {"left": "right", "right": "left"}[side], ring, k
    return part, side, ring, {"body": -k % 12, "tail": -k % 6}.get(part, k)


def side_of(key: Key) -> str:
    """ "left", "right" or "" for the midline."""
    part, side, _, k = key
    period = {"body": 12, "tail": 6}.get(part)
    if side or period is None or k in (0, period // 2):
        return side
    return "right" if k < period // 2 else "left"


def limb_loop(part: str, side: str) -> list[Key]:
    """The 10 vertices of the body that are ring 0 of a limb, in the limb's order."""
    a = {"fore": FORE_PATCH, "hind": HIND_PATCH}[part]
    places = [
        (a + 3, 4),
        *((r, 3) for r in range(a + 3, a - 1, -1)),
        (a, 4),
        *((r, 5) for r in range(a, a + 4)),
    ]
    loop: list[Key] = [("body", "", r, k) for r, k in places]
    return loop if side == "right" else [mirrored(k) for k in loop]


def ear_loop(side: str) -> list[Key]:
    """Ring 0 of an ear: the rear row outwards, then the front row inwards."""
    places = [(EAR_GAP, 1), (EAR_GAP, 2), (EAR_GAP, 3), (EAR_GAP + 1, 3), (EAR_GAP + 1, 2), (EAR_GAP + 1, 1)]
    loop: list[Key] = [("body", "", r, k) for r, k in places]
    return loop if side == "right" else [mirrored(k) for k in loop]


def horn_loop(side: str) -> list[Key]:
    """Ring 0 of a horn."""
    places = [(HORN_GAP, 1), (HORN_GAP, 2), (HORN_GAP + 1, 2), (HORN_GAP + 1, 1)]
    loop: list[Key] = [("body", "", r, k) for r, k in places]
    return loop if side == "right" else [mirrored(k) for k in loop]


def tail_loop() -> list[Key]:
    """Ring 0 of the tail: top, right, right, bottom, left, left."""
    return [
        ("rump", "", 0, 1),
        *(("body", "", 0, k) for k in (1, 2)),
        ("rump", "", 0, 2),
        *(("body", "", 0, k) for k in (10, 11)),
    ]


def digit_loop(part: str, side: str, digit: int) -> list[Key]:
    """Ring 0 of digit 0 (outermost) to 3, or of the thumb, 4: two dorsal corners, then two plantar ones."""
    last = LIMB_RINGS - 1
    if digit == 4:
        places = [(last - 2, 7), (last - 2, 8), (last - 1, 8), (last - 1, 7)]
    else:
        places = [(last, (1 - digit) % 10), (last, (2 - digit) % 10), (last, 3 + digit), (last, 4 + digit)]
    return [(part, side, r, k) for r, k in places]


def _tube(loop: list[Key], part: str, side: str, n_rings: int, *, outward: bool) -> list[tuple[Key, ...]]:
    """Quads of the rings 0 (the loop) to n_rings - 1 of a part."""
    n = len(loop)
    rings = [loop] + [[(part, side, r, k) for k in range(n)] for r in range(1, n_rings)]
    quads: list[tuple[Key, ...]] = []
    for a, b in pairwise(rings):
        for k in range(n):
            q = (a[k], a[(k + 1) % n], b[(k + 1) % n], b[k])
            quads.append(q if outward else q[::-1])
    return quads


def _body_quads() -> list[tuple[Key, ...]]:
    def at(r: int, k: int) -> Key:
        return ("body", "", r, k % 12)

    holes = {(r, k) for a in (FORE_PATCH, HIND_PATCH) for r in range(a, a + 3) for k in (3, 4)}
    holes |= {(EAR_GAP, 1), (EAR_GAP, 2), (HORN_GAP, 1)}
    quads: list[tuple[Key, ...]] = [
        (at(r, k), at(r, k + 1), at(r + 1, k + 1), at(r + 1, k))
        for r in range(BODY_RINGS - 1)
        for k in range(6)
        if (r, k) not in holes
    ]
    for ring, cap in ((BODY_RINGS - 1, "nose"), (0, "rump")):
        own: list[tuple[Key, ...]] = [(at(ring, 0), at(ring, 1), (cap, "", 0, 1), at(ring, 11))]
        own += [(at(ring, k), at(ring, k + 1), (cap, "", 0, k + 1), (cap, "", 0, k)) for k in range(1, 5)]
        own += [(at(ring, 5), at(ring, 6), at(ring, 7), (cap, "", 0, 5))]
        if cap == "rump":
            del own[1]  # where the tail begins
            own = [q[::-1] for q in own]
        quads += own
    return quads


def _tail_quads() -> list[tuple[Key, ...]]:
    last = [("tail", "", TAIL_RINGS - 1, k) for k in range(6)]
    quads = _tube(tail_loop(), "tail", "", TAIL_RINGS, outward=False)
    return [*quads, (last[3], last[2], last[1], last[0])]


def _ear_quads() -> list[tuple[Key, ...]]:
    e = [("ear", "right", EAR_RINGS - 1, k) for k in range(6)]
    quads = _tube(ear_loop("right"), "ear", "right", EAR_RINGS, outward=True)
    return [*quads, (e[0], e[1], e[4], e[5]), (e[1], e[2], e[3], e[4])]


def _horn_quads() -> list[tuple[Key, ...]]:
    quads = _tube(horn_loop("right"), "horn", "right", HORN_RINGS, outward=True)
    return [*quads, tuple(("horn", "right", HORN_RINGS - 1, k) for k in range(4))]


def _limb_quads(part: str, first: int) -> list[tuple[Key, ...]]:
    thumb = frozenset(digit_loop(part, "right", 4))
    quads = _tube(limb_loop(part, "right"), part, "right", LIMB_RINGS, outward=True)
    quads = [q for q in quads if frozenset(q) != thumb]
    for d in range(5):
        name = f"{part}_digit{d}"
        quads += _tube(digit_loop(part, "right", d), name, "right", DIGIT_RINGS, outward=True)
        quads.append(tuple((name, "right", DIGIT_RINGS - 1, k) for k in range(4)))
    return quads


def catmull_clark(quads: Ints, n_verts: int) -> tuple[sp.csr_matrix, Ints]:
    """One round of subdivision of a closed quad mesh: (n_new, n_verts) matrix and the quads (4 Q, 4).

    The old vertices come first; corner 0 of a new quad is an old vertex, corner 2 the middle of its old quad.
    Source: Catmull and Clark 1978.
    """
    Q = len(quads)
    ends = np.sort(np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    edges, which = np.unique(ends, axis=0, return_inverse=True)
    which = which.reshape(Q, 4)
    E = len(edges)
    face = sp.csr_matrix((np.full(4 * Q, 0.25), (np.repeat(np.arange(Q), 4), quads.ravel())), (Q, n_verts))
    middle = sp.csr_matrix((np.full(2 * E, 0.5), (np.repeat(np.arange(E), 2), edges.ravel())), (E, n_verts))
    beside = sp.csr_matrix((np.full(4 * Q, 0.5), (which.ravel(), np.repeat(np.arange(Q), 4))), (E, Q))
    edge = 0.5 * middle + 0.5 * beside @ face
    valence = np.bincount(quads.ravel(), minlength=n_verts)
    per = sp.diags(1 / valence)
    faces_at = per @ sp.csr_matrix(
        (np.ones(4 * Q), (quads.ravel(), np.repeat(np.arange(Q), 4))), (n_verts, Q)
    )
    edges_at = per @ sp.csr_matrix(
        (np.ones(2 * E), (edges.ravel(), np.repeat(np.arange(E), 2))), (n_verts, E)
    )
    old = per @ (faces_at @ face + 2 * edges_at @ middle + sp.diags(valence - 3.0))
    step = sp.vstack([old, edge, face]).tocsr()
    e, f = n_verts + which, n_verts + E + np.arange(Q)
    new = [np.stack([quads[:, i], e[:, i], f, e[:, i - 1]], axis=1) for i in range(4)]
    return step, np.concatenate(new)


def limit_points(quads: Ints, n_verts: int) -> sp.csr_matrix:
    """(n_verts, n_verts) matrix that sends the vertices of a closed quad mesh to the surface they converge to.

    Source: Halstead, Kass and DeRose 1993, equation (3).
    """
    valence = np.bincount(quads.ravel(), minlength=n_verts)
    rows, near, far = quads.ravel(), np.roll(quads, -1, axis=1).ravel(), np.roll(quads, -2, axis=1).ravel()
    shape = (n_verts, n_verts)
    total = sp.csr_matrix((np.full(len(rows), 4.0), (rows, near)), shape)
    total = total + sp.csr_matrix((np.ones(len(rows)), (rows, far)), shape) + sp.diags(valence**2.0)
    return (sp.diags(1 / (valence * (valence + 5.0))) @ total).tocsr()


def _mirror_of_dense(smooth: sp.csr_matrix, mirror: Ints) -> Ints:
    """Dense vertices whose rows of weights are mirror images of each other."""
    code = np.random.default_rng(0).normal(size=len(mirror))
    here, there = smooth @ code, smooth @ code[mirror]
    a, b = np.argsort(np.round(here, 10), kind="stable"), np.argsort(np.round(there, 10), kind="stable")
    out = np.empty(len(here), np.int64)
    out[b] = a
    return out
