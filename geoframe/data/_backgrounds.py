"""What is behind an object: landscapes, rooms, noise, gradients, shapes, photographs; (S, S, 3) float32 in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from geoframe._types import Array

_TILE = 256
_GROUNDS = np.array(
    [
        *((0.32, 0.42, 0.16), (0.22, 0.33, 0.12), (0.45, 0.50, 0.22), (0.55, 0.48, 0.30), (0.62, 0.53, 0.38)),
        *((0.45, 0.35, 0.25), (0.42, 0.42, 0.42), (0.75, 0.70, 0.58), (0.90, 0.91, 0.94), (0.30, 0.24, 0.18)),
        *((0.50, 0.47, 0.40), (0.38, 0.46, 0.20)),
    ]
)
_FAR = np.array(
    [
        *((0.10, 0.17, 0.08), (0.16, 0.24, 0.11), (0.25, 0.30, 0.16), (0.30, 0.25, 0.18), (0.35, 0.40, 0.45)),
        *((0.48, 0.42, 0.35), (0.06, 0.09, 0.05), (0.40, 0.28, 0.18)),
    ]
)
_SKIES = np.array(
    [
        (0.45, 0.62, 0.88),
        (0.62, 0.75, 0.90),
        (0.85, 0.88, 0.92),
        (0.25, 0.45, 0.78),
        (0.72, 0.72, 0.75),
        (0.93, 0.85, 0.75),
    ]
)


@cache
def noise_tiles() -> Array:
    """(24, 256, 256) periodic noise of mean 0 and variance 1, from 1/f^0.6 to 1/f^2.2."""
    rng = np.random.default_rng(11)
    fy, fx = np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None]
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf
    out = np.empty((24, _TILE, _TILE), np.float32)
    for i in range(24):
        power = 0.6 + 1.6 * (i % 8) / 7
        stretch = np.hypot(fy * (1, 3, 0.4)[i // 8], fx)
        stretch[0, 0] = np.inf
        spectrum = np.fft.rfft2(rng.normal(size=(_TILE, _TILE))) * stretch**-power
        tile = np.fft.irfft2(spectrum, (_TILE, _TILE))
        out[i] = (tile - tile.mean()) / tile.std()
    return out


def noise(rng: np.random.Generator, rows: Array, cols: Array, kind: int | None = None) -> Array:
    """Noise at rows (h,) and columns (w,) of 0 or more, from a random place of a random tile; (h, w)."""
    y, x, k = rng.integers(0, _TILE, 3).tolist()
    tile = noise_tiles()[k % 24 if kind is None else kind]
    r, c = rows.astype(np.int64), cols.astype(np.int64)
    down = tile[(r + y) % _TILE]
    down = down + (rows - r).astype(np.float32)[:, None] * (tile[(r + y + 1) % _TILE] - down)
    left = down[:, (c + x) % _TILE]
    return left + (cols - c).astype(np.float32) * (down[:, (c + x + 1) % _TILE] - left)


def textured(
    rng: np.random.Generator,
    size: int,
    color: Array,
    strength: float,
    rows: Array | None = None,
    *,
    out: Array | None = None,
    between: tuple[Array | float, Array | float] = (0.0, np.inf),
) -> Array:
    """A colour with noise of light and of hue.

    Args:
        rng: what is drawn comes from here.
        size: S.
        color: (3,).
        strength: of the noise.
        rows: (S,) where the rows lie, in pixels; evenly spaced if not given.
        out: (S, S, 3) is painted on; a new picture if not given.
        between: first row, and the row after the last one, of each column: what is painted.

    Returns:
        (S, S, 3), `out` where it is given.
    """
    from geoframe.data._loops import texture

    zoom = (0.45 + 2.55 * rng.random() ** 1.2) * 64 / size
    cols = np.arange(size) * zoom
    rows = cols if rows is None else rows * zoom
    at = rng.integers(0, _TILE, 6)
    first, second = int(at[4]) % 24, int(at[5]) % 24
    out = np.empty((size, size, 3), np.float32) if out is None else out
    tiles = noise_tiles()
    hue = 0.14 * strength * rng.normal(size=3)
    top, bottom = (np.broadcast_to(np.asarray(x, float), (size,)) for x in between)
    top, bottom = np.ascontiguousarray(top), np.ascontiguousarray(bottom)
    color = np.asarray(color, float)
    texture(
        tiles[first], tiles[second], rows, cols, at, color, strength * (0.35 + color), hue, top, bottom, out
    )
    return out


def background(
    rng: np.random.Generator, size: int, horizon: tuple[float, float], photos: Sequence[Array] = ()
) -> Array:
    """A background.

    Args:
        rng: what is drawn comes from here.
        size: S.
        horizon: row of the horizon in the middle column, in pixels, and its slope.
        photos: (h, w, 3) uint8 each; if any, most backgrounds are parts of them.
    """
    if len(photos) and rng.random() < 0.75:
        return _photograph(rng, size, photos)
    kinds: tuple[Callable[..., Array], ...] = (_landscape, _noise, _studio, _shapes, _room)
    chosen = int(np.searchsorted((0.6, 0.71, 0.79, 0.86), rng.random()))
    return np.clip(kinds[chosen](rng, size, horizon), 0, 1)


def _landscape(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Array:
    """Sky, something far, ground that gets coarser towards the viewer; now and then a fence."""
    row, slope = horizon
    across = np.arange(size) + 0.5
    line = row + slope * (across - size / 2)  # row of the horizon in each column
    sky = np.float32(_SKIES[rng.integers(len(_SKIES))] * rng.uniform(0.7, 1.1))
    t = np.clip((line - across[:, None]) / size, 0, 1).astype(np.float32)[..., None]
    step = np.arange(size) * (64 / size)
    cloud = np.float32(rng.uniform(0, 0.25)) * noise(rng, step, step, int(rng.integers(4, 8)))
    out = sky * (1 - np.float32(0.35) * t) + np.float32(0.25) * t
    out += np.maximum(cloud, 0)[..., None]
    ground = _pick(_GROUNDS, rng)
    rows = 18 * np.log1p(np.clip(across - row, 0, None) / (0.06 * size)) * size / 64
    textured(
        rng,
        size,
        ground * rng.uniform(0.9, 1.35),
        rng.uniform(0.04, 0.25),
        rows,
        out=out,
        between=(line, np.inf),
    )
    if rng.random() < 0.4:  # a strip of other ground
        low = line + rng.uniform(0.0, 0.4) * size
        wide = rng.uniform(0.02, 0.3) * size
        color = _pick(_GROUNDS, rng)
        textured(rng, size, color, rng.uniform(0.04, 0.25), rows, out=out, between=(low, low + wide))
    for _ in range(rng.integers(1, 4)):  # rows of trees, hills, walls
        high = abs(rng.normal(0, 0.28)) * size + 1
        zoom = rng.uniform(0.2, 2) * 64 / size
        edge = noise(rng, np.zeros(1), np.arange(size) * zoom, int(rng.integers(3, 8)))[0]
        top = high * (1 + rng.uniform(0.05, 0.6) * edge)
        color = _pick(_FAR, rng) * rng.uniform(0.6, 1.7)
        low = line + rng.uniform(-0.02, 0.05) * size
        textured(rng, size, color, rng.uniform(0.05, 0.42), out=out, between=(line - top, low))
    if rng.random() < 0.25:
        _fence(rng, out, line)
    return out


def _fence(rng: np.random.Generator, out: Array, line: Array) -> None:
    """Paints rails and posts on (S, S, 3)."""
    size = len(out)
    color = np.float32(rng.uniform(0.1, 0.95) * np.array([1, 0.97, 0.92]))
    top, thick = rng.uniform(0.05, 0.3) * size, rng.uniform(0.008, 0.03) * size
    depth = np.arange(size)[:, None] + 0.5 - line
    here = np.zeros(depth.shape, bool)
    for i in range(rng.integers(1, 4)):
        here |= np.abs(depth + top * (0.9 - 0.4 * i)) < thick
    step = rng.uniform(0.15, 0.5) * size
    post = (np.arange(size) + rng.uniform(0, step)) % step < 2 * thick
    here |= post[None] & (depth > -top) & (depth < 0.3 * top)
    out[here] = color


def _noise(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Array:
    """Noise of any colour."""
    return textured(rng, size, muted(rng), rng.uniform(0.05, 0.6))


def _studio(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Array:
    """A plain wall, or a gradient between two colours."""
    first = np.full(3, rng.uniform(0.5, 1)) if rng.random() < 0.5 else muted(rng)
    second = np.clip(first + rng.normal(0, 0.25, 3), 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    return (first + t * (second - first)).astype(np.float32)


def _shapes(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Array:
    """Discs, bars and boxes of plain and noisy colours."""
    out = textured(rng, size, muted(rng), rng.uniform(0.0, 0.3))
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    for _ in range(rng.integers(3, 14)):
        angle, (cx, cy) = rng.uniform(0, np.pi), rng.random(2)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        a, b = rng.uniform(0.03, 0.35, 2)
        inside = (u / a) ** 2 + (v / b) ** 2 < 1 if rng.random() < 0.5 else (abs(u) < a) & (abs(v) < b)
        fill = (
            textured(rng, size, muted(rng), rng.uniform(0, 0.25))[inside]
            if rng.random() < 0.3
            else muted(rng)
        )
        out[inside] = fill
    return out


def _room(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Array:
    """A floor, a wall and boxes at the wall."""
    across = np.arange(size) + 0.5
    line = np.clip(horizon[0] + rng.uniform(0.05, 0.4) * size, 0.15 * size, size)
    line = line + horizon[1] * (across - size / 2)
    wall = np.clip(rng.uniform(0.3, 0.95) + rng.normal(0, 0.08, 3), 0, 1)
    out = textured(rng, size, wall, rng.uniform(0, 0.08))
    floor = np.clip(rng.random(3) * 0.4 + rng.uniform(0.1, 0.5), 0, 1)
    textured(rng, size, floor, rng.uniform(0.02, 0.2), out=out, between=(line, np.inf))
    for _ in range(rng.integers(0, 6)):
        a, w, h = rng.uniform(-0.2, 1) * size, rng.uniform(0.1, 0.5) * size, rng.uniform(0.1, 0.7) * size
        low = line + rng.uniform(-0.4, 0.25) * size
        top = np.where((across > a) & (across < a + w), low - h, np.inf)
        textured(rng, size, muted(rng), rng.uniform(0, 0.15), out=out, between=(top, low))
    return out


def _photograph(rng: np.random.Generator, size: int, photos: Sequence[Array]) -> Array:
    """A random square of a random photograph, mirrored half of the times."""
    photo = photos[int(rng.integers(len(photos)))]
    h, w = photo.shape[:2]
    side = max(2, int(min(h, w) * rng.uniform(0.4, 1)))
    y, x = rng.integers(0, h - side + 1), rng.integers(0, w - side + 1)
    at = ((np.arange(size) + 0.5) * side / size).astype(np.int64)
    part = photo[np.ix_(y + at, x + (at[::-1] if rng.random() < 0.5 else at))]
    return part.astype(np.float32) / 255


def muted(rng: np.random.Generator) -> Array:
    """Any colour, most often not a vivid one."""
    color = rng.random(3)
    out: Array = color.mean() + (color - color.mean()) * rng.random() ** 1.5
    return out


def _pick(table: Array, rng: np.random.Generator) -> Array:
    color: Array = np.clip(
        table[rng.integers(len(table))] * rng.uniform(0.7, 1.3) + rng.normal(0, 0.03, 3), 0, 1
    )
    return color
