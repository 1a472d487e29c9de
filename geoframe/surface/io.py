"""Reading and writing surfaces: `load` and `save`.

Vertices come and go in the file's order and number, nothing is merged, split or dropped: ground truth is by
index. Files are taken for untrusted: counts and indices are checked against the content.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_choice
from geoframe._files import atomic_path
from geoframe.surface._obj import read_obj, write_obj
from geoframe.surface._off import read_off, write_off
from geoframe.surface._ply import read_ply, write_ply
from geoframe.surface._raw import Raw, check_corners, unit_colors
from geoframe.surface.bridges import colors_and_uv
from geoframe.surface.mesh import Mesh, PointCloud

_READERS = {".obj": read_obj, ".off": read_off, ".ply": read_ply}
_THROUGH_TRIMESH = (".stl", ".glb", ".gltf")
_WRITABLE = (".obj", ".off", ".ply")


def load(
    path: str | Path, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Mesh | PointCloud:
    """Read an OBJ, OFF, PLY, STL, GLB or glTF file; vertex order and count are the file's.

    Polygons become triangle fans (exact for convex ones), corner order and so orientation kept. Colours of
    vertices and texture coordinates are kept, those of faces, materials and images are not. STL has no
    shared vertices, so F triangles give 3F vertices: ``repair(mesh, merge_vertices=True)`` joins them. The
    geometries of a glTF scene are put in the scene's frame and joined in the order of the file's meshes.
    A glTF primitive's texture coordinates are read where it has a material; its colours are 8 bits deep.
    Corners without texture coordinate point to one appended row of NaN in `uv`.

    Args:
        dtype: of the floating tensors. device: of all tensors, the CPU by default.

    Returns:
        A `Mesh`, or a `PointCloud` where the file holds vertices and no face. NaN coordinates are let
        through so that `health` can show them; the operators refuse them.

    Raises:
        ValueError: naming the file, for one that is missing, empty, truncated, of unknown kind, or whose
            counts or indices do not fit its content.
    """
    path = Path(path)
    if not dtype.is_floating_point:
        raise TypeError(f"dtype: expected a floating dtype, found {dtype}")
    suffix = path.suffix.lower()
    if suffix not in _READERS and suffix not in _THROUGH_TRIMESH:
        known = ", ".join([*_READERS, *_THROUGH_TRIMESH])
        raise ValueError(f"cannot read {path}: unknown suffix {path.suffix!r}; expected one of {known}")
    try:
        if not path.is_file():
            raise ValueError("no such file" if not path.exists() else "not a regular file")
        data = path.read_bytes()
        if not data.strip():
            raise ValueError("the file is empty")
        raw = _READERS[suffix](data) if suffix in _READERS else _read_trimesh(path, data)
        if not len(raw.verts):
            raise ValueError("the file holds no vertices")
    except OSError as err:
        raise ValueError(f"cannot read {path}: {err.strerror or err}") from err
    except ValueError as err:
        raise ValueError(f"cannot read {path}: {err}") from err

    def tensor(x: np.ndarray | None, kind: torch.dtype) -> Any:
        return None if x is None else torch.from_numpy(np.ascontiguousarray(x)).to(device=device, dtype=kind)

    verts, colors = tensor(raw.verts, dtype), tensor(raw.colors, dtype)
    if not len(raw.faces):
        return PointCloud(verts, tensor(raw.normals, dtype), colors)
    uv_faces = tensor(raw.uv_faces, torch.int64)
    return Mesh(verts, tensor(raw.faces, torch.int64), colors, tensor(raw.uv, dtype), uv_faces)


def load_mesh(
    path: str | Path, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Mesh:
    """Read a file as `load` does, and refuse one that holds points without faces.

    Args:
        path: an OBJ, OFF, PLY, STL, GLB or glTF file.
        dtype: of the floating tensors.
        device: of all tensors, the CPU by default.

    Raises:
        ValueError: as `load` does, and where the file holds no face.
    """
    surface = load(path, dtype=dtype, device=device)
    if not isinstance(surface, Mesh):
        raise ValueError(f"{path}: expected a mesh, found points without faces; reconstruct a surface first")
    return surface


def save(surface: Mesh | PointCloud, path: str | Path) -> None:
    """Write a mesh or a point cloud as OBJ, OFF or PLY (by suffix), whole or not at all.

    Numbers read back the same in the surface's dtype: positions, and in OBJ also texture coordinates and
    colours. PLY is binary, its colours have 8 bits. OFF has no place for texture coordinates, nor for the
    normals of a cloud: they are left out.

    Raises:
        TypeError: not a `Mesh` or `PointCloud`. ValueError: unknown suffix, a batch, or a place that
            cannot be written to; an existing file is then left as it was.
    """
    path = Path(path)
    if not isinstance(surface, Mesh | PointCloud):
        raise TypeError(f"surface: expected a Mesh or PointCloud, found {type(surface).__name__}")
    suffix = check_choice(path.suffix.lower(), _WRITABLE, f"suffix of {path}")
    points = surface.verts if isinstance(surface, Mesh) else surface.points
    if points.ndim != 2:
        raise ValueError(
            f"surface: expected one pose (V, 3), found {tuple(points.shape)}; save the poses one by one"
        )
    verts, colors = _array(points), _array(surface.colors)
    if isinstance(surface, Mesh):
        faces, normals = surface.faces.cpu().numpy(), None
        uv, uv_faces = (
            _array(surface.uv),
            None if surface.uv_faces is None else surface.uv_faces.cpu().numpy(),
        )
    else:
        faces, normals, uv, uv_faces = np.empty((0, 3), np.int64), _array(surface.normals), None, None
    if suffix == ".obj":
        data = write_obj(verts, faces, colors=colors, normals=normals, uv=uv, uv_faces=uv_faces)
    elif suffix == ".off":
        data = write_off(verts, faces, colors=colors)
    else:
        is_mesh = isinstance(surface, Mesh)
        data = write_ply(
            verts, faces, colors=colors, normals=normals, uv=uv, uv_faces=uv_faces, is_mesh=is_mesh
        )
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except OSError as err:
        raise ValueError(f"cannot write {path}: {err.strerror or err}") from err


def _array(x: Tensor | None) -> Any:
    """A CPU array in float64 where `x` is, in float32 for the smaller types."""
    if x is None:
        return None
    return x.detach().cpu().to(torch.float64 if x.dtype == torch.float64 else torch.float32).numpy()


def _read_trimesh(path: Path, data: bytes) -> Raw:
    """STL, GLB and glTF through trimesh, with its scene laid out in the order of the file's meshes."""
    import trimesh

    if path.suffix.lower() != ".stl":
        _check_gltf(data)
    try:
        scene = trimesh.load_scene(str(path), process=False)
        names = list(scene.geometry)
        nodes = [(name, *scene.graph[name]) for name in scene.graph.nodes_geometry]
    except Exception as err:
        raise ValueError(
            f"not a readable {path.suffix[1:].upper()} file ({type(err).__name__}: {err})"
        ) from err
    nodes.sort(key=lambda node: names.index(node[2]))
    found = [_part(scene.geometry[name], matrix) for _, matrix, name in nodes]
    filled = [part for part in found if part is not None and len(part.verts)]
    parts = [part for part in filled if len(part.faces)] or filled
    if not parts:
        raise ValueError(f"no triangles found; truncated, or not a {path.suffix[1:].upper()} file")
    return _join(parts)


