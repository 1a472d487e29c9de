"""Reconstructions to look at: the mesh over its image, turned around, as a textured OBJ file, and on a page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoframe._files import atomic_path
from geoframe._types import Array
from geoframe.models.to_the_point import Reconstruction
from geoframe.render import rasterize
from geoframe.surface.io import save
from geoframe.surface.mesh import Mesh
from geoframe.viz.images import as_picture, contact_sheet
from geoframe.viz.page import image, packed, write_page
from geoframe.viz.surfaces import canonical_colors, draw_surface, page_surface, save_picture

_LEAD = (
    "Each image with its reconstruction: drag a mesh to turn it. What the image does not show is mirrored."
)
_TEXTURED = "mtllib {name}.mtl\nusemtl photograph\n"
_MATERIAL = "newmtl photograph\nKd 1 1 1\nmap_Kd {texture}\n"


def upright_views(reconstruction: Reconstruction, n: int = 8) -> list[Array]:
    """n views (3, 3), rows right, up, towards the viewer: first as in the image, then turned about its upright.

    Args:
        reconstruction: whose rotation is the first view.
        n: views of a whole turn.
    """
    first = np.diag([1.0, -1.0, -1.0]) @ reconstruction.rotation.double().numpy()
    out = []
    for k in range(n):
        a = 2 * math.pi * k / n
        turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
        out.append(turn @ first)
    return out


def draw_turntable(reconstruction: Reconstruction, *, n: int = 8, size: int = 160) -> Array:
    """The mesh seen from all around, side by side, in its image's colours.

    Args:
        reconstruction: to be drawn.
        n: views.
        size: pixels of each.

    Returns:
        (size, n size, 3) uint8.
    """
    views = upright_views(reconstruction, n)
    return np.concatenate([draw_surface(reconstruction.mesh, view=v, size=(size, size)) for v in views], 1)


def draw_on_image(picture: Tensor, reconstruction: Reconstruction, *, opacity: float = 0.6) -> Array:
    """The posed mesh over its image, in canonical colours: the same colour is the same place of the template.

    Args:
        picture: (3, H, W) in [0, 1].
        reconstruction: of it.
        opacity: of the colours.
    """
    size = (picture.shape[1], picture.shape[2])
    fragments = rasterize(reconstruction.placed, reconstruction.mesh.faces, size)
    colors = torch.from_numpy(canonical_colors(reconstruction.pixels.surface)).float()
    seen = fragments.mask
    corners = reconstruction.mesh.faces[fragments.face_id[seen]]
    painted = (fragments.barycentric[seen].float()[..., None] * colors[corners]).sum(1)
    out = picture.movedim(0, -1).clone().float()
    out[seen] = (1 - opacity) * out[seen] + opacity * painted
    return as_picture(out.movedim(-1, 0))


def save_textured(picture: Tensor, reconstruction: Reconstruction, path: str | Path) -> None:
    """Write NAME.obj with texture coordinates and colours, NAME.mtl and its texture NAME_texture.png, the image itself.

    Args:
        picture: (3, H, W) in [0, 1].
        reconstruction: of it.
        path: of the OBJ file.

    Raises:
        ValueError: a place that cannot be written to.
    """
    path = Path(path)
    m = reconstruction.mesh
    colors, uv = (None if x is None else x.float() for x in (m.colors, m.uv))
    single = Mesh(m.verts.float(), m.faces, colors, uv)  # nine digits are told, seventeen take twice as long
    save(single, path, head=_TEXTURED.format(name=path.stem))
    texture = f"{path.stem}_texture.png"
    save_picture(as_picture(picture), path.with_name(texture), photograph=True)
    with atomic_path(path.with_suffix(".mtl")) as temporary:
        temporary.write_text(_MATERIAL.format(texture=texture), encoding="utf-8")


def save_turntable(strip: Array, path: str | Path, *, seconds: float = 1.6) -> None:
    """A strip of square views as an animated GIF.

    Args:
        strip: (size, n size, 3) uint8, as `draw_turntable` makes it.
        path: of the file.
        seconds: of a whole turn.
    """
    from PIL import Image

    size = strip.shape[0]
    n = strip.shape[1] // size
    whole = Image.fromarray(strip).quantize()  # one palette for all views: quicker, and no colour flickers
    frames = [whole.crop((i * size, 0, (i + 1) * size, size)) for i in range(n)]
    with atomic_path(Path(path)) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 * seconds / n),
            loop=0,
        )


def write_reconstruction_page(
    path: str | Path,
    pictures: Sequence[Tensor],
    reconstructions: Sequence[Reconstruction],
    names: Sequence[str],
    *,
    title: str = "reconstruction",
) -> None:
    """Write a page with each image, the mesh over it, the mesh to turn, and what is doubtful.

    Args:
        path: the HTML file; written whole or not at all.
        pictures: (3, H, W) in [0, 1] each.
        reconstructions: of the pictures.
        names: of the pictures.
        title: of the page.

    Raises:
        ValueError: no picture, other numbers of reconstructions or names.
    """
    if not pictures or not len(pictures) == len(reconstructions) == len(names):
        raise ValueError(
            f"pictures: expected one or more, a reconstruction and a name for each, found {len(pictures)}, "
            f"{len(reconstructions)} and {len(names)}"
        )
    figures, surfaces = [], []
    for i, (picture, r, name) in enumerate(zip(pictures, reconstructions, names, strict=True), 1):
        beside = contact_sheet([picture, draw_on_image(picture, r)], columns=2, size=260)
        told = "".join(f"<br>{html.escape(line)}" for line in (f"confidence {r.confidence:.2f}", *r.warnings))
        figures.append(
            f'<div class="pair"><figure>{image(beside, name)}<figcaption><b>{html.escape(name)}</b>{told}</figcaption>'
            f'</figure><figure><canvas id="c{i}"></canvas></figure></div>'
        )
        plain = Mesh(r.mesh.verts, r.mesh.faces)
        colors = r.mesh.colors
        assert colors is not None
        shown = page_surface(plain, name=name, view=upright_views(r, 1)[0])
        surfaces.append(shown | {"colors": packed(np.round(255 * colors.numpy()), "u1")})
    bar = (
        '<div id="bar"><button id="reset">Reset the view</button><button id="back">Other side</button></div>'
    )
    write_page(
        path,
        title,
        "\n".join([bar, *figures]),
        lead=_LEAD,
        scripts=("surface_view.js", "reconstruction_page.js"),
        data={"surfaces": surfaces},
    )
