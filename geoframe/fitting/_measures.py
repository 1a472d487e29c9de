"""What tells how far the fit of a template can be trusted: faces turned over, stretch, the emptiness of hulls."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe.surface.mesh import Mesh
from geoframe.surface.topology import edges


def turned_faces(mesh: Mesh, verts: Tensor) -> Tensor:
    """(F,) dot products of each face's normal with that at rest, over the latter's square: below 0 if turned over."""
    rest, now = mesh.face_normals_scaled, mesh.with_verts(verts).face_normals_scaled
    return (now * rest).sum(-1) / rest.square().sum(-1).clamp_min(1e-12 * mesh.area.square() / len(rest) ** 2)


def stretch(mesh: Mesh, verts: Tensor) -> float:
    """Root mean square of the logarithm of the edges' lengths over those at rest, edges by their length."""
    table = torch.from_numpy(edges(mesh.faces.cpu().numpy()).verts).to(mesh.device)
    rest, now = ((x[table[:, 0]] - x[table[:, 1]]).norm(dim=1) for x in (mesh.verts, verts))
    change = (now.clamp_min(1e-9 * rest.max()) / rest.clamp_min(1e-9 * rest.max())).log()
    return float(((rest * change.square()).sum() / rest.sum()).sqrt())


def hollow(masks: Tensor) -> Tensor:
    """(N,) the share of its convex hull that a mask (N, H, W) leaves empty; 0 for an empty mask."""
    from scipy.spatial import ConvexHull

    out = []
    for mask in masks.cpu():
        corners = (mask.nonzero()[:, None] + torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])).flatten(0, 1)
        out.append(1 - int(mask.sum()) / ConvexHull(corners.numpy()).volume if len(corners) else 0.0)
    return torch.tensor(out, dtype=torch.float64, device=masks.device)
