"""Reading and writing surfaces: `load` and `save`.

Vertices come and go in the file's order and number, nothing is merged, split or dropped: ground truth is by
index. Files are taken for untrusted: counts and indices are checked against the content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_choice
from geoframe._files import atomic_path, plain_utf8
from geoframe.surface._gltf import read_gltf
from geoframe.surface._obj import read_obj, write_obj
from geoframe.surface._off import read_off, write_off
from geoframe.surface._pcd import read_pcd, write_pcd
from geoframe.surface._ply import read_ply, write_ply
from geoframe.surface._raw import Raw
from geoframe.surface._stl import is_binary_stl, read_stl
from geoframe.surface._xyz import read_xyz
from geoframe.surface.mesh import Mesh, PointCloud

_READERS = {
    ".obj": read_obj,
    ".off": read_off,
    ".ply": read_ply,
    ".stl": read_stl,
    ".pcd": read_pcd,
    ".xyz": read_xyz,
}
_GLTF = (".glb", ".gltf")
_WRITABLE = (".obj", ".off", ".ply", ".pcd")


def load(
    path: str | Path, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Mesh | PointCloud:
    """Read an OBJ, OFF, PLY, STL, PCD, XYZ, GLB or glTF file; vertex order and count are the file's.

    A polygon of n corners becomes n - 2 triangles: a fan from its first corner where that is exact, as for
    every convex polygon, else by cutting off ears. Their orientation is the polygon's. Colours of vertices and
    texture coordinates are kept, those of faces, materials and images are not. STL has no shared vertices, so F
    triangles give 3F vertices: ``repair(mesh, merge_vertices=True)`` joins them. The geometries of a glTF
    scene are put in the scene's frame and joined in the order of the file's meshes. A glTF primitive's texture
    coordinates are read where it has a material, without KHR_texture_transform; its colours are 8 bits deep.
    Corners without texture coordinate point to one appended row of NaN in `uv`. Text may begin with a byte-order
    mark.

    Args:
        path: the file; its suffix, in any case, says what it is.
        dtype: of the floating tensors.
        device: of all tensors, the CPU by default.

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
    if suffix not in _READERS and suffix not in _GLTF:
        known = ", ".join([*_READERS, *_GLTF])
        raise ValueError(f"cannot read {path}: unknown suffix {path.suffix!r}; expected one of {known}")
    try:
        if not path.is_file():
            raise ValueError("no such file" if not path.exists() else "not a regular file")
        raw = _read(path, suffix)
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


def _read(path: Path, suffix: str) -> Raw:
    data = path.read_bytes()
    if suffix != ".stl" or not is_binary_stl(data):  # whose header may be any bytes
        data = plain_utf8(data)
    if not data.strip():
        raise ValueError("the file is empty")
    return _READERS[suffix](data) if suffix in _READERS else read_gltf(data, path)


def save(surface: Mesh | PointCloud, path: str | Path, *, head: str = "") -> None:
    """Write a mesh or a point cloud as OBJ, OFF or PLY, or a cloud as PCD (by suffix), whole or not at all.

    Numbers read back the same in the surface's dtype: positions, and in OBJ also texture coordinates and
    colours. PLY and PCD are binary, their colours have 8 bits. OFF has no place for texture coordinates, nor for the
    normals of a cloud: they are left out.

    Args:
        surface: one pose.
        path: of the file; its suffix is .obj, .off, .ply or .pcd.
        head: lines of an OBJ file before all others, such as those that name its material.

    Raises:
        TypeError: not a `Mesh` or `PointCloud`.
        ValueError: unknown suffix, a mesh as PCD, a batch, or a place that cannot be written to; an existing file is
            then left as it was.
    """
    path = Path(path)
    if not isinstance(surface, Mesh | PointCloud):
        raise TypeError(f"surface: expected a Mesh or PointCloud, found {type(surface).__name__}")
    suffix = check_choice(path.suffix.lower(), _WRITABLE, f"suffix of {path}")
    if suffix == ".pcd" and isinstance(surface, Mesh):
        raise ValueError(
            f"suffix of {path}: expected .obj, .off or .ply for a mesh, found .pcd, which has no faces"
        )
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
        data = head.encode() + data
    elif suffix == ".off":
        data = write_off(verts, faces, colors=colors)
    elif suffix == ".pcd":
        data = write_pcd(verts, colors=colors, normals=normals)
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
