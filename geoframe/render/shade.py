"""From fragments to pictures: values carried across faces, textures, normals, light. Images are channels first.

Everything here is differentiable in the values and in vertices and camera: inside a surface through the barycentric
coordinates, at outlines through the share of a pixel that the surface covers (`antialias=False` leaves that out).

A training set wants the picture and what is true of each pixel: rasterize once, then use the fragments twice::

    fragments = rasterize(poses, mesh.faces, views)  # (B, V, 3) poses of one mesh, B views
    picture = paint(fragments, mesh.with_verts(poses), views, texture=texture, background=photos)
    face_id, barycentric = fragments.face_id, fragments.barycentric
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_choice, check_float, check_int, check_shape
from geoframe._precision import full_precision
from geoframe.camera import Camera
from geoframe.render._scene import Size
from geoframe.render._seen import Seen, check_picture, composed
from geoframe.render.rasterize import Fragments, rasterize
from geoframe.surface.mesh import Mesh

_LIGHT = (-0.45, -0.75, -0.7)  # towards the light in camera axes: over the viewer's left shoulder
_GREY = 0.75  # of a surface without colours
_PLACES = ("vertices", "corners", "faces", "pixels")


@full_precision
def shade(
    fragments: Fragments,
    values: Tensor,
    *,
    at: str = "vertices",
    faces: Tensor | None = None,
    background: float | Tensor = 0.0,
    antialias: bool = True,
) -> Tensor:
    """A picture of anything that a surface carries: colours, features, canonical coordinates, one-hot parts.

    Args:
        fragments: of the rasterized surface.
        values: floating; where they stand is told by `at`. Leading dimensions are those of the fragments or none.
        at: "vertices" for (..., V, C), interpolated over the faces; "corners" for (..., F, 3, C), interpolated with
            jumps between faces; "faces" for (..., F, C), constant on each; "pixels" for (..., C, H, W), which were
            computed of the fragments already.
        faces: (F, 3) rows of `values` at the corners of each face, with at="vertices" only; default the faces that
            were rasterized. A mesh's `uv_faces` for values at texture coordinates.
        background: what is seen where there is no surface: a number, (C,) values, or pictures (..., C, H, W).
        antialias: mix pixels at outlines (`geoframe.render.antialias`), so that gradients reach the vertices there.
            Jumps inside a surface (corners, faces) stay as they are. False: pixel centres only.

    Returns:
        (..., C, H, W) of the dtype of `values`, float32 for half precision.

    Raises:
        TypeError: values that are no floating numbers.
        ValueError: shapes or indices that do not fit; another word for `at`; no `faces` for several meshes.
    """
    values = check_float(as_tensor(values, "values", like=fragments.barycentric), "values")
    seen = Seen.of(fragments, antialias)
    if at == "vertices":
        table = fragments.faces if faces is None else as_tensor(faces, "faces", like=fragments.face_id)
        if table is None:
            raise ValueError("faces: expected (F, 3), found none; fragments of several meshes need faces=...")
        carried = seen.carried(table, values)
    elif at == "corners":
        F = check_shape(values, "... F 3 C", "values")["F"]
        corners = torch.arange(3 * F, device=values.device).view(F, 3)
        carried = seen.carried(corners, values.flatten(-3, -2))
    elif at == "faces":
        carried = seen.of_faces(values)
    else:
        check_choice(at, _PLACES, "at")
        check_picture(values, "values", seen)
        carried = values.movedim(-3, -1).reshape(-1, values.shape[-3])[seen.pixel]
    return composed(seen, carried, background)


@full_precision
def interpolate(fragments: Fragments, faces: Tensor, values: Tensor) -> Tensor:
    """What the faces carry at every pixel centre: ``sum_i barycentric_i values[faces[face_id, i]]``.

    Not mixed at outlines: use `shade` for pictures, and this for what must be exact, such as positions.

    Args:
        fragments: of the rasterized surface.
        faces: (F, 3) rows of `values`: a mesh's faces, or its `uv_faces` for texture coordinates.
        values: (V, C) shared, or (..., V, C) with the leading dimensions of the fragments.

    Returns:
        (..., C, H, W), 0 where nothing is seen. Canonical coordinates as `values` give a dense map from pixels to
        the canonical surface.

    Raises:
        TypeError: values that are no floating numbers.
        ValueError: shapes or indices that do not fit.
    """
    seen = Seen.of(fragments)
    carried = seen.carried(as_tensor(faces, "faces", like=fragments.face_id), _floats(values, "values", seen))
    return composed(seen, carried, 0.0)


@full_precision
def image_texture(fragments: Fragments, faces: Tensor, points: Tensor, image: Tensor) -> Tensor:
    """Paint a surface with the image it was seen in.

    The vertices' positions are interpolated over the faces and the image is sampled there; gradients reach the
    points and the image.

    Args:
        fragments: of the rasterized surface.
        faces: (F, 3).
        points: (..., V, 2) positions of the vertices in pixels of `image`.
        image: (..., C, h, w).

    Returns:
        (..., C, H, W), 0 where nothing is seen; pixel centres only (`shade` with at="pixels" mixes outlines).

    Raises:
        TypeError: no floating numbers.
        ValueError: shapes or indices that do not fit.
    Source: To-The-Point, section 3.3.
    """
    seen = Seen.of(fragments)
    carried = seen.carried(as_tensor(faces, "faces", like=fragments.face_id), _floats(points, "points", seen))
    return composed(seen, seen.sampled(_floats(image, "image", seen), carried), 0.0)


@full_precision
def uv_texture(fragments: Fragments, uv_faces: Tensor, uv: Tensor, texture: Tensor) -> Tensor:
    """Colours of a texture on a surface with texture coordinates.

    Args:
        fragments: of the rasterized surface.
        uv_faces: (F, 3) rows of `uv` at the corners of each face.
        uv: (T, 2); (0, 0) is the lower left corner of the texture, whose first row is its top.
        texture: (C, h, w), or (..., C, h, w) with the leading dimensions of the fragments.

    Returns:
        (..., C, H, W), 0 where nothing is seen; pixel centres only (`shade` with at="pixels" mixes outlines).

    Raises:
        TypeError: no floating numbers.
        ValueError: shapes or indices that do not fit.
    """
    seen = Seen.of(fragments)
    uv_faces = as_tensor(uv_faces, "uv_faces", like=fragments.face_id)
    uv, texture = _floats(uv, "uv", seen), _floats(texture, "texture", seen)
    return composed(seen, _textured(seen, uv_faces, uv, texture), 0.0)


@full_precision
def normal_map(fragments: Fragments, mesh: Mesh) -> Tensor:
    """Smooth unit normals at every pixel centre.

    Args:
        fragments: of the rasterized mesh.
        mesh: with the batch of the fragments or none.

    Returns:
        (..., 3, H, W) outward, in the axes of `mesh.verts`; 0 where nothing is seen.

    Raises:
        ValueError: shapes that do not fit.
    """
    seen = Seen.of(fragments)
    return composed(seen, _normals(seen, mesh), 0.0)


@full_precision
def lambert(
    normals: Tensor, light: Tensor, *, color: Tensor | None = None, ambient: float | Tensor = 0.35
) -> Tensor:
    """Light on a matt surface: ``ambient + (1 - ambient) sum_l color_l max(0, n . l)``.

    Args:
        normals: (..., 3, H, W) unit normals.
        light: (3,) towards a light in the axes of the normals, (L, 3) for several, (..., L, 3) for other ones in
            each picture; their length does not matter.
        color: of the lights, shaped as `light`, red, green, blue; default white.
        ambient: light from everywhere, from 0 to 1: a number, or (3,) red, green, blue.

    Returns:
        (..., 1, H, W), or (..., 3, H, W) with colours; above 1 where several lights add up.

    Raises:
        TypeError: no floating numbers.
        ValueError: shapes that do not fit.
    """
    normals = check_float(as_tensor(normals, "normals"), "normals")
    check_shape(normals, "... 3 H W", "normals")
    lights = _unit(_light_table(light, "light", normals), -1)
    facing = (lights @ normals.flatten(-2)).clamp_min(0)
    if color is None:
        bright = facing.sum(-2, keepdim=True)
    else:
        bright = _light_table(color, "color", normals).mT @ facing
    ambient = torch.as_tensor(ambient, dtype=normals.dtype, device=normals.device)
    if ambient.ndim:
        check_shape(ambient, "3", "ambient")
    ambient = ambient.reshape(-1, 1)
    return (ambient + (1 - ambient) * bright).unflatten(-1, normals.shape[-2:])


@full_precision
def paint(
    fragments: Fragments,
    mesh: Mesh,
    view: Camera | Size,
    *,
    texture: Tensor | None = None,
    colors: Tensor | None = None,
    light: Tensor | None = None,
    light_color: Tensor | None = None,
    ambient: float | Tensor = 0.35,
    background: float | Tensor = 1.0,
    antialias: bool = True,
) -> Tensor:
    """Pictures in [0, 1] of a mesh that was rasterized: its texture, else its colours, else grey, under light.

    Args:
        fragments: ``rasterize(mesh.verts, mesh.faces, view)``.
        mesh: its vertices give the normals; with the batch of the fragments or none.
        view: the camera or size of the fragments.
        texture: (3, h, w), placed by the mesh's uv, or (..., 3, h, w) with one for each picture.
        colors: (V, 3), or (..., V, 3) with those of each picture; default those of the mesh.
        light: (3,) towards the light in world axes, (L, 3) for several lights, (..., L, 3) for other ones in each
            picture. By default it comes over the viewer's left shoulder.
        light_color: shaped as `light`, red, green, blue; default white.
        ambient: light from everywhere, from 0 to 1: a number, or (3,) red, green, blue.
        background: a grey, (3,) a colour, or pictures (3, H, W) or (..., 3, H, W).
        antialias: mix pixels at outlines, so that gradients reach the vertices there. False: pixel centres only.

    Returns:
        (..., 3, H, W).

    Raises:
        TypeError: no floating numbers.
        ValueError: shapes that do not fit; a texture for a mesh without uv; texture and colours at once.
    """
    seen = Seen.of(fragments, antialias)
    if texture is not None and colors is not None:
        raise ValueError("texture: expected texture or colors, found both; pass one of them")
    if texture is not None and mesh.uv is None:
        raise ValueError(
            "texture: expected a mesh with uv, found one without; use mesh.colors or image_texture"
        )
    if colors is None and mesh.colors is not None:
        colors = mesh.colors[:, :3]
    if texture is not None:
        assert mesh.uv is not None
        table = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
        color = _textured(seen, table, mesh.uv, _floats(texture, "texture", seen))
    elif colors is not None:
        color = seen.carried(mesh.faces, _floats(colors, "colors", seen))
    else:
        color = mesh.verts.new_full((1, 3), _GREY)
    light = _shoulder(view, mesh) if light is None else _light_table(light, "light", mesh.verts)
    bright = _brightness(seen, _normals(seen, mesh), light, light_color, ambient)
    picture = color.to(bright.dtype) * bright
    if light.shape[-2] > 1 or light_color is not None:
        picture = picture.clamp_max(1)
    return composed(seen, picture, background)


@full_precision
def render(
    mesh: Mesh,
    view: Camera | Size,
    *,
    texture: Tensor | None = None,
    colors: Tensor | None = None,
    light: Tensor | None = None,
    light_color: Tensor | None = None,
    ambient: float | Tensor = 0.35,
    background: float | Tensor = 1.0,
    antialias: bool = True,
    samples: int = 1,
    backend: str | None = None,
) -> Tensor:
    """Pictures in [0, 1] of a mesh: `rasterize` and `paint` in one call.

    Args:
        mesh: a batch of poses gives a batch of pictures.
        view: as in `rasterize`; a batch of cameras gives a batch of pictures.
        texture: as in `paint`, like all that follow but the last two.
        colors: (V, 3) or (..., V, 3).
        light: (3,), (L, 3) or (..., L, 3) towards the lights in world axes.
        light_color: shaped as `light`.
        ambient: light from everywhere, from 0 to 1.
        background: a grey, a colour (3,), or pictures (..., 3, H, W).
        antialias: mix pixels at outlines.
        samples: a pixel is the mean of samples x samples: for fine textures, and parts thinner than a pixel.
        backend: as in `rasterize`.

    Returns:
        (..., 3, H, W).

    Raises:
        TypeError: no floating numbers.
        ValueError: shapes that do not fit; a texture for a mesh without uv.
    """
    check_int(samples, "samples", low=1, high=16)
    verts, fine = mesh.verts, view
    if samples > 1:
        H, W = view if isinstance(view, (tuple, list)) else view.size
        fine = (H * samples, W * samples)
        if isinstance(view, (tuple, list)):
            verts = verts * verts.new_tensor([samples, samples, 1.0])
        else:
            fine = view.resized(fine)
        background = _enlarged(background, samples)
    fragments = rasterize(verts, mesh.faces, fine, backend=backend)
    picture = paint(
        *(fragments, mesh, fine),
        texture=texture,
        colors=colors,
        light=light,
        light_color=light_color,
        ambient=ambient,
        background=background,
        antialias=antialias,
    )
    if samples == 1:
        return picture
    flat = torch.nn.functional.avg_pool2d(picture.reshape(-1, *picture.shape[-3:]), samples)
    return flat.view(*picture.shape[:-2], *flat.shape[-2:])


def _floats(x: Tensor, name: str, seen: Seen) -> Tensor:
    return check_float(as_tensor(x, name, like=seen.barycentric), name)


def _textured(seen: Seen, uv_faces: Tensor, uv: Tensor, texture: Tensor) -> Tensor:
    """(n, C) colours of a texture; (0, 0) of uv is its lower left corner."""
    h, w = texture.shape[-2:]
    at = seen.carried(uv_faces, uv)
    return seen.sampled(texture, at * at.new_tensor([w, -h]) + at.new_tensor([0.0, h]))


def _normals(seen: Seen, mesh: Mesh) -> Tensor:
    """(n, 3) unit normals."""
    return _unit(seen.carried(mesh.faces, mesh.vertex_normals), -1)


def _brightness(
    seen: Seen, normals: Tensor, light: Tensor, color: Tensor | None, ambient: float | Tensor
) -> Tensor:
    """(n, 1) or (n, 3): `lambert` at the seen pixels, for lights (L, 3) or (..., L, 3)."""
    tables = [light] if color is None else [light, _light_table(color, "light_color", normals)]
    for i, x in enumerate(tables):
        if x.ndim > 2:
            seen.check_batch(x.shape[:-2], ("light", "light_color")[i])
            x = x.reshape(-1, *x.shape[-2:])
            tables[i] = x[0] if seen.image is None and len(x) else x
    if all(x.ndim == 2 for x in tables):  # the same lights in all pictures: one product
        out = lambert(
            normals.T[..., None], tables[0], color=None if color is None else tables[1], ambient=ambient
        )
        return out[..., 0].T
    image = seen.image if seen.image is not None else seen.face_id * 0
    chosen = [x[image] if x.ndim > 2 else x.expand(len(image), -1, -1) for x in tables]
    out = lambert(
        normals[..., None, None], chosen[0], color=None if color is None else chosen[1], ambient=ambient
    )
    return out[..., 0, 0]


def _light_table(x: Tensor, name: str, like: Tensor) -> Tensor:
    """(L, 3) or (..., L, 3); (3,) is one light."""
    x = as_tensor(x, name, like=like).to(like)
    check_shape(x, "... 3", name)
    return x[None] if x.ndim == 1 else x


def _shoulder(view: Camera | Size, mesh: Mesh) -> Tensor:
    """(L, 3) or (..., L, 3) the default light in world axes."""
    light = mesh.verts.new_tensor([_LIGHT])
    return light if isinstance(view, (tuple, list)) else light @ view.R_wc


def _enlarged(background: float | Tensor, samples: int) -> float | Tensor:
    """Pictures with every pixel repeated samples x samples times; colours stay."""
    if isinstance(background, (int, float)):
        return background
    picture = as_tensor(background, "background")
    if picture.ndim < 3:
        return picture
    return picture.repeat_interleave(samples, -2).repeat_interleave(samples, -1)


def _unit(x: Tensor, dim: int) -> Tensor:
    """x / |x|, bent to 0 where ``|x|`` is below a ten-thousandth."""
    return x / (x.square().sum(dim, keepdim=True) + 1e-8).sqrt()
