"""From fragments to pictures: attributes carried across faces, textures, normals, light. Images are channels first.

Everything here is differentiable in the attributes and, through the barycentric coordinates, in vertices and camera.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_float, check_index, check_shape
from geoframe.camera import Camera, pixels_to_normalised
from geoframe.render._scene import Size
from geoframe.render.rasterize import Fragments, rasterize
from geoframe.surface.mesh import Mesh

_LIGHT = (-0.45, -0.75, -0.7)  # towards the light in camera axes: over the viewer's left shoulder


def interpolate(fragments: Fragments, faces: Tensor, values: Tensor) -> Tensor:
    """What the faces carry, at every pixel: ``sum_i barycentric_i values[faces[face_id, i]]``; 0 where nothing is seen.

    Args:
        faces: (F, 3) into `values`: a mesh's faces, or its `uv_faces` for texture coordinates.
        values: (V, C) shared, or (..., V, C) with the leading dimensions of the fragments.

    Returns:
        (..., C, H, W). Canonical coordinates as `values` give a dense map from pixels to the canonical surface.

    Raises:
        TypeError, ValueError: shapes or indices that do not fit.
    """
    V, C = (check_shape(check_float(values, "values"), "... V C", "values")[k] for k in "VC")
    check_shape(faces, "F 3", "faces")
    check_index(faces, V, "faces", what="rows of values")
    batch, size = fragments.face_id.shape[:-2], fragments.face_id.shape[-2:]
    if values.shape[:-2] not in ((), batch):
        raise ValueError(
            f"values: expected leading shape {tuple(batch)} as the fragments or none, found {tuple(values.shape[:-2])}"
        )
    face_id = fragments.face_id.reshape(-1)
    pixel = (face_id >= 0).nonzero()[:, 0]
    corner = faces.long()[face_id[pixel]]
    if values.ndim > 2:
        corner = corner + (pixel // (size[0] * size[1]) * V)[:, None]
    carried = torch.nn.functional.embedding(corner, values.reshape(-1, C))
    seen = (fragments.barycentric.reshape(-1, 3)[pixel][..., None].to(values.dtype) * carried).sum(1)
    out = values.new_zeros(len(face_id), C).index_put((pixel,), seen)
    return out.view(*batch, *size, C).movedim(-1, -3)


def sample_image(image: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear colours (..., N, C) of an image (..., C, H, W) at pixel positions (..., N, 2), border repeated."""
    h, w = image.shape[-2:]
    check_shape(check_float(image, "image"), "... C H W", "image")
    check_shape(check_float(pixels, "pixels"), "... N 2", "pixels")
    batch = torch.broadcast_shapes(image.shape[:-3], pixels.shape[:-2])
    image = image.expand(*batch, *image.shape[-3:]).reshape(-1, *image.shape[-3:])
    grid = pixels_to_normalised(pixels, (h, w)).to(image.dtype)
    grid = grid.expand(*batch, *grid.shape[-2:]).reshape(len(image), 1, -1, 2)
    out = torch.nn.functional.grid_sample(
        image, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return out[:, :, 0].mT.reshape(*batch, pixels.shape[-2], image.shape[1])


def image_texture(fragments: Fragments, faces: Tensor, points: Tensor, image: Tensor) -> Tensor:
    """Paint a surface with the image it was seen in: (..., C, H, W), 0 where nothing is seen.

    The vertices' positions `points` (..., V, 2), in pixels of `image` (..., C, h, w), are interpolated over the faces
    and the image is sampled there; gradients reach the points and the image.

    Source: To-The-Point, section 3.3.
    """
    return _painted(fragments, interpolate(fragments, faces, points), image)


def uv_texture(fragments: Fragments, uv_faces: Tensor, uv: Tensor, texture: Tensor) -> Tensor:
    """Colours (..., C, H, W) of a texture (C, h, w) at texture coordinates `uv` (T, 2); 0 where nothing is seen.

    (0, 0) is the lower left corner of the texture; the first row of the tensor is its top.
    """
    h, w = texture.shape[-2:]
    at = interpolate(fragments, uv_faces, uv)
    x, y = at[..., 0:1, :, :] * w, (1 - at[..., 1:2, :, :]) * h
    return _painted(fragments, torch.cat([x, y], -3), texture)


def _painted(fragments: Fragments, at: Tensor, image: Tensor) -> Tensor:
    H, W = at.shape[-2:]
    colors = sample_image(image, at.flatten(-2).mT)
    return colors.mT.unflatten(-1, (H, W)) * fragments.mask[..., None, :, :]


def normal_map(fragments: Fragments, mesh: Mesh) -> Tensor:
    """Smooth unit normals (..., 3, H, W) in the axes of `mesh.verts`, outward; 0 where nothing is seen."""
    return _unit(interpolate(fragments, mesh.faces, _vertex_normals(mesh)), -3)


def lambert(normals: Tensor, light: Tensor, *, ambient: float = 0.35) -> Tensor:
    """Brightness (..., 1, H, W) of normals (..., 3, H, W): ``ambient + (1 - ambient) max(0, n . l)``.

    `light` (..., 3) points towards the light, in the axes of the normals; its length does not matter.
    """
    check_shape(check_float(normals, "normals"), "... 3 H W", "normals")
    check_shape(light, "... 3", "light")
    facing = (normals * _unit(light, -1)[..., None, None]).sum(-3, keepdim=True)
    return ambient + (1 - ambient) * facing.clamp_min(0)


def render(
    mesh: Mesh,
    view: Camera | Size,
    *,
    texture: Tensor | None = None,
    light: Tensor | None = None,
    background: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """A picture (..., 3, H, W) in [0, 1] of a mesh: its texture, else its colours, else grey, under Lambert light.

    Args:
        texture: (3, h, w), placed by the mesh's uv. light: (..., 3) towards the light in world axes; by default it
            comes over the viewer's left shoulder. background: its grey.
        view, backend: as in `rasterize`; a batch of poses or of cameras gives a batch of pictures.

    Raises:
        ValueError: a texture for a mesh without uv.
    """
    fragments = rasterize(mesh.verts, mesh.faces, view, backend=backend)
    batch = fragments.face_id.shape[:-2]
    posed = mesh.with_verts(mesh.verts.expand(*batch, *mesh.verts.shape[-2:]))
    if light is None:
        light = mesh.verts.new_tensor(_LIGHT)
        light = light if isinstance(view, tuple) else light @ view.R_wc
    shade = lambert(normal_map(fragments, posed), light)
    if texture is not None:
        if mesh.uv is None:
            raise ValueError(
                "texture: expected a mesh with uv, found one without; use mesh.colors or image_texture"
            )
        color = uv_texture(
            fragments, mesh.faces if mesh.uv_faces is None else mesh.uv_faces, mesh.uv, texture
        )
    elif mesh.colors is not None:
        color = interpolate(fragments, mesh.faces, mesh.colors[:, :3])
    else:
        color = shade.new_full((3, 1, 1), 0.75)
    return torch.where(fragments.mask[..., None, :, :], color * shade, background)


def _vertex_normals(mesh: Mesh) -> Tensor:
    """(..., V, 3) area-weighted normals, of length 1 but where the areas cancel; the gradient is finite there too."""
    n = torch.zeros_like(mesh.verts)
    for i in range(3):
        n = n.index_add(-2, mesh.faces[:, i], mesh.face_normals_scaled)
    return _unit(n, -1, n.detach().square().sum(-1, keepdim=True).mean(-2, keepdim=True))


def _unit(x: Tensor, dim: int, scale: Tensor | float = 1.0) -> Tensor:
    """x / |x|, bent to 0 where ``|x|^2`` is below a hundred-millionth of `scale`."""
    return x / (x.square().sum(dim, keepdim=True) + 1e-8 * scale + torch.finfo(x.dtype).tiny).sqrt()
