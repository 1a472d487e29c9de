"""Pictures and a page of point clouds with ordered keypoints: the same colour is the same keypoint."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geoframe._check import check_shape
from geoframe._types import Array
from geoframe.viz.page import packed, write_page
from geoframe.viz.surfaces import sheet

_GOLDEN = 0.618034


def keypoint_colors(n: int) -> Array:
    """(n, 3) sRGB in [0, 1], as different as can be from number to number."""
    hues = [(0.98 + i * _GOLDEN) % 1 for i in range(n)]
    tones = [(0.92, 0.95), (0.75, 0.72), (0.55, 0.95)]
    return np.array([colorsys.hsv_to_rgb(h, *tones[i // 7 % 3]) for i, h in enumerate(hues)]).reshape(n, 3)


def is_light(color: Array) -> bool:
    """Whether dark text is read better on it than white text."""
    return bool(color @ (0.3, 0.6, 0.1) > 0.6)


def cloud_view(up: int, *, turn: float = 0.6, down: float = 0.35) -> Array:
    """(3, 3) rotation whose rows are the picture's right, up and towards-the-viewer.

    Args:
        up: the clouds' vertical axis, 0, 1 or 2.
        turn: about the vertical, in radians.
        down: how far the viewer looks down, in radians.
    """
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
    """A grid of clouds, each with its numbered keypoints, on white.

    Args:
        points: clouds (N, 3), one a cell; N may differ.
        keypoints: (K, 3) for each cloud, or none.
        up: the vertical axis, 0, 1 or 2.
        columns: cells a row.
        size: width and height of a cell in pixels.
        titles: one for each cloud, or none.
        colors: (N, 3) sRGB in [0, 1] of each cloud's points, or none.
        view: (3, 3) rotation as of `cloud_view`, which is the default.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    view = cloud_view(up) if view is None else view
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
    return sheet(cells, columns=columns)


def _cell(points: Array, keypoints: Array, view: Array, size: int, title: str, colors: Array | None) -> Array:
    """One cloud as a picture: far points pale, keypoints as numbered balls, those behind the surface smaller."""
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
        ink = (20, 20, 20) if is_light(palette[i]) else "white"
        draw.text((x, y), str(i), fill=ink, font=font, anchor="mm")
    if title:
        big = ImageFont.load_default(size=round(0.05 * size * over))
        draw.text((size * over / 2, 0.955 * size * over), title, fill=(70, 70, 70), font=big, anchor="mm")
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def write_clouds_page(
    path: str | Path,
    points: Sequence[Array],
    keypoints: Sequence[Array],
    *,
    names: Sequence[str],
    up: int = 2,
    title: str = "Keypoints",
) -> None:
    """Write a page that opens offline: every cloud with its keypoints, all turned together with the mouse.

    Args:
        path: the HTML file.
        points: clouds (N, 3); N may differ.
        keypoints: (K, 3) for each cloud, in the same order for all.
        names: one for each cloud.
        up: the vertical axis, 0, 1 or 2.
        title: the page's heading.

    Raises:
        ValueError: the file cannot be written.
    """
    axes = [(up + 1) % 3, (up + 2) % 3, up]
    entries = []
    for cloud, dots, name in zip(points, keypoints, names, strict=True):
        cloud = np.asarray(cloud, np.float64)
        centre = (cloud.min(0) + cloud.max(0)) / 2
        reach = max(float(np.linalg.norm(np.ptp(cloud, axis=0)) / 2), 1e-9)
        place = [packed(((np.asarray(x) - centre) / reach)[:, axes], "<f4") for x in (cloud, dots)]
        entries.append({"name": name, "p": place[0], "k": place[1]})
    palette = keypoint_colors(len(keypoints[0]) if len(keypoints) else 0)
    write_page(
        path,
        title,
        '<div class="grid" id="grid"></div>',
        lead="The same colour and number is the same keypoint. Drag to turn all shapes together.",
        scripts=("clouds_page.js",),
        data={
            "clouds": entries,
            "colors": [f"#{''.join(f'{int(255 * v):02x}' for v in c)}" for c in palette],
            "inks": ["#141414" if is_light(c) else "#fff" for c in palette],
        },
    )
