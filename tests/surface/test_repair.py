"""repair: each switch does its one thing, the maps tell where everything went, and twice is once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoframe.surface import Mesh, Repair, health, load, repair
from geoframe.surface.topology import boundary_loops

DATA = os.environ.get("GEOFRAME_DATA")
SWITCHES = ("drop_nonfinite", "drop_outliers", "merge_vertices", "drop_degenerate", "drop_duplicates",
            "split_nonmanifold", "keep_largest", "orient", "drop_unreferenced")  # fmt: skip
CUBE = torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)], dtype=torch.float64)
CUBE_FACES = torch.tensor(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
     [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)  # fmt: skip


def both(a: Mesh, b: Mesh) -> Mesh:
    return Mesh(torch.cat([a.verts, b.verts]), torch.cat([a.faces, b.faces + a.n_verts]))


def assert_maps(mesh: Mesh, r: Repair) -> None:
    """What survives keeps its place, its order and (up to turning and flips) its corners."""
    old = r.vertex_map >= 0
    verts = mesh.verts.nan_to_num(99)
    assert torch.equal(r.mesh.verts.nan_to_num(99), verts[r.vertex_source])
    assert torch.equal(r.mesh.verts.nan_to_num(99)[r.vertex_map[old]], verts[old])
    firsts = torch.unique(r.vertex_map[old])
    assert torch.equal(r.vertex_map[r.vertex_source[firsts]], firsts)
    kept = r.face_map >= 0
    images = r.face_map[kept]
    assert (images[1:] > images[:-1]).all()


def same(a: Mesh, b: Mesh) -> bool:
    pairs = [(getattr(a, k), getattr(b, k)) for k in ("verts", "faces", "uv", "uv_faces", "colors")]
    return all(x is y or torch.equal(x.nan_to_num(99), y.nan_to_num(99)) for x, y in pairs)


def test_without_switches_nothing_happens() -> None:
    mesh = Mesh(torch.rand(4, 3), torch.tensor([[0, 0, 1], [1, 2, 0]]), torch.rand(4, 3), torch.rand(4, 2))
    r = repair(mesh)
    assert same(r.mesh, mesh) and r.mesh.dtype == torch.float32
    assert r.vertex_map.tolist() == r.vertex_source.tolist() == [0, 1, 2, 3] and r.face_map.tolist() == [0, 1]
    assert torch.equal(r.mesh.uv, mesh.uv)  # type: ignore[arg-type]


def test_drop_nonfinite_and_unreferenced() -> None:
    verts = torch.cat(
        [torch.full((1, 3), torch.nan), CUBE, torch.tensor([[torch.inf, 0, 0], [5, 5, 5]])]
    ).double()
    mesh = Mesh(verts, torch.cat([torch.tensor([[0, 1, 2]]), CUBE_FACES + 1, torch.tensor([[2, 9, 3]])]))
    r = repair(mesh, drop_nonfinite=True)
    assert r.vertex_map.tolist() == [-1, 0, 1, 2, 3, 4, 5, 6, 7, -1, 8]
    assert r.face_map.tolist() == [-1, *range(12), -1]
    assert torch.equal(r.mesh.faces, CUBE_FACES) and r.mesh.n_verts == 9
    r = repair(mesh, drop_nonfinite=True, drop_unreferenced=True)
    assert torch.equal(r.mesh.verts, CUBE) and r.vertex_map[10] == -1
    assert health(r.mesh).problems == []


def test_merge_makes_a_solid_of_a_soup_and_keeps_texture() -> None:
    soup = Mesh(
        CUBE[CUBE_FACES].reshape(-1, 3), torch.arange(36).reshape(12, 3), uv=torch.rand(36, 2).double()
    )
    r = repair(soup, merge_vertices=True)
    assert r.mesh.n_verts == 8 and health(r.mesh).problems == [] and health(r.mesh).volume == pytest.approx(1)
    assert torch.equal(r.mesh.verts[r.vertex_map], soup.verts)
    assert r.vertex_source.tolist() == sorted(r.vertex_source.tolist())
    assert r.mesh.uv is not None and r.mesh.uv_faces is not None and soup.uv is not None
    assert torch.equal(r.mesh.uv[r.mesh.uv_faces], soup.uv[soup.faces])


def test_drop_collapsed_and_duplicate_faces() -> None:
    extra = torch.tensor([[3, 3, 1], [1, 3, 0], [3, 1, 0]])
    mesh = Mesh(CUBE, torch.cat([extra[:1], CUBE_FACES, extra[1:]]))
    r = repair(mesh, drop_degenerate=True)
    assert r.face_map.tolist() == [-1, *range(14)]
    r = repair(mesh, drop_degenerate=True, drop_duplicates=True)
    assert r.face_map.tolist() == [-1, *range(12), -1, -1] and health(r.mesh).problems == []


def test_flat_faces_are_flipped_without_a_crack() -> None:
    """A vertex in the middle of a cube's edge with a flat face behind it: the solid stays closed, V = 1."""
    verts = torch.cat([CUBE, torch.tensor([[0.0, 0, 0.5], [0, 0, 0.25]], dtype=torch.float64)])
    faces = CUBE_FACES.tolist()
    faces[0:1] = [[0, 8, 3], [8, 1, 3]]  # 0-1 is split on one side by 8, and again by 9 ...
    faces[0:1] = [[0, 9, 3], [9, 8, 3]]
    faces += [[0, 1, 8], [0, 8, 9]]  # ... and two flat faces close the slit to face 0-5-1
    mesh = Mesh(verts, torch.tensor(faces), uv=torch.rand(10, 2).double(), uv_faces=torch.tensor(faces))
    before = health(mesh)
    assert before.is_closed and before.flat_faces.tolist() == [14, 15] and before.volume == pytest.approx(1)
    r = repair(mesh, drop_degenerate=True)
    after = health(r.mesh)
    assert after.problems == [] and after.is_closed and after.genus == 0
    assert after.volume == pytest.approx(1) and after.area == pytest.approx(6)
    assert r.face_map.tolist() == list(range(16)) and torch.equal(r.mesh.verts, verts)
    assert torch.equal(r.mesh.uv_faces, r.mesh.faces)  # type: ignore[arg-type]  # texture corners go along


