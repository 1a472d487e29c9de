"""A page on which points of images are marked on a surface by hand; it opens offline and saves a JSON file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geoframe.canonical.surface import Surface
from geoframe.pixels import surface_digest
from geoframe.surface.mesh import Mesh
from geoframe.viz.images import as_picture
from geoframe.viz.page import hidden_image, write_page
from geoframe.viz.pixel_page import colored_surface, smaller
from geoframe.viz.surfaces import surface_caption

if TYPE_CHECKING:
    from geoframe.data.image_files import ImageSet

_LEAD = (
    "Click on a point of the image and on the same place of the surface (or choose its landmark by name), in either "
    "order. Scroll to zoom, drag to move the image or to turn the surface; Ctrl+Z takes the last step back, Escape a "
    "half point. Save the file beside this page: image names are relative to it."
)
_BODY = """<div class="bar"><button id="before">Previous image</button><button id="after">Next image</button>
<b id="which"></b></div>
<div class="pair">
<figure><canvas id="i1" class="place"></canvas><figcaption class="dim" id="hover"></figcaption></figure>
<figure><canvas id="c1" class="place"></canvas><figcaption>{caption}</figcaption></figure>
</div>
<div class="bar"><select id="name"></select><button id="undo">Undo</button><button id="reset">Reset the view</button>
<button id="back">Other side</button><button id="save">Save JSON</button>
<label class="file">Load JSON <input id="load" type="file" accept=".json" hidden></label></div>
<div class="cards"><div class="card"><h2>Points of this image</h2><div class="scroll tall"><table>
<thead><tr><th>vertex or landmark</th><th>x</th><th>y</th><th></th></tr></thead><tbody id="rows"></tbody></table></div>
</div></div>
{sources}
"""


def write_annotation_page(
    path: str | Path,
    surface: Mesh,
    images: str | Path | Sequence[str | Path],
    *,
    name: str = "surface",
    start: ImageSet | None = None,
) -> None:
    """Write a page for marking points of images on a surface: it saves what `geoframe.data.read_points` reads.

    A point is a click on the image and one on the surface, or a landmark's name. Images are shown upright; those
    of more than 1,600 pixels a side are made smaller on the page, not in the file. The browser keeps unsaved points.

    Args:
        path: the HTML file; written whole or not at all. Image names in the JSON are relative to its folder, so
            that the JSON belongs beside it.
        surface: the surface; its landmarks can be chosen by name.
        images: files, or a folder of images.
        name: how the surface is called, in the page and in the JSON.
        start: points that are already known, such as of `read_points`.

    Raises:
        ValueError: no image, one that cannot be read, a file that cannot be written.
    """
    from geoframe.data.image_files import list_images, read_image

    path, surface = Path(path), Surface.of(surface)
    if isinstance(images, str | Path):
        files = list_images(images) if Path(images).is_dir() else [Path(images)]
    else:
        files = [Path(x) for x in images]
    if not files:
        raise ValueError("images: expected at least one image file, found none")
    known: dict[Path, list[list[float | int]]] = {}
    for item in start if start is not None else ():
        if isinstance(item.image, Path):
            rows = zip(item.points.tolist(), item.vertex.tolist(), strict=True)
            known.setdefault(item.image.resolve(), []).extend([x, y, v] for (x, y), v in rows)
    entries, sources = [], []
    for i, file in enumerate(files, 1):
        picture = as_picture(read_image(file))
        relative = os.path.relpath(file.resolve(), path.resolve().parent).replace(os.sep, "/")
        height, width = picture.shape[:2]
        entry = {"name": relative, "width": width, "height": height, "points": known.get(file.resolve(), [])}
        entries.append(entry)
        sources.append(hidden_image(smaller(picture), f"s{i}"))
    told = [surface_digest(surface), name, *(str(e["name"]) for e in entries)]
    write_page(
        path,
        f"{name}: points",
        _BODY.format(caption=surface_caption(name, surface), sources="\n".join(sources)),
        heading=f"Mark points of images on {name}",
        lead=_LEAD,
        scripts=("surface_view.js", "image_view.js", "annotate_page.js"),
        data={
            "surface": colored_surface(surface, name),
            "landmarks": surface.landmarks,
            "images": entries,
            "file": f"{path.stem}.json",
            "key": f"geoframe points {hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:24]}",
        },
    )
