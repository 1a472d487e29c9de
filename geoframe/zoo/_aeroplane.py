"""Aeroplanes: structures, and members of drawn proportions; the unit is about a quarter of the length."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from geoframe.zoo.deform import Shift, Step, Warp, stretch
from geoframe.zoo.solids import Part, Point, block, both, disc, rod, wing
from geoframe.zoo.template import Draw, Member, Structure

KINDS = ("twin_jet", "four_jets", "business_jet", "propeller")
PARTS = (
    *("fuselage", "cockpit", "left_cabin_windows", "right_cabin_windows", "left_wing", "right_wing"),
    *("left_winglet", "right_winglet", "left_stabiliser", "right_stabiliser", "fin"),
    *("left_engine", "right_engine", "left_outer_engine", "right_outer_engine", "left_pylon", "right_pylon"),
    *("left_outer_pylon", "right_outer_pylon", "left_strut", "right_strut", "left_wheel", "right_wheel"),
    *(
        "left_leg",
        "right_leg",
        "nose_leg",
        "nose_wheel",
        "spinner",
        "propeller",
        "left_propeller",
        "right_propeller",
    ),
)


_WING_Y = -0.10  # height of a jet's wing at its root
_JET_LANDMARKS: dict[str, Point] = {
    "nose": (1.98, -0.05, 0),
    "tail": (-2.01, 0.13, 0),
    "wing_tip": (-0.62, _WING_Y + 0.12, 1.85),
    "wing_front": (-0.05, _WING_Y + 0.06, 0.9),
    "wing_rear": (-0.5, _WING_Y + 0.06, 0.9),
    "fin_tip": (-1.92, 0.80, 0),
    "fin_front": (-1.30, 0.35, 0),
    "back": (0.3, 0.21, 0),
    "belly": (0.9, -0.21, 0),
    "cockpit_top": (1.55, 0.2, 0),
    "flank": (0.9, 0.0, 0.21),
}


@lru_cache(maxsize=8)
def plane_structure(kind: str) -> Structure:
    """The canonical aeroplane of a kind, 4 long."""
    if kind == "propeller":
        return _propeller_plane()
    hull = rod(
        [(1.93, -0.05, 0), (1.78, -0.03, 0), (1.45, 0, 0), (-0.9, 0, 0), (-1.5, 0.06, 0), (-1.97, 0.13, 0)],
        [0.05, 0.13, 0.21, 0.21, 0.14, 0.04],
    )
    low = kind != "business_jet"
    y = _WING_Y
    parts = [
        Part("fuselage", hull, 0.13),
        Part(
            "wing",
            wing((0.25, y, 0.08), (-0.62, y + 0.12, 1.85), (0.95, 0.26), (0.12, 0.055)),
            0.07,
            0.05,
            True,
        ),
        Part(
            "winglet",
            wing((-0.66, y + 0.12, 1.84), (-0.86, y + 0.36, 1.90), (0.22, 0.12), (0.05, 0.05)),
            0.04,
            0.03,
            True,
        ),
        Part("fin", wing((-1.50, 0.10, 0), (-1.92, 0.80, 0), (0.72, 0.34), (0.085, 0.06)), 0.06, 0.05),
    ]
    marks = dict(_JET_LANDMARKS)
    if low:
        parts.append(
            Part(
                "stabiliser",
                wing((-1.58, 0.10, 0.03), (-1.92, 0.16, 0.72), (0.5, 0.2), (0.075, 0.055)),
                0.05,
                0.04,
                True,
            )
        )
        marks["stabiliser_tip"] = (-1.92, 0.16, 0.72)
        parts += _engine("engine", (0.18, -0.30, 0.62), (0.16, y + 0.05))
        marks["engine_front"] = (0.40, -0.20, 0.62)
        if kind == "four_jets":
            parts += _engine("outer_engine", (-0.14, -0.27, 1.12), (-0.20, y + 0.08))
    else:
        parts.append(
            Part(
                "stabiliser",
                wing((-1.775, 0.799, -0.06), (-2.05, 0.82, 0.66), (0.42, 0.2), (0.075, 0.055)),
                0.05,
                0.03,
                True,
            )
        )
        parts += _engine("engine", (-1.02, 0.12, 0.36), None)
        parts.append(Part("pylon", block((-1.25, 0.09, 0.1), (-0.85, 0.15, 0.32), 0.028), 0.05, 0.03, True))
        marks |= {
            "fin_tip": (-1.85, 0.84, 0),
            "stabiliser_tip": (-2.05, 0.82, 0.66),
            "engine_front": (-0.80, 0.22, 0.36),
        }
    parts += _windows()
    return Structure(f"aeroplane/{kind}", PARTS, tuple(parts), marks, 0.05)


def _windows() -> list[Part]:
    """Patches on the fuselage of a jet."""
    windows = lambda p: torch.maximum(_row(p), (p[:, 1] - 0.07).abs() - 0.032)  # noqa: E731
    screen = both(block((1.58, 0.055, -0.5), (1.76, 0.15, 0.5), 0.02), lambda p: 0.012 - p[:, 2].abs())
    return [
        Part("cockpit", screen, on="fuselage"),
        Part(
            "cabin_windows",
            both(windows, block((-1.1, -0.2, 0.05), (1.4, 0.3, 0.5), 0.02)),
            on="fuselage",
            pair=True,
        ),
    ]


def _row(points: Tensor) -> Tensor:
    """Negative in a row of windows along x."""
    return (torch.remainder(points[:, 0], 0.1) - 0.05).abs() - 0.027


def _engine(name: str, centre: Point, wing_at: tuple[float, float] | None) -> list[Part]:
    """A pod with an open front, and its pylon up to the wing at (x, y) or none."""
    x, y, z = centre
    pod = rod([(x + 0.14, y, z), (x - 0.10, y, z), (x - 0.30, y, z)], [0.115, 0.115, 0.06])
    front = lambda p: p[:, 0] - (x + 0.22)  # noqa: E731
    parts = [
        Part(name, both(pod, front), 0.06, 0.02, True),
        Part("intake", disc((x + 0.30, y, z), 0.085, 0.16, axis=0, rounded=0.02), 0.05, 0.02, True, True),
    ]
    hub = rod([(x + 0.1, y, z), (x + 0.165, y, z)], [0.04, 0.02])
    parts.append(Part(name, hub, 0.04, 0.01, True))
    if wing_at is not None:
        low, high = (x - 0.22, y + 0.06, z - 0.03), (wing_at[0] + 0.02, wing_at[1] + 0.02, z + 0.03)
        pylon = name.replace("engine", "pylon")
        parts.append(Part(pylon, block(low, high, 0.025), 0.04, 0.02, True))
    return parts


def _propeller_plane() -> Structure:
    """A light aeroplane with one propeller, a high wing and fixed wheels."""
    hull = rod(
        [(1.15, 0, 0), (0.95, 0, 0), (0.25, 0.06, 0), (-0.25, 0.06, 0), (-1.6, 0.1, 0)],
        [0.17, 0.22, 0.27, 0.26, 0.07],
    )
    y = 0.34
    parts = [
        Part("fuselage", hull, 0.13),
        Part("cockpit", block((-0.5, 0.1, -0.2), (0.5, 0.37, 0.2), 0.12), 0.1, 0.1),
        Part(
            "wing",
            wing((0.152, y - 0.003, -0.06), (0.1, y + 0.08, 1.95), (0.62, 0.48), (0.10, 0.07)),
            0.07,
            0.03,
            True,
        ),
        Part("strut", rod([(0.15, -0.1, 0.2), (0.14, y + 0.02, 0.85)], 0.03), 0.035, 0.02, True),
        Part("fin", wing((-1.45, 0.1, 0), (-1.66, 0.62, 0), (0.52, 0.28), (0.08, 0.06)), 0.05, 0.04),
        Part(
            "stabiliser",
            wing((-1.445, 0.12, -0.06), (-1.5, 0.12, 0.66), (0.46, 0.3), (0.08, 0.06)),
            0.05,
            0.03,
            True,
        ),
        Part("spinner", rod([(1.3, 0, 0), (1.46, 0, 0)], [0.08, 0.045]), 0.06, 0.03),
        Part("propeller", rod([(1.40, 0, 0), (1.40, 0.46, 0)], [0.045, 0.06], (0.6, 1, 1.2)), 0.045, 0.02),
        Part(
            "propeller",
            rod([(1.40, 0, 0), (1.40, -0.23, 0.40)], [0.045, 0.06], (0.6, 1, 1.2)),
            0.045,
            0.02,
            True,
        ),
        Part("leg", rod([(0.25, -0.15, 0.12), (0.22, -0.47, 0.42)], [0.045, 0.035]), 0.04, 0.02, True),
        Part("wheel", disc((0.22, -0.50, 0.45), 0.12, 0.05, axis=2, rounded=0.04), 0.05, 0.01, True),
        Part("nose_leg", rod([(1.0, -0.1, 0), (1.05, -0.45, 0)], 0.035), 0.04, 0.02),
        Part("nose_wheel", disc((1.05, -0.50, 0), 0.11, 0.05, axis=2, rounded=0.04), 0.05, 0.01),
        Part(
            "cabin_windows",
            both(block((-0.42, 0.14, 0.1), (0.34, 0.29, 0.6), 0.03), lambda p: 0.02 - (p[:, 0] + 0.02).abs()),
            on="cockpit",
            pair=True,
        ),
    ]
    marks: dict[str, Point] = {
        "nose": (1.5, 0, 0),
        "tail": (-1.67, 0.1, 0),
        "wing_tip": (0.1, y + 0.08, 1.95),
        "wing_front": (0.4, y + 0.04, 0.9),
        "wing_rear": (-0.15, y + 0.04, 0.9),
        "fin_tip": (-1.66, 0.62, 0),
        "fin_front": (-1.25, 0.3, 0),
        "back": (-0.7, 0.3, 0),
        "belly": (0.5, -0.2, 0),
        "flank": (0.7, 0.02, 0.24),
        "stabiliser_tip": (-1.5, 0.12, 0.66),
        "wheel_below": (0.22, -0.62, 0.45),
        "propeller_tip": (1.4, 0.52, 0.0),
    }
    return Structure("aeroplane/propeller", PARTS, tuple(parts), marks, 0.05)


def aeroplane(draw: Draw) -> Member:
    """An aeroplane of a drawn kind: two or four jets under the wings, two at the tail, or one propeller."""
    kind = draw.word("kind", KINDS, (3, 2, 2, 2))
    jet = kind != "propeller"
    front, rear = draw("front_length", 0.75, 1.25), draw("rear_length", 0.8, 1.2)
    span, sweep = draw("span", 0.75, 1.15), draw("sweep", -0.25, 0.3) if jet else draw("sweep", -0.05, 0.1)
    girth, dihedral = draw("girth", 0.85, 1.2), draw("dihedral", -0.02, 0.12)
    fin, chord = draw("fin_height", 0.75, 1.25), draw("chord", 0.8, 1.2)
    tail_span = draw("tail_span", 0.8, 1.25)
    body = 0.23 * girth
    wings = [-body - 1.77 * span, -body, body, body + 1.77 * span]
    tails = [-body - 1.77 * tail_span, -body, body, body + 1.77 * tail_span]
    reach = 0.55 * chord
    steps: list[Step] = [
        stretch(2, (-2.0, -0.23, 0.23, 2.0), {-1.2: tails, -0.9: wings}, along=0),
        stretch(
            1,
            (-0.5, -0.22, 0.22, 0.9),
            (-0.28 - 0.22 * girth, -0.22 * girth, 0.22 * girth, 0.22 * girth + 0.68 * fin),
        ),
        stretch(
            0,
            (-2.0, -0.65, 0.65, 2.0),
            (-reach - 1.35 * rear, -reach - 0.1, reach + 0.1, reach + 1.35 * front),
        ),
        Shift(0, lambda p: -sweep * _outside(p, body)),
        Shift(1, lambda p: dihedral * _outside(p, body)),
    ]
    return Member(plane_structure(kind), Warp(tuple(steps)), draw.traits)


def _outside(points: Tensor, half: float) -> Tensor:
    """(N,) how far |z| is beyond `half`, rounded at the start."""
    z = (points[:, 2].abs() - half).clamp(min=0)
    return z**2 / (z + 0.2)
