"""Chairs and tables: their structures, and members with drawn proportions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from geoframe.zoo.deform import Scale, Shift, Step, Warp, smooth_step, stretch
from geoframe.zoo.solids import Part, Point, block, disc, rod, slab
from geoframe.zoo.template import Draw, Member, Structure

CHAIR_STYLES = ("dining", "lounge", "bar", "club")
CHAIR_LEGS = ("four_legs", "star", "pedestal", "sled", "cantilever", "folding", "zigzag", "plinth")
CHAIR_ARMS = ("no_arms", "arms", "sides")
CHAIR_BACKS = ("panel", "slats", "ladder")
TABLE_TOPS = ("rectangular", "round")
TABLE_LEGS = ("four_legs", "pedestal", "trestle", "star")

CHAIR_PARTS = (
    *("seat", "back", "left_back_post", "right_back_post", "slat", "left_slat", "right_slat", "rung"),
    *("left_arm", "right_arm", "left_arm_post", "right_arm_post"),
    *("left_front_leg", "right_front_leg", "left_back_leg", "right_back_leg", "left_runner", "right_runner"),
    *("crossbar", "column", "base", "spoke", "left_spoke", "right_spoke"),
    *("caster", "left_caster", "right_caster"),
    *("left_side", "right_side", "plinth", "diagonal"),
)
TABLE_PARTS = (
    *("top", "left_front_leg", "right_front_leg", "left_back_leg", "right_back_leg", "front_leg", "back_leg"),
    *("stretcher", "column", "base", "shelf"),
)

# canonical chair: floor at y = -1, seat at |y| < 0.08, arms at 0.5, top of the back at 1.1
_EDGES = (-0.5, -0.36, -0.1, 0.1, 0.36, 0.5)  # edges of legs, back and column


@lru_cache(maxsize=128)
def chair_structure(legs: str, arms: str, back: str) -> Structure:
    """The canonical chair with a kind of legs, of arms and of back."""
    parts = [Part("seat", block((-0.5, -0.08, -0.5), (0.5, 0.08, 0.5), 0.06), 0.08)]
    marks: dict[str, Point] = {
        "seat_centre": (0, 0.08, 0),
        "seat_front": (0.5, 0, 0),
        "seat_front_corner": (0.49, 0.03, 0.49),
        "seat_back_corner": (-0.49, -0.03, 0.49),
        "back_top": (-0.43, 1.1, 0),
        "back_top_corner": (-0.43, 1.08, 0.48),
    }
    if legs not in ("plinth", "zigzag"):
        marks["seat_below"] = (0.2, -0.08, 0)
    parts += _back(back)
    if arms == "arms":
        parts += [
            Part("arm", block((-0.46, 0.42, 0.40), (0.36, 0.52, 0.56), 0.045), 0.05, 0.04, pair=True),
            Part("arm_post", rod([(0.27, 0.0, 0.45), (0.27, 0.45, 0.47)], 0.055), 0.055, 0.03, pair=True),
        ]
        marks |= {"arm_front": (0.36, 0.47, 0.48), "elbow_rest": (-0.05, 0.52, 0.48)}
    elif arms == "sides":
        side = block((-0.46, -0.06, 0.38), (0.47, 0.52, 0.54), 0.055)
        parts.append(Part("side", side, 0.06, 0.04, pair=True))
        marks |= {"arm_front": (0.47, 0.47, 0.46), "elbow_rest": (-0.05, 0.52, 0.46)}
    more, feet = _CHAIR_LEGS[legs]()
    name = f"chair/{legs}/{back}/{arms}"
    return Structure(name, CHAIR_PARTS, tuple(parts + more), marks | feet, 0.08)


def _back(kind: str) -> list[Part]:
    """The back: a panel, or two posts with upright slats or level rungs."""
    if kind == "panel":
        return [Part("back", block((-0.49, -0.05, -0.48), (-0.37, 1.1, 0.48), 0.055), 0.06, 0.04)]
    post = Part("back_post", block((-0.49, -0.05, 0.37), (-0.37, 1.1, 0.49), 0.05), 0.055, 0.03, pair=True)
    rail = Part("back", block((-0.48, 0.94, -0.44), (-0.38, 1.1, 0.44), 0.045), 0.05, 0.03)
    if kind == "slats":
        slat = [
            Part("slat", rod([(-0.43, 0.0, z), (-0.43, 1.0, z)], 0.04), 0.04, 0.02, pair=z > 0)
            for z in (0.0, 0.125, 0.25)
        ]
        return [post, rail, *slat]
    rungs = [
        Part("rung", block((-0.47, y - 0.06, -0.44), (-0.39, y + 0.06, 0.44), 0.035), 0.04, 0.02)
        for y in (0.26, 0.48, 0.70)
    ]
    return [post, rail, *rungs]


def _four_legs() -> tuple[list[Part], dict[str, Point]]:
    return [
        Part("front_leg", block((0.37, -1.0, 0.37), (0.49, 0.0, 0.49), 0.05), 0.06, 0.03, pair=True),
        Part("back_leg", block((-0.49, -1.0, 0.37), (-0.37, 0.0, 0.49), 0.05), 0.06, 0.03, pair=True),
    ], {"front_foot": (0.43, -1.0, 0.43), "back_foot": (-0.43, -1.0, 0.43)}


def _spokes(n: int, reach: float, y: float, tip: float) -> list[Part]:
    """n arms of a star at height y, one forward, each with a caster at its end."""
    parts = []
    for i in range(n // 2 + 1):
        a = 2 * math.pi * i / n
        x, z = math.cos(a), math.sin(a)
        pair = 0 < 2 * i < n
        end = (reach * x, y - 0.03, reach * z)
        parts.append(Part("spoke", rod([(0, y + 0.03, 0), end], [0.075, 0.05]), 0.05, 0.03, pair=pair))
        parts.append(
            Part(
                "caster",
                rod([(end[0], tip, end[2] - 0.02), (end[0], tip, end[2] + 0.02)], 0.07),
                0.06,
                0.02,
                pair=pair,
            )
        )
    return parts


def _star() -> tuple[list[Part], dict[str, Point]]:
    column = Part("column", rod([(0, -0.85, 0), (0, -0.02, 0)], 0.075), 0.07, 0.05)
    return [column, *_spokes(5, 0.48, -0.84, -0.93)], {
        "front_foot": (0.48, -1.0, 0.0),
        "base_top": (0, -0.5, 0.08),
    }


def _pedestal() -> tuple[list[Part], dict[str, Point]]:
    return [
        Part("column", rod([(0, -0.95, 0), (0, -0.02, 0)], [0.08, 0.08]), 0.07, 0.16),
        Part("base", disc((0, -0.955, 0), 0.42, 0.045, rounded=0.04), 0.06, 0.12),
    ], {"front_foot": (0.42, -0.955, 0.0), "base_top": (0, -0.5, 0.08)}


def _sled() -> tuple[list[Part], dict[str, Point]]:
    front = Part("front_leg", rod([(0.43, -0.95, 0.43), (0.43, -0.02, 0.43)], 0.05), 0.05, 0.02, pair=True)
    rear = Part("back_leg", rod([(-0.43, -0.95, 0.43), (-0.43, -0.02, 0.43)], 0.05), 0.05, 0.02, pair=True)
    runner = Part("runner", rod([(-0.43, -0.95, 0.43), (0.43, -0.95, 0.43)], 0.05), 0.05, 0.03, pair=True)
    return [front, rear, runner], {"front_foot": (0.43, -1.0, 0.43), "back_foot": (-0.43, -1.0, 0.43)}


def _cantilever() -> tuple[list[Part], dict[str, Point]]:
    front = Part("front_leg", rod([(0.43, -0.95, 0.43), (0.43, -0.02, 0.43)], 0.05), 0.05, 0.03, pair=True)
    runner = Part("runner", rod([(-0.43, -0.95, 0.43), (0.43, -0.95, 0.43)], 0.05), 0.05, 0.04, pair=True)
    bar = Part("crossbar", rod([(-0.43, -0.95, -0.43), (-0.43, -0.95, 0.43)], 0.05), 0.05, 0.04)
    return [front, runner, bar], {"front_foot": (0.43, -1.0, 0.43), "back_foot": (-0.43, -1.0, 0.43)}


def _folding() -> tuple[list[Part], dict[str, Point]]:
    """Legs that cross, with a bar between the feet."""
    parts = []
    for name, x in (("front_leg", 0.43), ("back_leg", -0.43)):
        leg = rod([(x, -0.95, 0.43), (-0.9 * x, -0.02, 0.43)], 0.05)
        parts.append(Part(name, leg, 0.05, 0.02, pair=True))
        parts.append(Part("crossbar", rod([(x, -0.95, -0.43), (x, -0.95, 0.43)], 0.05), 0.05, 0.02))
    return parts, {"front_foot": (0.43, -1.0, 0.43), "back_foot": (-0.43, -1.0, 0.43)}


def _zigzag() -> tuple[list[Part], dict[str, Point]]:
    """A board that leads from the front of the seat to the rear of a board on the floor."""
    outline = [
        (0.49, 0.0),
        (0.35, 0.0),
        (-0.46, -0.88),
        (-0.46, -1.0),
        (0.46, -1.0),
        (0.46, -0.88),
        (-0.28, -0.88),
    ]
    return [Part("diagonal", slab(outline, 0.44, 0.04), 0.06, 0.03)], {
        "front_foot": (0.46, -1.0, 0.42),
        "back_foot": (-0.46, -1.0, 0.42),
    }


def _plinth() -> tuple[list[Part], dict[str, Point]]:
    """Solid down to the floor."""
    solid = block((-0.48, -1.0, -0.48), (0.48, 0.0, 0.48), 0.05)
    return [Part("plinth", solid, 0.08, 0.04)], {
        "front_foot": (0.47, -0.97, 0.44),
        "back_foot": (-0.47, -0.97, 0.44),
    }


_CHAIR_LEGS: dict[str, Callable[[], tuple[list[Part], dict[str, Point]]]] = {
    "four_legs": _four_legs,
    "star": _star,
    "pedestal": _pedestal,
    "sled": _sled,
    "cantilever": _cantilever,
    "folding": _folding,
    "zigzag": _zigzag,
    "plinth": _plinth,
}


class _Style(NamedTuple):
    """How often chairs of a style have legs, arms and backs of each kind, in the order of their names."""

    legs: tuple[float, ...]
    arms: tuple[float, ...]
    back: tuple[float, ...]


_STYLES = {
    "dining": _Style((6, 2, 1, 1, 1, 1, 1, 0.3), (6, 3, 1), (3, 2, 2)),
    "lounge": _Style((5, 1, 1, 2, 1, 1, 0.5, 1), (3, 3, 2), (4, 2, 1)),
    "bar": _Style((3, 1, 3, 2, 0, 0, 0, 0), (6, 1, 0), (3, 1, 1)),
    "club": _Style((4, 1, 1, 1, 0, 0, 0, 4), (1, 1, 8), (1, 0, 0)),
}
_SIZES = {  # ranges in metres, of each style
    "depth": ((0.36, 0.56), (0.48, 0.78), (0.30, 0.45), (0.55, 0.90)),
    "width": ((0.36, 0.60), (0.48, 0.80), (0.32, 0.46), (0.55, 0.95)),
    "height": ((0.34, 0.54), (0.20, 0.40), (0.58, 0.85), (0.32, 0.46)),
    "pad": ((0.02, 0.10), (0.03, 0.15), (0.02, 0.08), (0.08, 0.24)),
    "arm": ((0.16, 0.26), (0.12, 0.26), (0.06, 0.14), (0.12, 0.34)),
    "top": ((0.32, 0.75), (0.32, 0.75), (0.10, 0.42), (0.22, 0.62)),
    "rest": ((0.03, 0.07), (0.03, 0.14), (0.03, 0.06), (0.06, 0.20)),
    "recline": ((-0.02, 0.20), (0.10, 0.45), (0.0, 0.08), (0.0, 0.18)),
    "curve": ((0.0, 0.15), (0.0, 0.15), (0.0, 0.15), (0.0, 0.30)),
    "side": ((0.03, 0.06), (0.03, 0.10), (0.03, 0.05), (0.06, 0.15)),
}


def chair(draw: Draw) -> Member:
    """A chair of drawn kind and proportions, in metres, its feet at y = 0."""
    legs = draw.word("legs", CHAIR_LEGS[:5], (5, 2, 1, 1, 1))
    back = draw.word("back", CHAIR_BACKS, (3, 2, 2))
    arms = "arms" if draw.coin("arms", 0.4) else "no_arms"
    x = {
        "depth": draw("seat_depth", 0.38, 0.56),
        "width": draw("seat_width", 0.38, 0.60),
        "height": draw("seat_height", 0.34, 0.54),
        "pad": draw("seat_thickness", 0.03, 0.10),
        "arm": draw("arm_height", 0.16, 0.26),
        "top": draw("back_height", 0.36, 0.72),
        "leg": draw("leg_thickness", 0.03, 0.065),
        "taper": draw("leg_taper", 0.55, 1.0),
        "rest": draw("back_thickness", 0.03, 0.07),
        "recline": draw("recline", 0.0, 0.16),
        "splay": draw("splay", 0.0, 0.07) if legs in ("four_legs", "sled") else 0.0,
        "spread": draw("base_spread", 0.75, 1.1) if legs in ("star", "pedestal") else 1.0,
        "column": draw("column", 0.025, 0.05),
        "narrow": draw("back_of_seat", 0.8, 1.0),
        "shoulder": draw("back_top_width", 0.75, 1.1),
        "arch": draw("arch", -0.04, 0.10),
        "curve": draw("back_curve", 0.0, 0.09),
    }
    return Member(chair_structure(legs, arms, back), _chair_warp(x | {"side": x["leg"]}), draw.traits)


def any_chair(draw: Draw) -> Member:
    """A chair of any make: to dine, to lounge, at a bar or of a club, in metres, its feet at y = 0.

    Seats may be twice as wide, deep or high as others, sides and bases solid, legs crossed, backs bent around the seat.
    """
    name = draw.word("style", CHAIR_STYLES, (6, 3, 1, 3))
    style, number = _STYLES[name], CHAIR_STYLES.index(name)

    def size(part: str, trait: str) -> float:
        return draw(trait, *_SIZES[part][number])

    legs, arms = draw.word("legs", CHAIR_LEGS, style.legs), draw.word("arms", CHAIR_ARMS, style.arms)
    back = draw.word("back", CHAIR_BACKS, style.back)
    x = {"depth": size("depth", "seat_depth"), "width": size("width", "seat_width")}
    x |= {"height": size("height", "seat_height"), "top": size("top", "back_height")}
    x["pad"] = min(size("pad", "seat_thickness"), 0.45 * x["height"])
    x["arm"] = min(size("arm", "arm_height"), 0.85 * x["top"])
    x |= {"leg": draw("leg_thickness", 0.022, 0.065), "taper": draw("leg_taper", 0.55, 1.0)}
    x |= {"rest": size("rest", "back_thickness"), "recline": size("recline", "recline")}
    x["splay"] = draw("splay", -0.02, 0.10) if legs in ("four_legs", "sled", "folding") else 0.0
    x["spread"] = draw("base_spread", 0.75, 1.1) if legs in ("star", "pedestal") else 1.0
    x["column"] = draw("column", 0.02, 0.05)
    x |= {"narrow": draw("back_of_seat", 0.72, 1.02), "shoulder": draw("back_top_width", 0.75, 1.1)}
    x |= {"arch": x["top"] * draw("arch", -0.08, 0.25), "curve": size("curve", "back_curve")}
    x["side"] = size("side", "side_thickness") if arms == "sides" else x["leg"]
    return Member(chair_structure(legs, arms, back), _chair_warp(x), draw.traits)


def _chair_warp(x: dict[str, float]) -> Warp:
    """From the canonical chair to one of given sizes in metres."""
    depth, width, height, leg, side = (x[name] for name in ("depth", "width", "height", "leg", "side"))
    shoulder, column, thin, curve, narrow = (
        x[name] for name in ("shoulder", "column", "taper", "curve", "narrow")
    )

    def edges(half: float, inner: float, mid: float, shift: float = 0.0) -> list[float]:
        return [
            shift - half,
            shift - half + inner,
            shift - mid,
            shift + mid,
            shift + half - inner,
            shift + half,
        ]

    low, high = height - x["pad"], height + x["top"]
    reach = {s: x["spread"] * s / 2 + x["splay"] for s in (depth, width)}
    rear = [-depth / 2, -depth / 2 + x["rest"], -column, column, depth / 2 - leg, depth / 2]
    upright = [place - x["recline"] for place in rear]
    tall = [
        [0.0, 0.05, low, height, height + x["arm"], high + x["arch"] * (1 - (2 * z) ** 2)]
        for z in (i / 8 for i in range(-4, 5))
    ]
    steps: list[Step] = [
        stretch(1, (-1, -0.86, -0.08, 0.08, 0.47, 1.1), {i / 8: tall[i + 4] for i in range(-4, 5)}, along=2),
        stretch(
            0,
            _EDGES,
            {
                0.0: edges(reach[depth], leg * thin, column),
                low: edges(depth / 2, leg, column),
                height: rear,
                high: upright,
            },
            along=1,
        ),
        stretch(
            2,
            _EDGES,
            {
                0.0: edges(reach[width], leg * thin, column),
                low: edges(width / 2, leg, column),
                height: edges(width / 2, side, 0.2 * width),
                high: edges(shoulder * width / 2, min(side, 0.25 * shoulder * width), 0.2 * shoulder * width),
            },
            along=1,
        ),
        Shift(0, lambda p: curve * (2 * p[:, 2] / width) ** 2 * smooth_step(p[:, 1], height, height + 0.2)),
        Scale(2, lambda p: 1 + (1 - narrow) * (p[:, 0] / depth).clamp(-0.5, 0.5)),
    ]
    return Warp(tuple(steps))


@lru_cache(maxsize=16)
def table_structure(top: str, legs: str, shelf: bool) -> Structure:
    """The canonical table: its top at |y| < 0.05, the floor at y = -0.9, 1.4 long (x) and 1 wide (z)."""
    if top == "round":
        parts = [Part("top", disc((0, 0, 0), 0.6, 0.05, rounded=0.035), 0.07)]
        x, z, marks = 0.36, 0.36, {"top_edge": (0.6, 0.0, 0.0), "top_side": (0.0, 0.0, 0.6)}
        marks |= {"top_corner": (0.424, 0.0, 0.424), "top_rear_corner": (-0.424, 0.0, 0.424)}
    else:
        parts = [Part("top", block((-0.7, -0.05, -0.5), (0.7, 0.05, 0.5), 0.035), 0.07)]
        x, z, marks = 0.6, 0.4, {"top_edge": (0.7, 0.0, 0.0), "top_side": (0.0, 0.0, 0.5)}
        marks["top_corner"] = (0.69, 0.0, 0.49)
        marks["top_rear_corner"] = (-0.69, 0.0, 0.49)
    marks |= {
        "top_rear_edge": (-marks["top_edge"][0], 0.0, 0.0),
        "top_centre": (0, 0.05, 0),
        "below": (0.2, -0.05, 0),
    }
    if legs == "four_legs":
        for name, at in (("front_leg", x), ("back_leg", -x)):
            parts.append(
                Part(
                    name, block((at - 0.06, -0.9, z - 0.06), (at + 0.06, 0, z + 0.06), 0.05), 0.06, pair=True
                )
            )
        marks |= {"front_foot": (x, -0.9, z), "back_foot": (-x, -0.9, z)}
    elif legs == "trestle":
        for name, at in (("front_leg", x - 0.1), ("back_leg", 0.1 - x)):
            parts.append(Part(name, block((at - 0.05, -0.9, -0.34), (at + 0.05, 0, 0.34), 0.045), 0.06))
        parts.append(Part("stretcher", rod([(0.1 - x, -0.45, 0), (x - 0.1, -0.45, 0)], 0.05), 0.05))
        marks |= {"front_foot": (x - 0.1, -0.9, 0.3), "back_foot": (0.1 - x, -0.9, 0.3)}
    else:
        parts.append(Part("column", rod([(0, -0.85, 0), (0, -0.13, 0)], 0.09), 0.08, 0.1))
        marks["column"] = (0.09, -0.4, 0)
        if legs == "pedestal":
            parts.append(Part("base", disc((0, -0.855, 0), 0.36, 0.045, rounded=0.04), 0.06, 0.1))
            marks |= {
                "front_foot": (0.36, -0.855, 0),
                "back_foot": (-0.36, -0.855, 0),
                "side_foot": (0, -0.855, 0.36),
            }
        else:
            for sign, name in ((1, "front_leg"), (-1, "back_leg")):
                foot = [(0.0, -0.62, 0.0), (sign * 0.25, -0.76, 0.25), (sign * 0.36, -0.855, 0.36)]
                parts.append(Part(name, rod(foot, [0.06, 0.05, 0.045]), 0.05, 0.04, pair=True))
            marks |= {"front_foot": (0.36, -0.9, 0.36), "back_foot": (-0.36, -0.9, 0.36)}
    if shelf:
        parts.append(Part("shelf", block((-x, -0.62, -z), (x, -0.54, z), 0.035), 0.06))
    name = f"table/{top}/{legs}/{'shelf' if shelf else 'no_shelf'}"
    return Structure(name, TABLE_PARTS, tuple(parts), marks, 0.08)


def table(draw: Draw) -> Member:
    """A table of drawn kind and proportions, in metres, its feet at y = 0."""
    top = draw.word("top", TABLE_TOPS, (2, 1))
    legs = draw.word("legs", TABLE_LEGS, (5, 2, 2, 2) if top == "rectangular" else (3, 3, 0, 3))
    shelf = legs == "four_legs" and draw.coin("shelf", 0.25)
    low = draw.coin("low", 0.3) and legs != "star"
    height = draw("height", 0.35, 0.5) if low else draw("height", 0.65, 1.0)
    length, width = draw("length", 0.7, 2.0), draw("width", 0.55, 1.0)
    if top == "round":
        length = width * draw("oval", 1.0, 1.3)
    slab = draw("top_thickness", 0.025, 0.08)
    leg, taper = draw("leg_thickness", 0.04, 0.11), draw("leg_taper", 0.5, 1.0)
    splay, inset = draw("splay", -0.04, 0.10), draw("inset", 0.02, 0.25)
    spread = draw("base_spread", 0.8, 1.4)
    column = draw("column", 0.04, 0.08)
    steps: list[Step] = [stretch(1, (-0.9, -0.81, -0.05, 0.05), (0.0, min(leg, 0.07), height - slab, height))]
    x, z, rim = (0.36, 0.36, 0.6) if top == "round" else (0.6, 0.4, 0.7)
    for axis, at, half, size in ((0, x, rim, length), (2, z, rim if top == "round" else 0.5, width)):
        knots = (-half, -at - 0.06, -at + 0.06, -0.1, 0.1, at - 0.06, at + 0.06, half)
        centre = size / 2 * (1 - inset) - leg / 2 if top != "round" else 0.62 * size / 2
        if legs in ("pedestal", "star"):
            centre *= 0.62
        rows: dict[float, list[float]] = {}
        for level, thick, out in ((0.0, leg * taper, splay), (height - slab, leg, 0.0)):
            mid = centre * (spread if legs in ("pedestal", "star") and level == 0 else 1.0) + out
            side = [
                min(column, 0.7 * (mid - thick / 2)),
                mid - thick / 2,
                mid + thick / 2,
                max(size / 2, mid + thick / 2 + 0.02),
            ]
            rows[level] = [-s for s in reversed(side)] + side
        if legs in ("pedestal", "star"):  # the top in proportion, the column below it as drawn
            rows[height - slab - 0.08] = rows.pop(height - slab)
            rows[height - slab] = [k / half * size / 2 for k in knots]
        steps.append(stretch(axis, knots, rows, along=1))
    return Member(table_structure(top, legs, shelf), Warp(tuple(steps)), draw.traits)
