"""Pictures and a page of point clouds with ordered keypoints: the same colour is the same keypoint."""

from __future__ import annotations

import base64
import colorsys
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoframe._check import check_shape
from geoframe._files import atomic_path
from geoframe._types import Array

_GOLDEN = 0.618034


def keypoint_colors(n: int) -> Array:
    """(n, 3) sRGB in [0, 1], as different as can be from number to number."""
    hues = [(0.98 + i * _GOLDEN) % 1 for i in range(n)]
    tones = [(0.92, 0.95), (0.75, 0.72), (0.55, 0.95)]
    return np.array([colorsys.hsv_to_rgb(h, *tones[i // 7 % 3]) for i, h in enumerate(hues)]).reshape(n, 3)


def cloud_view(up: int, *, turn: float = 0.6, down: float = 0.35) -> Array:
    """(3, 3) rotation whose rows are right, up and towards the viewer, for clouds whose vertical axis is `up`."""
    a, b, c = np.eye(3)[(up + 1) % 3], np.eye(3)[(up + 2) % 3], np.eye(3)[up]
    level = np.cos(turn) * a - np.sin(turn) * b
    towards = np.cos(down) * level + np.sin(down) * c
    right = np.cross(c, towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])


def draw_clouds(
    points: Sequence[Array],
    keypoints: Sequence[Array] = (),
    *,
    up: int = 2,
    columns: int = 4,
    size: int = 320,
    titles: Sequence[str] = (),
    colors: Sequence[Array] = (),
    view: Array | None = None,
) -> Array:
    """A grid of clouds (N, 3), each with its keypoints (K, 3), on white.

    Args:
        size: of a cell in pixels. titles: one a cloud, or none. colors: (N, 3) of a cloud's points, or none.
        view: (3, 3) as of `cloud_view`.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    from PIL import Image

    view = cloud_view(up) if view is None else view
    columns = min(columns, len(points))
    cells = [
        _cell(
            np.asarray(cloud, float),
            np.asarray(keypoints[i], float) if len(keypoints) else np.zeros((0, 3)),
            view,
            size,
            titles[i] if len(titles) else "",
            colors[i] if len(colors) else None,
        )
        for i, cloud in enumerate(points)
    ]
    rows = -(-len(cells) // columns)
    picture = Image.new("RGB", (columns * size, rows * size), "white")
    for i, cell in enumerate(cells):
        picture.paste(cell, ((i % columns) * size, (i // columns) * size))
    return np.asarray(picture)


def _cell(points: Array, keypoints: Array, view: Array, size: int, title: str, colors: Array | None) -> Any:
    """One cloud as a PIL image: far points pale, keypoints as numbered balls, those behind the surface smaller."""
    from PIL import Image, ImageDraw, ImageFont

    over = 2
    check_shape(points, "N 3", "points")
    low, high = points.min(0), points.max(0)
    centre, reach = (low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-9)
    scale = 0.46 * size * over / reach

    def project(x: Array) -> Array:
        p = (x - centre) @ view.T * scale
        return np.stack([size * over / 2 + p[:, 0], size * over * 0.48 - p[:, 1], p[:, 2] / scale / reach], 1)

    image = Image.new("RGB", (size * over, size * over), "white")
    draw = ImageDraw.Draw(image)
    p = project(points)
    radius = max(1.0, 0.0055 * size * over)
    for i in np.argsort(p[:, 2]):
        x, y, depth = p[i]
        fade = np.clip((1 - depth) / 2, 0, 1)
        base = np.array([0.45, 0.50, 0.57]) if colors is None else np.asarray(colors[i])
        tone = tuple(int(255 * v) for v in base + (1 - base) * 0.75 * fade)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tone)
    k = project(keypoints)
    palette = keypoint_colors(len(keypoints))
    font = ImageFont.load_default(size=round(0.034 * size * over))
    for i in np.argsort(k[:, 2]):
        x, y, depth = k[i]
        r = (0.024 + 0.005 * depth) * size * over
        fill = tuple(int(255 * v) for v in palette[i])
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=(40, 40, 40), width=over)
        dark = palette[i] @ (0.3, 0.6, 0.1) > 0.6
        draw.text((x, y), str(i), fill=(20, 20, 20) if dark else "white", font=font, anchor="mm")
    if title:
        big = ImageFont.load_default(size=round(0.05 * size * over))
        draw.text((size * over / 2, 0.955 * size * over), title, fill=(70, 70, 70), font=big, anchor="mm")
    return image.resize((size, size), Image.Resampling.LANCZOS)


def write_clouds_page(
    path: str | Path,
    points: Sequence[Array],
    keypoints: Sequence[Array],
    *,
    names: Sequence[str],
    up: int = 2,
    title: str = "Keypoints",
) -> None:
    """A self-contained page: every cloud with its keypoints, all turned together with the mouse.

    Raises:
        ValueError: the file cannot be written.
    """
    axes = [(up + 1) % 3, (up + 2) % 3, up]
    entries = []
    for cloud, dots, name in zip(points, keypoints, names, strict=True):
        cloud = np.asarray(cloud, np.float64)
        centre = (cloud.min(0) + cloud.max(0)) / 2
        reach = max(float(np.linalg.norm(np.ptp(cloud, axis=0)) / 2), 1e-9)
        place = [((np.asarray(x) - centre) / reach)[:, axes].astype("<f4") for x in (cloud, dots)]
        entries.append({"name": name, **dict(zip(("p", "k"), map(_base64, place), strict=True))})
    n = len(keypoints[0]) if len(keypoints) else 0
    colors = [f"#{''.join(f'{int(255 * v):02x}' for v in c)}" for c in keypoint_colors(n)]
    data = json.dumps({"clouds": entries, "colors": colors}).replace("</", "<\\/")
    text = _PAGE.replace("__TITLE__", html.escape(title)).replace("__DATA__", data)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _base64(x: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(x).tobytes()).decode("ascii")


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>__TITLE__</title>
<style>
body { font: 15px system-ui, sans-serif; margin: 24px; color: #333; background: #fff }
h1 { font-size: 20px; font-weight: 600 } p { color: #777 }
#grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 10px }
figure { margin: 0; border: 1px solid #e6e6e6; border-radius: 8px; overflow: hidden }
canvas { width: 100%; aspect-ratio: 1; display: block; cursor: grab }
figcaption { padding: 4px 10px 8px; color: #777; font-size: 13px }
</style>
<h1>__TITLE__</h1>
<p>The same colour and number is the same keypoint. Drag to turn all shapes together.</p>
<div id="grid"></div>
<script>
const data = __DATA__;
const floats = s => new Float32Array(Uint8Array.from(atob(s), c => c.charCodeAt(0)).buffer);
let turn = 0.6, down = 0.35;
const grid = document.getElementById('grid');
const views = data.clouds.map(c => {
  const figure = document.createElement('figure'), canvas = document.createElement('canvas');
  const caption = document.createElement('figcaption');
  caption.textContent = c.name; figure.append(canvas, caption); grid.append(figure);
  return { canvas, p: floats(c.p), k: floats(c.k) };
});
function project(a, size) {
  const out = [], ct = Math.cos(turn), st = Math.sin(turn), cd = Math.cos(down), sd = Math.sin(down);
  for (let i = 0; i < a.length; i += 3) {
    const near = ct * a[i] - st * a[i + 1], right = st * a[i] + ct * a[i + 1], up = a[i + 2];
    const high = cd * up - sd * near, s = 0.46 * size;
    out.push([size / 2 + s * right, size / 2 - s * high, cd * near + sd * up, i / 3]);
  }
  return out.sort((x, y) => x[2] - y[2]);
}
function draw() {
  for (const v of views) {
    const size = v.canvas.clientWidth * devicePixelRatio;
    v.canvas.width = v.canvas.height = size;
    const g = v.canvas.getContext('2d');
    for (const [x, y, z] of project(v.p, size)) {
      const t = Math.round(130 + 95 * Math.min(1, Math.max(0, (1 - z) / 2)));
      g.fillStyle = `rgb(${t - 12},${t - 5},${t + 5})`;
      g.beginPath(); g.arc(x, y, size * 0.006, 0, 7); g.fill();
    }
    g.textAlign = 'center'; g.textBaseline = 'middle'; g.font = `${size * 0.034}px system-ui`;
    for (const [x, y, z, i] of project(v.k, size)) {
      g.fillStyle = data.colors[i]; g.strokeStyle = '#333'; g.lineWidth = size * 0.004;
      g.beginPath(); g.arc(x, y, size * (0.025 + 0.005 * z), 0, 7); g.fill(); g.stroke();
      g.fillStyle = '#fff'; g.fillText(i, x, y);
    }
  }
}
let at = null;
addEventListener('pointerdown', e => { if (e.target.tagName === 'CANVAS') at = [e.clientX, e.clientY]; });
addEventListener('pointerup', () => { at = null; });
addEventListener('pointermove', e => {
  if (!at) return;
  turn += (e.clientX - at[0]) * -0.01;
  down = Math.max(-1.5, Math.min(1.5, down + (e.clientY - at[1]) * 0.01));
  at = [e.clientX, e.clientY];
  requestAnimationFrame(draw);
});
addEventListener('resize', draw);
draw();
</script></html>
"""