def test_flat_face_that_cannot_be_flipped_is_removed() -> None:
    line = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 5, 0]], dtype=torch.float64)
    r = repair(Mesh(line, torch.tensor([[0, 1, 2], [0, 1, 3]])), drop_degenerate=True)
    assert r.face_map.tolist() == [-1, 0]


def test_split_solids_that_share_a_vertex_and_an_edge() -> None:
    tetra = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    verts = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, 0], [-1, 0, -1.0]]).double()
    edge = torch.cat([tetra, torch.tensor([[0, 5, 3], [0, 3, 4], [3, 5, 4], [0, 4, 5]])])  # both use edge 0-3
    mesh = Mesh(verts, edge, colors=torch.rand(6, 3).double())
    before = health(mesh)
    assert before.nonmanifold_edges.tolist() == [[0, 3]] and before.nonmanifold_vertices.tolist() == [0, 3]
    r = repair(mesh, split_nonmanifold=True)
    after = health(r.mesh)
    assert after.is_manifold and after.is_closed and after.n_components == 2 and after.genus == 0
    assert after.volume == pytest.approx(before.volume)
    assert r.vertex_map.tolist() == list(range(6)) and r.vertex_source.tolist() == [*range(6), 0, 3]
    assert torch.equal(r.mesh.colors, mesh.colors[r.vertex_source])  # type: ignore[index,arg-type]
    sheets = Mesh(verts, torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]))
    opened = health(repair(sheets, split_nonmanifold=True).mesh)
    assert opened.is_manifold and opened.boundary_loops == (3, 3, 3)


def test_orient_turns_pieces_outward() -> None:
    mesh = both(Mesh(CUBE, CUBE_FACES.flip(1)), Mesh(CUBE + 3, CUBE_FACES[2:]))  # inward, and an open box
    faces = mesh.faces.clone()
    faces[[1, 7, 14]] = faces[[1, 7, 14]].flip(1)
    mesh = Mesh(mesh.verts, faces, uv=mesh.verts[:, :2], uv_faces=faces)
    r = repair(mesh, orient=True)
    h = health(r.mesh)
    assert h.is_oriented and h.facing == "outward" and r.face_map.tolist() == list(range(22))
    assert torch.equal(r.mesh.faces.sort(1).values, faces.sort(1).values)
    assert torch.equal(r.mesh.uv_faces, r.mesh.faces)  # type: ignore[arg-type]
    assert r.mesh.volume.item() > 1


