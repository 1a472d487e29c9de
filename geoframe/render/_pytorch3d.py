"""pytorch3d behind the same signature, where it is installed: its coarse-to-fine rasterizer for CUDA, in float32.

It decides which triangles a pixel sees; weights, depth and their gradients are computed as in the torch backend.
Unlike the others it leaves out pixel centres that lie on an edge, and at most 100 triangles blend in a pixel.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from geoframe._optional import require
from geoframe.camera import pixels_to_ndc
from geoframe.render import _torch
from geoframe.render._mixing_torch import mixed as mixed
from geoframe.render._outline_torch import crossings as crossings
from geoframe.render._scene import Size

hard_backward = _torch.hard_backward
_MOST = 100  # triangles that blend in one pixel


def hard(
    screen: Tensor, faces: Tensor, starts: tuple[int, ...], size: Size, perspective: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `geoframe.render._torch.hard`."""
    depth = screen[:, 2:] - screen[:, 2:].amin() + 1 if not perspective else screen[:, 2:]  # it wants z > 0
    points = torch.cat([screen[:, :2], depth], 1)
    owner = _rasterized(points, faces, starts, size, perspective_correct=perspective, faces_per_pixel=1)[0]
    return _torch.described(screen, faces, owner[..., 0], perspective)


def soft(
    xy: Tensor, faces: Tensor, starts: tuple[int, ...], size: Size, sigma: float, radius: float
) -> Tensor:
    """As `geoframe.render._torch.soft`."""
    scale = (2 / min(size)) ** 2
    points = torch.cat([xy, torch.ones_like(xy[:, :1])], 1)
    owner, _, _, d = _rasterized(
        points, faces, starts, size, blur_radius=radius**2 * scale, faces_per_pixel=_MOST
    )
    return torch.where(owner >= 0, torch.sigmoid(d / (sigma * scale)), 1.0).prod(-1).to(xy.dtype)


def soft_backward(
    xy: Tensor,
    faces: Tensor,
    starts: tuple[int, ...],
    size: Size,
    sigma: float,
    radius: float,
    clear: Tensor,
    g_clear: Tensor,
) -> Tensor:
    """As `geoframe.render._torch.soft_backward`; `clear` is computed again."""
    with torch.enable_grad():
        moving = xy.detach().requires_grad_()
        return torch.autograd.grad(soft(moving, faces, starts, size, sigma, radius), moving, g_clear)[0]


def _rasterized(points: Tensor, faces: Tensor, starts: tuple[int, ...], size: Size, **options: Any) -> Any:
    """pytorch3d's fragments of separate triangles; their numbers are those of `faces`."""
    renderer = require("pytorch3d.renderer", extra="pytorch3d")
    structures = require("pytorch3d.structures", extra="pytorch3d")
    corners = pixels_to_ndc(points, size).float()[faces]
    images = [corners[a:b].reshape(-1, 3) for a, b in pairwise(starts)]
    numbers = [torch.arange(len(v), device=v.device).view(-1, 3) for v in images]
    most = max(len(n) for n in numbers)  # a full bin would drop triangles
    meshes = structures.Meshes(images, numbers)
    return renderer.rasterize_meshes(meshes, image_size=size, max_faces_per_bin=most, **options)
