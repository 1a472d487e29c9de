"""Energies that keep a deformation of a mesh plausible: edges, smoothness, normals, volume.

Each is a pure function of the rest mesh and positions ``verts (..., V, 3)``, returns one number a batch member
(...), is differentiable in the positions with finite gradients everywhere, and is zero at rest. Divide or weigh
them where you use them. As-rigid-as-possible is in `arap`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_float, check_shape
from geoframe.linalg import safe_norm
from geoframe.surface.mesh import Mesh
from geoframe.surface.operators import laplacian
from geoframe.surface.topology import edges


def edge_energy(mesh: Mesh, verts: Tensor) -> Tensor:
    """Mean squared change of the edge lengths, relative to the mean squared edge length at rest.

    Zero for isometric motions, unchanged by a change of units; 0.01 means that edges change by 10 % or so.

    Args:
        mesh: at rest, V vertices.
        verts: (..., V, 3) deformed.

    Returns:
        (...).
    """
    _check(mesh, verts)
    table = torch.from_numpy(edges(mesh.faces.cpu().numpy()).verts).to(mesh.device)
    rest, moved = (safe_norm(x[..., table[:, 0], :] - x[..., table[:, 1], :]) for x in (mesh.verts, verts))
    return (moved - rest).square().mean(-1) / rest.square().mean()


def laplacian_energy(mesh: Mesh, field: Tensor) -> Tensor:
    """Bending ``sum_i |(W f)_i|^2 / m_i`` of a field f, with Laplacian W and mass m of the mesh.

    Zero for constants. For a smooth deformation pass the displacements ``verts - mesh.verts``; the positions
    themselves to flatten the surface. Units: those of f, squared, over squared mesh units.

    Args:
        mesh: V vertices.
        field: (..., V, C) f.

    Returns:
        (...).
    """
    check_shape(check_float(field, "field"), f"... {mesh.n_verts} C", "field")
    W, mass = laplacian(mesh)
    W = W.tocoo()
    row, col = (torch.from_numpy(x.astype("int64")).to(field.device) for x in (W.row, W.col))
    values, m = (torch.from_numpy(x).to(field) for x in (W.data, mass))
    bent = torch.zeros_like(field).index_add(-2, row, values[:, None] * field[..., col, :])
    m = m.clamp_min(1e-9 * m.mean())  # a vertex without triangles has a zero row as well
    return (bent.square().sum(-1) / m).sum(-1)


def normal_energy(mesh: Mesh, verts: Tensor) -> Tensor:
    """Creases that were not there: the mean over inner edges of ``(cos - cos at rest)^2``.

    cos is that of the angle between the normals of an edge's two triangles. A triangle without area has the
    normal zero and no gradient.

    Args:
        mesh: at rest, V vertices.
        verts: (..., V, 3) deformed.

    Returns:
        (...).
    """
    _check(mesh, verts)
    table = edges(mesh.faces.cpu().numpy())
    pairs = torch.from_numpy(table.faces[table.n_faces == 2]).to(mesh.device)

    def cosines(x: Tensor) -> Tensor:
        n = mesh.with_verts(x).face_normals_scaled
        length = safe_norm(n)
        unit = n / torch.where(length > 0, length, torch.ones_like(length))[..., None]
        return (unit[..., pairs[:, 0], :] * unit[..., pairs[:, 1], :]).sum(-1)

    return (cosines(verts) - cosines(mesh.verts)).square().mean(-1)


def volume_energy(mesh: Mesh, verts: Tensor) -> Tensor:
    """Squared relative change of the enclosed volume, ``(volume / volume at rest - 1)^2``, of closed meshes.

    Args:
        mesh: at rest, V vertices.
        verts: (..., V, 3) deformed.

    Returns:
        (...).

    Raises:
        ValueError: a rest mesh that encloses (almost) no volume.
    """
    _check(mesh, verts)
    rest = mesh.volume
    if not bool(rest.abs() > 1e-9 * mesh.area**1.5):
        raise ValueError(
            f"mesh: expected an enclosed volume, found {float(rest.detach()):.3g}; it is open or flat"
        )
    return (mesh.with_verts(verts).volume / rest - 1).square()


def _check(mesh: Mesh, verts: Tensor) -> None:
    check_shape(mesh.verts, "V 3", "mesh.verts")
    check_shape(check_float(verts, "verts"), f"... {mesh.n_verts} 3", "verts")
