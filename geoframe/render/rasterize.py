"""The rasterizer: which face each pixel centre sees, where on it, and how far away."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from geoframe._check import check_choice, check_float, check_shape
from geoframe._precision import full_precision
from geoframe.camera import Camera
from geoframe.render._first_order import first_order
from geoframe.render._scene import Scene, Size, build_scene
from geoframe.render.outline import Outline

BACKENDS = ("numba", "torch", "pytorch3d")


@dataclass(frozen=True, eq=False)
class Fragments:
    """What is seen at every pixel centre; leading dimensions are those of the vertices and the camera.

    Attributes:
        face_id: (..., H, W) int64, the nearest face, -1 where there is none.
        barycentric: (..., H, W, 3) weights of its corners, linear in space; 0 where there is none.
        depth: (..., H, W) in the unit of the camera's depth, growing away from the viewer; 0 where there is none.
        faces: (F, 3) int64, the faces that `face_id` counts; None for meshes of different connectivity.
        clipped: (...) int64, how many faces of each picture the near plane cut or hid, None if not known.
        outline: where surfaces end between pixels, found when first used; None if not known.
    """

    face_id: Tensor
    barycentric: Tensor
    depth: Tensor
    faces: Tensor | None = None
    clipped: Tensor | None = None
    outline: Outline | None = field(default=None, repr=False)

    @property
    def mask(self) -> Tensor:
        """(..., H, W) bool: whether anything is seen at the pixel's centre."""
        return self.face_id >= 0

    @property
    def alpha(self) -> Tensor:
        """(..., H, W) in [0, 1]: the share of each pixel that is covered, differentiable at outlines."""
        mask = self.mask.to(self.depth.dtype)
        if self.outline is None:
            return antialias(self, mask[..., None, :, :])[..., 0, :, :]
        edge = mask.new_ones(len(self.outline.mixing.face_id), 1)  # also of parts that no pixel's centre sees
        return self.outline.blend(mask.reshape(-1, 1), edge=edge).view(mask.shape)

    def __getitem__(self, index: Any) -> Fragments:
        """Some pictures of the batch."""
        n = self.face_id.ndim - 2
        if isinstance(index, tuple) and len(index) > n:
            raise IndexError(f"index: expected at most {n} dimensions of the batch, found {len(index)}")
        return Fragments(
            *(self.face_id[index], self.barycentric[index], self.depth[index], self.faces),
            None if self.clipped is None else self.clipped[index],
            None if self.outline is None else self.outline[index],
        )


