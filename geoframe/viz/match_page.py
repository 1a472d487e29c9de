"""A self-contained HTML page about one map: opens offline, both surfaces in 3D with linked colours and camera."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoframe._types import Array
from geoframe.surface.mesh import Mesh
from geoframe.viz.page import card, cards, image, packed, table, words, write_page
from geoframe.viz.surfaces import (
    align_rotation,
    as_numpy,
    good_view,
    page_surface,
    position_colors,
    surface_caption,
    two_sided,
)

if TYPE_CHECKING:
    from geoframe.maps import Match


_LEAD = (
    "A colour is the same place on both surfaces. Drag to turn, scroll to zoom (both follow); point at a vertex to see "
    "its partner on the other surface. Dots are the landmarks."
)
_VIEWS = """<div class="pair">
<figure><canvas id="c1"></canvas><figcaption>{}</figcaption></figure>
<figure><canvas id="c2"></canvas><figcaption>{}</figcaption></figure>
</div>
<div id="bar"><button id="reset">Reset the view</button><button id="back">Other side</button>
<span id="hover" class="dim"></span></div>
"""


def write_report(
    path: str | Path,
    mesh1: Mesh,
    mesh2: Mesh,
    match: Match,
    *,
    names: tuple[str, str] = ("surface 1", "surface 2"),
    measures: Mapping[str, Any] | None = None,
) -> None:
    """Write the page that shows `match`: 3D views, landmarks, functional map, measures, candidates, settings.

    Args:
        path: the HTML file; written whole or not at all.
        mesh1: surface 1 (V1, 3), the source of the match.
        mesh2: surface 2 (V2, 3), its target.
        match: the result of `geoframe.match`.
        names: how the page calls the two surfaces.
        measures: names -> numbers, shown beside the match's own energies. A value
            ``{"threshold": [...], "share": [...]}`` is drawn as a cumulative error curve.

    Raises:
        ValueError: the file cannot be written.
    """
    measures = dict(measures or {})
    views = _VIEWS.format(surface_caption(names[0], mesh1), surface_caption(names[1], mesh2))
    write_page(
        path,
        f"{names[0]} to {names[1]}",
        views + cards(_cards(match, measures, names)),
        heading=f"A map from {names[1]} to {names[0]}",
        lead=_LEAD,
        scripts=("surface_view.js", "match_page.js"),
        data=_scene(mesh1, mesh2, match, names),
    )


def _scene(mesh1: Mesh, mesh2: Mesh, match: Match, names: tuple[str, str]) -> dict[str, Any]:
    """What the page's script draws: positions already turned to the first view and scaled to the unit ball."""
    verts1, verts2 = (np.nan_to_num(as_numpy(m.verts).astype(np.float64)) for m in (mesh1, mesh2))
    p2p_21, p2p_12 = as_numpy(match.p2p_21), as_numpy(match.p2p_12)
    view1 = good_view(mesh1)
    view2 = view1 @ align_rotation(verts1, verts2, p2p_21)
    pairs = np.zeros((0, 2), int) if match.landmarks is None else as_numpy(match.landmarks)
    surfaces = [
        page_surface(mesh, name=name, view=view, dots=dots) | {"partner": packed(partner, "<u4")}
        for name, view, mesh, partner, dots in (
            (names[0], view1, mesh1, p2p_12, pairs[:, 0]),
            (names[1], view2, mesh2, p2p_21, pairs[:, 1]),
        )
    ]
    colors = position_colors(verts1, view1)
    return {"surfaces": surfaces, "colors": packed(np.round(255 * colors), "u1")}


def _cards(match: Match, measures: dict[str, Any], names: tuple[str, str]) -> list[str]:
    """The boxes under the two views, as HTML."""
    curves = {
        k: v for k, v in measures.items() if isinstance(v, Mapping) and {"threshold", "share"} <= set(v)
    }
    numbers = {k: v for k, v in measures.items() if k not in curves}
    boxes = [
        card(
            "Measures",
            table({"verdict": match.verdict, "confidence": match.confidence, **match.energies, **numbers}),
        )
    ]
    if match.warnings:
        told = "".join(f"<li>{html.escape(w)}</li>" for w in match.warnings)
        boxes.append(card("Look twice", f"<ul>{told}</ul>"))
    boxes += [card(words(name), _curve(curve)) for name, curve in curves.items()]
    boxes.append(card("Functional map", _functional_map(as_numpy(match.C_12), names)))
    if match.landmarks is not None:
        rows = as_numpy(match.landmarks).tolist()
        boxes.append(card("Landmarks (vertex numbers)", table(rows, names, tall=True)))
    boxes.append(card("Settings", table(match.settings)))
    if match.candidates:
        boxes.append(card("Candidates, best first", _candidates(match.candidates), wide=True))
    return boxes


def _functional_map(C_12: Array, names: Sequence[str]) -> str:
    """The matrix (K2, K1) as a picture of one pixel an entry, and how to read it."""
    note = (
        f"C_12, {C_12.shape[0]} x {C_12.shape[1]}: a column holds an eigenfunction of {names[0]} in the eigenfunctions "
        f"of {names[1]}. Blue is negative, red positive."
    )
    picture = np.round(255 * two_sided(C_12, 0.995)).astype(np.uint8)
    return image(picture, "functional map C_12", kind="map") + f'<p class="dim">{html.escape(note)}</p>'


def _candidates(candidates: list[dict[str, Any]]) -> str:
    """A table with a row a candidate; columns are the entries that are numbers or words."""
    plain = [{k: v for k, v in c.items() if isinstance(v, int | float | str)} for c in candidates]
    columns = list(dict.fromkeys(k for c in plain for k in c))
    return table([[c.get(k, "") for k in columns] for c in plain], [k.replace("_", " ") for k in columns])


def _curve(curve: Mapping[str, Any]) -> str:
    """An SVG of the share of points (up) whose error is at most a threshold (right)."""
    x, y = (np.asarray(curve[k], dtype=float) for k in ("threshold", "share"))
    width, height, left, below = 420, 230, 46, 30
    top = max(float(x.max(initial=0.0)), 1e-300)
    px, py = left + (width - left - 10) * x / top, 10 + (height - below - 10) * (1 - y)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))
    lines = []
    for s in (0, 0.25, 0.5, 0.75, 1):
        at_y, at_x = 10 + (height - below - 10) * (1 - s), left + (width - left - 10) * s
        lines.append(f"<path d='M{left} {at_y:.1f}H{width - 10}' stroke='#e3e6ea'/>")
        lines.append(f"<text x='{left - 6}' y='{at_y + 4:.1f}' text-anchor='end'>{s:.0%}</text>")
        lines.append(f"<text x='{at_x:.1f}' y='{height - 10}' text-anchor='middle'>{s * top:.3g}</text>")
    return (
        f"<svg viewBox='0 0 {width} {height}' font-size='11' fill='#6b7280'>{''.join(lines)}"
        f"<polyline points='{points}' fill='none' stroke='#e11e4b' stroke-width='2'/></svg>"
        "<p class='dim'>Share of the points whose error is at most the threshold.</p>"
    )
