"""Pictures and a page of optical flow and of matches between two images."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_int, check_shape
from geoframe._types import Array
from geoframe.flow import warp_back
from geoframe.viz.page import card, cards, image, table, write_page

if TYPE_CHECKING:
    from geoframe.models.deep_matching import ImageMatches

_WHEEL = (  # colours around the wheel and how many steps lie between one and the next: red, yellow, green, cyan, ...
    ((255, 0, 0), 15),
    ((255, 255, 0), 6),
    ((0, 255, 0), 4),
    ((0, 255, 255), 11),
    ((0, 0, 255), 13),
    ((255, 0, 255), 6),
)
_GAP = 12  # pixels between two images of a picture
_LEAD = (
    "Move the slider: on the left of it image 0, on the right image 1 brought onto image 0 by the flow. Where "
    "both agree nothing jumps. Point at the picture to see where a pixel goes."
)
_SLIDER = """<div class="slider" id="slider"><img id="under" alt="image 0" src="{under}">
<img id="over" alt="image 1 brought onto image 0" src="{over}"><div id="bar-line"></div></div>
<div id="bar"><label><input type="range" id="where" min="0" max="1000" value="500"> slider</label>
<label><input type="checkbox" id="raw"> image 1 as it is</label><span id="hover" class="dim"></span></div>
"""


def flow_colors(flow: Tensor, *, most: float | None = None) -> Array:
    """A flow as colours: the hue is its direction, the saturation its length; unknown pixels are black.

    Args:
        flow: (2, H, W), pixels; NaN where it is unknown.
        most: length that is fully saturated; by default the 99th percentile of the lengths. Longer ones are darker.

    Returns:
        (H, W, 3) uint8.

    Source: the colour wheel of the Middlebury benchmark (Baker et al. 2011).
    """
    check_shape(flow, "2 H W", "flow")
    values = flow.detach().cpu().double().numpy()
    known = np.isfinite(values).all(0)
    u, v = np.where(known, values, 0)
    length = np.hypot(u, v)
    if most is None:
        most = float(np.percentile(length[known], 99)) if known.any() else 1.0
    length = length / max(most, 1e-9)
    wheel = _wheel()
    n = len(wheel)
    at = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (n - 1)
    first = np.floor(at).astype(int) % n
    part = (at - np.floor(at))[..., None]
    color = (1 - part) * wheel[first] + part * wheel[(first + 1) % n]
    short = length[..., None] <= 1
    color = np.where(short, 1 - length[..., None] * (1 - color), 0.75 * color)
    return (255 * np.where(known[..., None], color, 0)).round().astype(np.uint8)


def _wheel() -> Array:
    """(55, 3) colours in [0, 1]."""
    stops = [np.array(color, float) for color, _ in _WHEEL]
    parts = [
        a + (b - a) * np.arange(count)[:, None] / count
        for (a, b), (_, count) in zip(zip(stops, stops[1:] + stops[:1], strict=True), _WHEEL, strict=True)
    ]
    return np.concatenate(parts) / 255


def as_picture(image: Tensor) -> Array:
    """An image (3, H, W) in [0, 1] as (H, W, 3) uint8."""
    return (255 * image.detach().cpu().clamp(0, 1).permute(1, 2, 0)).round().to(torch.uint8).numpy()


def draw_image_matches(
    image0: Tensor, image1: Tensor, found: ImageMatches, *, count: int = 60, seed: int = 0
) -> Array:
    """Two images side by side with some of their matches, one colour a match.

    Args:
        image0: (3, H, W) in [0, 1].
        image1: (3, H1, W1).
        found: what `match_images` gave.
        count: how many matches are drawn, spread over image 0.
        seed: of their choice.

    Returns:
        (h, w, 3) uint8.
    """
    check_int(count, "count", low=1)
    from PIL import Image, ImageDraw

    first, second = as_picture(image0), as_picture(image1)
    left, height = first.shape[1] + _GAP, max(first.shape[0], second.shape[0])
    canvas = np.full((height, left + second.shape[1], 3), 255, np.uint8)
    canvas[: first.shape[0], : first.shape[1]] = first
    canvas[: second.shape[0], left:] = second
    chosen = _spread(found.points0, count, seed)
    color = _wheel()[np.arange(len(chosen)) * 55 // max(len(chosen), 1)] * 255
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture, "RGBA")
    for i, rgb in zip(chosen.tolist(), color.astype(int).tolist(), strict=True):
        (x0, y0), (x1, y1) = found.points0[i].tolist(), found.points1[i].tolist()
        pen.line([(x0, y0), (x1 + left, y1)], fill=(*rgb, 150), width=1)
        for x, y in ((x0, y0), (x1 + left, y1)):
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=(*rgb, 255), outline=(255, 255, 255, 255))
    return np.asarray(picture)


def _spread(points: Tensor, count: int, seed: int) -> Tensor:
    """Indices of points far from one another, by farthest points from a random one."""
    n = len(points)
    if n <= count:
        return torch.arange(n)
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(n, (1,), generator=generator))]
    far = (points - points[chosen[0]]).norm(dim=1)
    while len(chosen) < count:
        chosen.append(int(far.argmax()))
        far = torch.minimum(far, (points - points[chosen[-1]]).norm(dim=1))
    return torch.tensor(chosen)


def write_flow_page(
    path: str | Path,
    image0: Tensor,
    image1: Tensor,
    found: ImageMatches,
    *,
    names: tuple[str, str] = ("image 0", "image 1"),
    measures: dict[str, object] | None = None,
) -> None:
    """A page with a slider between image 0 and image 1 as the flow brings it there; opens offline.

    Args:
        path: the HTML file; written whole or not at all.
        image0: (3, H, W) in [0, 1].
        image1: (3, H1, W1).
        found: what `match_images` gave.
        names: how the page calls the two images.
        measures: names and numbers for a table.

    Raises:
        ValueError: the file cannot be written.
    """
    warped, inside = warp_back(image1[None], found.flow[None])
    grey = torch.full_like(warped[0], 0.5)
    brought = torch.where(inside, warped[0], grey)
    H, W = image0.shape[1:]
    fitted = torch.nn.functional.interpolate(image1[None], size=(H, W), mode="bilinear", align_corners=False)[
        0
    ]
    sources = [_source(as_picture(x)) for x in (image0, brought, fitted)]
    coarse = found.flow[:, ::4, ::4]
    data = {
        "warped": sources[1],
        "raw": sources[2],
        "size": [W, H],
        "step": 4,
        "u": coarse[0].round(decimals=1).tolist(),
        "v": coarse[1].round(decimals=1).tolist(),
    }
    shown = [
        card("Matches", image(draw_image_matches(image0, image1, found), "matches"), wide=True),
        card("Flow", image(flow_colors(found.flow), "the flow as colours")),
    ]
    if measures:
        shown.append(card("Measures", table(measures)))
    write_page(
        path,
        f"{names[0]} to {names[1]}",
        _SLIDER.format(under=html.escape(sources[0]), over=html.escape(sources[1])) + cards(shown),
        heading=f"From {names[0]} to {names[1]}",
        lead=_LEAD,
        scripts=("flow_page.js",),
        data=data,
    )


def _source(picture: Array) -> str:
    """A picture as the source of an image element: JPEG, as pages of photographs are large otherwise."""
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def draw_features(image: Tensor, features: Tensor, groups: Tensor) -> Array:
    """A picture, its features as colours (three principal components), and the groups of its pixels.

    Args:
        image: (3, H, W) in [0, 1].
        features: (D, h, w).
        groups: (h, w) int64.

    Returns:
        (H, 3 W + 24, 3) uint8.
    """
    D = check_shape(features, "D h w", "features")["D"]
    H, W = image.shape[1:]
    x = features.flatten(1).T.double()
    x = x - x.mean(0)
    axes = torch.linalg.svd(x, full_matrices=False).Vh[: min(3, D)]
    shades = x @ axes.T
    shades = (shades / (3 * shades.std(0).clamp(min=1e-9)) + 0.5).clamp(0, 1)
    shades = torch.nn.functional.pad(shades, (0, 3 - shades.shape[1]), value=0.5)
    colors = shades.T.reshape(3, *features.shape[1:]).float()
    wheel = torch.from_numpy(_wheel()).float()
    marks = wheel[(groups * 55 // max(int(groups.max()) + 1, 1)).clamp(max=54)].permute(2, 0, 1)
    gap = torch.ones(3, H, _GAP)
    shown = [torch.nn.functional.interpolate(c[None], size=(H, W))[0] for c in (colors, marks)]
    return as_picture(torch.cat([image, gap, shown[0], gap, shown[1]], dim=2))
