"""To and from the mesh classes of other libraries: trimesh, torch_geometric and pytorch3d.

Vertex order and count are kept both ways. Positions keep their values; what a library has no place for is named
in the function that leaves it out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from geoframe.surface._raw import unit_colors
from geoframe.surface.mesh import Mesh, PointCloud


def to_trimesh(surface: Mesh | PointCloud) -> Any:
    """A `trimesh.Trimesh` or `trimesh.PointCloud` of one pose, on the CPU in float64, without merging vertices.

    trimesh keeps colours as 8 bits, and one texture coordinate a vertex: `uv` goes along where it has no
    `uv_faces`. Normals of clouds are left out.

    Raises:
        TypeError: not a `Mesh` or `PointCloud`.
        ValueError: a batch.
    """
    import trimesh

    points = _one_pose(surface, "to_trimesh").detach().double().cpu().numpy()
    colors = None
    if surface.colors is not None:
        colors = np.rint(surface.colors.detach().double().cpu().clamp(0, 1).numpy() * 255).astype(np.uint8)
    if isinstance(surface, PointCloud):
        return trimesh.PointCloud(points, colors=colors)
    faces = surface.faces.cpu().numpy()
    out = trimesh.Trimesh(points, faces, vertex_colors=colors, process=False)
    if surface.uv is not None and surface.uv_faces is None:
        out.visual = trimesh.visual.TextureVisuals(uv=surface.uv.detach().double().cpu().numpy())
        if colors is not None:
            out.visual.vertex_attributes["color"] = colors
    return out


def from_trimesh(
    geometry: Any, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Mesh | PointCloud:
    """A `Mesh` from a `trimesh.Trimesh`, a `PointCloud` from a `trimesh.PointCloud`, order and count kept.

    Colours become [0, 1], an alpha that is 1 everywhere is left out; face colours and materials are not taken.

    Args:
        geometry: of trimesh.
        dtype: of positions and colours.
        device: of the result; None is the CPU.

    Raises:
        TypeError: another class; a Scene is several geometries: pass each, or ``scene.to_mesh()``.
    """
    import trimesh

    if not isinstance(geometry, trimesh.Trimesh | trimesh.PointCloud):
        raise TypeError(
            f"geometry: expected trimesh.Trimesh or trimesh.PointCloud, found {type(geometry).__name__}; "
            "for a Scene pass scene.to_mesh()"
        )

    def tensor(x: Any, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.tensor(np.array(x)).to(device=device, dtype=kind)

    verts, (colors, uv) = tensor(geometry.vertices), colors_and_uv(geometry)
    rgb = None if colors is None else tensor(colors)
    if isinstance(geometry, trimesh.PointCloud):
        return PointCloud(verts, None, rgb)
    return Mesh(verts, tensor(geometry.faces, torch.int64), rgb, None if uv is None else tensor(uv))


def colors_and_uv(geometry: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Vertex colours in [0, 1] and texture coordinates (V, 2) of a trimesh geometry, None where it has none."""
    n = len(geometry.vertices)
    visual: Any = getattr(geometry, "visual", None)
    colors: Any = getattr(geometry, "colors", None)  # of a cloud
    uv: Any = getattr(visual, "uv", None)
    kind = getattr(visual, "kind", None)
    if kind == "vertex":
        colors = visual.vertex_colors
    elif kind == "texture":
        colors = visual.vertex_attributes.get("color")
    if colors is None or np.shape(colors) not in ((n, 3), (n, 4)):
        colors = None
    else:
        colors = np.asarray(colors)
        colors = unit_colors(colors / (np.iinfo(colors.dtype).max if colors.dtype.kind in "iu" else 1))
    return colors, None if uv is None or np.shape(uv) != (n, 2) else np.array(uv, np.float64)


def to_torch_geometric(surface: Mesh | PointCloud) -> Any:
    """A `torch_geometric.data.Data`: pos (V, 3), for a mesh face (3, F), for a cloud normal (N, 3).

    Colours go to `color`, texture coordinates to `uv` and `uv_face` (3, F). Tensors are shared, not copied.

    Raises:
        TypeError: not a `Mesh` or `PointCloud`.
        ValueError: a batch; make a Batch of the poses' Data.
    """
    from torch_geometric.data import Data

    data = Data(pos=_one_pose(surface, "to_torch_geometric"))
    if surface.colors is not None:
        data.color = surface.colors
    if isinstance(surface, PointCloud):
        if surface.normals is not None:
            data.normal = surface.normals
        return data
    data.face = surface.faces.T.contiguous()
    if surface.uv is not None:
        data.uv = surface.uv
    if surface.uv_faces is not None:
        data.uv_face = surface.uv_faces.T.contiguous()
    return data


