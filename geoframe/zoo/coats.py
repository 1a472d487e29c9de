"""Coats drawn at random on the triangulation of a canonical surface: colours, patterns, white markings, clothes.

A `Wardrobe` holds once what all coats of a surface are mixed of: how much each vertex belongs to a region or pattern,
and smooth random fields. A coat is then a few products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from geoframe._cache import cached_arrays
from geoframe._types import Array
from geoframe.zoo import _cage
from geoframe.zoo.animals import individual
from geoframe.zoo.rig import Rig
from geoframe.zoo.textures import coat_recipe, region_share

_NATURAL = np.array(  # colours of fur and hide
    [
        *((0.10, 0.08, 0.07), (0.20, 0.13, 0.10), (0.33, 0.19, 0.11), (0.45, 0.25, 0.14), (0.55, 0.33, 0.18)),
        *((0.60, 0.42, 0.26), (0.72, 0.55, 0.36), (0.82, 0.70, 0.52), (0.90, 0.84, 0.72), (0.94, 0.92, 0.88)),
        *((0.75, 0.73, 0.71), (0.52, 0.50, 0.49), (0.34, 0.33, 0.33), (0.42, 0.18, 0.10), (0.62, 0.30, 0.13)),
    ]
)
_REGIONS = ("muzzle", "mane", "tail", "feet", "legs", "ears", "head", "horns", "ruff", "tuft")
_N_FIELDS = 24
_VERSION = 1  # of what the disk cache holds: raise it when wardrobes are made in another way


@dataclass(frozen=True, eq=False)
class Wardrobe:
    """What the coats of a species on a triangulation of V vertices are mixed of.

    Attributes:
        name: the species.
        usual: (V, 3) the coat in which it is usually seen.
        regions: name -> (V,) how much a vertex belongs there.
        along: (V,) number of the ring of the body, less than 0 on the tail.
        around: (V,) 0 on the back, 1 at the belly.
        limb: (V,) number of the ring of the limb, 0 on the body.
        side: (V,) -1 left, +1 right.
        fore: (V,) 1 on the forelegs, -1 on the hind legs.
        fields: (24, V) smooth random fields, rough ones last, of mean 0 and variance 1.
        patterns: name -> (V,) share of a second colour.
    """

    name: str
    usual: Array
    regions: Mapping[str, Array]
    along: Array
    around: Array
    limb: Array
    side: Array
    fore: Array
    fields: Array
    patterns: Mapping[str, Array]


@lru_cache(maxsize=64)
def wardrobe(r: Rig) -> Wardrobe:
    """The wardrobe of a rig; the same object at every call."""
    given = ("wardrobe", _VERSION, r.name, r.relief, r.cage, r.points.faces, r.points.weights)
    x = cached_arrays(given, partial(_wardrobe_arrays, r))
    regions = {n.partition(" ")[2]: a for n, a in x.items() if n.startswith("region ")}
    patterns = {n.partition(" ")[2]: a for n, a in x.items() if n.startswith("pattern ")}
    along, around, limb, side, fore, fields = (
        x[n] for n in ("along", "around", "limb", "side", "fore", "fields")
    )
    return Wardrobe(r.name, x["usual"], regions, along, around, limb, side, fore, fields, patterns)


def _wardrobe_arrays(r: Rig) -> dict[str, Array]:
    """All of a wardrobe, as arrays for the disk cache."""
    keys = _cage.cage().keys
    limb = np.array([k[0].partition("_")[0] in ("fore", "hind") for k in keys])
    ring = np.array([_cage.LIMB_RINGS if "_digit" in k[0] else k[2] for k in keys], float)
    along = np.array(
        [
            {"body": k[2], "nose": 27.0, "rump": -0.5, "ear": 16.5, "horn": 17.5, "tail": -1.0 - k[2]}.get(
                k[0], 9.5 if k[0].startswith("fore") else 1.5
            )
            for k in keys
        ],
        float,
    )
    around = np.array([(1 - np.cos(2 * np.pi * k[3] / 12)) / 2 if k[0] == "body" else 0.5 for k in keys])
    side = np.array([{"left": -1.0, "right": 1.0}.get(_cage.side_of(k), 0.0) for k in keys])
    fore = np.array([{"fore": 1.0, "hind": -1.0}.get(k[0].partition("_")[0], 0.0) for k in keys])
    on = {n: r.smooth @ x for n, x in (("along", along), ("around", around), ("limb", ring * limb))}
    place = r.points.on(individual("giraffe", 0)[1])
    own = r.smooth @ r.cage + r.relief
    fields = _fields(own / np.ptp(own[:, 0]))
    two_tone = np.clip((r.smooth @ np.where(limb, 2.0 * (ring > 3), 2 * around)) / 2 - 0.5, 0, 1)
    phase = np.where(on["limb"] > 0.5, 0.9 * on["limb"], 0.7 * on["along"] + 0.1 * np.sin(1.3 * place[:, 1]))
    patterns = {
        "stripes": _step(np.sin(2 * np.pi * phase), 5),
        "broad_stripes": _step(np.sin(np.pi * phase) + 0.3 * fields[6], 5),
        "two_tone": _step(2 * two_tone - 0.5, 6),
        "spots": _spots(place, own, 0.5, 260),
        "large_spots": _spots(place, own, 0.62, 90),
        "patches": 1 - _spots(place, own, 0.75, 120),
    }
    out = {
        **on,
        "usual": _usual(r),
        "side": np.sign(r.smooth @ side),
        "fore": np.sign(r.smooth @ fore),
        "fields": fields,
        **{f"region {n}": region_share(n, r.smooth) for n in _REGIONS},
        **{f"pattern {n}": x for n, x in patterns.items()},
    }
    return {n: x.astype(np.float32) for n, x in out.items()}


def draw_coat(w: Wardrobe, rng: np.random.Generator) -> Array:
    """(V, 3) colours in [0, 1] of one animal."""
    kind = rng.random()
    if kind < 0.3:
        color = np.clip(w.usual * np.float32(rng.uniform(0.6, 1.25) * rng.normal(1, 0.07, 3)), 0, 1)
    elif kind < 0.93:
        color = _natural(w, rng)
    else:
        color = _anything(w, rng)
    color = _markings(w, color, rng)
    rough = rng.uniform(0, 0.16)
    first = int(rng.integers(0, 16))
    tone = np.float32(rng.normal(0, rough / np.sqrt(8), 8)) @ w.fields[first : first + 8]
    hue = np.float32(1 + rng.normal(0, 0.15, 3))
    return np.clip(color * (1 + tone[:, None] * hue), 0.01, 1)


def _natural(w: Wardrobe, rng: np.random.Generator) -> Array:
    """A colour of hide, a pattern in a second one, and regions in a third."""
    first, second, third = (_hide_color(rng) for _ in range(3))
    share: Array = np.zeros(len(w.along), np.float32)
    kind = rng.random()
    if kind < 0.3:  # patches with irregular borders
        field = rng.normal(0, 1, 6).astype(np.float32) @ w.fields[(a := rng.integers(0, 10)) : a + 6] / 2.4
        share = _step(field - rng.uniform(-0.5, 1.2), rng.uniform(3, 25))
    elif kind < 0.5:
        share = w.patterns[_pick(tuple(w.patterns), rng)]
    elif kind < 0.6:  # a gradient from back to belly or from head to tail
        t = w.around if rng.random() < 0.6 else w.along / 26
        share = np.clip((t - rng.uniform(0.1, 0.5)) * rng.uniform(1, 4), 0, 1)
    color = np.float32(first) + share[:, None] * np.float32(second - first)
    if rng.random() < 0.45:  # dark points, as of a bay horse
        dark = third * rng.uniform(0.1, 0.6)
        names = ("mane", "tail", "feet", "muzzle", *(("legs",) if rng.random() < 0.5 else ()))
        for name in names:
            color = _blend(color, w.regions[name], dark)
    elif rng.random() < 0.5:
        for name in ("mane", "tail"):
            color = _blend(color, w.regions[name], third)
    for name in _REGIONS:
        if rng.random() < 0.06:
            color = _blend(color, w.regions[name], _hide_color(rng))
    return color


def _anything(w: Wardrobe, rng: np.random.Generator) -> Array:
    """Colours of no animal: the shape alone has to tell."""
    mix = np.float32(rng.normal(0, 0.6, (3, 8))) @ w.fields[(a := rng.integers(0, 16)) : a + 8] / np.sqrt(8)
    return np.clip(np.float32(rng.random(3)) + mix.T * np.float32(rng.uniform(0.2, 1)), 0, 1)


def _markings(w: Wardrobe, color: Array, rng: np.random.Generator) -> Array:
    """White socks, a blaze, a pale belly, a dorsal stripe, dark eyes and nose."""
    white = np.array([0.93, 0.91, 0.88]) * rng.uniform(0.8, 1.07)
    if rng.random() < 0.35:
        top = rng.uniform(5, 11)
        for side in (-1, 1):
            for fore in (-1, 1):
                if rng.random() < 0.6:
                    mine = (w.side == side) & (w.fore == fore) & (w.limb > 1)
                    color = _blend(color, mine * _step(w.limb - top - rng.uniform(-1, 1), 4), white)
    if rng.random() < 0.3:
        width = rng.uniform(0.03, 0.25)
        head = _step(w.along - rng.uniform(17.5, 21), 4) * _step(rng.uniform(24, 28) - w.along, 4)
        color = _blend(color, head * _step((width - w.around) / width, 4), white)
    if rng.random() < 0.15:
        low = _step(w.around - rng.uniform(0.6, 0.9), 12) * (w.limb < 1) * (w.along > 0)
        color = _blend(color, low, white)
    if rng.random() < 0.08:
        color = _blend(color, _step(0.06 - w.around, 60) * (w.limb < 1), _hide_color(rng) * 0.4)
    if rng.random() < 0.5:
        color = _blend(color, 0.8 * _step(w.along - 25.3, 6), rng.uniform(0.05, 0.35, 3))
    return color


def tack(w: Wardrobe, color: Array, rng: np.random.Generator) -> Array:
    """Saddle, saddle cloth, girth and bridle painted on (V, 3) colours."""
    color = color.copy()
    body = (w.limb < 1.5) * 1.0
    cloth, leather = rng.random(3), np.array([0.25, 0.14, 0.08]) * rng.uniform(0.3, 1.6)
    a, b = rng.uniform(4.5, 6.5), rng.uniform(8.5, 10.5)
    if rng.random() < 0.8:
        region = (
            body
            * _step(w.along - a, 4)
            * _step(b - w.along, 4)
            * _step(rng.uniform(0.25, 0.7) - w.around, 20)
        )
        color = _blend(color, region, cloth)
    if rng.random() < 0.7:
        region = body * _step(w.along - a - 0.6, 5) * _step(b - 0.6 - w.along, 5) * _step(0.22 - w.around, 25)
        color = _blend(color, region, leather)
        color = _blend(color, body * _step(0.35 - abs(w.along - b + 1), 12), leather)
    if rng.random() < 0.8:
        strap = _step(0.3 - abs(w.along - 22), 10) + _step(0.3 - abs(w.along - 17.2), 10)
        color = _blend(color, np.clip(strap, 0, 1), leather if rng.random() < 0.7 else cloth)
    return color


def collar(w: Wardrobe, color: Array, rng: np.random.Generator) -> Array:
    """A collar painted on (V, 3) colours."""
    ring = rng.uniform(13, 15.5)
    return _blend(color, (w.limb < 0.5) * _step(0.45 - abs(w.along - ring), 8), rng.random(3))


def _hide_color(rng: np.random.Generator) -> Array:
    i, j = rng.integers(0, len(_NATURAL), 2)
    t = rng.uniform(0, 0.5)
    return np.clip(((1 - t) * _NATURAL[i] + t * _NATURAL[j]) * rng.normal(1, 0.05, 3), 0.02, 1)


def _blend(color: Array, share: Array, other: Array) -> Array:
    """Mix another colour into (V, 3) colours, in place."""
    from geoframe.zoo._bend import blend

    blend(color, np.asarray(share, np.float32), np.asarray(other, np.float32))
    return color


def _step(x: Array, steepness: float) -> Array:
    """0 to 1, a half where x is 0."""
    return np.clip(np.float32(0.5) + np.float32(0.25 * steepness) * x, 0, 1)


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _fields(place: Array) -> Array:
    """(24, V) sums of waves over space, from half a wave along the body to many."""
    rng = np.random.default_rng(7)
    out = np.empty((_N_FIELDS, len(place)))
    for i in range(_N_FIELDS):
        wave = 3.0 * 1.14**i
        direction = rng.normal(0, wave, (12, 3))
        out[i] = np.sin(place @ direction.T + rng.uniform(0, 2 * np.pi, 12)).sum(1)
    out -= out.mean(1, keepdims=True)
    return out / out.std(1, keepdims=True)


def _spots(place: Array, own: Array, size: float, n: int) -> Array:
    """(V,) round spots around n points that lie apart."""
    from scipy.spatial import cKDTree

    keep, gap = [0], np.linalg.norm(place - place[0], axis=1)
    while len(keep) < n:
        keep.append(int(gap.argmax()))
        gap = np.minimum(gap, np.linalg.norm(place - place[keep[-1]], axis=1))
    near = cKDTree(place[keep]).query(place)[0]
    return _step(size - near / gap.max() * 1.2, 14)


def _usual(r: Rig) -> Array:
    """(V, 3) the usual coat, with eyes and nose."""
    return r.points.on(coat_recipe(r.name))
