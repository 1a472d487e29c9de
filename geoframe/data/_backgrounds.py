"""What is behind an object: landscapes, rooms, noise, gradients, shapes, photographs; (S, S, 3) float32 in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from geoframe._types import Array, Floats

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
def noise_tiles() -> Floats:
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


def noise(rng: np.random.Generator, rows: Floats, cols: Floats, kind: int | None = None) -> Floats:
    """Noise at whole rows (h,) and columns (w,), from a random place of a random tile; (h, w)."""
    y, x, k = rng.integers(0, _TILE, 3).tolist()
    tile = noise_tiles()[k % 24 if kind is None else kind]
    return tile[np.ix_((rows.astype(np.int64) + y) % _TILE, (cols.astype(np.int64) + x) % _TILE)]


def textured(
    rng: np.random.Generator, size: int, color: Floats, strength: float, rows: Floats | None = None
) -> Floats:
    """(h, size, 3) a colour with noise of light and of hue."""
    from geoframe.data._loops import texture

    zoom = rng.uniform(0.4, 3.0) * 64 / size
    cols = np.arange(size) * zoom
    rows = cols if rows is None else rows * zoom
    at = rng.integers(0, _TILE, 4)
    first, second = rng.integers(0, 24, 2).tolist()
    out = np.empty((len(rows), size, 3), np.float32)
    tiles = noise_tiles()
    hue = 0.35 * strength * rng.normal(0, 0.4, 3)
    texture(tiles[first], tiles[second], rows, cols, at, color, strength * (0.35 + color), hue, out)
    return out


def background(
    rng: np.random.Generator, size: int, horizon: tuple[float, float], photos: Sequence[Array] = ()
) -> Floats:
    """A background.

    Args:
        rng: what is drawn comes from here.
        size: S.
        horizon: row of the horizon in the middle column, in pixels, and its slope.
        photos: (h, w, 3) uint8 each; if any, most backgrounds are parts of them.
    """
    if len(photos) and rng.random() < 0.75:
        return _photograph(rng, size, photos)
    kinds: tuple[Callable[..., Floats], ...] = (_landscape, _noise, _studio, _shapes, _room)
    chosen = int(np.searchsorted((0.52, 0.66, 0.76, 0.87), rng.random()))
    return np.clip(kinds[chosen](rng, size, horizon), 0, 1)


def _landscape(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Floats:
    """Sky, something far, ground that gets coarser towards the viewer; now and then a fence."""
    row, slope = horizon
    y, x = np.mgrid[0.5:size, 0.5:size]
    depth = (y - (row + slope * (x - size / 2))).astype(np.float32)  # below the horizon
    sky = _SKIES[rng.integers(len(_SKIES))] * rng.uniform(0.7, 1.1)
    t = np.clip(-depth / size, 0, 1)[..., None]
    cloud = noise(rng, np.arange(size) * 64 / size, np.arange(size) * 64 / size, int(rng.integers(4, 8)))
    out = sky * (1 - 0.35 * t) + 0.25 * t
    out = out + np.clip(cloud * rng.uniform(0, 0.25), 0, 1)[..., None]
    ground = _pick(_GROUNDS, rng)
    rows = 18 * np.log1p(np.clip(np.arange(size) + 0.5 - row, 0, None) / (0.06 * size)) * size / 64
    near = textured(rng, size, ground, rng.uniform(0.04, 0.28), rows)
    out = np.where((depth > 0)[..., None], near, out)
    for _ in range(rng.integers(1, 4)):  # rows of trees, hills, walls
        high = abs(rng.normal(0, 0.28)) * size + 1
        edge = noise(
            rng, np.zeros(1), np.arange(size) * rng.uniform(0.2, 2) * 64 / size, int(rng.integers(3, 8))
        )
        top = high * (1 + rng.uniform(0.05, 0.6) * edge[0])
        far = textured(rng, size, _pick(_FAR, rng) * rng.uniform(0.6, 1.7), rng.uniform(0.03, 0.3))
        low = rng.uniform(-0.02, 0.05) * size
        out = np.where(((depth < low) & (depth > -top[None]))[..., None], far, out)
    if rng.random() < 0.25:
        out = _fence(rng, size, out, depth)
    return out.astype(np.float32)


def _fence(rng: np.random.Generator, size: int, out: Floats, depth: Floats) -> Floats:
    color = rng.uniform(0.1, 0.95) * np.array([1, 0.97, 0.92])
    top, thick = rng.uniform(0.05, 0.3) * size, rng.uniform(0.008, 0.03) * size
    here = np.zeros(depth.shape, bool)
    for i in range(rng.integers(1, 4)):
        here |= np.abs(depth + top * (0.9 - 0.4 * i)) < thick
    step = rng.uniform(0.15, 0.5) * size
    post = (np.arange(size) + rng.uniform(0, step)) % step < 2 * thick
    here |= post[None] & (depth > -top) & (depth < 0.3 * top)
    return np.where(here[..., None], color, out)


def _noise(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Floats:
    """Noise of any colour."""
    return textured(rng, size, rng.random(3), rng.uniform(0.05, 0.6))


def _studio(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Floats:
    """A plain wall, or a gradient between two colours."""
    first = np.full(3, rng.uniform(0.5, 1)) if rng.random() < 0.5 else rng.random(3)
    second = np.clip(first + rng.normal(0, 0.25, 3), 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    return (first + t * (second - first)).astype(np.float32)


def _shapes(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Floats:
    """Discs, bars and boxes of plain and noisy colours."""
    out = textured(rng, size, rng.random(3), rng.uniform(0.0, 0.3))
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    for _ in range(rng.integers(3, 14)):
        angle, (cx, cy) = rng.uniform(0, np.pi), rng.random(2)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        a, b = rng.uniform(0.03, 0.35, 2)
        inside = (u / a) ** 2 + (v / b) ** 2 < 1 if rng.random() < 0.5 else (abs(u) < a) & (abs(v) < b)
        fill = (
            textured(rng, size, rng.random(3), rng.uniform(0, 0.25)) if rng.random() < 0.3 else rng.random(3)
        )
        out = np.where(inside[..., None], fill, out)
    return out.astype(np.float32)


def _room(rng: np.random.Generator, size: int, horizon: tuple[float, float]) -> Floats:
    """A floor, a wall and boxes at the wall."""
    y, x = np.mgrid[0.5:size, 0.5:size]
    line = np.clip(horizon[0] + rng.uniform(0.05, 0.4) * size, 0.15 * size, size) + horizon[1] * (
        x - size / 2
    )
    wall = textured(
        rng, size, np.clip(rng.uniform(0.3, 0.95) + rng.normal(0, 0.08, 3), 0, 1), rng.uniform(0, 0.08)
    )
    floor = textured(
        rng, size, np.clip(rng.random(3) * 0.4 + rng.uniform(0.1, 0.5), 0, 1), rng.uniform(0.02, 0.2)
    )
    out = np.where((y > line)[..., None], floor, wall)
    for _ in range(rng.integers(0, 6)):
        a, w, h = rng.uniform(-0.2, 1) * size, rng.uniform(0.1, 0.5) * size, rng.uniform(0.1, 0.7) * size
        low = line + rng.uniform(-0.4, 0.25) * size
        box = (x > a) & (x < a + w) & (y < low) & (y > low - h)
        out = np.where(box[..., None], textured(rng, size, rng.random(3), rng.uniform(0, 0.15)), out)
    return out.astype(np.float32)


def _photograph(rng: np.random.Generator, size: int, photos: Sequence[Array]) -> Floats:
    """A random square of a random photograph, mirrored half of the times."""
    photo = photos[int(rng.integers(len(photos)))]
    h, w = photo.shape[:2]
    side = max(2, int(min(h, w) * rng.uniform(0.4, 1)))
    y, x = rng.integers(0, h - side + 1), rng.integers(0, w - side + 1)
    at = ((np.arange(size) + 0.5) * side / size).astype(np.int64)
    part = photo[np.ix_(y + at, x + (at[::-1] if rng.random() < 0.5 else at))]
    return part.astype(np.float32) / 255


def _pick(table: Floats, rng: np.random.Generator) -> Floats:
    color: Floats = np.clip(
        table[rng.integers(len(table))] * rng.uniform(0.7, 1.3) + rng.normal(0, 0.03, 3), 0, 1
    )
    return color