def test_orient_leaves_a_moebius_strip() -> None:
    faces = torch.tensor([[0, 2, 1], [1, 2, 3], [2, 4, 3], [3, 4, 5], [4, 1, 5], [5, 1, 0]])
    mesh = Mesh(torch.rand(6, 3).double(), faces)
    assert not health(mesh).is_orientable and same(repair(mesh, orient=True).mesh, mesh)


def test_fill_holes_by_size() -> None:
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(3)
    verts, faces = torch.tensor(ball.vertices), torch.tensor(ball.faces)
    far = (verts[faces][:, :, 2].max(1).values < 0.9) & (faces != 0).all(
        1
    )  # a cap and one vertex's fan are gone
    mesh = Mesh(verts, faces[far])
    loops = health(mesh).boundary_loops
    assert len(loops) == 2 and loops[0] > 10 > loops[1]
    r = repair(mesh, fill_holes=9)
    assert health(r.mesh).boundary_loops == loops[:1] and r.mesh.n_verts == mesh.n_verts
    r = repair(mesh, fill_holes=loops[0])
    h = health(r.mesh)
    assert h.is_closed and h.is_oriented and h.facing == "outward" and h.genus == 0
    assert r.mesh.n_faces == mesh.n_faces + sum(loops) - 2 * len(loops)
    assert torch.equal(r.mesh.faces[r.face_map], mesh.faces)
    rim = max(boundary_loops(mesh.faces.numpy()), key=len)
    x, y = verts[rim, 0], verts[rim, 1]
    shadow = (
        (x * y.roll(-1)).sum() - (y * x.roll(-1)).sum()
    ).abs().item() / 2  # least area that can close it
    new = r.mesh.face_areas[mesh.n_faces :]
    assert shadow < new.sum().item() < 1.15 * shadow + new[-3:].sum().item()


def test_least_area_patch_of_a_flat_polygon_is_its_area() -> None:
    """A hole with the outline of an L, in a plane: the patch covers the L once, not its hull."""
    outline = torch.tensor([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2.0]]).double()
    ring = torch.nn.functional.pad(torch.cat([outline, 3 * (outline - 0.8)]), (0, 1))
    i = torch.arange(6)
    j = (i + 1) % 6
    mesh = Mesh(ring, torch.cat([torch.stack([j, i, i + 6], 1), torch.stack([j, i + 6, j + 6], 1)]))
    r = repair(mesh, fill_holes=6, orient=True)
    new = r.mesh.faces[12:]
    inner = new[(new < 6).all(1)]
    assert len(inner) == 4
    a, b, c = (r.mesh.verts[inner[:, k]] for k in range(3))
    assert torch.linalg.cross(b - a, c - a)[:, 2].abs().sum().item() / 2 == pytest.approx(3)


def test_fill_holes_gives_new_corners_no_texture() -> None:
    mesh = Mesh(CUBE, CUBE_FACES[1:], uv=torch.rand(8, 2).double(), uv_faces=CUBE_FACES[1:])
    r = repair(mesh, fill_holes=3)
    assert r.mesh.n_faces == 12 and r.mesh.uv is not None and r.mesh.uv_faces is not None
    assert (
        r.mesh.uv.shape == (9, 2) and r.mesh.uv[8].isnan().all() and r.mesh.uv_faces[-1].tolist() == [8, 8, 8]
    )
    assert r.mesh.faces[-1].sort().values.tolist() == [0, 1, 3]


def test_fill_holes_does_not_double_a_single_triangle() -> None:
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    assert repair(mesh, fill_holes=10).mesh.n_faces == 1