def _check_gltf(data: bytes) -> None:
    """Refuse what trimesh would fill with zeros or leave out: compressed or sparse data, triangle fans."""
    if data[:4] == b"glTF":
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    try:
        tree = json.loads(data)
        accessors, meshes = tree.get("accessors", []), tree.get("meshes", [])
        bare = any("sparse" in a or "bufferView" not in a for a in accessors)
        fans = any(p.get("mode", 4) == 6 for m in meshes for p in m["primitives"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as err:
        raise ValueError("its JSON part is not that of a glTF file; truncated?") from err
    if bare or fans:
        what = "triangle fans" if fans else "sparse or compressed (Draco, meshopt) data"
        raise ValueError(f"{what} cannot be read; export the file as plain triangles without compression")


def _part(geometry: Any, matrix: np.ndarray) -> Raw | None:
    """One geometry in the scene's frame; None for lines and the like."""
    if not hasattr(geometry, "vertices") or hasattr(geometry, "entities"):
        return None
    verts = np.array(geometry.vertices, np.float64)
    faces = np.array(getattr(geometry, "faces", np.empty((0, 3))), np.int64)
    check_corners(faces.ravel(), np.full(len(faces), 3), len(verts))
    if not np.array_equal(matrix, np.eye(4)):
        verts = verts @ matrix[:3, :3].T + matrix[:3, 3]
        if np.linalg.det(matrix[:3, :3]) < 0:
            faces = faces[:, [0, 2, 1]]
    colors, uv = colors_and_uv(geometry)
    return Raw(verts, faces, colors, None, uv)


def _join(parts: list[Raw]) -> Raw:
    """One surface from several; a part without colours is white, one without texture coordinates has NaN."""
    first = np.cumsum([0, *(len(p.verts) for p in parts)])
    colors = uv = None
    if any(p.colors is not None for p in parts):
        rgba = [np.ones((len(p.verts), 4)) for p in parts]
        for block, p in zip(rgba, parts, strict=True):
            if p.colors is not None:
                block[:, : p.colors.shape[1]] = p.colors
        colors = unit_colors(np.concatenate(rgba))
    if any(p.uv is not None for p in parts):
        uv = np.concatenate([np.full((len(p.verts), 2), np.nan) if p.uv is None else p.uv for p in parts])
    faces = np.concatenate([p.faces + i for p, i in zip(parts, first[:-1], strict=True)])
    return Raw(np.concatenate([p.verts for p in parts]), faces, colors, None, uv)
