"""Motorbikes: structures, and members of drawn proportions, in metres."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import torch
from torch import Tensor

from geoframe.surface.implicit import Field
from geoframe.zoo.deform import Step, Warp, smooth_step, stretch
from geoframe.zoo.solids import Part, Point, ball, block, disc, ring, rod, slab
from geoframe.zoo.template import Draw, Member, Structure

KINDS = ("naked", "sport", "tourer")
PARTS = (
    *(
        "front_tyre",
        "rear_tyre",
        "front_rim",
        "rear_rim",
        "front_disc",
        "left_front_disc",
        "right_front_disc",
    ),
    *("tank", "seat", "tail", "engine", "cylinder", "frame", "left_frame", "right_frame"),
    *(
        "left_fork",
        "right_fork",
        "left_swingarm",
        "right_swingarm",
        "handlebar",
        "left_handlebar",
        "right_handlebar",
    ),
    *("left_grip", "right_grip", "left_mirror", "right_mirror", "headlight", "front_fender", "rear_fender"),
    *(
        "left_exhaust",
        "right_exhaust",
        "fairing",
        "screen",
        "left_case",
        "right_case",
        "taillight",
        "left_peg",
        "right_peg",
    ),
    *("clamp", "axle"),
)
_HUB = {"front": (0.74, 0.32, 0.0), "rear": (-0.70, 0.32, 0.0)}


_LANDMARKS: dict[str, Point] = {
    "front_tyre_front": (1.06, 0.32, 0.0),
    "front_tyre_below": (0.74, 0.0, 0.0),
    "rear_tyre_rear": (-1.02, 0.32, 0.0),
    "rear_tyre_below": (-0.70, 0.0, 0.0),
    "tank_top": (0.24, 0.99, 0.0),
    "tank_side": (0.2, 0.85, 0.17),
    "seat_middle": (-0.3, 0.80, 0.0),
    "tail_end": (-0.92, 0.86, 0.0),
    "grip_end": (0.19, 1.04, 0.43),
    "mirror_top": (0.34, 1.25, 0.31),
    "exhaust_end": (-0.8, 0.37, 0.22),
    "peg_end": (-0.15, 0.36, 0.265),
    "front_axle_end": (0.74, 0.32, 0.165),
    "rear_axle_end": (-0.7, 0.32, 0.175),
}


@lru_cache(maxsize=4)
def bike_structure(kind: str) -> Structure:
    """The canonical motorbike of a kind, its wheels 1.44 apart and on y = 0."""
    parts, marks = _chassis(), dict(_LANDMARKS)
    if kind == "sport":
        nose = [
            (0.78, 0.84),
            (0.70, 0.95),
            (0.52, 1.04),
            (0.40, 0.95),
            (0.30, 0.45),
            (0.15, 0.26),
            (0.30, 0.24),
            (0.46, 0.5),
        ]
        screen = [(0.70, 0.95), (0.45, 1.14), (0.40, 1.12), (0.50, 0.98)]
        parts += [
            Part("fairing", _waist(slab(nose, 0.22, 0.05)), 0.07, 0.02),
            Part("screen", _waist(slab(screen, 0.15, 0.02)), 0.05, 0.02),
            Part("headlight", block((0.6, 0.82, 0.04), (0.9, 0.90, 0.14), 0.03), on="fairing", pair=False),
        ]
        marks["headlight"] = (0.79, 0.85, 0.0)
    else:
        parts.append(
            Part("headlight", rod([(0.56, 0.86, 0), (0.64, 0.86, 0)], [0.10, 0.115], (0.8, 1, 1)), 0.06, 0.02)
        )
        marks["headlight"] = (0.75, 0.86, 0.0)
    if kind == "tourer":
        screen = [(0.66, 0.98), (0.46, 1.42), (0.42, 1.40), (0.58, 0.96)]
        parts += [
            Part("screen", _waist(slab(screen, 0.24, 0.025)), 0.06, 0.02),
            Part("screen", rod([(0.5, 0.92, 0.1), (0.58, 1.02, 0.1)], 0.025), 0.04, 0.01, True),
            Part("case", block((-0.85, 0.42, 0.18), (-0.42, 0.70, 0.38), 0.06), 0.08, 0.02, True),
            Part("case", rod([(-0.55, 0.66, 0.06), (-0.55, 0.66, 0.24)], 0.03), 0.04, 0.02, True),
            Part("tail", block((-0.95, 0.82, -0.2), (-0.62, 1.04, 0.2), 0.06), 0.08, 0.03),
        ]
    return Structure(f"motorbike/{kind}", PARTS, tuple(parts), marks, 0.034)


def _chassis() -> list[Part]:
    """What all kinds have."""
    parts = []
    for name, wide in (("front", 1.0), ("rear", 1.35)):
        hub = _HUB[name]
        parts += [
            Part(f"{name}_tyre", ring(hub, 0.255, 0.065, flat=wide), 0.06),
            Part(f"{name}_rim", _wheel(hub), 0.035, 0.01),
        ]
    parts += [
        Part("front_disc", disc((0.74, 0.32, 0.085), 0.125, 0.018, axis=2, rounded=0.015), 0.04, 0.0, True),
        Part("axle", rod([(0.74, 0.32, -0.12), (0.74, 0.32, 0.12)], 0.035), 0.04, 0.01),
        Part("axle", rod([(-0.70, 0.32, -0.13), (-0.70, 0.32, 0.13)], 0.04), 0.04, 0.01),
        Part(
            "fork",
            rod([(0.74, 0.32, 0.125), (0.60, 0.62, 0.125), (0.42, 1.0, 0.125)], [0.04, 0.042, 0.036]),
            0.04,
            0.01,
            True,
        ),
        Part("clamp", rod([(0.47, 0.90, -0.12), (0.47, 0.90, 0.12)], 0.04), 0.04, 0.02),
        Part("frame", rod([(0.47, 0.86, 0), (0.36, 0.80, 0), (-0.1, 0.72, 0)], 0.05), 0.05, 0.02),
        Part(
            "frame",
            rod([(0.42, 0.82, 0.02), (0.28, 0.45, 0.08), (0.2, 0.26, 0.1), (-0.2, 0.26, 0.1)], 0.033),
            0.04,
            0.02,
            True,
        ),
        Part("frame", rod([(-0.08, 0.72, 0.06), (-0.22, 0.40, 0.11)], 0.045), 0.045, 0.02, True),
        Part("frame", rod([(-0.2, 0.48, 0.1), (-0.62, 0.74, 0.08)], 0.03), 0.04, 0.02, True),
        Part("swingarm", rod([(-0.2, 0.38, 0.13), (-0.70, 0.32, 0.13)], [0.045, 0.04]), 0.04, 0.02, True),
        Part("engine", block((-0.18, 0.24, -0.16), (0.20, 0.46, 0.16), 0.07), 0.07, 0.03),
        Part("engine", disc((0.0, 0.34, 0.17), 0.10, 0.03, axis=2, rounded=0.02), 0.05, 0.02, True),
        Part("cylinder", _fins(), 0.05, 0.02),
        Part("tank", _tank(), 0.09, 0.03),
        Part(
            "seat",
            rod(
                [(-0.08, 0.75, 0), (-0.3, 0.735, 0), (-0.62, 0.80, 0)], [0.085, 0.10, 0.085], (1, 0.62, 1.25)
            ),
            0.07,
            0.02,
        ),
        Part("tail", rod([(-0.6, 0.78, 0), (-0.82, 0.86, 0)], [0.085, 0.05], (1, 0.8, 1.1)), 0.06, 0.03),
        Part("taillight", ball((-0.88, 0.86, 0), (0.035, 0.035, 0.07)), 0.04, 0.01),
        Part(
            "handlebar",
            rod([(0.40, 0.99, 0.12), (0.36, 1.06, 0.2), (0.27, 1.06, 0.30)], 0.026),
            0.035,
            0.02,
            True,
        ),
        Part("handlebar", rod([(0.42, 0.985, -0.12), (0.42, 0.985, 0.12)], 0.032), 0.035, 0.02),
        Part("grip", rod([(0.28, 1.06, 0.29), (0.20, 1.04, 0.40)], 0.034), 0.035, 0.0, True),
        Part("mirror", rod([(0.33, 1.06, 0.25), (0.34, 1.19, 0.30)], 0.018), 0.03, 0.01, True),
        Part("mirror", ball((0.34, 1.21, 0.31), (0.028, 0.045, 0.07)), 0.03, 0.01, True),
        Part("exhaust", _pipe(), 0.05, 0.01, True),
        Part("peg", rod([(-0.15, 0.36, 0.1), (-0.15, 0.36, 0.24)], 0.025), 0.035, 0.01, True),
        Part("front_fender", _fender(_HUB["front"], 0.20, 2.0, 0.375, 0.075), 0.05, 0.0),
        Part("rear_fender", _fender(_HUB["rear"], 1.1, 2.9, 0.385, 0.10), 0.05, 0.0),
        Part("front_fender", rod([(0.63, 0.58, -0.1), (0.63, 0.58, 0.1)], 0.03), 0.04, 0.01),
        Part("rear_fender", rod([(-0.62, 0.70, 0.0), (-0.62, 0.78, 0.0)], 0.05), 0.04, 0.02),
    ]
    return parts


def _wheel(hub: Point) -> Field:
    """Rim, hub and six spokes."""
    x, y, z = hub
    spokes: list[Field] = [ring(hub, 0.195, 0.026), disc(hub, 0.055, 0.06, axis=2, rounded=0.02)]
    for i in range(6):
        a = math.pi * (i + 0.5) / 3
        spokes.append(rod([hub, (x + 0.2 * math.cos(a), y + 0.2 * math.sin(a), z)], [0.028, 0.024]))
    return lambda p: torch.stack([s(p) for s in spokes]).amin(0)


def _fins() -> Field:
    """The cylinder with cooling fins, leaning forward."""
    shape = block((-0.11, 0.0, -0.11), (0.11, 0.28, 0.11), 0.05)

    def field(p: Tensor) -> Tensor:
        a = 0.25
        x, y = p[:, 0] - 0.06, p[:, 1] - 0.42
        q = torch.stack(
            [math.cos(a) * x - math.sin(a) * y, math.sin(a) * x + math.cos(a) * y, p[:, 2]], dim=1
        )
        return shape(q) + 0.012 * torch.cos(q[:, 1] * 2 * math.pi / 0.056)

    return field


def _tank() -> Field:
    """A drop: high in front, narrow at the knees."""
    body = ball((0.16, 0.83, 0.0), (0.30, 0.15, 0.17))

    def field(p: Tensor) -> Tensor:
        w = 1 - 0.45 * smooth_step(p[:, 0], 0.15, -0.15)
        return body(torch.stack([p[:, 0], p[:, 1] - 0.10 * (p[:, 0] - 0.1), p[:, 2] / w], dim=1))

    return field


def _waist(base: Field) -> Field:
    """A field squeezed in z towards the front and above."""

    def field(p: Tensor) -> Tensor:
        w = 1 - 0.55 * smooth_step(p[:, 0], 0.45, 0.82)
        return base(torch.stack([p[:, 0], p[:, 1], p[:, 2] / w], dim=1))

    return field


def _pipe() -> Field:
    """Header, pipe and silencer on one side."""
    header = rod(
        [(0.16, 0.58, 0.08), (0.32, 0.50, 0.10), (0.30, 0.28, 0.13), (0.1, 0.20, 0.17), (-0.3, 0.24, 0.21)],
        0.035,
    )
    silencer = rod([(-0.34, 0.25, 0.215), (-0.76, 0.36, 0.22)], [0.055, 0.07])
    return lambda p: torch.minimum(header(p), silencer(p))


def _fender(hub: Point, start: float, end: float, radius: float, half: float) -> Field:
    """A strip over a wheel between two angles from the x axis."""
    a = [start + (end - start) * i / 8 for i in range(9)]
    arc = [(hub[0] + radius * math.cos(t), hub[1] + radius * math.sin(t)) for t in a]

    def field(p: Tensor) -> Tensor:
        spine = torch.stack([_segment(p, u, v) for u, v in itertools.pairwise(arc)]).amin(0)
        q = torch.stack([spine - 0.008, p[:, 2].abs() - (half - 0.01)], dim=1)
        return (q.clamp(min=0) ** 2).sum(1).add(1e-18).sqrt() + q.amax(1).clamp(max=0) - 0.012

    return field


def _segment(p: Tensor, a: tuple[float, float], b: tuple[float, float]) -> Tensor:
    """Distance in x and y to a segment."""
    start, axis = p.new_tensor(a), p.new_tensor(b) - p.new_tensor(a)
    offset = p[:, :2] - start
    t = ((offset @ axis) / (axis @ axis)).clamp(0, 1)
    return ((offset - t[:, None] * axis) ** 2).sum(1).add(1e-18).sqrt()


def motorbike(draw: Draw) -> Member:
    """A motorbike of a drawn kind: naked, sport with a fairing, tourer with screen and cases."""
    kind = draw.word("kind", KINDS, (3, 2, 2))
    base, long = draw("wheelbase", -0.06, 0.14), draw("tail_length", 0.85, 1.2)
    wheel = draw("wheel", 0.9, 1.08)
    rake = draw("rake", -0.04, 0.14) if kind != "sport" else draw("rake", -0.06, 0.02)
    high, seat = draw("handlebar_height", -0.05, 0.16), draw("seat_height", -0.08, 0.05)
    wide, fat = draw("width", 0.85, 1.2), draw("tank_length", 0.85, 1.15)
    r = 0.34 * wheel
    front, rear = 0.74 + base + rake, -0.70 - base
    low = [
        rear - r - 0.25,
        rear - r,
        rear,
        rear + r,
        -0.2 - base / 2,
        0.2,
        front - r,
        front,
        front + r,
        front + r + 0.2,
    ]
    top = [
        rear - 0.34 * long - 0.25,
        rear - 0.34 * long,
        rear,
        -0.36 - base,
        -0.2 - base / 2,
        0.2 * fat,
        0.42,
        0.76,
        1.1,
        1.3,
    ]
    knots = (-1.29, -1.04, -0.70, -0.36, -0.2, 0.2, 0.40, 0.74, 1.08, 1.28)
    lift = wheel * 0.68
    steps: list[Step] = [
        stretch(0, knots, {0.66: low, 0.95: top}, along=1),
        stretch(
            1,
            (0.0, 0.32, 0.66, 0.76, 0.92, 1.2),
            (
                0.0,
                0.32 * wheel,
                lift,
                lift + 0.10 + seat,
                lift + 0.26 + seat + high / 3,
                lift + 0.52 + seat + high,
            ),
        ),
        stretch(2, (-0.4, -0.13, 0.13, 0.4), (-0.13 - 0.27 * wide, -0.13, 0.13, 0.13 + 0.27 * wide)),
    ]
    return Member(bike_structure(kind), Warp(tuple(steps)), draw.traits)
