"""A self-contained HTML page about one map: opens offline, both surfaces in 3D with linked colours and camera."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoframe._files import atomic_path
from geoframe._types import Array
from geoframe.surface.mesh import Mesh
from geoframe.viz.surfaces import align_rotation, as_numpy, good_view, position_colors

if TYPE_CHECKING:
    from geoframe.maps import Match


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
        mesh1, mesh2: the surfaces (V1, 3) and (V2, 3) that were matched.
        match: the result of `geoframe.match`.
        names: how the page calls the two surfaces.
        measures: names -> numbers, shown beside the match's own energies. A value
            ``{"threshold": [...], "share": [...]}`` is drawn as a cumulative error curve.

    Raises:
        ValueError: the file cannot be written.
    """
    measures = dict(measures or {})
    template = resources.files("geoframe.viz").joinpath("match_page.html").read_text(encoding="utf-8")
    name1, name2 = (html.escape(n) for n in names)
    parts = {
        "__TITLE__": f"{name1} to {name2}",
        "__HEADING__": f"A map from {name2} to {name1}",
        "__CAPTION1__": _caption(name1, mesh1),
        "__CAPTION2__": _caption(name2, mesh2),
        "__CARDS__": "".join(_cards(match, measures, (name1, name2))),
        "__DATA__": json.dumps(_scene(mesh1, mesh2, match, names)).replace("</", "<\\/"),
    }
    for mark, text in parts.items():
        template = template.replace(mark, text, 1)
    with atomic_path(path) as temporary:
        temporary.write_text(template, encoding="utf-8")


def _caption(name: str, mesh: Mesh) -> str:
    return f"<b>{name}</b> <span class='dim'>{mesh.n_verts:,} vertices, {mesh.n_faces:,} faces</span>"


def _encode(x: Any, dtype: str) -> str:
    """Little-endian raw numbers in base64, for a JavaScript typed array."""
    return base64.b64encode(np.ascontiguousarray(as_numpy(x), dtype=dtype).tobytes()).decode("ascii")


def _scene(mesh1: Mesh, mesh2: Mesh, match: Match, names: tuple[str, str]) -> dict[str, Any]:
    """What the page's script draws: positions already turned to the first view and scaled to the unit ball."""
    verts1, verts2 = (np.nan_to_num(as_numpy(m.verts).astype(np.float64)) for m in (mesh1, mesh2))
    p2p_21, p2p_12 = as_numpy(match.p2p_21), as_numpy(match.p2p_12)
    view1 = good_view(mesh1)
    view2 = view1 @ align_rotation(verts1, verts2, p2p_21)
    pairs = np.zeros((0, 2), int) if match.landmarks is None else as_numpy(match.landmarks)
    surfaces = [
        {
            "name": name,
            "verts": _encode(_unit_ball(verts @ view.T), "<f4"),
            "faces": _encode(mesh.faces, "<u4"),
            "partner": _encode(partner, "<u4"),
            "landmarks": dots.tolist(),
        }
        for name, verts, view, mesh, partner, dots in (
            (names[0], verts1, view1, mesh1, p2p_12, pairs[:, 0]),
            (names[1], verts2, view2, mesh2, p2p_21, pairs[:, 1]),
        )
    ]
    colors = position_colors(verts1, view1)
    return {"surfaces": surfaces, "colors": _encode(np.round(255 * colors), "u1")}


def _unit_ball(points: Array) -> Array:
    points = points - (points.min(0) + points.max(0)) / 2
    return points / max(np.linalg.norm(points, axis=1).max(), 1e-300)


def _cards(match: Match, measures: dict[str, Any], names: tuple[str, str]) -> list[str]:
    """The boxes under the two views, as HTML."""
    curves = {
        k: v for k, v in measures.items() if isinstance(v, Mapping) and {"threshold", "share"} <= set(v)
    }
    numbers = {k: v for k, v in measures.items() if k not in curves}
    cards = [card("Measures", _table({**match.energies, **numbers}))]
    cards += [card(_words(name), _curve(curve)) for name, curve in curves.items()]
    C_12 = as_numpy(match.C_12)
    note = (
        f"<p class='dim'>C_12, {C_12.shape[0]} x {C_12.shape[1]}: a column holds an eigenfunction of {names[0]} in the "
        f"eigenfunctions of {names[1]}. Blue is negative, red positive.</p>"
    )
    picture = (
        f"<img class='map' alt='functional map C_12' src='data:image/png;base64,{_functional_map_png(C_12)}'>"
    )
    cards.append(card("Functional map", picture + note))
    if match.candidates:
        doubt = (
            ""
            if match.ambiguity is None
            else f"<p>Ambiguity of the choice: {_number(match.ambiguity)} (0 clear, 1 a toss-up).</p>"
        )
        cards.append(card("Candidates, best first", doubt + _candidates(match.candidates)))
    if match.landmarks is not None:
        rows = "".join(
            f"<tr><td class='n'>{a}</td><td class='n'>{b}</td></tr>" for a, b in as_numpy(match.landmarks)
        )
        head = f"<tr><th class='n'>{names[0]}</th><th class='n'>{names[1]}</th></tr>"
        cards.append(
            card("Landmarks (vertex numbers)", f"<div class='scroll'><table>{head}{rows}</table></div>")
        )
    cards.append(card("Settings", _table(match.settings)))
    return cards


def card(title: str, body: str) -> str:
    """A box of a page, as HTML; `body` is HTML already."""
    return f"<div class='card'><h2>{html.escape(title)}</h2>{body}</div>"


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return html.escape(str(value))


def _table(values: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><td>{html.escape(str(k))}</td><td class='n'>{_number(v)}</td></tr>" for k, v in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _candidates(candidates: list[dict[str, Any]]) -> str:
    """A table with a row a candidate; columns are the entries that are numbers or words."""
    plain = [{k: v for k, v in c.items() if isinstance(v, int | float | str)} for c in candidates]
    columns = list(dict.fromkeys(k for c in plain for k in c))
    head = "".join(f"<th class='n'>{html.escape(k)}</th>" for k in columns)
    rows = ("".join(f"<td class='n'>{_number(c.get(k, ''))}</td>" for k in columns) for c in plain)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{r}</tr>' for r in rows)}</table>"


def _functional_map_png(C: Array) -> str:
    """Base64 PNG of a matrix, one pixel an entry: white at 0, red up, blue down, full at the 99.5th percentile."""
    from PIL import Image

    top = max(float(np.quantile(np.abs(C), 0.995)), 1e-300)
    t = np.clip(C / top, -1, 1)[..., None]
    red, blue = np.array([178, 24, 43]), np.array([33, 102, 172])
    rgb = 255 + np.abs(t) * (np.where(t > 0, red, blue) - 255)
    file = io.BytesIO()
    Image.fromarray(np.round(rgb).astype(np.uint8)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


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
