"""load and save: order and count as in the file, exact round trips, and one clear line for every bad file."""

from __future__ import annotations

import base64
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoframe.surface import Mesh, PointCloud, load, save

DATA = os.environ.get("GEOFRAME_DATA")
TRIANGLE = "0 0 0\n1 0 0\n0 1 0\n"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def ply(rows: str, n_verts: int, n_faces: int, properties: str = "", face: str = "") -> str:
    return (
        f"ply\nformat ascii 1.0\ncomment made by a test\nelement vertex {n_verts}\nproperty float x\n"
        f"property float y\nproperty float z\n{properties}element face {n_faces}\n"
        f"property list uchar int vertex_indices\n{face}end_header\n{rows}"
    )


def stl(*corners: str) -> str:
    """A text file of one facet."""
    rows = "".join(f"vertex {c}\n" for c in corners)
    return f"solid a\nfacet normal 0 0 1\nouter loop\n{rows}endloop\nendfacet\nendsolid a"


def binary_stl(n_faces: int) -> bytes:
    """n separate random triangles."""
    rows = np.zeros(n_faces, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["corners"] = np.random.default_rng(0).standard_normal((n_faces, 3, 3))
    return bytes(80) + struct.pack("<I", n_faces) + rows.tobytes()


def random_mesh(dtype: torch.dtype, n: int = 20) -> Mesh:
    """Random numbers of all sizes, with an unreferenced vertex, twins, colours and a texture seam."""
    g = torch.Generator().manual_seed(0)
    verts = torch.randn(n, 3, generator=g, dtype=torch.float64) * 10.0 ** torch.arange(-10, n - 10)[:, None]
    verts[5] = verts[4]
    faces = torch.randint(0, n - 1, (31, 3), generator=g)
    uv, uv_faces = torch.rand(40, 2, generator=g), torch.randint(0, 40, (31, 3), generator=g)
    colors = torch.rand(n, 4, generator=g).to(dtype)
    return Mesh(verts.to(dtype), faces, colors, uv.to(dtype), uv_faces)


# --- the file's order


@pytest.mark.skipif(not DATA, reason="GEOFRAME_DATA is not set: real meshes are not there")
@pytest.mark.parametrize(
    "name", ["animals/cat_lion/cat-00.off", "animals/camel_gallop/camel-gallop-01.off", "objects/penguin.obj",
             "objects/spot_low_resolution.obj"]
)  # fmt: skip
def test_vertices_and_faces_are_the_lines_of_the_file(name: str) -> None:
    path = Path(str(DATA)) / name
    mesh = load(path)
    assert isinstance(mesh, Mesh)
    lines = path.read_text().split("\n")
    if path.suffix == ".off":
        n_verts, n_faces = map(int, lines[1].split()[:2])
        vertex_lines = [line.split() for line in lines[2 : 2 + n_verts]]
        face_lines = [
            [int(i) for i in line.split()[1:4]] for line in lines[2 + n_verts : 2 + n_verts + n_faces]
        ]
    else:
        vertex_lines = [line.split()[1:4] for line in lines if line.startswith("v ")]
        face_lines = [
            [int(c.split("/")[0]) - 1 for c in line.split()[1:]] for line in lines if line[:2] == "f "
        ]
    assert mesh.verts.tolist() == [[float(x) for x in row] for row in vertex_lines]
    assert mesh.faces.tolist() == face_lines


def test_obj_keeps_unreferenced_vertices_and_seams(tmp_path: Path) -> None:
    text = (
        "mtllib nowhere.mtl\no thing\nv 9 9 9\nv 0 0 0\nv 1 0 0\nv 0 1 0\n"
        "vt 0 0\nvt 1 0\nvt 0 1\nvt .5 .5\nusemtl a\nf 2/1 3/2 4/3\nusemtl b\nf 4/4/1 3/2/1 2/1/1 # turned\n"
    )
    mesh = load(write(tmp_path, "a.OBJ", text))
    assert isinstance(mesh, Mesh) and mesh.uv is not None and mesh.uv_faces is not None
    assert mesh.verts.tolist() == [[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[1, 2, 3], [3, 2, 1]]
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [0, 1], [0.5, 0.5]]
    assert mesh.uv_faces.tolist() == [[0, 1, 2], [3, 1, 0]]


def test_obj_negative_indices_count_back_from_the_face(tmp_path: Path) -> None:
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 0 0 1\nv 1 0 1\nv 0 1 1\nf -3 -1 -2\nf 1 -1 2\n"
    mesh = load(write(tmp_path, "a.obj", text))
    assert isinstance(mesh, Mesh)
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 5, 4], [0, 5, 1]]


