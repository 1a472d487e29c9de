"""Between pixels, surfaces and other pictures: visibility of vertices, optical flow between two poses."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_shape
from geoframe._precision import full_precision
from geoframe.camera import Camera
from geoframe.render.rasterize import Fragments
from geoframe.render.shade import interpolate

_SLACK = 2e-3  # of the depth range: by so much a point may lie behind the face that is seen in its place


@full_precision
def vertex_visibility(fragments: Fragments, faces: Tensor, screen: Tensor) -> Tensor:
    """Whether each vertex is in the picture and not hidden, (..., V) bool, from the z-buffer.

    A vertex is hidden if the face seen at its pixel is not one of its own and lies, at the vertex's place, in front
    of it by more than 0.2 % of the depth range of the vertices. Where nothing is seen at the pixel's centre, it is
    visible if one of its faces is turned to the viewer.

    Args:
        fragments: the rasterized surface.
        faces: (F, 3).
        screen: (..., V, 3) ``camera.project(verts)``.

    Returns:
        (..., V) bool.

    Raises:
        ValueError: shapes that do not fit.
    """
    screen = as_tensor(screen, "screen", like=fragments.depth)
    faces = as_tensor(faces, "faces", like=fragments.face_id)
    V = check_shape(screen, "... V 3", "screen")["V"]
    batch = fragments.face_id.shape[:-2]
    screen = screen.detach().expand(*batch, V, 3).reshape(-1, V, 3)
    seen, inside, nearer = _seen_at(fragments.face_id, faces, screen, screen)
    faces = faces.long()
    own = (faces[seen.clamp_min(0)] == torch.arange(V, device=faces.device)[:, None]).any(-1)
    a, b, c = (screen[:, faces[:, i], :2] for i in range(3))
    front = (b - a)[..., 0] * (c - a)[..., 1] < (b - a)[..., 1] * (c - a)[..., 0]
    faced = torch.zeros(seen.shape, dtype=torch.bool, device=faces.device)
    for i in range(3):
        faced |= torch.zeros_like(screen[..., 0]).index_add(1, faces[:, i], front.to(screen.dtype)) > 0
    return (inside & torch.where(seen < 0, faced, own | ~nearer)).view(*batch, V)


@full_precision
def optical_flow(
    fragments: Fragments, faces: Tensor, verts: Tensor, view: Camera, *, other: Fragments | None = None
) -> tuple[Tensor, Tensor]:
    """Where each pixel's point of the surface goes when the surface moves to `verts` and is seen by `view`.

    Args:
        fragments: the first picture.
        faces: (F, 3).
        verts: (..., V, 3) positions in the second picture.
        view: the second camera.
        other: the second picture's fragments; given, points hidden there are not valid.

    Returns:
        flow: (..., 2, H, W) pixels, x right and y down; 0 where nothing is seen. Differentiable in `verts` and `view`.
        valid: (..., H, W) bool: something is seen here, and it lands inside the second picture.

    Raises:
        ValueError: shapes that do not fit.
    """
    verts = as_tensor(verts, "verts", like=fragments.depth)
    faces = as_tensor(faces, "faces", like=fragments.face_id)
    H, W = fragments.face_id.shape[-2:]
    batch = fragments.face_id.shape[:-2]
    at = interpolate(fragments, faces, verts).flatten(-2).mT
    seen = fragments.mask.flatten(-2)
    target = view.project(torch.where(seen[..., None], at, verts.detach()[..., :1, :]))
    rows, cols = torch.meshgrid(
        torch.arange(H, device=target.device), torch.arange(W, device=target.device), indexing="ij"
    )
    start = torch.stack([cols, rows], -1).view(-1, 2).to(target) + 0.5
    flow = torch.where(seen[..., None], target[..., :2] - start, 0.0)
    end = target.detach()
    valid = seen & _inside(end, view.size)
    if other is not None:
        screen = view.project(verts.detach()).expand(*batch, *verts.shape[-2:])
        end = end.reshape(-1, H * W, 3)
        face_id, _, nearer = _seen_at(other.face_id, faces, screen.reshape(-1, *screen.shape[-2:]), end)
        same = face_id == fragments.face_id.reshape(-1, H * W)
        valid = valid & (same | ((face_id >= 0) & ~nearer)).view(seen.shape)
    return flow.mT.unflatten(-1, (H, W)), valid.unflatten(-1, (H, W))


def _inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])


def _seen_at(seen: Tensor, faces: Tensor, screen: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a picture of faces (..., H, W) shows at screen points (B, N, 3): face (B, N) or -1, whether the point is
    inside the picture, and whether the face's plane, taken at the point itself, is in front of it."""
    H, W = seen.shape[-2:]
    x, y, z = points.double().unbind(-1)
    pixel = y.clamp(0, H - 1).long() * W + x.clamp(0, W - 1).long()
    face_id = seen.reshape(-1, H * W).gather(1, pixel)
    corner = faces.long()[face_id.clamp_min(0)]
    p = screen.double().gather(1, corner.flatten(1)[..., None].expand(-1, -1, 3)).view(*corner.shape, 3)
    depth = screen[..., 2].double()
    slack = _SLACK * (depth.amax(1, keepdim=True) - depth.amin(1, keepdim=True))
    return face_id, _inside(points, (H, W)), z > _depth_at(p, x, y) + slack


def _depth_at(p: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Depth (B, N) of the triangles p (B, N, 3, 3) at screen positions, within the depths of their corners."""
    a, u, v = p[..., 0, :], p[..., 1, :] - p[..., 0, :], p[..., 2, :] - p[..., 0, :]
    rx, ry = x - a[..., 0], y - a[..., 1]
    area = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    area = torch.where(area == 0, 1.0, area)
    s = (rx * v[..., 1] - ry * v[..., 0]) / area
    t = (u[..., 0] * ry - u[..., 1] * rx) / area
    z = a[..., 2] + s * u[..., 2] + t * v[..., 2]
    return torch.minimum(torch.maximum(z, p[..., 2].amin(-1)), p[..., 2].amax(-1))
