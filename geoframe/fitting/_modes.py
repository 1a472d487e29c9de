"""Smooth functions that deform a template, also one of many parts."""

from __future__ import annotations

from geoframe.spectral import Eigenbasis, eigenbasis
from geoframe.surface.mesh import Mesh, PointCloud
from geoframe.surface.topology import vertex_components


def smooth_basis(mesh: Mesh, k: int) -> Eigenbasis:
    """The k lowest eigenfunctions after the constants of a mesh; of its vertices as a point cloud where it has parts.

    The eigenfunctions of a mesh of several parts live on one part each: feathers would fly off one by one. The
    Laplacian of the point cloud joins parts that touch or nearly do.
    """
    n_parts = vertex_components(mesh.faces.cpu().numpy(), mesh.n_verts)[0]
    surface = mesh if n_parts <= 1 else PointCloud(mesh.verts)
    basis = eigenbasis(surface, min(k + 1, mesh.n_verts))
    bends = basis.vals > 1e-9 * basis.vals[-1]
    return Eigenbasis(basis.vals[bends], basis.vecs[:, bends], basis.mass)