def test_obj_corner_without_texture_points_to_a_row_of_nan(tmp_path: Path) -> None:
    path = write(tmp_path, "a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt .25 .5\nf 1/1 2/1 3/1\nf 3//7 2 1/1\n")
    mesh = load(path)
    assert isinstance(mesh, Mesh) and mesh.uv is not None and mesh.uv_faces is not None
    assert mesh.uv_faces.tolist() == [[0, 0, 0], [1, 1, 0]]
    assert mesh.uv[0].tolist() == [0.25, 0.5] and mesh.uv[1].isnan().all()
    save(mesh, path)
    again = load(path)
    assert isinstance(again, Mesh) and again.uv is not None and again.uv_faces is not None
    assert torch.equal(again.uv_faces, mesh.uv_faces) and again.uv.shape == mesh.uv.shape
    assert b"nan" not in path.read_bytes()
    uv = torch.tensor([[0.5, 0.25], [torch.nan, torch.nan], [1.0, 0.0]])
    save(Mesh(mesh.verts, mesh.faces, uv=uv), path)  # one for each vertex, where it is known
    assert path.read_text().splitlines()[-3:] == ["vt 1 0", "f 1/1 2 3/2", "f 3/2 2 1/1"]


def test_obj_continued_lines_and_byte_colours(tmp_path: Path) -> None:
    text = "v 0 0 0 255 0 0\nv 1 0 0 0 255 0\r\nv 0 1 0 0 0 51\nf 1 \\\n 2 3\n"
    mesh = load(write(tmp_path, "a.obj", text))
    assert isinstance(mesh, Mesh) and mesh.colors is not None
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert torch.allclose(mesh.colors, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0.2]]).double())


PENTAGON = np.array([[np.cos(t), np.sin(t), 0] for t in 2 * np.pi * np.arange(5) / 5])


@pytest.mark.parametrize("suffix", ["obj", "off", "ply", "binary.ply", "big.ply"])
def test_polygons_become_fans(tmp_path: Path, suffix: str) -> None:
    rows = "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in PENTAGON.tolist())
    if suffix == "obj":
        content: str | bytes = (
            "v " + rows.strip().replace("\n", "\nv ") + "\nf 1 2 3 4 5\nf 1 2 3\nf 2 3 4 5\n"
        )
    elif suffix == "off":
        content = f"OFF\n5 3 0\n{rows}5 0 1 2 3 4\n3 0 1 2\n4 1 2 3 4\n"
    elif suffix == "ply":
        content = ply(rows + "5 0 1 2 3 4\n3 0 1 2\n4 1 2 3 4\n", 5, 3)
    else:
        o, word = ("<", "little") if suffix == "binary.ply" else (">", "big")
        header = ply("", 5, 3).replace("ascii", f"binary_{word}_endian").replace("float", "double")
        faces = [(0, 1, 2, 3, 4), (0, 1, 2), (1, 2, 3, 4)]
        rows_b = b"".join(struct.pack(f"{o}B{len(f)}i", len(f), *f) for f in faces)
        content = header.encode() + PENTAGON.astype(f"{o}f8").tobytes() + rows_b
    mesh = load(write(tmp_path, f"a.{suffix}", content))
    assert isinstance(mesh, Mesh)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 1, 2], [1, 2, 3], [1, 3, 4]]
    assert np.array_equal(mesh.verts.numpy(), PENTAGON)
    assert mesh.face_areas[:3].sum().item() == pytest.approx(2.5 * np.sin(2 * np.pi / 5))


