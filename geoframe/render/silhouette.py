"""The soft silhouette: a mask that every nearby face can move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from geoframe._precision import full_precision
from geoframe.camera import Camera
from geoframe.render._first_order import first_order
from geoframe.render._scene import Scene, Size, build_scene
from geoframe.render.rasterize import load_backend

_LEAST_AREA = 0.5e-8  # squares of half the shorter side: a triangle seen edge-on hides nothing


@full_precision
def soft_silhouette(
    verts: Tensor | Sequence[Tensor],
    faces: Tensor | Sequence[Tensor],
    view: Camera | Size,
    *,
    sigma: float = 1e-4,
    cutoff: float = 1e-4,
    cull: bool = False,
    near: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """``alpha = 1 - prod_f (1 - sigmoid(-d_f / sigma))`` at every pixel centre, over all faces f.

    d_f is the squared distance on the screen to the border of face f, negative inside it. Any number of faces
    contributes to a pixel; memory grows with the image (numba) or is bounded by a block of fragments (torch).

    Every face near a pixel adds to it, so alpha is above one half on the outline, and the more so the finer the mesh:
    at the default sigma and 256 x 256 pixels the mask is 4 to 9 % larger than the hard one. That helps a fit to find
    its way from afar. Where the area itself matters use ``rasterize(...).alpha``, whose pixels are the share that is
    covered. There is no second derivative.

    Args:
        verts: as in `geoframe.render.rasterize`.
        faces: as in `geoframe.render.rasterize`.
        view: as in `geoframe.render.rasterize`.
        sigma: softness, in squared units of half the shorter side of the image (pytorch3d's NDC): an edge is
            about ``sqrt(sigma)`` of that half side wide.
        cutoff: faces that cover a pixel by less than this are left out of it.
        cull: as in `geoframe.render.rasterize`.
        near: as in `geoframe.render.rasterize`.
        backend: as in `geoframe.render.rasterize`.

    Returns:
        (..., H, W) in [0, 1], differentiable in `verts` and the camera; each pixel's gradient is at most about
        ``0.7 / sqrt(sigma)``, slivers and faces seen edge-on included.

    Raises:
        TypeError: as `rasterize`.
        ValueError: as `rasterize`; sigma not positive or cutoff not in (0, 0.5).
    Source: Liu et al. 2019, "Soft Rasterizer", eq. 1 and 4.
    """
    if not sigma > 0:
        raise ValueError(f"sigma: expected a positive number, found {sigma}")
    if not 0 < cutoff < 0.5:
        raise ValueError(f"cutoff: expected a number between 0 and 0.5, found {cutoff}")
    scene = build_scene(verts, faces, view, near=near, perspective=False, cull=cull, least_area=_LEAST_AREA)
    sigma = sigma * (min(scene.size) / 2) ** 2
    radius = math.sqrt(math.log(1 / cutoff - 1) * sigma)
    backend_module = load_backend(backend, scene.screen.device)
    clear = _Soft.apply(scene.screen[:, :2], scene, sigma, radius, backend_module)
    return (1 - clear).to(scene.dtype).view(*scene.batch, *scene.size)


class _Soft(torch.autograd.Function):
    """xy (P, 2) -> transparency (B, H, W); nothing but the image is kept for the analytic backward."""

    @staticmethod
    def forward(
        ctx: Any, xy: Tensor, scene: Scene, sigma: float, radius: float, backend: ModuleType
    ) -> Tensor:
        clear = backend.soft(xy, scene.faces, scene.starts, scene.size, sigma, radius)
        ctx.save_for_backward(xy, scene.faces, clear)
        ctx.rest = scene.starts, scene.size, sigma, radius
        ctx.backend = backend
        return clear

    @staticmethod
    @full_precision
    def backward(ctx: Any, g_clear: Tensor) -> tuple[Tensor, None, None, None, None]:
        xy, faces, clear = ctx.saved_tensors
        with torch.no_grad():
            g = ctx.backend.soft_backward(xy, faces, *ctx.rest, clear, g_clear)
        return first_order(g, "soft_silhouette", xy, g_clear), None, None, None, None
