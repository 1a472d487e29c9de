"""Solids against closed forms and naive distances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from geoframe.surface.implicit import Field
from geoframe.zoo.solids import Part, ball, block, both, carve, disc, distance, polygon, ring, rod, slab, wing


def cloud(n: int = 3000, reach: float = 1.5) -> Tensor:
    return (
        torch.rand(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 * reach - reach
    )


SOLIDS: dict[str, tuple[Field, float]] = {  # and the volume of each
    "block": (block((-0.5, -0.4, -0.3), (0.5, 0.4, 0.3), 1e-6), 0.48),
    "disc": (disc((0.1, 0, 0), 0.6, 0.3, axis=0, rounded=1e-6), math.pi * 0.36 * 0.6),
    "ring": (ring((0, 0.1, 0), 0.7, 0.2, axis=1), 2 * math.pi**2 * 0.7 * 0.04),
    "rod": (rod([(0, 0, -0.4), (0, 0, 0.4)], 0.3), math.pi * (0.09 * 0.8 + 4 / 3 * 0.027)),
    "ball": (ball((0, 0, 0.2), (0.9, 0.6, 0.4)), 4 / 3 * math.pi * 0.216),
    "slab": (slab([(-0.5, -0.5), (0.7, -0.5), (0.0, 0.0), (0.7, 0.5), (-0.5, 0.5)], 0.5, 1e-6), 0.85),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_volumes(name: str) -> None:
    field, volume = SOLIDS[name]
    points = cloud(400_000, 1.2)
    inside = float((field(points) < 0).double().mean()) * 2.4**3
    assert inside == pytest.approx(volume, rel=0.02)


@pytest.mark.parametrize("name", ["block", "disc", "ring", "rod", "slab"])
def test_values_are_distances_to_the_surface(name: str) -> None:
    """Slope 1, and a step along it by the value ends on the surface."""
    field = SOLIDS[name][0]
    points = cloud().requires_grad_()
    value = field(points)
    (slope,) = torch.autograd.grad(value.sum(), points)
    outside = value > 0.01
    torch.testing.assert_close(slope[outside].norm(dim=1), torch.ones(int(outside.sum())).double())
    landed = (points - value[:, None] * slope)[outside].detach()
    assert float(field(landed).abs().max()) < 1e-6


def test_polygon_against_a_loop() -> None:
    outline = [(0.0, 0.0), (1.0, 0.1), (0.4, 0.4), (0.9, 1.0), (-0.3, 0.8)]
    points = cloud(300, 1.2)
    found = polygon(outline)(points)
    for p, d in zip(points.tolist(), found.tolist(), strict=True):
        gap, odd = math.inf, False
        for (ax, ay), (bx, by) in zip(outline, outline[1:] + outline[:1], strict=True):
            t = ((p[0] - ax) * (bx - ax) + (p[1] - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
            t = min(max(t, 0.0), 1.0)
            gap = min(gap, math.hypot(p[0] - ax - t * (bx - ax), p[1] - ay - t * (by - ay)))
            if (ay > p[1]) != (by > p[1]) and p[0] < ax + (p[1] - ay) / (by - ay) * (bx - ax):
                odd = not odd
        assert d == pytest.approx(-gap if odd else gap, abs=1e-12)


def test_wing_has_its_chords_and_thicknesses() -> None:
    field = wing((0.0, 0, 0), (-0.5, 0, 1.0), (0.8, 0.4), (0.1, 0.06))
    for t, chord, thick in ((0.25, 0.7, 0.09), (0.75, 0.5, 0.07)):
        at = torch.tensor([-0.5 * t, 0, t], dtype=torch.float64)
        edge = torch.tensor(
            [[chord / 2, 0, 0], [-chord / 2, 0, 0], [0, thick / 2, 0], [0, -thick / 2, 0]]
        ).double()
        assert float(field(at + edge).abs().max()) < 1e-7
    assert float(field(torch.tensor([[-0.6, 0, 1.2]]).double())) > 0.1


def test_union_cut_and_patch() -> None:
    a, b = block((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), 0.01), ball((0.5, 0, 0.4), (0.3, 0.3, 0.3))
    base = Part("a", a, blend=0.0)
    points = cloud()
    mirrored = points * points.new_tensor([1, 1, -1])
    right = torch.where((points[:, 2] >= 0)[:, None], points, mirrored)
    torch.testing.assert_close(
        distance([base, Part("b", b, blend=0.0, pair=True)])(points), torch.minimum(a(points), b(right))
    )
    torch.testing.assert_close(
        distance([base, Part("b", b, blend=0.0, cut=True)])(points), torch.maximum(a(points), -b(points))
    )
    assert torch.equal(distance([base, Part("b", b, on="a")])(points), distance([base])(points))
    assert torch.equal(both(a, b)(points), torch.maximum(a(points), b(points)))


def test_carve_lowers_inside_the_region_only() -> None:
    a, region = block((-1, -1, -1), (1, 1, 1), 0.01), block((-0.4, -2, -0.4), (0.4, 2, 0.4), 0.01)
    points = cloud()
    lowered = carve(a, region, 0.05, 0.02)(points) - a(points)
    r = region(points)
    torch.testing.assert_close(lowered[r < -0.02], torch.full_like(lowered[r < -0.02], 0.05))
    assert float(lowered[r > 0.02].abs().max()) == 0
