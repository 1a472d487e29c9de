"""Solids as signed distances: boxes, discs, slabs of a profile, rings; and the parts that are made of them.

A field takes (N, 3) float64 points to (N,) values, negative inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe.linalg import safe_norm
from geoframe.surface.implicit import Field, Limb, smooth_minimum

Point = tuple[float, float, float]
_FLOOR = 1e-9  # of lengths, which are divided by each other


@dataclass(frozen=True, eq=False)
class Part:
    """A named piece of a template.

    Attributes:
        name: its label; a part with `pair` exists twice, as left_NAME (-z) and right_NAME (+z, as written).
        field: its signed distance.
        size: about half its thickness: the edge length of triangles on it, relative to other parts.
        blend: length over which it melts into the parts before it.
        cut: taken away from the parts before it instead of added.
        on: the name of the part on which this one is only a patch with its own name, where `field` is
            negative; a patch adds no solid and comes after its part.
    """

    name: str
    field: Field
    size: float = 0.1
    blend: float = 0.03
    pair: bool = False
    cut: bool = False
    on: str = ""

    @property
    def sides(self) -> tuple[str, str]:
        """What comes before its name on the left and on the right."""
        return ("left_", "right_") if self.pair else ("", "")


def distance(parts: Sequence[Part]) -> Field:
    """Field of the union of parts, in order; pairs are mirrored at z = 0."""

    def field(points: Tensor) -> Tensor:
        folded = fold(points)
        out = torch.full_like(points[:, 0], 1e3)
        for part in parts:
            if part.on:
                continue
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
        return _length(q.clamp(min=0)) + q.amax(1).clamp(max=0) - r

    return field


def rod(joints: Sequence[Point], radii: Sequence[float] | float, stretch: Point = (1.0, 1.0, 1.0)) -> Field:
    """Chain of balls and their hulls."""
    n = len(joints)
    r = [radii] * n if isinstance(radii, int | float) else list(radii)
    limb = Limb(torch.tensor(joints, dtype=torch.float64), torch.tensor(r, dtype=torch.float64), stretch)
    return lambda points: limb.thickness(points)[0]


def disc(centre: Point, radius: float, half: float, *, axis: int = 1, rounded: float = 0.02) -> Field:
    """Cylinder of a radius and half a height around an axis, rims rounded."""
    c = torch.tensor(centre, dtype=torch.float64)
    others = [i for i in range(3) if i != axis]
    r = min(rounded, 0.98 * half, 0.98 * radius)

    def field(points: Tensor) -> Tensor:
        q = points - c
        q = torch.stack([_length(q[:, others]) - (radius - r), q[:, axis].abs() - (half - r)], dim=1)
        return _length(q.clamp(min=0)) + q.amax(1).clamp(max=0) - r

    return field


def ring(centre: Point, radius: float, tube: float, *, axis: int = 2, flat: float = 1.0) -> Field:
    """Torus around an axis, its tube `flat` times as wide along the axis."""
    c = torch.tensor(centre, dtype=torch.float64)
    others = [i for i in range(3) if i != axis]

    def field(points: Tensor) -> Tensor:
        q = points - c
        q = torch.stack([_length(q[:, others]) - radius, q[:, axis] / flat], dim=1)
        return (_length(q) - tube) * min(1.0, flat)

    return field


def slab(outline: Sequence[tuple[float, float]], half: float, rounded: float = 0.05) -> Field:
    """Outline (x, y), any simple polygon, extruded to |z| < half; all edges and corners rounded."""
    inside = polygon(outline)

    def field(points: Tensor) -> Tensor:
        q = torch.stack([inside(points), points[:, 2].abs() - half], dim=1) + rounded
        return _length(q.clamp(min=0)) + q.amax(1).clamp(max=0) - rounded

    return field


def polygon(outline: Sequence[tuple[float, float]]) -> Field:
    """Signed distance in x and y to a simple polygon."""
    a = torch.tensor(outline, dtype=torch.float64)
    b = a.roll(-1, 0)
    edge = b - a

    def field(points: Tensor) -> Tensor:
        p = points[:, None, :2] - a
        t = ((p * edge).sum(-1) / (edge**2).sum(-1)).clamp(0, 1)
        gap = (
            (((p - t[..., None] * edge) ** 2).sum(-1) + 1e-30).sqrt().amin(1)
        )  # 0 on the surface: keep its slope
        x, y = points[:, None, 0], points[:, None, 1]
        spans = (a[:, 1] <= y) != (b[:, 1] <= y)
        drop = torch.where(edge[:, 1] == 0, 1.0, edge[:, 1])
        crossed = spans & (x < a[:, 0] + (y - a[:, 1]) / drop * edge[:, 0])
        return torch.where(crossed.sum(1) % 2 == 1, -gap, gap)

    return field


def ball(centre: Point, radii: Point) -> Field:
    """Ellipsoid with half axes along x, y and z; close to the distance near its surface."""
    c, r = (torch.tensor(x, dtype=torch.float64) for x in (centre, radii))

    def field(points: Tensor) -> Tensor:
        q = (points - c) / r
        return _length(q) * (_length(q) - 1) / _length(q / r)

    return field


def wing(root: Point, tip: Point, chords: tuple[float, float], thick: tuple[float, float]) -> Field:
    """A blade with elliptic sections across x from `root` to `tip`, of some chords (along x) and thicknesses.

    Root and tip are the middles of their chords and may differ in y or z; the section is thin across the
    direction that is neither x nor that of the span.
    """
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (root, tip))
    span = (b - a) * a.new_tensor([0, 1, 1])
    length = span.norm()
    span = span / length
    across = torch.linalg.cross(span, a.new_tensor([1, 0, 0]))

    def field(points: Tensor) -> Tensor:
        p = points - a
        along = p @ span
        t = (along / length).clamp(0, 1)
        c, h = (torch.lerp(p.new_tensor(x[0]), p.new_tensor(x[1]), t) / 2 for x in (chords, thick))
        q = torch.stack([p[:, 0] - t * (b - a)[0], p @ across], dim=1)
        r = torch.stack([c, h], dim=1)
        k = _length(q / r)
        flat = k * (k - 1) / _length(q / r**2)
        beyond = torch.maximum(along - length, -along)
        end = 0.8 * min(thick) / 2
        out = torch.stack([flat, beyond], dim=1) + end
        return _length(out.clamp(min=0)) + out.amax(1).clamp(max=0) - end

    return field


def carve(base: Field, region: Field, depth: float, width: float = 0.02) -> Field:
    """`base` with its surface lowered by `depth` where `region` is negative, over an edge of some width."""

    def field(points: Tensor) -> Tensor:
        t = ((width - region(points)) / (2 * width)).clamp(0, 1)
        return base(points) + depth * t * t * (3 - 2 * t)

    return field


def both(*fields: Field) -> Field:
    """The common part of several solids."""
    return lambda points: torch.stack([f(points) for f in fields]).amax(0)


def _length(x: Tensor) -> Tensor:
    """(N,) length of rows, never quite zero."""
    return safe_norm(x, _FLOOR)
