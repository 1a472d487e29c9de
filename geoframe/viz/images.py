"""Pictures of images: canonical colours of a pixel map, points, numbers for each pixel, contact sheets, pairs.

A picture is (H, W, 3) uint8 sRGB. Every function takes an image as (3, H, W) in [0, 1] or as a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from geoframe._check import check_float, check_shape
from geoframe._types import Array
from geoframe.pixels import PixelMap, PixelMatches
from geoframe.viz.clouds import is_light, keypoint_colors
from geoframe.viz.surfaces import as_numpy, canonical_colors, sheet

_EDGE = (255, 255, 255)
# from low to high: dark violet, red, orange, pale yellow; told apart in grey too
_HEAT = ((0.17, 0.07, 0.30), (0.62, 0.15, 0.38), (0.92, 0.42, 0.25), (0.98, 0.93, 0.66))


def as_picture(image: Any) -> Array:
    """An image (3, H, W) floating in [0, 1] as a picture (H, W, 3) uint8; a picture as it is.

    Raises:
        TypeError, ValueError: another type or shape.
    """
    if not isinstance(image, torch.Tensor):
        image = np.asarray(image)
        if image.dtype == np.uint8:
            check_shape(image, "H W 3", "image")
            return image
        image = torch.as_tensor(image)
    check_shape(check_float(image, "image"), "3 H W", "image")
    values = image.detach().float().clamp(0, 1).nan_to_num_(0).mul_(255).add_(0.5).to(torch.uint8)
    return values.movedim(0, -1).contiguous().cpu().numpy()


def draw_pixel_map(
    pixels: PixelMap,
    image: Any = None,
    *,
    colors: Any = None,
    opacity: float = 0.65,
    fade: bool = True,
    outline: bool = True,
) -> Array:
    """The surface's colours on the image: the same colour is the same place of the surface, in every image.

    Args:
        pixels: the pixel map (H, W).
        image: (3, H, W) in [0, 1] or a picture; None draws on white, at full opacity.
        colors: (V, 3) sRGB in [0, 1] of the surface's vertices; None takes `canonical_colors`.
        opacity: of the colours, in [0, 1].
        fade: let the image show through where the confidence is low.
        outline: draw the border of the mask as a white line, on an image.

    Returns:
        (H, W, 3) uint8 sRGB.

    Raises:
        ValueError: an image of another size, another number of colours.
    """
    colors = canonical_colors(pixels.surface) if colors is None else as_numpy(colors)
    check_shape(colors, f"{pixels.surface.n_verts} 3", "colors")
    mask, sure = as_numpy(pixels.mask), as_numpy(pixels.confidence)
    table = torch.as_tensor(colors, dtype=torch.float32, device=pixels.mask.device)
    over = as_numpy(pixels.carry(table))[mask] * 255
    if image is None:
        picture = np.full((*pixels.size, 3), 255, np.uint8)
        opacity, outline = 1.0, False
    else:
        picture = _of_size(image, pixels.size).copy()
    share = opacity * (sure[mask] if fade else np.ones(int(mask.sum()), np.float32))[:, None]
    picture[mask] = (picture[mask] * (1 - share) + over * share + 0.5).clip(0, 255).astype(np.uint8)
    if outline:
        picture[_border(mask)] = _EDGE
    return picture


def _of_size(image: Any, size: tuple[int, int]) -> Array:
    picture = as_picture(image)
    if picture.shape[:2] != size:
        raise ValueError(f"image: expected {size[0]} x {size[1]} as the map, found {picture.shape[:2]}")
    return picture


def _border(mask: Array) -> Array:
    """(H, W) foreground pixels with a neighbour outside the foreground; the image's own border does not count."""
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inside)