def test_off_dialects(tmp_path: Path) -> None:
    glued = load(write(tmp_path, "a.off", f"OFF3 1 0 # ModelNet\n\n{TRIANGLE}3 0 1 2 255 0 0\n"))
    assert isinstance(glued, Mesh) and glued.faces.tolist() == [[0, 1, 2]]
    coff = load(
        write(tmp_path, "b.off", "COFF\n3 1 0\n0 0 0 255 0 0 255\n1 0 0 0 51 0 255\n0 1 0 0 0 0 255\n3 0 1 2")
    )
    assert isinstance(coff, Mesh) and coff.colors is not None
    assert torch.allclose(coff.colors, torch.tensor([[1, 0, 0], [0, 0.2, 0], [0, 0, 0]]).double(), atol=1e-7)
    noff = load(write(tmp_path, "c.off", "NOFF\n2 0 0\n0 0 0 0 0 1\n1 0 0 1 0 0\n"))
    assert isinstance(noff, PointCloud) and noff.normals is not None
    assert noff.normals.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_ply_colours_and_texture_of_vertices_and_corners(tmp_path: Path) -> None:
    rows = "0 0 0 255 0 1 0 0\n1 0 0 0 255 1 1 0\n0 1 0 0 0 1 0 1\n3 0 1 2\n"
    colour = (
        "".join(f"property uchar {c}\n" for c in ("red", "green", "blue"))
        + "property float s\nproperty float t\n"
    )
    mesh = load(write(tmp_path, "a.ply", ply(rows, 3, 1, colour)))
    assert isinstance(mesh, Mesh) and mesh.colors is not None and mesh.uv is not None
    assert torch.allclose(mesh.colors, torch.tensor([[255, 0, 1], [0, 255, 1], [0, 0, 1]]).double() / 255)
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [0, 1]] and mesh.uv_faces is None
    rows = TRIANGLE + "1 1 0\n4 0 1 3 2 8 0 0 .5 0 1 1 0 1\n"
    mesh = load(write(tmp_path, "b.ply", ply(rows, 4, 1, face="property list uchar float texcoord\n")))
    assert isinstance(mesh, Mesh) and mesh.uv is not None and mesh.uv_faces is not None
    assert mesh.uv[mesh.uv_faces].tolist() == [[[0, 0], [0.5, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]]


def test_stl_gives_three_vertices_a_triangle(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box()
    for kind in ("stl", "stl_ascii"):
        mesh = load(write(tmp_path, "a.stl", box.export(file_type=kind)))
        assert isinstance(mesh, Mesh) and mesh.n_verts == 3 * mesh.n_faces == 36
        assert np.array_equal(mesh.verts[mesh.faces].numpy(), box.triangles)


def test_glb_scene_keeps_order_transforms_colours_and_texture(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    tetra = np.array([[9.0, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    faces = np.array([[1, 3, 2], [1, 2, 4], [2, 3, 4], [5, 4, 3]])
    scene = trimesh.Scene()
    moves = [np.eye(4) for _ in range(4)]
    for k, move in enumerate(moves):
        move[0, 3] = 10 * k
        part = trimesh.Trimesh(tetra, faces, process=False)
        if k == 1:
            part.visual.vertex_colors = np.tile([255, 0, 51, 255], (6, 1))
        if k == 2:
            move[2, 2] = -1
            uv = np.linspace(0, 1, 12).reshape(6, 2)
            part.visual = trimesh.visual.TextureVisuals(uv=uv, material=trimesh.visual.material.PBRMaterial())
        scene.add_geometry(part, geom_name=f"part{9 - k}", transform=move)
    mesh = load(write(tmp_path, "a.glb", scene.export(file_type="glb")))
    assert isinstance(mesh, Mesh) and mesh.n_verts == 24 and mesh.colors is not None and mesh.uv is not None
    expected = np.concatenate([tetra @ m[:3, :3].T + m[:3, 3] for m in moves])
    assert np.allclose(mesh.verts.numpy(), expected, atol=1e-6)
    turned = [f[:, [0, 2, 1]] + 6 * k if k == 2 else f + 6 * k for k, f in enumerate([faces] * 4)]
    assert mesh.faces.tolist() == np.concatenate(turned).tolist()  # a mirrored part still faces outward
    assert torch.allclose(mesh.colors[6:12], torch.tensor([1, 0, 0.2], dtype=torch.float64))
    assert (mesh.colors[:6] == 1).all()
    assert np.allclose(mesh.uv[12:18].numpy(), np.linspace(0, 1, 12).reshape(6, 2), atol=1e-6)
    assert mesh.uv[:12].isnan().all()


def test_gltf_text_with_its_own_buffer(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box()
    for name, data in box.export(file_type="gltf").items():
        write(tmp_path, name, data)
    mesh = load(tmp_path / "model.gltf")
    assert isinstance(mesh, Mesh)
    assert np.allclose(mesh.verts.numpy(), box.vertices) and mesh.faces.tolist() == box.faces.tolist()


# --- round trips


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("suffix", ["obj", "off", "ply"])
def test_round_trip_is_exact(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    mesh = random_mesh(dtype)
    path = tmp_path / "new" / f"a.{suffix}"
    save(mesh, path)
    again = load(path, dtype=dtype)
    assert (
        isinstance(again, Mesh)
        and again.dtype == dtype
        and again.colors is not None
        and mesh.colors is not None
    )
    assert torch.equal(again.verts, mesh.verts) and torch.equal(again.faces, mesh.faces)
    assert (again.colors - mesh.colors).abs().max() <= (0.5 / 255 + 1e-6 if suffix == "ply" else 0)
    if suffix == "off":
        assert again.uv is None
    else:
        assert again.uv is not None and again.uv_faces is not None
        assert mesh.uv is not None and mesh.uv_faces is not None
        assert torch.equal(again.uv[again.uv_faces], mesh.uv[mesh.uv_faces])
    if suffix == "obj":
        assert torch.equal(again.uv_faces, mesh.uv_faces) and torch.equal(again.uv, mesh.uv)


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_round_trip_of_a_texture_coordinate_a_vertex(tmp_path: Path, suffix: str) -> None:
    mesh = random_mesh(torch.float64)
    mesh = Mesh(mesh.verts, mesh.faces, uv=torch.rand(20, 2, dtype=torch.float64))
    save(mesh, tmp_path / f"a.{suffix}")
    again = load(tmp_path / f"a.{suffix}")
    assert isinstance(again, Mesh) and again.uv_faces is None and again.colors is None
    assert again.uv is not None and mesh.uv is not None and torch.equal(again.uv, mesh.uv)


@pytest.mark.parametrize("suffix", ["obj", "off", "ply"])
def test_round_trip_of_a_cloud(tmp_path: Path, suffix: str) -> None:
    g = torch.Generator().manual_seed(1)
    points, normals = torch.randn(2, 17, 3, generator=g, dtype=torch.float64)
    colors = (torch.rand(17, 3, generator=g, dtype=torch.float64) * 255).round() / 255
    save(PointCloud(points, normals, colors), tmp_path / f"a.{suffix}")
    again = load(tmp_path / f"a.{suffix}")
    assert isinstance(again, PointCloud) and again.colors is not None
    assert torch.equal(again.points, points) and torch.allclose(again.colors, colors, atol=1e-15)
    assert again.normals is None if suffix == "off" else torch.equal(again.normals, normals)  # type: ignore[arg-type]


def test_nan_vertices_pass_through(tmp_path: Path) -> None:
    for name, content in (
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 nan 0\n0 1 0\n3 0 1 2\n"),
        ("a.obj", "v 0 0 0\nv 1 nan 0\nv 0 1 0\nf 1 2 3\n"),
        ("a.ply", ply("0 0 0\n1 nan 0\n0 1 0\n3 0 1 2\n", 3, 1)),
    ):
        mesh = load(write(tmp_path, name, content))
        assert isinstance(mesh, Mesh)
        assert mesh.verts.isnan().tolist() == [[False] * 3, [False, True, False], [False] * 3]
        save(mesh, tmp_path / name)
        again = load(tmp_path / name)
        assert isinstance(again, Mesh) and torch.equal(again.verts.nan_to_num(7), mesh.verts.nan_to_num(7))


def test_dtype_and_device(tmp_path: Path) -> None:
    path = write(tmp_path, "a.off", f"OFF\n3 1 0\n{TRIANGLE}3 0 1 2\n")
    mesh = load(path, dtype=torch.float32, device="cpu")
    assert isinstance(mesh, Mesh) and mesh.dtype == torch.float32 and mesh.faces.dtype == torch.int64
    with pytest.raises(TypeError, match="dtype: expected a floating dtype"):
        load(path, dtype=torch.int64)


# --- bad files


BAD = {
    "empty.off": ("", "empty"),
    "blank.obj": ("  \n \n", "empty"),
    "empty.ply": ("", "empty"),
    "empty.stl": ("", "empty"),
    "no_vertices.obj": ("# nothing\n", "no vertices"),
    "header.off": ("OFFF\n1 0 0\n", "expected the header OFF|counts"),
    "words.off": ("solid a\n", "expected the header OFF"),
    "binary.off": ("OFF BINARY\n1 0 0\n", "text OFF"),
    "counts.off": ("OFF\nmany\n", "expected the counts"),
    "negative_counts.off": ("OFF\n-3 1 0\n", "expected the counts"),
    "truncated.off": (f"OFF\n3 4 0\n{TRIANGLE}3 0 1 2\n", "announces 3 vertices and 4 faces, but 4 lines"),
    "cut.off": ("OFF\n300 4 0\n0 0 0\n1 0", "truncated"),
    "lies.off": (f"OFF\n3 1 0\n{TRIANGLE}3 0 1 2\n3 0 2 1\n", "counts are wrong"),
    "huge.off": ("OFF\n99999999999999 1 0\n0 0 0\n", "truncated"),
    "short_vertex.off": ("OFF\n3 1 0\n0 0 0\n1 0\n0 1 0\n3 0 1 2\n", "line 4: expected 3 numbers"),
    "word.off": ("OFF\n3 1 0\n0 0 0\n# no\n1 x 0\n0 1 0\n3 0 1 2\n", "line 5: .*'1 x 0'"),
    "range.off": (f"OFF\n3 2 0\n{TRIANGLE}3 0 1 2\n3 0 1 3\n", r"line 7: .*\[0, 2\].*found 3"),
    "negative.off": (f"OFF\n3 1 0\n{TRIANGLE}3 0 -1 2\n", r"line 6: .*found -1"),
    "fraction.off": (f"OFF\n3 1 0\n{TRIANGLE}3 0 1.5 2\n", "line 6: expected whole numbers"),
    "edge.off": (f"OFF\n3 1 0\n{TRIANGLE}2 0 1\n", "line 6: expected a face of 3 or more"),
    "mixed.off": (f"OFF\n3 2 0\n{TRIANGLE}3 0 1 2\n4 0 1 2\n", "line 7: expected a face of 3 or more"),
    "range.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nf 1 2 9\n", "line 5: face index 9 points outside the 3"),
    "zero.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "line 4: face index 0"),
    "negative.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -4\n", "line 4: face index -4"),
    "texture.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/2\n", "index 2 .* 1 texture coordinates"),
    "word.obj": ("v 0 0 0\nv 1 y 0\nv 0 1 0\nf 1 2 3\n", "line 2: expected 3 numbers"),
    "short.obj": ("v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n", "line 2: expected 3 numbers"),
    "corner.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 b\n", "line 4: expected face corners"),
    "long.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999999999999\n", "line 4: expected face corners"),
    "edge.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n", "line 4: expected a face of 3"),
    "no_header.ply": ("hello\n", "PLY header"),
    "no_format.ply": ("ply\nelement vertex 1\nproperty float x\nend_header\n0\n", "line 'format"),
    "type.ply": ("ply\nformat ascii 1.0\nelement vertex 1\nproperty real x\nend_header\n0\n", "line 4"),
    "negative.ply": ("ply\nformat ascii 1.0\nelement vertex -1\nend_header\n0\n", "line 3"),
    "flat.ply": ("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n", "x, y and z"),
    "truncated.ply": (ply(f"{TRIANGLE}3 0 1 2\n", 3, 2), "announces 5 lines, but 4"),
    "lies.ply": (ply(f"{TRIANGLE}3 0 1 2\n3 0 2 1\n", 3, 1), "counts are wrong"),
    "range.ply": (ply(f"{TRIANGLE}3 0 1 7\n", 3, 1), r"face 0: .*\[0, 2\].*found 7"),
    "word.ply": (ply("0 0 0\n1 q 0\n0 1 0\n3 0 1 2\n", 3, 1), "expected 3 numbers for a vertex"),
    "list.ply": (ply(f"{TRIANGLE}4 0 1 2\n", 3, 1), "face 0: cannot read property vertex_indices"),
    "two.ply": (ply(f"{TRIANGLE}2 0 1\n", 3, 1), "face 0: expected 3 or more corners"),
    "binary.ply": (ply("abc", 3, 1).replace("ascii", "binary_little_endian"), "ends inside the 3 rows"),
    "huge.ply": (ply("abc", 10**15, 1).replace("ascii", "binary_little_endian"), "truncated"),
    "longer.ply": (
        ply("", 0, 0).replace("ascii", "binary_little_endian") + "abc", "3 bytes follow"),
    "unreadable.stl": (
        "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\n", "ends with a line 'vertex', .* truncated"),
    "number.stl": (
        stl("0 x 0", "1 0 0", "0 1 0"), "line 4: expected 3 numbers for a vertex, found '0 x 0'"),
    "four.stl": (
        stl("0 0 0", "1 0 0", "1 1 0", "0 1 0"), "line 8: expected 3 vertices in the loop that ends here"),
    "unfinished.stl": (stl("0 0 0", "1 0 0", "0 1 0")[:-10], "ends with a line 'endfacet', .* 1 triangles"),
    "after.stl": (stl("0 0 0", "1 0 0", "0 1 0") + "\nrubbish 1\n", "line 10: expected solid, found 'rubbish 1'"),
    "order.stl": ("solid a\nvertex 0 0 0\nendsolid a\n", "line 2: expected endsolid or facet, found 'vertex"),
    "hollow.stl": ("solid a\nendsolid a\n", "no triangles found: the file holds only empty solids"),
    "short.stl": (b"\0" * 40, "found 40 bytes; the file is truncated"),
    "cut.stl": (binary_stl(3)[:-60], "announces 3 triangles, but the file ends after 1; it is truncated"),
    "solid.stl": (b"solid" + binary_stl(3)[5:-1], "announces 3 triangles, but the file ends after 2"),
    "longer.stl": (binary_stl(3) + b"more", "4 bytes follow the 3 triangles that the header announces"),
    "twice.ply": (
        ply(TRIANGLE, 3, 0, "property float x\n"), "line 8: the element 'vertex' has two properties 'x'"),
    "twice_element.ply": (
        ply(TRIANGLE, 3, 0).replace("element face", "element vertex"), "line 8: the element 'vertex' stands twice"),
    "text.glb": ("hello", "not that of a glTF file"),
    "empty.gltf": ("{}", "no triangles found|not a readable GLTF"),
    "draco.gltf": ('{"asset": {"version": "2.0"}, "accessors": [{"count": 3}]}', "compressed"),
    "a.fbx": ("x", "unknown suffix '.fbx'; expected one of .obj, .off"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text


def test_missing_file_folder_and_truncated_glb(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*nothing.off: no such file"):
        load(tmp_path / "nothing.off")
    (tmp_path / "folder.off").mkdir()
    with pytest.raises(ValueError, match=r"not a regular file"):
        load(tmp_path / "folder.off")
    trimesh = pytest.importorskip("trimesh")
    data = trimesh.creation.box().export(file_type="glb")
    for n in (10, 30, len(data) // 2, len(data) - 8):
        with pytest.raises(ValueError, match=r"cannot read .*cut.glb"):
            load(write(tmp_path, "cut.glb", data[:n]))


def test_glb_with_an_index_out_of_range(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    data = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False).export(
        file_type="glb"
    )
    at = data.index(struct.pack("<3I", 0, 1, 2))
    bad = data[:at] + struct.pack("<3I", 0, 1, 7) + data[at + 12 :]
    with pytest.raises(ValueError, match=r"face 0: expected vertex indices in \[0, 2\].*found 7"):
        load(write(tmp_path, "a.glb", bad))


def test_latin_comments_and_binary_noise(tmp_path: Path) -> None:
    mesh = load(
        write(
            tmp_path, "a.obj", "# gr\xfc\xdfe\n".encode("latin-1") + b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
        )
    )
    assert isinstance(mesh, Mesh) and mesh.n_faces == 1
    noise = np.random.default_rng(0).integers(0, 256, 4000).astype(np.uint8).tobytes()
    for name in ("a.off", "a.obj", "a.ply", "a.stl", "a.glb", "a.gltf"):
        with pytest.raises(ValueError, match="cannot read"):
            load(write(tmp_path, name, noise))


TETRAHEDRON = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
TEXTS = {
    "a.obj": "v " + TETRAHEDRON.strip().replace("\n", "\nv ") + "\nf 1 3 2\nf 1 2 4\n",
    "points.obj": "v " + TETRAHEDRON.strip().replace("\n", "\nv ") + "\n",
    "a.off": f"OFF\n4 2 0\n{TETRAHEDRON}3 0 2 1\n3 0 1 3\n",
    "points.off": f"OFF\n4 0 0\n{TETRAHEDRON}",
    "a.ply": ply(TETRAHEDRON + "3 0 2 1\n3 0 1 3\n", 4, 2),
    "a.stl": stl("0 0 0", "0 1 0", "1 0 0"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path, name: str, encoding: str) -> None:
    plain, marked = tmp_path / name, tmp_path / f"marked-{name}"
    plain.write_text(TEXTS[name], encoding="utf-8")
    marked.write_text(TEXTS[name], encoding=encoding)
    assert marked.read_bytes()[:2] in (b"\xef\xbb", b"\xff\xfe", b"\xfe\xff")
    a, b = load(plain), load(marked)
    assert type(a) is type(b)
    if isinstance(a, Mesh) and isinstance(b, Mesh):
        assert torch.equal(a.verts, b.verts) and torch.equal(a.faces, b.faces)
    elif isinstance(a, PointCloud) and isinstance(b, PointCloud):
        assert torch.equal(a.points, b.points) and len(a.points) == 4


def test_a_byte_order_mark_before_binary_content(tmp_path: Path) -> None:
    mesh = random_mesh(torch.float64)
    save(mesh, tmp_path / "a.ply")
    marked = load(write(tmp_path, "b.ply", b"\xef\xbb\xbf" + (tmp_path / "a.ply").read_bytes()))
    assert isinstance(marked, Mesh) and torch.equal(marked.verts, mesh.verts)
    soup = load(
        write(tmp_path, "c.stl", b"\xef\xbb\xbf" + binary_stl(5)[3:])
    )  # three bytes of its free header
    assert isinstance(soup, Mesh) and soup.n_faces == 5


def test_solids_of_one_stl_file_are_joined_unmerged(tmp_path: Path) -> None:
    """Capitals, a name of two words and of a keyword, and triangles that touch: 3 vertices each all the same."""
    one, two = (
        stl("0 0 0", "1 0 0", "0 1 0"),
        stl("0 0 0", "2 0 0", "0 1 0").upper().replace(" A", " vertex b"),
    )
    mesh = load(write(tmp_path, "a.stl", f"{one}\n\n{two}\nsolid\nendsolid\n{one}"))
    assert isinstance(mesh, Mesh)
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert mesh.verts[:, 0].tolist() == [0, 1, 0, 0, 2, 0, 0, 1, 0] and mesh.area == 2
    named = load(write(tmp_path, "b.stl", b"solid" + binary_stl(4)[5:]))  # binary, whatever its header says
    assert isinstance(named, Mesh) and named.n_faces == 4


def quantised(
    kind: str, normalized: bool, *, stride: int = 0, uv: bool = False
) -> tuple[dict, bytes, np.ndarray]:
    """A glTF tree with its buffer: one triangle of integer positions, and the positions that it means."""
    dtype = np.dtype({"i1": "<i1", "u1": "<u1", "i2": "<i2", "u2": "<u2"}[kind])
    top, low = np.iinfo(dtype).max, np.iinfo(dtype).min
    corners = np.array([[0, low, 0], [top, 0, 1], [3, top, 2]], dtype)
    step = stride or 3 * dtype.itemsize
    block = b"".join(row.tobytes().ljust(step, b"\7") for row in corners) + bytes(-3 * step % 4)
    texture = np.array([[0, 0], [65535, 0], [0, 13107]], "<u2").tobytes()
    code = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123}[kind]
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": len(block)},
             {"buffer": 0, "byteOffset": len(block), "byteLength": len(texture)}]  # fmt: skip
    if stride:
        views[0]["byteStride"] = stride
    accessors = [
        {"bufferView": 0, "componentType": code, "count": 3, "type": "VEC3", "normalized": normalized},
        {"bufferView": 1, "componentType": 5123, "count": 3, "type": "VEC2", "normalized": True},
    ]
    primitive = {
        "attributes": {"POSITION": 0, **({"TEXCOORD_0": 1} if uv else {})},
        **({"material": 0} if uv else {}),
    }
    tree = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "materials": [{}],
        "nodes": [{"mesh": 0, "scale": [2, 2, 2], "translation": [1, 0, 0]}],
        "meshes": [{"primitives": [primitive]}], "accessors": accessors, "bufferViews": views,
        "buffers": [{"byteLength": len(block) + len(texture)}], "extensionsRequired": ["KHR_mesh_quantization"],
    }  # fmt: skip
    meant = np.maximum(corners / top, -1) if normalized else corners.astype(float)
    return tree, block + texture, 2 * meant + [1, 0, 0]


def glb(tree: dict, data: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    data += bytes(-len(data) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2"])
@pytest.mark.parametrize("normalized", [True, False])
def test_quantised_gltf_positions(tmp_path: Path, kind: str, normalized: bool) -> None:
    """KHR_mesh_quantization: integers are fractions of the largest one where normalised, then the node moves them."""
    for stride, suffix in ((0, "glb"), (8, "glb"), (0, "gltf"), (12, "gltf"), (0, "bin")):
        tree, data, expected = quantised(kind, normalized, stride=stride)
        if suffix == "glb":
            content = glb(tree, data)
        elif suffix == "gltf":
            tree["buffers"][0]["uri"] = (
                "data:application/gltf-buffer;base64," + base64.b64encode(data).decode()
            )
            content = json.dumps(tree).encode("utf-8-sig")
        else:
            suffix = "gltf"
            tree["buffers"][0]["uri"] = write(tmp_path, "beside.bin", data).name
            content = json.dumps(tree).encode()
        mesh = load(write(tmp_path, f"a.{suffix}", content))
        assert isinstance(mesh, Mesh) and mesh.faces.tolist() == [[0, 1, 2]]
        assert np.allclose(mesh.verts.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_quantised_gltf_texture_coordinates(tmp_path: Path) -> None:
    tree, data, _ = quantised("i2", True, uv=True)
    mesh = load(write(tmp_path, "a.glb", glb(tree, data)))
    assert isinstance(mesh, Mesh) and mesh.uv is not None
    assert np.allclose(mesh.uv.numpy(), [[0, 1], [1, 1], [0, 0.8]], atol=1e-6)  # glTF counts v downwards


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t["accessors"][0].update(count=300), "not a readable GLB"),
        (lambda t: t["accessors"][0].update(byteOffset=-5), "not a readable GLB"),
        (lambda t: t["bufferViews"][0].update(byteStride=-8), "not a readable GLB"),
        (lambda t: t["accessors"][0].update(componentType=1), "not a readable GLB"),
        (lambda t: t["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}}), "compressed"),
    ],
)
def test_quantised_gltf_that_does_not_fit_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    tree, data, _ = quantised("i2", True)
    spoil(tree)
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, "a.glb", glb(tree, data)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["obj", "off", "ply"]), st.data())
def test_a_damaged_file_gives_a_value_error_or_a_mesh(
    tmp_path: Path, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path / f"a.{suffix}"
    save(random_mesh(torch.float64, n=8), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    try:
        surface = load(path)
    except ValueError as err:
        assert str(path) in str(err)
    else:
        assert isinstance(surface, Mesh | PointCloud)


def test_save_refuses_and_leaves_the_old_file(tmp_path: Path) -> None:
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match=r"expected one of '.obj', '.off', '.ply', '.pcd', found '.stl'"):
        save(mesh, tmp_path / "a.stl")
    with pytest.raises(ValueError, match=r"expected .obj, .off or .ply for a mesh, found .pcd"):
        save(mesh, tmp_path / "a.pcd")
    with pytest.raises(ValueError, match=r"expected one pose \(V, 3\), found \(2, 3, 3\)"):
        save(mesh.with_verts(torch.stack([mesh.verts] * 2)), tmp_path / "a.obj")
    with pytest.raises(TypeError, match="expected a Mesh or PointCloud, found dict"):
        save({}, tmp_path / "a.obj")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match=r"cannot write .*a.obj"):
        save(mesh, tmp_path / "file" / "a.obj")
    (tmp_path / "taken.obj").mkdir()
    with pytest.raises(ValueError, match=r"cannot write .*taken.obj"):
        save(mesh, tmp_path / "taken.obj")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.obj"]


@pytest.mark.parametrize(
    "text",
    [
        "0 0 1\n2,3,4\n5;6;7 0.1 0.2 0.3\n",
        "3\n0 0 1 9\n2 3 4 9\n5 6 7 9\n",
        "# points\n0 0 1\n\n2 3 4\n5 6 7",
    ],
)
def test_text_of_points(tmp_path, text):
    (tmp_path / "p.xyz").write_text(text)
    cloud = load(tmp_path / "p.xyz")
    assert isinstance(cloud, PointCloud)
    assert cloud.points.tolist() == [[0, 0, 1], [2, 3, 4], [5, 6, 7]]


@pytest.mark.parametrize(
    ("text", "told"),
    [("0 0 1\n2 3\n", "line 2: expected 3 numbers"), ("4\n0 0 1\n2 3 4\n", "number of points, 2")],
)
def test_bad_text_of_points(tmp_path, text, told):
    (tmp_path / "p.xyz").write_text(text)
    with pytest.raises(ValueError, match=told):
        load(tmp_path / "p.xyz")
