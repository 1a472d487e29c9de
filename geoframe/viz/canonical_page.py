"""What was done to make a canonical surface: one picture, and one page that opens offline."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import torch

from geoframe._types import Array
from geoframe.canonical.surface import Surface
from geoframe.surface import Mesh, health, subdivide
from geoframe.surface.sampling import spread_vertices
from geoframe.viz.page import card, cards, image, table, write_page
from geoframe.viz.surfaces import draw_surface, good_view, position_colors, sheet, two_sided

FUNCTIONS = (1, 3, 9)  # eigenfunctions drawn; 0 is constant
NEAR, FAR = (0.99, 0.86, 0.55), (0.24, 0.16, 0.42)
GREY, GONE = 0.78, (0.86, 0.24, 0.20)


def draw_canonical(before: Mesh, surface: Surface, *, size: tuple[int, int] = (400, 440)) -> Array:
    """Eight panels that show how a mesh became a canonical surface.

    The mesh before (removed parts red) and after, landmarks, mirror plane, three eigenfunctions, and geodesic
    distances from the first landmark, or from a far point.

    Args:
        before: the user's mesh (V0, 3).
        surface: what was made of it.
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
            panels.append((f"eigenfunction {i}", draw(two_sided(values))))
    far = surface.distances(dots[:1])[0].double().cpu().numpy()
    panels.append((f"geodesics from {place}", draw(_rings(P @ far))))
    titles, pictures = zip(*panels, strict=True)
    return sheet(pictures, titles, columns=4)


def _is_removed(before: Mesh, surface: Surface) -> Array:
    """(F,) faces with a vertex that was removed."""
    if surface.origin is None:
        return np.zeros(before.n_faces, bool)
    return (surface.origin.nearest[before.faces] < 0).any(1).cpu().numpy()


def _marked(surface: Surface) -> torch.Tensor:
    """Vertices of the landmarks, or points far from each other where there are none."""
    if surface.landmarks:
        return torch.tensor(list(surface.landmarks.values()))
    return spread_vertices(surface, 16)


def _facets(mesh: Mesh, red: Array, view: Array, size: tuple[int, int]) -> Array:
    """The surface with its triangles visible: each has its own normal and a shade of grey of its own."""
    verts, faces = mesh.verts.detach().double().cpu(), mesh.faces.cpu()
    shade = np.random.default_rng(0).uniform(GREY - 0.1, GREY + 0.1, (len(faces), 1))
    colors = np.where(red[:, None], GONE, np.broadcast_to(shade, (len(faces), 3)))
    soup = Mesh(verts[faces].reshape(-1, 3), torch.arange(3 * len(faces)).reshape(-1, 3))
    return draw_surface(soup, colors=colors.repeat(3, 0), view=view, size=size)


def _rings(distance: Array) -> Array:
    """(n, 3) colours from near to far, with 16 rings."""
    t = distance / max(float(distance.max()), 1e-300)
    colors = np.array(NEAR) + t[:, None] * (np.array(FAR) - np.array(NEAR))
    return np.where((np.mod(16 * t, 1) < 0.16)[:, None], 0.55 * colors, colors)


def write_canonical_report(
    path: str | Path, before: Mesh, surface: Surface, picture: Array, *, name: str = "surface"
) -> None:
    """Write the page of a canonical surface: what was done, health before and after, landmarks, eigenvalues.

    Args:
        path: the HTML file; written whole or not at all.
        before: the user's mesh (V0, 3).
        surface: what was made of it.
        picture: (H, W, 3) uint8 of `draw_canonical`.
        name: how the page calls the surface.

    Raises:
        ValueError: the file cannot be written.
    """
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in surface.notes)
    vals = surface.basis(12).vals.tolist()
    boxes = [
        card("What was done", f"<ul>{notes}</ul>"),
        card("Before and after", _comparison(before, surface)),
        card(
            "Eigenvalues, 1 / length²",
            table([(i, f"{v:.5g}") for i, v in enumerate(vals)], ("number", "value")),
        ),
    ]
    if surface.landmarks:
        boxes.append(card("Landmarks", table(list(surface.landmarks.items()), ("name", "vertex"), tall=True)))
    boxes.append(card("Use", "<pre>geoframe info FOLDER\ngeoframe match FOLDER OTHER --out OUT</pre>"))
    write_page(
        path,
        f"{name}: canonical surface",
        image(picture, "what was done", kind="picture") + cards(boxes),
        heading=f"{name}: a canonical surface",
        lead="Parts of the mesh that were left out are red. Beside the mirror plane one colour is one pair of places.",
    )


def _comparison(before: Mesh, after: Mesh) -> str:
    """The rows of both health reports side by side."""
    told = [
        dict(line.split("  ", 1) for line in str(health(m)).splitlines() if "  " in line and line[0] != " ")
        for m in (before, after)
    ]
    return table(
        [(key, told[0][key].strip(), told[1][key].strip()) for key in told[0]], ("", "before", "after")
    )