def draw_values(values: Any, *, mask: Any = None, low: float = 0.0, high: float = 1.0) -> Array:
    """A number for each pixel as a colour, dark where it is low: a confidence, an error.

    Args:
        values: (H, W); NaN is drawn white.
        mask: (H, W) bool, outside of which white is drawn; or None.
        low: the number that is darkest.
        high: the number that is brightest.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    values = as_numpy(values).astype(np.float64)
    check_shape(values, "H W", "values")
    if not high > low:
        raise ValueError(f"high: expected a number above low = {low}, found {high}")
    shown = np.isfinite(values) & (True if mask is None else as_numpy(mask))
    t = ((np.where(shown, values, low) - low) / (high - low)).clip(0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    picture = np.stack([np.interp(t, steps, channel) for channel in np.array(_HEAT).T], -1)
    return np.where(shown[..., None], picture * 255 + 0.5, 255).astype(np.uint8)


def draw_points(
    image: Any,
    points: Any,
    *,
    names: Sequence[str] = (),
    colors: Any = None,
    visible: Any = None,
    scale: int | None = None,
) -> Array:
    """Points on an image as discs, with their names beside them.

    Args:
        image: (3, H, W) in [0, 1] or a picture.
        points: (L, 2) pixel x, pixel y; NaN is not drawn.
        names: one for each point, or none.
        colors: (L, 3) sRGB in [0, 1]; None takes colours that differ from point to point.
        visible: (L,) bool; points that are not visible are drawn as rings. None takes all as visible.
        scale: how many times larger the picture is drawn, a whole number; None enlarges small images until their
            longer side has 480 pixels or more.

    Returns:
        (scale H, scale W, 3) uint8 sRGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture, points = as_picture(image), as_numpy(points).astype(np.float64)
    L = check_shape(points, "L 2", "points")["L"]
    if len(names) not in (0, L):
        raise ValueError(f"names: expected one for each of the {L} points, or none, found {len(names)}")
    palette = keypoint_colors(L) if colors is None else as_numpy(colors)
    check_shape(palette, f"{L} 3", "colors")
    solid = np.ones(L, bool) if visible is None else as_numpy(visible).astype(bool)
    check_shape(solid, f"{L}", "visible")
    height, width = picture.shape[:2]
    times = max(-(-480 // max(height, width)), 1) if scale is None else scale
    canvas = Image.fromarray(picture).resize((width * times, height * times), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    r = max(3.0, 0.009 * max(canvas.size))
    font = ImageFont.load_default(size=round(2.6 * r))
    for i in range(L):
        if not np.isfinite(points[i]).all():
            continue
        x, y = points[i] * times
        tint = tuple(int(255 * v) for v in palette[i])
        rim = (30, 30, 30) if is_light(palette[i]) else _EDGE
        box = (x - r, y - r, x + r, y + r)
        if solid[i]:
            draw.ellipse(box, fill=tint, outline=rim, width=max(1, round(r / 4)))
        else:
            draw.ellipse(box, outline=tint, width=max(2, round(r / 2.5)))
        if len(names):
            left = x > canvas.size[0] / 2  # the name runs towards the middle
            at = (x - 1.5 * r, y) if left else (x + 1.5 * r, y)
            draw.text(
                at,
                names[i],
                fill=tint,
                font=font,
                anchor="rm" if left else "lm",
                stroke_width=2,
                stroke_fill=rim,
            )
    return np.asarray(canvas)


def contact_sheet(
    images: Sequence[Any], titles: Sequence[str] = (), *, columns: int = 4, size: int | None = None
) -> Array:
    """Images of any sizes in rows on white, each in a cell of its own, with its title below.

    Args:
        images: (3, H, W) in [0, 1] or pictures.
        titles: one for each image, or none.
        columns: images a row, fewer where there are fewer images.
        size: of a cell's longer side in pixels; None takes the longest side of all images, at least 160.

    Returns:
        (H, W, 3) uint8 sRGB.

    Raises:
        ValueError: no image, another number of titles.
    """
    pictures = [as_picture(image) for image in images]
    if not pictures:
        raise ValueError("images: expected at least one, found none")
    if len(titles) not in (0, len(pictures)):
        raise ValueError(f"titles: expected one for each of the {len(pictures)} images, found {len(titles)}")
    sides = np.array([p.shape[:2] for p in pictures])
    longest = max(int(sides.max()), 160) if size is None else size
    height, width = (sides * (longest / sides.max(1, keepdims=True))).max(0).round().astype(int)
    cell = (max(int(height), 1), max(int(width), 1))  # holds each of them at that size
    return sheet([_fitted(p, cell) for p in pictures], titles, columns=columns)


def _fitted(picture: Array, cell: tuple[int, int], margin: int = 2) -> Array:
    """The picture as large as it can be in the middle of a white cell (height, width)."""
    from PIL import Image

    room = [max(n - 2 * margin, 1) for n in cell]
    unit = min(room[0] / picture.shape[0], room[1] / picture.shape[1])
    height, width = (max(round(unit * n), 1) for n in picture.shape[:2])
    kind = Image.Resampling.NEAREST if unit >= 2 else Image.Resampling.LANCZOS
    out = np.full((*cell, 3), 255, np.uint8)
    top, left = (cell[0] - height) // 2, (cell[1] - width) // 2
    out[top : top + height, left : left + width] = np.asarray(
        Image.fromarray(picture).resize((width, height), kind)
    )
    return out


def draw_correspondence(
    image1: Any, image2: Any, matches: PixelMatches, *, n: int = 24, least: float = 0.0
) -> Array:
    """Two images side by side with pixels of the first and where they are seen in the second, in the same colours.

    Args:
        image1: (3, H1, W1) in [0, 1] or a picture: the source of the matches.
        image2: (3, H2, W2): their target.
        matches: as of `PixelMap.correspond`.
        n: number of matches drawn, spread over the first image.
        least: matches of less confidence are not drawn.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    from geoframe.surface import farthest_points

    source, target = as_numpy(matches.source), as_numpy(matches.target)
    kept = np.flatnonzero(np.isfinite(target).all(1) & (as_numpy(matches.confidence) >= least))
    if len(kept) > n:
        flat = torch.from_numpy(np.pad(source[kept], ((0, 0), (0, 1)))).double()
        kept = kept[as_numpy(farthest_points(flat, n))]
    kept = kept[np.lexsort((source[kept, 1], source[kept, 0]))]
    halves = [draw_points(image1, source[kept]), draw_points(image2, target[kept])]
    return contact_sheet(halves, columns=2)
