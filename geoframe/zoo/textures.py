"""Colours of the animals, functions of the point of the dense template: the same pattern at the same place of all.

The coordinates are those of the giraffe at rest, which spreads neck, body and legs most evenly, and the numbers of
the cage's rings along body and limbs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.sparse as sp
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geoframe._check import check_choice
from geoframe._types import Floats, Ints
from geoframe.zoo import _cage
from geoframe.zoo._remesh import Points
from geoframe.zoo.animals import Animal, individual

Color = tuple[float, float, float]

KINDS = ("plain", "spots", "stripes", "patches", "blotches", "two_tone")
_EYE, _NOSE = (0.07, 0.05, 0.05), (0.16, 0.12, 0.12)
# kind, first and second colour, then colours of regions
_COATS: dict[str, tuple[str, Color, Color, dict[str, Color]]] = {
    "bear": (
        "plain",
        (0.42, 0.28, 0.18),
        (0, 0, 0),
        {"muzzle": (0.62, 0.47, 0.34), "feet": (0.33, 0.22, 0.15)},
    ),
    "bird": ("two_tone", (0.36, 0.25, 0.17), (0.47, 0.34, 0.23), {}),
    "cat": (
        "stripes",
        (0.88, 0.58, 0.30),
        (0.70, 0.38, 0.16),
        {"muzzle": (0.97, 0.92, 0.86), "feet": (0.97, 0.93, 0.88)},
    ),
    "chimp": ("plain", (0.20, 0.17, 0.16), (0, 0, 0), {}),
    "cow": (
        "blotches",
        (0.96, 0.95, 0.93),
        (0.17, 0.14, 0.13),
        {"muzzle": (0.93, 0.76, 0.72), "horns": (0.85, 0.80, 0.68)},
    ),
    "dog": (
        "two_tone",
        (0.79, 0.59, 0.36),
        (0.97, 0.92, 0.84),
        {"ears": (0.55, 0.36, 0.20), "feet": (0.97, 0.92, 0.84)},
    ),
    "elephant": ("plain", (0.60, 0.59, 0.60), (0, 0, 0), {}),
    "giraffe": (
        "patches",
        (0.97, 0.87, 0.66),
        (0.70, 0.42, 0.20),
        {"muzzle": (0.88, 0.76, 0.60), "horns": (0.40, 0.26, 0.18), "tuft": (0.22, 0.15, 0.12)},
    ),
    "horse": (
        "plain",
        (0.55, 0.33, 0.20),
        (0, 0, 0),
        {
            "mane": (0.14, 0.10, 0.09),
            "tail": (0.14, 0.10, 0.09),
            "feet": (0.18, 0.13, 0.12),
            "muzzle": (0.33, 0.22, 0.17),
        },
    ),
    "human": ("plain", (0.87, 0.68, 0.56), (0, 0, 0), {}),
    "lion": (
        "two_tone",
        (0.86, 0.66, 0.38),
        (0.95, 0.84, 0.64),
        {"ruff": (0.50, 0.28, 0.13), "tuft": (0.36, 0.20, 0.10)},
    ),
    "sheep": (
        "plain",
        (0.96, 0.94, 0.89),
        (0, 0, 0),
        {"head": (0.30, 0.26, 0.25), "ears": (0.30, 0.26, 0.25), "legs": (0.30, 0.26, 0.25)},
    ),
    "zebra": (
        "stripes",
        (0.97, 0.97, 0.96),
        (0.11, 0.11, 0.12),
        {"muzzle": (0.15, 0.14, 0.14), "tuft": (0.11, 0.11, 0.12)},
    ),
}
_BARE = {"human", "bird", "chimp"}


def texture(
    member: Animal,
    kind: str = "plain",
    *,
    first: Color = (0.93, 0.86, 0.73),
    second: Color = (0.36, 0.22, 0.14),
) -> Tensor:
    """Colours of an animal's vertices: a pattern in two colours.

    Args:
        member: the animal, V vertices.
        kind: "plain", "spots" (round ones), "stripes" (around body and limbs), "patches" (large, with pale lines
            between them), "blotches" (few, irregular) or "two_tone" (`second` below).
        first: red, green and blue of the ground, in [0, 1].
        second: red, green and blue of the pattern, in [0, 1].

    Returns:
        (V, 3) in [0, 1].

    Raises:
        ValueError: unknown kind.
    """
    check_choice(kind, KINDS, "kind")
    return _at_vertices(member, _mix(first, second, _pattern(kind)))


def coat(member: Animal) -> Tensor:
    """(V, 3) colours in [0, 1] in which the species is usually seen, with eyes and nose."""
    return _at_vertices(member, _dense_coat(member.name, member.dense_rest.numpy()))


def coat_recipe(name: str) -> Floats:
    """(V, 3) the usual coat of a species at the vertices of the dense template."""
    return _dense_coat(name, individual(name, 0)[1])


def _dense_coat(species: str, rest: Floats) -> Floats:
    kind, first, second, regions = _COATS[species]
    colors = _mix(first, second, _pattern(kind))
    for name, color in {**_PORTRAITS.get(species, {}), **regions}.items():
        share = _region(name)[:, None]
        colors = (1 - share) * colors + share * np.array(color)
    number = _cage.cage().number
    reach = 0.5 * np.ptp(rest[[i for k, i in number.items() if k[:3] == ("body", "", 19)]], axis=0).max()
    spots: list[tuple[list[int], float, Color]] = [
        ([number["body", "", 19, 2], number["body", "", 19, 10]], 0.16, _EYE)
    ]
    if species not in _BARE | {"elephant"}:
        spots.append(([number["nose", "", 0, 2]], 0.22, _NOSE))
    for places, size, color in spots:
        gap = cKDTree(rest[places]).query(rest)[0]
        share = _above(1 - gap / (size * reach), 12)[:, None]
        colors = (1 - share) * colors + share * np.array(color)
    return colors


_PORTRAITS: dict[str, dict[str, Color]] = {
    "bird": {
        "head": (0.97, 0.96, 0.94),
        "tail": (0.95, 0.94, 0.92),
        "beak": (0.95, 0.72, 0.20),
        "shanks": (0.92, 0.70, 0.22),
    },
    "chimp": {"face": (0.72, 0.55, 0.45), "ears": (0.70, 0.53, 0.44), "feet": (0.45, 0.35, 0.30)},
    "human": {"hair": (0.22, 0.14, 0.10)},
}


def _at_vertices(member: Animal, dense_colors: Floats) -> Tensor:
    points = Points(member.truth.face.numpy(), member.truth.barycentric.numpy())
    return torch.as_tensor(points.on(dense_colors))


def _above(x: Floats, steepness: float) -> Floats:
    """0 to 1, a half where x is 0."""
    return 0.5 + 0.5 * np.tanh(0.5 * steepness * x)


def _mix(first: Color, second: Color, share: Floats) -> Floats:
    return (1 - share)[:, None] * np.array(first) + share[:, None] * np.array(second)


@cache
def _rings() -> tuple[Floats, Floats, Floats]:
    """(V,) ring numbers along the body and along the limbs, and how much a point belongs to a limb."""
    keys, smooth = _cage.cage().keys, _cage.template().smooth
    digit = np.array(["_digit" in k[0] for k in keys])
    part = np.array([k[0].partition("_")[0] for k in keys])
    ring = np.where(digit, _cage.LIMB_RINGS, [float(k[2]) for k in keys])
    limb = (part == "fore") | (part == "hind")
    along = np.select(
        [part == "body", part == "nose", part == "ear", part == "horn", part == "tail"],
        [ring, _cage.BODY_RINGS, 16.5, 17.5, -ring],
        0.0,
    )
    along = np.select([part == "fore", part == "hind"], [9.5, 1.5], along)
    return smooth @ along, smooth @ np.where(limb, ring, 0.0), smooth @ limb.astype(float)


@cache
def _pattern(kind: str) -> Floats:
    """(V,) share of the second colour, 0 to 1."""
    dense = individual("giraffe", 0)[1]
    if kind == "plain":
        return np.zeros(len(dense))
    body, limb, is_limb = _rings()
    if kind == "stripes":
        phase = np.where(is_limb > 0.5, 0.9 * limb + 0.25, 0.7 * body + 0.1 * np.sin(1.3 * dense[:, 1]))
        return _above(np.sin(2 * np.pi * phase), 7)
    if kind == "two_tone":
        low = np.array(
            [
                1 - np.cos(2 * np.pi * k[3] / 12) if k[0] == "body" else 2.0 * (k[2] > 3)
                for k in _cage.cage().keys
            ]
        )
        return _above(_cage.template().smooth @ low / 2 - 0.75, 9)
    n = {"spots": 900, "patches": 190, "blotches": 60}[kind]
    near, which, apart = _cells(dense, n)
    if kind == "spots":
        return _above(0.45 - near[:, 0] / apart, 20)
    if kind == "patches":
        return _above((near[:, 1] - near[:, 0]) / apart - 0.22, 14)
    return (np.random.default_rng(5).random(n) < 0.42)[which].astype(float)


def _cells(dense: Floats, n: int) -> tuple[Floats, Ints, float]:
    """Of n points spread over the surface the distances (V, 2) of the nearest two, the nearest (V,), and how far a
    place is from its nearest at most."""
    rng = np.random.default_rng(3)
    pool = dense[rng.permutation(len(dense))[: 40 * n]]
    keep, gap = [0], np.linalg.norm(pool - pool[0], axis=1)
    while len(keep) < n:
        keep.append(int(gap.argmax()))
        gap = np.minimum(gap, np.linalg.norm(pool - pool[keep[-1]], axis=1))
    near, which = cKDTree(pool[keep]).query(dense, k=2)
    return near, which[:, 0], float(gap.max())


@cache
def _region(name: str) -> Floats:
    """(V,) how much a point of the dense template belongs to a named region, 0 to 1."""
    return region_share(name, _cage.template().smooth)


def region_share(name: str, smooth: sp.csr_matrix) -> Floats:
    """(V,) how much a point belongs to a named region, 0 to 1; `smooth` (V, n) makes it of the cage's vertices."""

    def inside(key: _cage.Key) -> float:
        part, _, ring, k = key
        part, _, digit = part.partition("_digit")
        limb, body = part in ("fore", "hind"), part in ("body", "nose")
        ring = _cage.LIMB_RINGS if digit else (_cage.BODY_RINGS if part == "nose" else ring)
        ring_k = min(k, 12 - k) if part == "body" else 6
        return float(
            {
                "muzzle": body and ring >= 22,
                "beak": body and ring >= 21,
                "head": (body and ring >= 15) or part == "horn",
                "face": (body and ring >= 20) or (body and ring == 19 and ring_k >= 1),
                "hair": body and 16 <= ring <= 18 and ring_k <= 2,
                "ruff": body and 12 <= ring <= 16,
                "mane": (body and 12 <= ring <= 17 and ring_k == 0)
                or (body and 16 <= ring <= 18 and ring_k == 0),
                "tail": part == "tail",
                "tuft": part == "tail" and ring >= 5,
                "ears": part == "ear",
                "horns": part == "horn" and ring >= 1,
                "legs": limb and ring >= 4 if part == "fore" else limb and ring >= 5,
                "shanks": part == "hind" and ring >= 5,
                "feet": limb and ring >= 9,
            }[name]
        )

    return np.clip(smooth @ np.array([inside(k) for k in _cage.cage().keys]), 0, 1)
