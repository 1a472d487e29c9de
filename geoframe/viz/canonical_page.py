"""What was done to make a canonical surface: one picture, and one page that opens offline."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoframe._files import atomic_path
from geoframe._types import Array
from geoframe.canonical.surface import Surface
from geoframe.surface import Mesh, farthest_points, health, subdivide
from geoframe.viz.match_page import card
from geoframe.viz.surfaces import draw_surface, good_view, position_colors

FUNCTIONS = (1, 3, 9)  # eigenfunctions drawn; 0 is constant
BLUE, WHITE, RED = (0.17, 0.36, 0.66), (0.96, 0.95, 0.92), (0.74, 0.16, 0.18)
NEAR, FAR = (0.99, 0.86, 0.55), (0.24, 0.16, 0.42)
GREY, GONE = 0.78, (0.86, 0.24, 0.20)
_STYLE = """
body { margin: 0 auto; max-width: 1180px; padding: 20px 24px 48px; color: #24292f; background: #fff;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 22px; margin: 0 0 2px; } h2 { font-size: 16px; margin: 0 0 8px; }
.dim { color: #6b7280; } img { width: 100%; margin: 12px 0; border: 1px solid #e3e6ea; border-radius: 10px; }
.cards { columns: 330px; column-gap: 16px; }
.card { border: 1px solid #e3e6ea; border-radius: 10px; padding: 14px 16px; break-inside: avoid;
        margin-bottom: 16px; overflow-x: auto; }
ul { margin: 0; padding-left: 18px; } pre { margin: 0; white-space: pre-wrap; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { padding: 3px 10px 3px 0; border-bottom: 1px solid #e3e6ea; text-align: left; }
td.n, th.n { text-align: right; } .scroll { max-height: 320px; overflow-y: auto; }
"""


def draw_canonical(before: Mesh, surface: Surface, *, size: tuple[int, int] = (400, 440)) -> Array:
    """Eight panels: the mesh before (removed parts red) and after, landmarks, mirror plane, three eigenfunctions,
    and geodesics from the first landmark, or from a far point.

    Args:
        before: the user's mesh (V0, 3). surface: what was made of it.
        size: (height, width) of a panel in pixels.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    mesh, view, basis = surface, good_view(surface), surface.basis(max(FUNCTIONS) + 1)
    fine, P = subdivide(Mesh(mesh.verts.double(), mesh.faces), 1 if mesh.n_verts > 20_000 else 2)
    side = mesh.verts @ surface.symmetry.normal > surface.symmetry.offset
    folded = torch.where(side[:, None], surface.symmetry.reflect(mesh.verts), mesh.verts)
    n_marked = len(surface.landmarks)
    dots = _marked(surface)
    place = f"landmark {next(iter(surface.landmarks))}" if n_marked else "a far point"

    def draw(values: Array) -> Array:
        return draw_surface(fine, colors=values, view=view, size=size)

    panels = [
        (f"yours: {before.n_verts:,} vertices", _facets(before, _is_removed(before, surface), view, size)),
        (f"canonical: {mesh.n_verts:,} vertices", _facets(mesh, np.zeros(mesh.n_faces, bool), view, size)),
        (
            f"{n_marked} landmarks" if n_marked else "no landmarks: far points",
            draw_surface(mesh, view=view, size=size, dots=dots, colors=np.full((mesh.n_verts, 3), GREY)),
        ),
        (
            f"mirror plane, residual {surface.symmetry.residual:.4f}",
            draw_surface(
                mesh, colors=position_colors(folded.double().cpu().numpy(), view), view=view, size=size
            ),
        ),
    ]
    for i in FUNCTIONS:
        if i < basis.k:
            values = P @ basis.vecs[:, i].double().cpu().numpy()
            panels.append((f"eigenfunction {i}", draw(_two_sided(values))))
    far = surface.distances(dots[:1])[0].double().cpu().numpy()
    panels.append((f"geodesics from {place}", draw(_rings(P @ far))))
    return _sheet(panels, columns=4)


def _is_removed(before: Mesh, surface: Surface) -> Array:
    """(F,) faces with a vertex that was removed."""
    if surface.origin is None:
        return np.zeros(before.n_faces, bool)
    return (surface.origin.nearest[before.faces] < 0).any(1).cpu().numpy()


def _marked(surface: Surface) -> torch.Tensor:
    """Vertices of the landmarks, or points far from each other where there are none."""
    if surface.landmarks:
        return torch.tensor(list(surface.landmarks.values()))
    return farthest_points(surface, 16)


def _facets(mesh: Mesh, red: Array, view: Array, size: tuple[int, int]) -> Array:
    """The surface with its triangles visible: each has its own normal and a shade of grey of its own."""
    verts, faces = mesh.verts.detach().double().cpu(), mesh.faces.cpu()
    shade = np.random.default_rng(0).uniform(GREY - 0.1, GREY + 0.1, (len(faces), 1))
    colors = np.where(red[:, None], GONE, np.broadcast_to(shade, (len(faces), 3)))
    soup = Mesh(verts[faces].reshape(-1, 3), torch.arange(3 * len(faces)).reshape(-1, 3))
    return draw_surface(soup, colors=colors.repeat(3, 0), view=view, size=size)


def _two_sided(values: Array) -> Array:
    """(n, 3) colours: white at 0, red up, blue down, full at the 98th percentile."""
    t = np.clip(values / max(float(np.quantile(np.abs(values), 0.98)), 1e-300), -1, 1)[:, None]
    return np.array(WHITE) + np.abs(t) * (np.where(t > 0, RED, BLUE) - np.array(WHITE))


def _rings(distance: Array) -> Array:
    """(n, 3) colours from near to far, with 16 rings."""
    t = distance / max(float(distance.max()), 1e-300)
    colors = np.array(NEAR) + t[:, None] * (np.array(FAR) - np.array(NEAR))
    return np.where((np.mod(16 * t, 1) < 0.16)[:, None], 0.55 * colors, colors)


def _sheet(panels: list[tuple[str, Array]], columns: int) -> Array:
    """Panels in rows, each with its title below."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = panels[0][1].shape[:2]
    line = 34
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + line)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=19)
    for i, (title, picture) in enumerate(panels):
        x, y = i % columns * width, i // columns * (height + line)
        sheet.paste(Image.fromarray(picture), (x, y))
        draw.text((x + width / 2, y + height + line / 2), title, fill=(70, 70, 70), font=font, anchor="mm")
    return np.asarray(sheet)


def write_canonical_report(
    path: str | Path, before: Mesh, surface: Surface, picture: Array, *, name: str = "surface"
) -> None:
    """Write the page: `picture` (H, W, 3), what was done, health before and after, landmarks, eigenvalues.

    Raises:
        ValueError: the file cannot be written.
    """
    title = html.escape(name)
    vals = surface.basis(12).vals.tolist()
    cards = [
        card(
            "What was done", "<ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in surface.notes) + "</ul>"
        ),
        card("Before and after", _comparison(before, surface)),
        card(
            "Eigenvalues, 1 / length²",
            _table(("number", "value"), ((i, f"{v:.5g}") for i, v in enumerate(vals[:12]))),
        ),
    ]
    if surface.landmarks:
        rows = _table(("name", "vertex"), surface.landmarks.items())
        cards.append(card("Landmarks", f"<div class='scroll'>{rows}</div>"))
    use = "geoframe info FOLDER\ngeoframe match FOLDER OTHER --out OUT"
    cards.append(card("Use", f"<pre>{use}</pre>"))
    page = (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}: canonical surface</title>"
        f"<style>{_STYLE}</style></head><body><h1>{title}: a canonical surface</h1>"
        "<p class='dim'>Parts of the mesh that were left out are red. On the mirror plane's panel one colour is one "
        "pair of places.</p>"
        f"<img alt='what was done' src='data:image/png;base64,{_png(picture)}'>"
        f"<div class='cards'>{''.join(cards)}</div></body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _comparison(before: Mesh, after: Mesh) -> str:
    """The rows of both health reports side by side."""
    told = [
        dict(line.split("  ", 1) for line in str(health(m)).splitlines() if "  " in line and line[0] != " ")
        for m in (before, after)
    ]
    return _table(
        ("", "before", "after"), ((key, told[0][key].strip(), told[1][key].strip()) for key in told[0])
    )


def _table(head: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    top = "".join(f"<th{' class=n' if i else ''}>{html.escape(h)}</th>" for i, h in enumerate(head))
    body = ""
    for row in rows:
        cells = (f"<td{' class=n' if i else ''}>{html.escape(str(x))}</td>" for i, x in enumerate(row))
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<table><tr>{top}</tr>{body}</table>"


def _png(picture: Array) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
