"""A self-contained HTML page about pixel maps: images and the surface they show, linked by the pointer."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoframe._types import Array
from geoframe.pixels import PixelMap, surface_digest
from geoframe.surface.mesh import Mesh
from geoframe.viz.images import as_picture
from geoframe.viz.page import card, cards, hidden_image, packed, table, write_page
from geoframe.viz.surfaces import canonical_colors, page_surface, surface_caption

FINEST = 640  # rows or columns of a map on the page; a finer one is thinned out
LARGEST = 1600  # pixels of an image's longer side; a larger one is made smaller
NEAR = (
    0.05  # of the surface's radius: what a vertex is away from the place that a pixel shows, to be seen there
)

_LEAD = (
    "A colour is the same place of the surface everywhere. Point at an image or at the surface to see that place in "
    "all the others. Scroll to zoom, drag to move an image or to turn the surface."
)
_VIEWS = """<div id="bar"><button id="reset">Reset the view</button><button id="back">Other side</button>
<label>Colours <input id="opacity" type="range" min="0" max="1" step="0.02" value="0.6"></label>
<span id="hover" class="dim"></span></div>
<div class="pair">
<figure><canvas id="c1"></canvas><figcaption>{caption}</figcaption></figure>
{figures}
</div>
{sources}
"""


def write_pixel_page(
    path: str | Path,
    maps: PixelMap | Sequence[PixelMap],
    images: Any,
    *,
    names: Sequence[str] = (),
    surface_name: str = "surface",
) -> None:
    """Write a page with images and the surface that they show, linked by the pointer.

    Args:
        path: the HTML file; written whole or not at all.
        maps: of the images, one or several, all on one surface.
        images: for each map its image, (3, H, W) in [0, 1] or a picture (H, W, 3) uint8; for one map its image.
        names: how the page calls the images; by default "image 1", "image 2", ...
        surface_name: how it calls the surface.

    Raises:
        ValueError: no map, other numbers of images or names, an image of another size than its map, maps of
            different surfaces, a file that cannot be written.
    """
    if isinstance(maps, PixelMap):
        maps, images = [maps], [images]
    if not maps or len(images) != len(maps) or len(names) not in (0, len(maps)):
        raise ValueError(
            f"maps: expected one or more, an image for each and a name for each or none, found {len(maps)} maps, "
            f"{len(images)} images and {len(names)} names"
        )
    surface, names = maps[0].surface, list(names) or [f"image {i + 1}" for i in range(len(maps))]
    if len({surface_digest(m.surface) for m in maps}) > 1:
        raise ValueError(
            "maps: expected maps of one surface, found several; bring them together with through"
        )
    pictures = [as_picture(x) for x in images]
    for picture, m in zip(pictures, maps, strict=True):
        if picture.shape[:2] != m.size:
            raise ValueError(f"images: expected {m.size} as its map, found {picture.shape[:2]}")
    figures = [
        f'<figure><canvas id="i{i}"></canvas><figcaption><b>{html.escape(name)}</b></figcaption></figure>'
        for i, name in enumerate(names, 1)
    ]
    sources = [hidden_image(smaller(p), f"s{i}") for i, p in enumerate(pictures, 1)]
    rows = [_row(name, m) for name, m in zip(names, maps, strict=True)]
    head = ("image", "size", "foreground", "mean confidence", "vertices seen")
    write_page(
        path,
        surface_name,
        _VIEWS.format(
            figures="\n".join(figures),
            caption=surface_caption(surface_name, surface),
            sources="\n".join(sources),
        )
        + cards([card("Images", table(rows, head), wide=True)]),
        heading=f"{surface_name}: from pixels to the surface",
        lead=_LEAD,
        scripts=("surface_view.js", "image_view.js", "pixel_page.js"),
        data={
            "surface": colored_surface(surface, surface_name, list(surface.landmarks.values())),
            "images": [{"name": name, **_entry(m)} for name, m in zip(names, maps, strict=True)],
            "near": NEAR,
        },
    )


def colored_surface(surface: Mesh, name: str, dots: Sequence[int] = ()) -> dict[str, Any]:
    """A surface in its canonical colours, for a page's scripts."""
    colors = packed(np.round(255 * canonical_colors(surface)), "u1")
    return page_surface(surface, name=name, dots=np.array(dots, np.int64)) | {"colors": colors}


def smaller(picture: Array) -> Array:
    """A picture whose longer side has at most `LARGEST` pixels."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _row(name: str, m: PixelMap) -> tuple[Any, ...]:
    n = int(m.mask.sum())
    sure = float(m.confidence[m.mask].mean()) if n else 0.0
    seen = len(torch.unique(m.vertex[m.mask]))
    return name, f"{m.size[1]} x {m.size[0]}", f"{n / m.mask.numel():.1%}", f"{sure:.2f}", seen


def _entry(m: PixelMap) -> dict[str, Any]:
    """The map of one image as the script reads it, of at most FINEST rows and columns."""
    from geoframe.data.crops import resized

    H, W = m.size
    unit = max(H, W) / FINEST
    size = (H, W) if unit <= 1 else (max(round(H / unit), 1), max(round(W / unit), 1))
    vertex = resized(m.vertex.cpu()[None], size, nearest=True)[0]
    sure = resized(m.confidence.cpu()[None], size, nearest=True)[0]
    return {
        "width": W,
        "height": H,
        "rows": size[0],
        "columns": size[1],
        "vertex": packed(vertex.numpy(), "<i4"),
        "confidence": packed((sure * 255).round().numpy(), "u1"),
    }
