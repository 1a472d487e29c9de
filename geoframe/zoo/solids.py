"""Solids as signed distances: boxes, discs, slabs of a profile, rings; and the parts that are made of them.

A field takes (N, 3) float64 points to (N,) values, negative inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe.surface.implicit import Field, Limb, smooth_minimum

Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Part:
    """A named piece of a template.

    Attributes:
        name: its label; a part with `pair` exists twice, as left_NAME (-z) and right_NAME (+z, as written).
        field: its signed distance.
        size: about half its thickness: the edge length of triangles on it, relative to other parts.
        blend: length over which it melts into the parts before it.
        cut: taken away from the parts before it instead of added.
    """

    name: str
    field: Field
    size: float = 0.1
    blend: float = 0.03
    pair: bool = False
    cut: bool = False


def distance(parts: Sequence[Part]) -> Field:
    """Field of the union of parts, in order; pairs are mirrored at z = 0."""

    def field(points: Tensor) -> Tensor:
        folded = fold(points)
        out = torch.full_like(points[:, 0], 1e3)
        for part in parts:
            d = part.field(folded if part.pair else points)
            out = -smooth_minimum(-out, d, part.blend) if part.cut else smooth_minimum(out, d, part.blend)
        return out

    return field


def fold(points: Tensor) -> Tensor:
    """The left half (z < 0) mirrored onto the right."""
    return torch.cat([points[:, :2], points[:, 2:].abs()], dim=1)


def block(low: Point, high: Point, rounded: float = 0.02) -> Field:
    """Box between two corners with edges rounded to a radius."""
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (low, high))
    centre, half = (a + b) / 2, (b - a) / 2
    r = min(rounded, 0.98 * float(half.min()))

    def field(points: Tensor) -> Tensor:
        q = (points - centre).abs() - (half - r)
        return safe_norm(q.clamp(min=0)) + q.amax(1).clamp(max=0) - r

    return field


def rod(joints: Sequence[Point], radii: Sequence[float] | float, stretch: Point = (1.0, 1.0, 1.0)) -> Field:
    """Chain of balls and their hulls."""
    n = len(joints)
    r = [radii] * n if isinstance(radii, int | float) else list(radii)
    limb = Limb(torch.tensor(joints, dtype=torch.float64), torch.tensor(r, dtype=torch.float64), stretch)
    return limb.distance


def disc(centre: Point, radius: float, half: float, *, axis: int = 1, rounded: float = 0.02) -> Field:
    """Cylinder of a radius and half a height around an axis, rims rounded."""
    c = torch.tensor(centre, dtype=torch.float64)
    others = [i for i in range(3) if i != axis]
    r = min(rounded, 0.98 * half, 0.98 * radius)

    def field(points: Tensor) -> Tensor:
        q = points - c
        q = torch.stack([safe_norm(q[:, others]) - (radius - r), q[:, axis].abs() - (half - r)], dim=1)
        return safe_norm(q.clamp(min=0)) + q.amax(1).clamp(max=0) - r

    return field


def ring(centre: Point, radius: float, tube: float, *, axis: int = 2, flat: float = 1.0) -> Field:
    """Torus around an axis, its tube `flat` times as wide along the axis."""
    c = torch.tensor(centre, dtype=torch.float64)
    others = [i for i in range(3) if i != axis]

    def field(points: Tensor) -> Tensor:
        q = points - c
        q = torch.stack([safe_norm(q[:, others]) - radius, q[:, axis] / flat], dim=1)
        return (safe_norm(q) - tube) * min(1.0, flat)

    return field


def safe_norm(x: Tensor) -> Tensor:
    """(N,) length of rows, differentiable at 0."""
    return ((x**2).sum(-1) + 1e-18).sqrt()
