"""The rasterizer: which face each pixel centre sees, where on it, and how far away."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geoframe._check import check_choice
from geoframe.camera import Camera
from geoframe.render._scene import Scene, Size, build_scene

BACKENDS = ("numba", "torch", "pytorch3d")


@dataclass(frozen=True, eq=False)
class Fragments:
    """What is seen at every pixel centre; leading dimensions are those of the vertices and the camera.

    Attributes:
        face_id: (..., H, W) int64, the nearest face, -1 where there is none.
        barycentric: (..., H, W, 3) weights of its corners, linear in space; 0 where there is none.
        depth: (..., H, W) in the unit of the camera's depth, growing away from the viewer; 0 where there is none.
    """

    face_id: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """(..., H, W) bool: whether anything is seen."""
        return self.face_id >= 0

    def __getitem__(self, index: Any) -> Fragments:
        """Some images of the batch."""
        return Fragments(self.face_id[index], self.barycentric[index], self.depth[index])


def rasterize(
    verts: Tensor | Sequence[Tensor],
    faces: Tensor | Sequence[Tensor],
    view: Camera | Size,
    *,
    cull: bool = False,
    near: float | None = None,
    perspective: bool = False,
    backend: str | None = None,
) -> Fragments:
    """The nearest face at every pixel centre, differentiable in `verts` and the camera.

    A pixel centre on an edge shared by two faces belongs to exactly one of them (top-left rule), so a closed
    surface has no cracks. Gradients flow through barycentric coordinates and depth, not through who is nearest;
    they are those of a triangle at least a quarter of a pixel thick, hence bounded at slivers.

    Args:
        verts: (..., V, 3), or a list of (V_i, 3) for meshes of different connectivity. World points with a camera;
            with a size, points of the screen: pixel x, pixel y, depth.
        faces: (F, 3) shared by the batch, or a list of (F_i, 3).
        view: a camera of `geoframe.camera`, whose batch broadcasts with that of `verts`; or a size (H, W).
        cull: leave out faces seen from behind (those clockwise as seen by the viewer).
        near: least depth drawn by a pinhole, faces are cut there; default a thousandth of the picture's farthest
            vertex. With a size and `perspective`, faces with a corner at or below it (default 0) are left out.
        perspective: with a size, interpolate with perspective correction. A camera decides by itself.
        backend: "numba" (compiled, CPU), "torch" (any device), or "pytorch3d" where it is installed (float32; it has
            no fill rule, so pixel centres on an edge are left out). Default: numba on the CPU, torch elsewhere.

    Returns:
        Fragments with images (..., H, W), float as `verts`.

    Raises:
        TypeError, ValueError: shapes, dtypes, devices or indices that do not fit; NaN in `verts`.
    """
    scene = build_scene(verts, faces, view, near=near, perspective=perspective, cull=cull)
    owner, bary, depth = _Hard.apply(scene.screen, scene, load_backend(backend, scene.screen.device))
    face_id = owner
    if scene.face_id is not None and len(scene.face_id):
        face_id = torch.where(owner >= 0, scene.face_id[owner.clamp_min(0)], -1)
        if scene.corners is not None:
            bary = (bary[..., None, :] @ scene.corners[owner.clamp_min(0)])[..., 0, :]
    H, W = scene.size
    return Fragments(
        face_id.view(*scene.batch, H, W), bary.view(*scene.batch, H, W, 3), depth.view(*scene.batch, H, W)
    )


def load_backend(name: str | None, device: torch.device) -> ModuleType:
    """The module of a backend, imported when first used."""
    if name is None:
        name = "numba" if device.type == "cpu" else "torch"
    check_choice(name, BACKENDS, "backend")
    if name == "numba" and device.type != "cpu":
        raise ValueError(f"backend: 'numba' runs on the CPU, verts are on {device}; use 'torch' or .cpu()")
    return importlib.import_module(f"geoframe.render._{name}")


class _Hard(torch.autograd.Function):
    """screen (P, 3) -> owner, barycentric, depth; the backward is analytic."""

    @staticmethod
    def forward(ctx: Any, screen: Tensor, scene: Scene, backend: ModuleType) -> tuple[Tensor, Tensor, Tensor]:
        owner, bary, depth = backend.hard(screen, scene.faces, scene.starts, scene.size, scene.perspective)
        ctx.save_for_backward(screen, scene.faces, owner)
        ctx.perspective, ctx.backend = scene.perspective, backend
        ctx.mark_non_differentiable(owner)
        return owner, bary, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Any, g_bary: Tensor, g_depth: Tensor) -> tuple[Tensor, None, None]:
        screen, faces, owner = ctx.saved_tensors
        return ctx.backend.hard_backward(screen, faces, owner, ctx.perspective, g_bary, g_depth), None, None