@full_precision
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
    surface has no cracks. Gradients flow through barycentric coordinates and depth, not through who is nearest
    (`shade` and `antialias` add the gradients of outlines); they are those of a triangle at least an eighth of a
    pixel thick, hence bounded at slivers. There is no second derivative.

    Args:
        verts: (..., V, 3), or a list of (V_i, 3) for meshes of different connectivity. World points with a camera;
            with a size, points of the screen: pixel x, pixel y, depth. Vertices in no face count nowhere.
        faces: (F, 3) shared by the batch, or a list of (F_i, 3).
        view: a camera of `geoframe.camera`, whose batch broadcasts with that of `verts`; or a size (H, W).
        cull: leave out faces seen from behind (those clockwise as seen by the viewer).
        near: least depth drawn by a pinhole, faces are cut there; default a billionth of the depth of the picture's
            farthest face, which is everything in front of the camera. With a size and `perspective`, faces with a
            corner at or below it (default 0) are left out. `Fragments.clipped` counts what was cut or left out.
        perspective: with a size, interpolate with perspective correction. A camera decides by itself.
        backend: "numba" (compiled, CPU), "torch" (any device), or "pytorch3d" where it is installed (float32; it has
            no fill rule, so pixel centres on an edge are left out). Default: numba on the CPU, torch elsewhere.

    Returns:
        Fragments with images (..., H, W), float as `verts` (float32 for half precision).

    Raises:
        TypeError: types, dtypes or devices that do not fit.
        ValueError: shapes or indices that do not fit; NaN in `verts` or the camera.
    """
    scene = build_scene(verts, faces, view, near=near, perspective=perspective, cull=cull)
    module = load_backend(backend, scene.screen.device)
    owner, bary, depth = _Hard.apply(scene.screen, scene, module)
    face_id = owner
    if scene.face_id is not None and len(scene.face_id):
        face_id = torch.where(owner >= 0, scene.face_id[owner.clamp_min(0)], -1)
        if scene.corners is not None:
            bary = (bary[..., None, :] @ scene.corners[owner.clamp_min(0)])[..., 0, :]
    elif scene.n_faces is not None and len(owner) > 1:
        first = torch.tensor(scene.starts[:-1], device=owner.device)
        face_id = torch.where(owner >= 0, owner - first[:, None, None], -1)
    H, W = scene.size
    return Fragments(
        face_id.view(*scene.batch, H, W),
        bary.to(scene.dtype).view(*scene.batch, H, W, 3),
        depth.to(scene.dtype).view(*scene.batch, H, W),
        scene.shared_faces,
        scene.clipped.view(scene.batch),
        Outline(scene, partial(module.crossings, scene, owner, depth.detach()), module.mixed, scene.batch),
    )


def antialias(fragments: Fragments, image: Tensor) -> Tensor:
    """Mix the pixels on either side of every outline by the share of the pixel that the outline leaves them.

    Outlines are where a surface ends in front of another one or of the background: silhouettes, borders and folds.
    The mixed picture changes steadily as an outline moves, so its gradient reaches the vertices at silhouettes.
    Averaged over a shift by one pixel its slope agrees with the difference to 5 % for convex bodies, rings and several
    bodies that cross each other (300 random scenes). Of two outlines that pass between the same two pixel centres
    `shade` and `Fragments.alpha` mix both; here what shows only between two pixels is left out, as `image` does not
    tell it. In pictures with more faces than pixels one is mixed, and a part thinner than a pixel that no centre
    sees comes and goes as it moves (`render(..., samples=2)` halves that). There is no second derivative.

    Args:
        fragments: of the rasterized surface.
        image: (..., C, H, W) any picture of these pixels with one value a pixel centre: colours over their
            background, features, depth, masks.

    Returns:
        (..., C, H, W), differentiable in `image` and in the vertices and camera of `fragments`.

    Raises:
        TypeError: no floating tensor.
        ValueError: shapes that do not fit; fragments that were not made by `rasterize`.
    Source: Laine et al. 2020, "Modular primitives for high-performance differentiable rendering", section 3.4.
        Differs: edges are found by walking over the surface, not only among the edges of the face at the pixel; where
        an outline crosses rows and columns of pixel centres the crossings are joined, instead of taking one of them.
    """
    check_shape(check_float(image, "image"), "... C H W", "image")
    if image.shape[:-3] + image.shape[-2:] != fragments.face_id.shape:
        raise ValueError(
            f"image: expected (..., C, H, W) with {tuple(fragments.face_id.shape)} as the fragments without C, "
            f"found {tuple(image.shape)}"
        )
    if fragments.outline is None:
        raise ValueError(
            "fragments: expected those of rasterize, found some without outline; use antialias=False"
        )
    C, size = image.shape[-3], image.shape[-2:]
    flat = fragments.outline.blend(image.movedim(-3, -1).reshape(-1, C))
    return flat.view(*image.shape[:-3], *size, C).movedim(-1, -3)


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
    @full_precision
    def backward(ctx: Any, _: Any, g_bary: Tensor, g_depth: Tensor) -> tuple[Tensor, None, None]:
        screen, faces, owner = ctx.saved_tensors
        with torch.no_grad():
            g = ctx.backend.hard_backward(screen, faces, owner, ctx.perspective, g_bary, g_depth)
        return first_order(g, "rasterize", screen, g_bary, g_depth), None, None
