"""Topology against naive loops on random triangle soups, and closed forms on known surfaces."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoframe._types import Ints
from geoframe.surface import topology as tp

Faces = Ints
TETRA = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])


def torus(n: int = 6, m: int = 5) -> Faces:
    """A closed n x m grid of quads cut in two; vertex (i, j) is i * m + j."""
    i, j = (x.ravel() for x in np.meshgrid(np.arange(n), np.arange(m), indexing="ij"))
    a, b = i * m + j, (i + 1) % n * m + j
    c, d = (i + 1) % n * m + (j + 1) % m, i * m + (j + 1) % m
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def band(n: int, twist: bool) -> Faces:
    """A strip of n quads closed to a ring, or with a half twist to a Moebius strip."""
    faces = []
    for i in range(n):
        a, b, c, d = 2 * i, 2 * i + 1, 2 * ((i + 1) % n), 2 * ((i + 1) % n) + 1
        if twist and i == n - 1:
            c, d = d, c
        faces += [[a, c, b], [b, c, d]]
    return np.array(faces)


soups = st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=14).map(
    lambda f: np.array(f, np.int64).reshape(-1, 3)
)


def naive_edges(faces: Faces) -> dict[tuple[int, int], list[int]]:
    out: dict[tuple[int, int], list[int]] = defaultdict(list)
    for f, (a, b, c) in enumerate(faces.tolist()):
        if len({a, b, c}) == 3:
            for i, j in ((a, b), (b, c), (c, a)):
                out[min(i, j), max(i, j)].append(f)
    return out


def naive_fans(faces: Faces, vertex: int) -> int:
    """Number of groups of faces at a vertex that hang together through edges of exactly two faces."""
    around = [f for f, c in enumerate(faces.tolist()) if vertex in c and len(set(c)) == 3]
    edge_faces = naive_edges(faces)
    group = {f: f for f in around}
    for edge, fs in edge_faces.items():
        if vertex in edge and len(fs) == 2:
            old, new = group[fs[0]], group[fs[1]]
            group = {f: new if g == old else g for f, g in group.items()}
    return len(set(group.values()))


@settings(max_examples=150, deadline=None)
@given(soups)
def test_edges_and_fans_equal_naive_loops(faces: Faces) -> None:
    table, naive = tp.edges(faces), naive_edges(faces)
    assert [tuple(e) for e in table.verts.tolist()] == sorted(naive)
    assert table.n_faces.tolist() == [len(naive[e]) for e in sorted(naive)]
    assert table.faces.tolist() == [[*sorted(naive[e]), -1][:2] for e in sorted(naive)]
    for f, corners in enumerate(faces.tolist()):
        for k in range(3):
            i, j = corners[(k + 1) % 3], corners[(k + 2) % 3]
            if len(set(corners)) < 3:
                assert table.face_edges[f, k] == -1
            else:
                assert table.verts[table.face_edges[f, k]].tolist() == sorted((i, j))
                assert table.forward[f, k] == (i < j)
    n_fans = {v: naive_fans(faces, v) for v in range(7)}
    assert tp.nonmanifold_vertices(faces).tolist() == [v for v, n in n_fans.items() if n > 1]
    assert tp.corner_fans(faces)[0] == sum(n_fans.values())
    assert tp.nonmanifold_edges(faces).tolist() == [list(e) for e in sorted(naive) if len(naive[e]) > 2]


@settings(max_examples=150, deadline=None)
@given(soups)
def test_loops_run_every_boundary_edge_once(faces: Faces) -> None:
    naive = naive_edges(faces)
    boundary = sorted(e for e, fs in naive.items() if len(fs) == 1)
    loops = tp.boundary_loops(faces)
    missing = list(boundary)
    for loop in loops:
        for i, j in pairwise(loop.tolist()):
            missing.remove((min(i, j), max(i, j)))
    for (
        loop
    ) in loops:  # what is left closes a loop; a list that is open has both ends at an edge of many faces
        closing = (min(loop[0].item(), loop[-1].item()), max(loop[0].item(), loop[-1].item()))
        if len(loop) > 2 and closing in missing:
            missing.remove(closing)
        else:
            assert {v for e, fs in naive.items() if len(fs) > 2 for v in e} >= set(closing)
    assert not missing


@settings(max_examples=100, deadline=None)
@given(soups)
def test_components_equal_naive_flooding(faces: Faces) -> None:
    n, label = tp.vertex_components(faces, 8)
    faces = faces[[len({*corners}) == 3 for corners in faces.tolist()]]
    group = list(range(8))
    for a, b, c in faces.tolist():
        for old in (group[b], group[c]):
            group = [group[a] if g == old else g for g in group]
    used = sorted(set(faces.ravel().tolist()))
    assert (label >= 0).nonzero()[0].tolist() == used
    assert n == len({group[v] for v in used})
    assert all((label[i] == label[j]) == (group[i] == group[j]) for i in used for j in used)
    seen = [label[v] for v in used]
    assert list(dict.fromkeys(seen)) == list(range(n))  # numbered by lowest vertex


@settings(max_examples=150, deadline=None)
@given(soups, st.integers(0, 2**14 - 1))
def test_turning_the_named_faces_makes_orientation_consistent(faces: Faces, bits: int) -> None:
    turn = tp.orientation(faces)
    fixed = np.where(turn.flip[:, None], faces[:, ::-1], faces)
    again = tp.orientation(fixed)
    assert not again.flip.any()
    assert again.is_consistent or turn.one_sided.any()
    for patch in np.unique(turn.patches):
        assert turn.flip[turn.patches == patch].mean() <= 0.5
    # which faces are one-sided or share a patch does not depend on how they were turned before
    mask = np.array([bits >> f & 1 for f in range(len(faces))], bool).reshape(-1)
    other = tp.orientation(np.where(mask[:, None], faces[:, ::-1], faces))
    assert np.array_equal(other.one_sided, turn.one_sided) and np.array_equal(other.patches, turn.patches)


@pytest.mark.parametrize(
    ("faces", "euler", "genus", "loops"),
    [
        (TETRA, 2, 0, []),
        (torus(), 0, 1, []),
        (torus()[1:], -1, 1, [3]),
        (band(5, False), 0, 0, [5, 5]),
        (band(5, True), 0, None, [10]),
        (np.concatenate([TETRA, torus() + 4]), 2, 1, []),
        (TETRA[:1], 1, 0, [3]),
        (np.concatenate([TETRA, TETRA + 3]), 3, None, []),  # two solids touch in vertex 3
        (np.empty((0, 3), np.int64), 0, None, []),
    ],
)
def test_known_surfaces(faces: Faces, euler: int, genus: int | None, loops: list[int]) -> None:
    assert tp.euler_characteristic(faces) == euler
    assert tp.genus(faces) == genus
    assert [len(loop) for loop in tp.boundary_loops(faces)] == loops


def test_moebius_strip_is_one_sided_and_a_ring_is_not() -> None:
    assert tp.orientation(band(6, True)).one_sided.all()
    assert not tp.orientation(band(6, False)).one_sided.any()
    faces = torus()
    faces[[3, 17, 40]] = faces[[3, 17, 40]][:, ::-1]
    turn = tp.orientation(faces)
    assert not turn.is_consistent and np.flatnonzero(turn.flip).tolist() == [3, 17, 40]


def test_loops_follow_the_faces_and_stay_apart_where_sheets_touch() -> None:
    square = np.array([[0, 1, 2], [0, 2, 3]])
    assert [loop.tolist() for loop in tp.boundary_loops(square)] == [[0, 1, 2, 3]]
    assert [loop.tolist() for loop in tp.boundary_loops(square[:, ::-1])] == [[0, 3, 2, 1]]
    bowtie = np.array([[0, 1, 2], [2, 3, 4]])
    assert [loop.tolist() for loop in tp.boundary_loops(bowtie)] == [[0, 1, 2], [2, 3, 4]]
    three_sheets = np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
    ends = [loop.tolist() for loop in tp.boundary_loops(three_sheets)]
    assert sorted(sorted((loop[0], loop[-1])) for loop in ends) == [[0, 1]] * 3
    assert sorted(loop[1] for loop in ends) == [2, 3, 4]


def test_equal_rows() -> None:
    rows = np.array([[1.0, 2], [0.0, 1], [1, 2], [np.nan, 0], [-0.0, 1], [np.nan, 0], [1, 2]])
    assert tp.first_equal_rows(rows).tolist() == [0, 1, 0, 3, 1, 5, 0]
    assert tp.first_equal_rows(np.empty((0, 3))).tolist() == []
    assert tp.duplicate_faces(np.array([[0, 1, 2], [2, 1, 0], [0, 1, 3], [1, 2, 0]])).tolist() == [1, 3]
