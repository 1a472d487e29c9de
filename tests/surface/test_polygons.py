"""Polygons cut into triangles: area, orientation and boundary are the polygon's, in every format, planar or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoframe.surface import Mesh, load
from geoframe.surface._polygons import CORNERS, fan, triangulate


def shoelace(points: np.ndarray) -> float:
    x, y = points.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def cut(points: np.ndarray) -> np.ndarray:
    """Triangles (n - 2, 3) of one polygon (n, 2 or 3)."""
    verts = points if points.shape[1] == 3 else np.c_[points, np.zeros(len(points))]
    n = len(points)
    return triangulate(verts, np.arange(n), np.array([n]))


def signed_areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    return np.array([shoelace(points[t]) for t in triangles])


def is_triangulation(points: np.ndarray, triangles: np.ndarray) -> bool:
    """Counter-clockwise triangles that fill the area exactly and whose boundary is the polygon's."""
    n, areas = len(points), signed_areas(points, triangles)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).tolist()
    boundary = {(a, b) for a, b in map(tuple, edges) if [b, a] not in edges}
    return (
        len(triangles) == n - 2
        and bool((areas > -1e-12).all())
        and abs(areas.sum() - shoelace(points)) < 1e-9 * abs(shoelace(points))
        and boundary == {(i, (i + 1) % n) for i in range(n)}
    )


def star(n: int, seed: int) -> np.ndarray:
    """A polygon of random radii, starting at a random corner."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * (np.arange(n) + 0.4 * rng.random(n)) / n
    points = rng.uniform(0.1, 1, n)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.roll(points, int(rng.integers(n)), axis=0)


def spiral(n: int) -> np.ndarray:
    """A band that winds three times."""
    t = np.linspace(0, 6 * np.pi, n)
    arm = (1 + t)[:, None] * np.stack([np.cos(t), np.sin(t)], 1)
    return np.concatenate([1.2 * arm, arm[::-1]])


COMB = np.array([[0, 0], *[[x, y] for x in range(8) for y in ((0.5, 3) if x % 2 else (3, 0.5))], [7, 0]])[
    ::-1
]
DART = np.array([[2, 0], [0.2, 0.2], [0, 2], [0, 0]])
KEYHOLE = np.array(  # a square with a square hole, joined to the outside by a bridge of two equal edges
    [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0], [1, 1], [1, 3], [3, 3], [3, 1], [1, 1]]
)


@pytest.mark.parametrize(
    "points", [DART, COMB, spiral(40), star(9, 0), star(60, 1)], ids=lambda p: str(len(p))
)
def test_concave_polygons_are_filled_exactly(points: np.ndarray) -> None:
    points = points if shoelace(points) > 0 else points[::-1]
    for shift in range(0, len(points), 1 + len(points) // 12):
        turned = np.roll(points, shift, axis=0)
        assert is_triangulation(turned, cut(turned))
    assert (
        abs(signed_areas(points[::-1], cut(points[::-1])).sum() + shoelace(points)) < 1e-9
    )  # the other way round


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 24), st.integers(0, 10**6))
def test_random_polygons(n: int, seed: int) -> None:
    points = star(n, seed)
    assert is_triangulation(points, cut(points))


def test_a_hole_joined_by_a_bridge() -> None:
    triangles = cut(KEYHOLE.astype(float))
    areas = signed_areas(KEYHOLE, triangles)
    assert areas.sum() == 12 and (areas >= 0).all() and len(triangles) == 8


def test_convex_polygons_stay_fans_and_order_is_kept() -> None:
    angle = 2 * np.pi * np.arange(7) / 7
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    verts = np.concatenate([ring, np.c_[DART, np.ones(4)]])
    flat, counts = np.r_[0:7, 7:11, 0:3, 6:-1:-1], np.array([7, 4, 3, 7])
    found = triangulate(verts, flat, counts)
    plain = fan(counts)
    assert np.array_equal(found[:5], plain[:5]) and np.array_equal(found[7:], plain[7:])
    assert sorted(found[5:7].ravel().tolist()) == [7, 8, 8, 9, 10, 10]  # across the dent, corner 8


def test_a_polygon_in_space_need_not_be_planar() -> None:
    """Turned anyhow its triangles are the same; lifted off the plane they still all face its mean normal."""
    rng = np.random.default_rng(2)
    for seed in range(10):
        flat = np.c_[star(12, seed), np.zeros(12)]
        q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        q *= np.sign(np.linalg.det(q))
        assert np.array_equal(cut(flat @ q.T + 5), cut(flat))
        lifted = flat + 0.05 * rng.standard_normal(12)[:, None] * [0, 0, 1]
        a, b, c = (lifted[cut(lifted)][:, i] for i in range(3))
        normal = np.cross(lifted, np.roll(lifted, -1, axis=0)).sum(0)
        assert (np.cross(b - a, c - a) @ normal > 0).all()


def test_what_crosses_itself_keeps_its_number_of_triangles() -> None:
    rng = np.random.default_rng(3)
    for n in (4, 5, 9, 30):
        points = rng.standard_normal((n, 3))
        triangles = cut(points)
        assert triangles.shape == (n - 2, 3) and set(triangles.ravel().tolist()) <= set(range(n))
    assert cut(np.full((5, 3), np.nan)).tolist() == fan(np.array([5])).tolist()
    assert cut(np.zeros((5, 3))).tolist() == fan(np.array([5])).tolist()


def test_huge_concave_polygons_are_refused_in_words() -> None:
    n = CORNERS + 1
    points = star(n, 0)
    with pytest.raises(ValueError, match=rf"polygon 0: it is concave and has {n} corners, expected at most"):
        cut(points)


@pytest.mark.parametrize("suffix", ["obj", "off", "ply"])
def test_a_dent_in_a_file(tmp_path: Path, suffix: str) -> None:
    """Area 0.4 whichever corner comes first, with the texture coordinate of every corner kept."""
    rows = [f"{x} {y} 0" for x, y in DART.tolist()]
    for first in range(4):
        order = [(first + i) % 4 for i in range(4)]
        if suffix == "obj":
            lines = [f"v {r}" for r in rows] + [f"vt {x} {y}" for x, y in DART.tolist()]
            text = "\n".join([*lines, "f " + " ".join(f"{i + 1}/{i + 1}" for i in order)])
        elif suffix == "off":
            text = "\n".join(["OFF", "4 1 0", *rows, "4 " + " ".join(map(str, order))])
        else:
            text = "\n".join(
                ["ply", "format ascii 1.0", "element vertex 4", *(f"property double {k}" for k in "xyz"),
                 "element face 1", "property list uchar int vertex_indices", "property list uchar double texcoord",
                 "end_header", *rows, "4 " + " ".join(map(str, order)) + " 8 "
                 + " ".join(f"{x} {y}" for x, y in DART[order].tolist()), ""]
            )  # fmt: skip
        (tmp_path / f"a.{suffix}").write_text(text)
        mesh = load(tmp_path / f"a.{suffix}")
        assert isinstance(mesh, Mesh) and mesh.area.item() == pytest.approx(0.4)
        assert (mesh.face_normals_scaled[:, 2] > 0).all()
        if suffix != "off":
            assert mesh.uv is not None
            corners = mesh.uv[mesh.faces if mesh.uv_faces is None else mesh.uv_faces]
            assert np.allclose(corners.numpy(), mesh.verts[mesh.faces][..., :2].numpy())