def test_keep_largest_counts_area_not_faces() -> None:
    big = Mesh(CUBE * 5, CUBE_FACES[:2])
    r = repair(both(Mesh(CUBE, CUBE_FACES), big), keep_largest=True)
    assert r.mesh.faces.shape == (2, 3) and r.face_map.tolist() == [-1] * 12 + [0, 1]
    assert (
        r.mesh.n_verts == 8 and (r.vertex_map[:8] == -1).all()
    )  # big's unused vertices belong to no component


def test_gradient_device_and_batch() -> None:
    verts = CUBE.clone().requires_grad_()
    repair(Mesh(verts, CUBE_FACES[:1]), drop_unreferenced=True).mesh.verts.sum().backward()
    assert verts.grad is not None and verts.grad.sum(1).tolist() == [3, 3, 0, 3, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="expected one pose"):
        repair(Mesh(CUBE.expand(2, 8, 3), CUBE_FACES))
    with pytest.raises(TypeError, match="expected a Mesh, found Tensor"):
        repair(CUBE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fill_holes: expected an integer from 0 to 1000, found -1"):
        repair(Mesh(CUBE, CUBE_FACES), fill_holes=-1)
    with pytest.raises(TypeError, match="fill_holes: expected an integer, found bool"):
        repair(Mesh(CUBE, CUBE_FACES), fill_holes=True)


def test_empty_mesh() -> None:
    mesh = Mesh(torch.eye(3), torch.empty(0, 3, dtype=torch.long))
    every: dict[str, Any] = dict.fromkeys(SWITCHES, True)
    r = repair(mesh, **every, fill_holes=5)
    assert r.mesh.n_verts == 0 and r.vertex_map.tolist() == [-1] * 3


lattice = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=8, max_size=8)
soup = st.lists(st.tuples(*[st.integers(0, 7)] * 3), max_size=16)


@settings(max_examples=120, deadline=None)
@given(lattice, soup, st.sets(st.sampled_from(SWITCHES)), st.sampled_from([0, 4, 12]), st.booleans())
def test_twice_is_once_and_maps_hold(
    points: list[Any], faces: list[Any], chosen: set[str], holes: int, has_nan: bool
) -> None:
    verts = torch.tensor(points, dtype=torch.float64)
    if has_nan:
        verts[7, 1] = torch.nan
    corners = torch.tensor(faces, dtype=torch.long).reshape(-1, 3)
    mesh = Mesh(verts, corners, uv=torch.arange(16).reshape(8, 2).double(), uv_faces=corners)
    switches: dict[str, Any] = dict.fromkeys(chosen, True)
    once = repair(mesh, **switches, fill_holes=holes)
    assert_maps(mesh, once)
    if not {"merge_vertices", "split_nonmanifold"} <= chosen:
        assert same(repair(once.mesh, **switches, fill_holes=holes).mesh, once.mesh)
    h = health(once.mesh)
    if "drop_nonfinite" in chosen:
        assert not len(h.nonfinite_vertices)
    if "drop_unreferenced" in chosen:
        assert not len(h.unreferenced_vertices)
    if "drop_degenerate" in chosen:
        assert not len(h.collapsed_faces) and not len(h.flat_faces)
    if "drop_duplicates" in chosen:
        assert not len(h.duplicate_faces)
    if "split_nonmanifold" in chosen:
        assert h.is_manifold
    if "orient" in chosen:
        assert h.is_oriented or not h.is_orientable
        assert h.facing in ("outward", "undecided")
    if "keep_largest" in chosen:
        assert h.n_components <= 1
    if "merge_vertices" in chosen and "split_nonmanifold" not in chosen:
        assert not len(h.duplicate_vertices)


@pytest.mark.skipif(not DATA, reason="GEOFRAME_DATA is not set: real meshes are not there")
def test_real_camel_becomes_manifold() -> None:
    camel = load(Path(str(DATA)) / "animals/camel_gallop/camel-gallop-01.off")
    assert isinstance(camel, Mesh) and health(camel).problems
    r = repair(
        camel, drop_duplicates=True, split_nonmanifold=True, keep_largest=True, orient=True, fill_holes=20
    )
    h = health(r.mesh)
    assert_maps(camel, r)
    assert h.is_manifold and h.is_closed and h.genus == 0 and h.facing == "outward"
    assert h.area == pytest.approx(health(camel).area, rel=1e-3)
