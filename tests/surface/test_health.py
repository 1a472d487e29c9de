"""health: closed forms on solids, and each defect reported with its place and its remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe.surface import Health, Mesh, PointCloud, health, load

DATA = os.environ.get("GEOFRAME_DATA")
CUBE = torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)], dtype=torch.float64)
CUBE_FACES = torch.tensor(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
     [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)  # fmt: skip


def cube(scale: float = 1.0, shift: float = 0.0, faces: torch.Tensor = CUBE_FACES) -> Mesh:
    return Mesh(CUBE * scale + shift, faces)


def both(a: Mesh, b: Mesh) -> Mesh:
    return Mesh(torch.cat([a.verts, b.verts]), torch.cat([a.faces, b.faces + a.n_verts]))


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_a_cube_is_sound(shift: float) -> None:
    h = health(cube(2.0, shift))
    assert (h.n_verts, h.n_faces, h.n_edges, h.n_components, h.euler_characteristic, h.genus) == (
        8,
        12,
        18,
        1,
        2,
        0,
    )
    assert h.area == pytest.approx(24) and h.volume == pytest.approx(8) and h.size == pytest.approx((2, 2, 2))
    assert h.is_closed and h.is_manifold and h.is_oriented and h.is_orientable and h.facing == "outward"
    assert h.problems == [] and "problems: none" in str(h)


def test_torus_has_one_handle() -> None:
    trimesh = pytest.importorskip("trimesh")
    t = trimesh.creation.torus(2, 0.5, major_sections=96, minor_sections=48)
    h = health(Mesh(torch.tensor(t.vertices), torch.tensor(t.faces)))
    assert h.genus == 1 and h.is_closed and h.problems == []
    assert h.volume == pytest.approx(2 * np.pi**2 * 2 * 0.25, rel=1e-2)
    assert h.area == pytest.approx(4 * np.pi**2 * 2 * 0.5, rel=1e-2)


def test_facing() -> None:
    inward = cube(faces=CUBE_FACES.flip(1))
    assert health(inward).facing == "inward" and health(inward).volume == pytest.approx(-1)
    assert health(both(cube(), inward.with_verts(inward.verts + 3))).facing == "mixed"
    assert health(both(cube(), cube(1, 3))).facing == "outward"
    assert health(cube(faces=CUBE_FACES[2:])).facing == "outward"  # an open box
    flat = Mesh(CUBE, CUBE_FACES[:2])
    assert health(flat).facing == "undecided" and health(flat).problems == [
        "4 vertices that no face uses, first 4: repair(mesh, drop_unreferenced=True)"
    ]
    turned = CUBE_FACES.clone()
    turned[5] = turned[5].flip(0)
    h = health(cube(faces=turned))
    assert not h.is_oriented and h.is_orientable and h.facing == "undecided" and h.volume is None
    assert h.problems == ["neighbouring faces disagree on which side is out: repair(mesh, orient=True)"]


def test_boundaries_are_facts_not_problems() -> None:
    h = health(both(cube(faces=CUBE_FACES[2:]), cube(1, 3, CUBE_FACES[1:])))
    assert h.boundary_loops == (4, 3) and h.n_components == 2 and not h.is_closed and h.volume is None
    assert h.genus == 0 and h.problems == [] and "2 loops of 4, 3 vertices" in str(h)


def test_moebius_strip() -> None:
    t = torch.arange(12) * (np.pi / 6)
    u = torch.tensor([-0.3, 0.3])[None]
    r = 1 + u * (t / 2).cos()[:, None]
    verts = torch.stack([r * t.cos()[:, None], r * t.sin()[:, None], u * (t / 2).sin()[:, None]], -1).reshape(
        -1, 3
    )
    faces = []
    for i in range(12):
        a, b, c, d = 2 * i, 2 * i + 1, (2 * i + 2) % 24, (2 * i + 3) % 24
        c, d = (d, c) if i == 11 else (c, d)
        faces += [[a, c, b], [b, c, d]]
    h = health(Mesh(verts, torch.tensor(faces)))
    assert not h.is_orientable and h.genus is None and h.boundary_loops == (24,) and h.is_manifold
    assert any("one-sided" in p for p in h.problems)


def test_every_defect_is_named_with_its_remedy() -> None:
    verts = torch.cat(
        [CUBE, CUBE[:2], CUBE[:1] + 0.5, torch.full((1, 3), torch.nan), torch.zeros(1, 3)]
    ).double()
    verts[12] = torch.tensor([0.0, 0, 0.5])  # on the edge 0-1
    extra = torch.tensor([[3, 1, 0], [7, 7, 4], [0, 12, 1], [0, 1, 10], [2, 3, 11]])
    h = health(Mesh(verts, torch.cat([CUBE_FACES, extra])))
    assert (
        h.duplicate_faces.tolist() == [12]
        and h.collapsed_faces.tolist() == [13]
        and h.flat_faces.tolist() == [14]
    )
    assert h.nonfinite_vertices.tolist() == [11] and h.unreferenced_vertices.tolist() == [8, 9]
    assert h.duplicate_vertices.tolist() == [8, 9]
    assert [0, 1] in h.nonmanifold_edges.tolist() and [2, 3] in h.nonmanifold_edges.tolist()
    assert {0, 1, 2, 3} <= set(h.nonmanifold_vertices.tolist()) and not h.is_manifold and h.genus is None
    text = "\n".join(h.problems)
    for switch in ("drop_nonfinite", "drop_unreferenced", "merge_vertices", "drop_degenerate", "drop_duplicates",
                   "split_nonmanifold"):  # fmt: skip
        assert f"repair(mesh, {switch}=True)" in text and f"repair(mesh, {switch}=True)" in str(h)
    assert "1 vertex with a NaN or infinite coordinate, first 11" in text
    assert np.isfinite(h.area) and np.isfinite(h.size).all()


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_flat_faces_by_rounding_and_not_by_size(shift: float) -> None:
    """A collinear face is flat wherever it lies; a tiny or thin proper one is not."""
    line = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.8, 1.2], [0.3, 0.6, 0.9]], dtype=torch.float64) + shift
    tiny = torch.tensor([[0, 0, 0], [1e-6, 0, 0], [0, 1e-6, 0]], dtype=torch.float64) + shift
    thin = torch.tensor([[0, 0, 0], [1, 0, 0], [0.5, 1e-6, 0]], dtype=torch.float64) + shift
    mesh = Mesh(torch.cat([line, tiny, thin]), torch.arange(9).reshape(3, 3))
    assert health(mesh).flat_faces.tolist() == [0]


def test_numbers_do_not_change_under_rigid_motion_permutation_and_scale() -> None:
    trimesh = pytest.importorskip("trimesh")
    t = trimesh.creation.icosphere(2)
    faces = torch.tensor(t.faces)[5:]
    mesh = Mesh(torch.tensor(t.vertices), faces)
    g = torch.Generator().manual_seed(0)
    order = torch.randperm(mesh.n_verts, generator=g)
    q = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    q = q * torch.det(q).sign()
    moved = Mesh((3 * mesh.verts @ q.T + 5)[order], torch.argsort(order)[faces][torch.randperm(len(faces))])
    a, b = health(mesh).as_dict(), health(moved).as_dict()
    assert b.pop("area") == pytest.approx(9 * a.pop("area"))
    a.pop("size"), b.pop("size")
    assert len(a.pop("problems")) == len(b.pop("problems"))  # they name vertices by number
    assert a == b and a["facing"] == "outward" and a["boundary_loops"]


def test_as_dict_is_json_and_matches_the_report() -> None:
    h = health(Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [torch.nan, 0, 0]]), torch.tensor([[0, 1, 2]])))
    out = json.loads(json.dumps(h.as_dict(), allow_nan=False))
    assert out["nonfinite_vertices"] == 1 and out["problems"] == h.problems and out["boundary_loops"] == [3]
    assert out["area"] == 0 and out["is_closed"] is False


def test_no_faces_and_single_triangle() -> None:
    h = health(Mesh(torch.eye(3), torch.empty(0, 3, dtype=torch.long)))
    assert not h.is_closed and h.volume is None and h.genus is None and "no faces" in h.problems[0]
    h = health(Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])))
    assert h.problems == [] and h.boundary_loops == (3,) and h.euler_characteristic == 1
    assert h.area == pytest.approx(np.sqrt(3) / 2)
    json.dumps(
        health(Mesh(torch.full((2, 3), torch.nan), torch.empty(0, 3).long())).as_dict(), allow_nan=False
    )


def test_wrong_input() -> None:
    with pytest.raises(TypeError, match="mesh: expected a Mesh, found PointCloud"):
        health(PointCloud(torch.eye(3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mesh: expected one pose \(V, 3\), found verts \(2, 8, 3\)"):
        health(cube().with_verts(CUBE.expand(2, 8, 3)))


@pytest.mark.skipif(not DATA, reason="GEOFRAME_DATA is not set: real meshes are not there")
def test_real_meshes() -> None:
    folder = Path(str(DATA)) / "animals"
    cat = load(folder / "cat_lion/cat-00.off")
    assert isinstance(cat, Mesh)
    h = health(cat)
    assert isinstance(h, Health) and h.problems == [] and h.genus == 0 and h.facing == "outward"
    camel = load(folder / "camel_gallop/camel-gallop-01.off")
    assert isinstance(camel, Mesh)
    h = health(camel)
    pairs = np.sort(camel.faces.numpy()[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, counts = np.unique(pairs, axis=0, return_counts=True)
    assert h.nonmanifold_edges.tolist() == edges[counts > 2].tolist() and len(h.nonmanifold_edges)