def from_torch_geometric(data: Any) -> Mesh | PointCloud:
    """A `Mesh` from a `Data` with `face`, a `PointCloud` from one without; dtype and device as `pos`.

    Raises:
        TypeError: no `Data`.
        ValueError: no `pos`, or a `Batch` of several (use ``batch.to_data_list()``).
    """
    from torch_geometric.data import Batch, Data

    if not isinstance(data, Data):
        raise TypeError(f"data: expected torch_geometric.data.Data, found {type(data).__name__}")
    if isinstance(data, Batch):
        raise ValueError("data: expected one Data, found a Batch; convert each of batch.to_data_list()")
    if data.pos is None:
        raise ValueError("data: expected positions in data.pos, found None")
    color = data.get("color")
    if data.face is None:
        return PointCloud(data.pos, data.get("normal"), color)
    uv_face = data.get("uv_face")
    return Mesh(
        data.pos, data.face.T.contiguous(), color, data.get("uv"), None if uv_face is None else uv_face.T
    )


def to_pytorch3d(surface: Mesh | PointCloud) -> Any:
    """`pytorch3d.structures.Meshes` or `Pointclouds` of B = all leading dimensions, 1 for a single pose.

    Gradients flow through. Colours of clouds become features; colours and texture coordinates of meshes belong
    to pytorch3d's renderer and are left out.

    Raises:
        ImportError: pytorch3d is not installed.
        TypeError: not a `Mesh` or `PointCloud`.
    """
    structures = _pytorch3d()
    if isinstance(surface, Mesh):
        verts = surface.verts.reshape(-1, *surface.verts.shape[-2:])
        return structures.Meshes(verts=verts, faces=surface.faces.expand(len(verts), -1, -1))
    if isinstance(surface, PointCloud):
        points = surface.points.reshape(-1, *surface.points.shape[-2:])
        normals = None if surface.normals is None else surface.normals.reshape(points.shape)
        features = None if surface.colors is None else surface.colors.expand(len(points), -1, -1)
        return structures.Pointclouds(points=points, normals=normals, features=features)
    raise TypeError(f"surface: expected a Mesh or PointCloud, found {type(surface).__name__}")


def from_pytorch3d(structure: Any) -> Mesh | PointCloud:
    """A `Mesh` from `Meshes` of one connectivity, a `PointCloud` from `Pointclouds` of one size.

    verts are (B, V, 3), or (V, 3) where B is 1. Features of 3 or 4 channels that all clouds share are colours.

    Raises:
        ImportError: pytorch3d is not installed.
        TypeError: another class.
        ValueError: empty, or members that
            differ in faces or size; convert ``structure[i]`` one by one.
    """
    structures = _pytorch3d()
    if not isinstance(structure, structures.Meshes | structures.Pointclouds):
        raise TypeError(
            f"structure: expected pytorch3d Meshes or Pointclouds, found {type(structure).__name__}"
        )
    is_mesh = isinstance(structure, structures.Meshes)
    members = structure.verts_list() if is_mesh else structure.points_list()
    shared = structure.faces_list() if is_mesh else (structure.features_list() or [])
    if not members:
        raise ValueError("structure: expected at least 1 member, found none")
    differ = any(len(m) != len(members[0]) for m in members)
    if differ or (is_mesh and not all(torch.equal(f, shared[0]) for f in shared)):
        raise ValueError("structure: its members differ in faces or size; convert structure[i] one by one")

    def stack(tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(tensors) if len(tensors) > 1 else tensors[0]

    if is_mesh:
        return Mesh(stack(members), shared[0])
    normals = structure.normals_list()
    is_color = (
        bool(shared) and shared[0].shape[1] in (3, 4) and all(torch.equal(f, shared[0]) for f in shared)
    )
    return PointCloud(stack(members), stack(normals) if normals else None, shared[0] if is_color else None)


def _one_pose(surface: Any, where: str) -> torch.Tensor:
    """Positions of a surface that must be a single pose."""
    if not isinstance(surface, Mesh | PointCloud):
        raise TypeError(f"surface: expected a Mesh or PointCloud, found {type(surface).__name__}")
    points = surface.verts if isinstance(surface, Mesh) else surface.points
    if points.ndim != 2:
        raise ValueError(
            f"surface: expected one pose (V, 3), found {tuple(points.shape)}; call {where} for each pose"
        )
    return points


def _pytorch3d() -> Any:
    try:
        import pytorch3d.structures as structures
    except ImportError as err:
        raise ImportError(
            f"pytorch3d.structures is needed here and could not be imported ({err}); it has no CPU wheel on PyPI: "
            "see 'pytorch3d' in the README"
        ) from err
    return structures
