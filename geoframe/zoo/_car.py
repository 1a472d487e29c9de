"""Cars: the structure, and members of drawn style and proportions, in metres."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from geoframe.surface.implicit import Field
from geoframe.zoo.deform import Shift, Step, Warp, smooth_step, stretch
from geoframe.zoo.solids import Part, Point, ball, block, both, carve, disc, rod, slab
from geoframe.zoo.template import Draw, Member, Structure

PARTS = (
    *("body", "cabin", "left_side_window", "right_side_window", "windscreen", "rear_window"),
    *("left_front_wheel", "right_front_wheel", "left_rear_wheel", "right_rear_wheel"),
    *("left_front_rim", "right_front_rim", "left_rear_rim", "right_rear_rim"),
    *("left_headlight", "right_headlight", "left_taillight", "right_taillight", "grille"),
    *("left_mirror", "right_mirror", "bumper", "rear_bumper", "underbody"),
)
AXLE = 1.35  # of the canonical car, in front of and behind the middle
_HOOD = [(2.1, 0.3), (2.22, 0.42), (2.18, 0.66), (1.98, 0.78), (1.05, 0.95), (0.0, 1.0), (-1.3, 1.0)]
_LOWER = [*_HOOD, (-2.08, 0.96), (-2.18, 0.84), (-2.16, 0.42), (-2.06, 0.3), (-1.8, 0.22), (1.8, 0.22)]
_CABIN = [(1.2, 0.86), (0.38, 1.42), (-0.1, 1.46), (-0.72, 1.43), (-1.58, 0.9), (-1.4, 0.8), (1.0, 0.8)]
_FRONT_PANE = [(0.88, 0.99), (0.37, 1.33), (0.06, 1.36), (0.02, 0.99)]
_REAR_PANE = [(-0.08, 0.99), (-0.08, 1.36), (-0.66, 1.34), (-1.2, 1.0)]


def _narrowing(base: Field) -> Field:
    """A field squeezed in z: narrower towards both bumpers and above the belt line."""

    def field(points: Tensor) -> Tensor:
        x, y = points[:, 0], points[:, 1]
        ends = 1 - 0.10 * ((x.abs() - 1.1).clamp(min=0) / 1.1) ** 2
        w = ends * (1 - 0.42 * (y - 0.92).clamp(min=0))
        return base(torch.stack([x, y, points[:, 2] / w], dim=1))

    return field


@lru_cache(maxsize=1)
def car_structure() -> Structure:
    """The canonical saloon: 4.4 long, its wheels on y = 0."""
    side = both(_flat(-0.3, _FRONT_PANE), lambda p: 0.5 - p[:, 2].abs())
    rear_side = both(_flat(-0.3, _REAR_PANE), lambda p: 0.5 - p[:, 2].abs())
    panes = lambda p: torch.minimum(side(p), rear_side(p))  # noqa: E731
    front = block((0.42, 1.02, -0.56), (1.3, 1.36, 0.56), 0.06)
    rear = block((-1.6, 1.03, -0.54), (-0.76, 1.37, 0.54), 0.06)
    glass = lambda p: torch.minimum(panes(p), torch.minimum(front(p), rear(p)))  # noqa: E731
    grille = block((2.0, 0.42, -0.42), (2.4, 0.56, 0.42), 0.04)
    lamp = ball((2.08, 0.70, 0.62), (0.22, 0.075, 0.16))
    tail = ball((-2.15, 0.80, 0.62), (0.16, 0.09, 0.17))
    body = carve(_narrowing(slab(_LOWER, 0.89, 0.10)), grille, 0.02, 0.015)
    parts = [
        Part("body", body, 0.12),
        Part("cabin", carve(_narrowing(slab(_CABIN, 0.84, 0.09)), glass, 0.018, 0.012), 0.09, 0.06),
    ]
    for x in (AXLE, -AXLE):
        parts += [
            Part("arch", disc((x, 0.33, 0.95), 0.41, 0.29, axis=2, rounded=0.03), 0.05, 0.03, True, True)
        ]
    for name, x in (("front", AXLE), ("rear", -AXLE)):
        parts += [
            Part(f"{name}_wheel", disc((x, 0.33, 0.74), 0.33, 0.13, axis=2, rounded=0.05), 0.06, 0.0, True),
            Part("dish", disc((x, 0.33, 0.93), 0.22, 0.10, axis=2, rounded=0.02), 0.05, 0.02, True, True),
            Part(f"{name}_rim", _rim((x, 0.33, 0.82)), 0.045, 0.01, True),
        ]
    parts += [
        Part("mirror", ball((0.78, 1.02, 0.95), (0.07, 0.065, 0.10)), 0.04, 0.03, True),
        Part("windscreen", front, on="cabin"),
        Part("rear_window", rear, on="cabin"),
        Part("side_window", panes, on="cabin", pair=True),
        Part("grille", grille, on="body"),
        Part("headlight", lamp, on="body", pair=True),
        Part("taillight", tail, on="body", pair=True),
    ]
    marks: dict[str, Point] = {
        "front_bumper": (2.2, 0.45, 0.0),
        "rear_bumper": (-2.17, 0.45, 0.0),
        "hood_front": (1.98, 0.78, 0.0),
        "windscreen_base": (1.0, 0.96, 0.0),
        "windscreen_top": (0.38, 1.42, 0.0),
        "roof": (-0.1, 1.46, 0.0),
        "rear_window_top": (-0.72, 1.43, 0.0),
        "boot_rear": (-2.08, 0.96, 0.0),
        "headlight": (2.08, 0.70, 0.62),
        "taillight": (-2.15, 0.80, 0.62),
        "front_hub": (AXLE, 0.33, 0.85),
        "rear_hub": (-AXLE, 0.33, 0.85),
        "mirror_tip": (0.78, 1.02, 1.05),
        "front_tyre_below": (AXLE, 0.0, 0.74),
        "rear_tyre_below": (-AXLE, 0.0, 0.74),
    }
    return Structure("car", PARTS, tuple(parts), marks, 0.07)


def _flat(margin: float, outline: list[tuple[float, float]]) -> Field:
    return slab(outline, 9.0, 0.03)


def _rim(centre: Point) -> Field:
    """Five spokes, a hub and a ring."""
    x, y, z = centre
    spokes = []
    for i in range(5):
        a = math.pi / 2 + 2 * math.pi * i / 5
        spokes.append(rod([centre, (x + 0.21 * math.cos(a), y + 0.21 * math.sin(a), z)], [0.045, 0.035]))
    return lambda p: torch.stack([s(p) for s in spokes]).amin(0)


_CAR_STYLES = {
    # windscreen base and top, rear roof, rear window base, rear end; height of bonnet, belt, roof; wheel
    "saloon": (1.05, 0.38, -0.72, -1.5, -2.2, 0.95, 1.0, 1.44, 1.0),
    "coupe": (0.85, 0.15, -0.75, -1.75, -2.15, 0.86, 0.90, 1.26, 1.02),
    "hatchback": (1.15, 0.50, -1.50, -1.85, -1.95, 0.97, 1.02, 1.50, 0.95),
    "estate": (1.05, 0.38, -1.75, -2.05, -2.25, 0.95, 1.0, 1.47, 1.0),
    "van": (1.55, 1.00, -1.95, -2.10, -2.25, 1.08, 1.15, 1.95, 0.98),
    "suv": (1.05, 0.48, -1.55, -1.92, -2.15, 1.12, 1.18, 1.75, 1.18),
    "pickup": (0.95, 0.42, -0.25, -0.55, -2.45, 1.12, 1.15, 1.75, 1.15),
}


def car(draw: Draw) -> Member:
    """A car of a drawn style: saloon, coupe, hatchback, estate, van, off-roader or pick-up."""
    style = draw.word("style", tuple(_CAR_STYLES), (3, 2, 2, 2, 1, 2, 1))
    base, top, roof, back, end, bonnet, belt, height, wheel = (
        v + (0.03 * draw(f"jitter_{i}", -1, 1)) for i, v in enumerate(_CAR_STYLES[style])
    )
    long, wide = draw("length", 0.9, 1.12), draw("width", 0.92, 1.08)
    wheel *= draw("wheel", 0.94, 1.08)
    r = 0.42 * wheel / long
    front = [AXLE - r, AXLE, AXLE + r]
    nose = AXLE + max(0.85 - 0.0, r + 0.2)
    tail = min(end, -AXLE - r - 0.2)
    knots = (-2.2, -AXLE - 0.42, -AXLE, -AXLE + 0.42, -0.6, 0.38, AXLE - 0.42, AXLE, AXLE + 0.42, 2.2)
    low = [tail, -AXLE - r, -AXLE, -AXLE + r, -0.5, 0.3, *front, nose]

    def through(pairs: list[tuple[float, float]]) -> list[float]:
        """Places of the knots on the polyline through (canonical x, place)."""
        x, y = zip(*pairs, strict=True)
        return [float(v) for v in np.interp(knots, x, y)]

    middle = through([(-2.2, tail), (-1.5, back), (1.05, base), (2.2, nose)])
    upper = through(
        [
            (-2.2, tail - 0.05),
            (-1.5, min(back, roof - 0.1)),
            (-0.72, roof),
            (0.38, top),
            (1.05, base),
            (2.2, nose),
        ]
    )
    rows = {0.0: low, 0.72: low, 0.98: middle, 1.43: upper}
    tumble = draw("tumblehome", -0.04, 0.10)
    steps: list[Step] = [
        stretch(0, knots, {k: [long * v for v in row] for k, row in rows.items()}, along=1),
        stretch(1, (0.0, 0.33, 0.75, 0.98, 1.46), (0.0, 0.33 * wheel, 0.75 * wheel, belt, height)),
        Shift(1, lambda p: (bonnet - belt + 0.05) * smooth_step(p[:, 0], long * base, long * (base + 0.5))),
        stretch(
            2,
            (-0.9, 0.9),
            {
                0.0: [-0.9 * wide, 0.9 * wide],
                belt: [-0.9 * wide, 0.9 * wide],
                height: [-(0.9 + tumble) * wide, (0.9 + tumble) * wide],
            },
            along=1,
        ),
    ]
    return Member(car_structure(), Warp(tuple(steps)), draw.traits)
