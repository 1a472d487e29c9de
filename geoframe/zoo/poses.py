"""Poses by name: standing, walking, galloping, grazing, rearing, sitting, lying and others, drawn within ranges."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from geoframe._check import check_choice
from geoframe.zoo._species import SPECIES, STILL
from geoframe.zoo.skeleton import Limits, bones

Angles = dict[str, tuple[float, float, float]]

# Degrees about x, y and z (of the right side). About z: a leg swings forwards, a head goes up, a hanging tail goes
# down and forwards; about y: a head turns to the animal's left.
_LOOSE: Limits = {
    "spine": (STILL, (-6, 6), (-5, 5)),
    "chest": (STILL, (-6, 6), (-5, 5)),
    "neck": (STILL, (-15, 15), (-20, 12)),
    "upper_neck": (STILL, (-12, 12), (-12, 12)),
    "head": ((-10, 10), (-15, 15), (-15, 15)),
    "tail": ((-10, 10), (-30, 30), (-25, 15)),
    "tail_middle": (STILL, (-18, 18), (-15, 15)),
    "tail_end": (STILL, (-18, 18), (-15, 15)),
    "ear": ((-10, 10), (-25, 25), (-25, 15)),
}
_STANDING: Limits = {
    "foreleg": ((-3, 5), STILL, (-8, 10)),
    "forearm": (STILL, STILL, (-4, 6)),
    "forefoot": (STILL, STILL, (-6, 2)),
    "thigh": ((-3, 5), STILL, (-12, 10)),
    "shank": (STILL, STILL, (-8, 6)),
    "hindfoot": (STILL, STILL, (-6, 8)),
}
_WALKING: Limits = {
    "foreleg": ((-3, 5), STILL, (-28, 28)),
    "forearm": (STILL, STILL, (-6, 35)),
    "forefoot": (STILL, STILL, (-60, 3)),
    "fingers": (STILL, STILL, (-20, 10)),
    "thigh": ((-3, 5), STILL, (-25, 26)),
    "shank": (STILL, STILL, (-35, 8)),
    "hindfoot": (STILL, STILL, (-10, 30)),
    "toes": (STILL, STILL, (-20, 10)),
}
_GALLOPING: Limits = {
    "pelvis": (STILL, STILL, (-14, 14)),
    "spine": (STILL, (-5, 5), (-12, 8)),
    "foreleg": ((-3, 5), STILL, (-40, 48)),
    "forearm": (STILL, STILL, (-5, 55)),
    "forefoot": (STILL, STILL, (-95, 3)),
    "fingers": (STILL, STILL, (-35, 5)),
    "thigh": ((-3, 5), STILL, (-42, 42)),
    "shank": (STILL, STILL, (-55, 10)),
    "hindfoot": (STILL, STILL, (-10, 50)),
    "toes": (STILL, STILL, (-30, 10)),
    "neck": (STILL, (-8, 8), (-25, 8)),
    "tail": ((-10, 10), (-35, 35), (-85, -10)),
}
_GRAZING: Limits = {
    "chest": (STILL, (-8, 8), (-16, -2)),
    "neck": (STILL, (-18, 18), (-92, -52)),
    "upper_neck": (STILL, (-15, 15), (-42, -12)),
    "head": ((-10, 10), (-15, 15), (5, 55)),
}
_HEAD_DOWN_TAIL_UP: Limits = {
    **_GRAZING,
    "pelvis": (STILL, STILL, (-12, 0)),
    "neck": (STILL, (-18, 18), (-60, -20)),
    "tail": ((-12, 12), (-30, 30), (-110, -45)),
}
_HEAD_UP: Limits = {
    "neck": (STILL, (-20, 20), (8, 30)),
    "upper_neck": (STILL, (-20, 20), (0, 20)),
    "head": ((-10, 10), (-20, 20), (-10, 35)),
    "tail": ((-10, 10), (-30, 30), (-95, 0)),
}
_LOOKING: Limits = {  # to one side: draw_pose mirrors half of them
    "chest": (STILL, (0, 10), (-5, 5)),
    "neck": (STILL, (15, 42), (-20, 15)),
    "upper_neck": (STILL, (10, 35), (-12, 12)),
    "head": ((-10, 10), (8, 35), (-15, 15)),
}
_REARING: Limits = {
    "pelvis": (STILL, STILL, (28, 65)),
    "spine": (STILL, (-5, 5), (-5, 8)),
    "foreleg": ((-5, 8), STILL, (-35, 40)),
    "forearm": (STILL, STILL, (0, 70)),
    "forefoot": (STILL, STILL, (-110, -10)),
    "thigh": ((-4, 8), STILL, (-65, -10)),
    "shank": (STILL, STILL, (-25, 10)),
    "hindfoot": (STILL, STILL, (-10, 30)),
    "neck": (STILL, (-15, 15), (-30, 10)),
    "head": ((-8, 8), (-15, 15), (-40, 5)),
    "tail": ((-10, 10), (-25, 25), (-50, 10)),
}
_SITTING: Limits = {
    "pelvis": (STILL, STILL, (32, 52)),
    "spine": (STILL, (-5, 5), (-8, 6)),
    "foreleg": ((-5, 8), STILL, (-52, -30)),
    "forearm": (STILL, STILL, (-4, 10)),
    "forefoot": (STILL, STILL, (-4, 4)),
    "thigh": ((-4, 18), STILL, (25, 52)),
    "shank": (STILL, STILL, (-90, -62)),
    "hindfoot": (STILL, STILL, (5, 40)),
    "neck": (STILL, (-25, 25), (-35, 0)),
    "upper_neck": (STILL, (-20, 20), (-20, 10)),
    "head": ((-10, 10), (-25, 25), (-40, 5)),
    "tail": ((-10, 10), (-45, 45), (-40, 0)),
}
_LYING: Limits = {
    "spine": (STILL, (-10, 10), (-5, 5)),
    "foreleg": ((-12, 6), STILL, (-10, 45)),
    "forearm": (STILL, STILL, (35, 85)),
    "forefoot": (STILL, STILL, (-150, -10)),
    "thigh": ((-22, 6), STILL, (30, 72)),
    "shank": (STILL, STILL, (-115, -70)),
    "hindfoot": (STILL, STILL, (55, 110)),
    "neck": (STILL, (-35, 35), (-30, 15)),
    "upper_neck": (STILL, (-25, 25), (-15, 15)),
    "head": ((-10, 10), (-25, 25), (-25, 15)),
    "tail": ((-10, 10), (-60, 60), (-45, 5)),
}
_JUMPING: Limits = {
    "pelvis": (STILL, STILL, (-25, 32)),
    "spine": (STILL, (-4, 4), (-8, 10)),
    "foreleg": ((-3, 5), STILL, (10, 62)),
    "forearm": (STILL, STILL, (10, 75)),
    "forefoot": (STILL, STILL, (-120, -10)),
    "thigh": ((-3, 5), STILL, (-55, 15)),
    "shank": (STILL, STILL, (-50, 5)),
    "hindfoot": (STILL, STILL, (-5, 45)),
    "neck": (STILL, (-8, 8), (-35, 5)),
    "tail": ((-10, 10), (-25, 25), (-80, -5)),
}
_FOUR_LEGS: dict[str, Limits] = {
    "standing": {**_LOOSE, **_STANDING},
    "walking": {**_LOOSE, **_WALKING},
    "galloping": {**_LOOSE, **_WALKING, **_GALLOPING},
    "grazing": {**_LOOSE, **_STANDING, **_GRAZING},
    "head_down_tail_up": {**_LOOSE, **_WALKING, **_HEAD_DOWN_TAIL_UP},
    "head_up": {**_LOOSE, **_WALKING, **_HEAD_UP},
    "looking": {**_LOOSE, **_STANDING, **_LOOKING},
    "rearing": {**_LOOSE, **_REARING},
    "sitting": {**_LOOSE, **_SITTING},
    "lying": {**_LOOSE, **_LYING},
    "jumping": {**_LOOSE, **_JUMPING},
}
_UPRIGHT: Limits = {
    "spine": ((-5, 5), (-10, 10), (-10, 4)),
    "chest": ((-5, 5), (-10, 10), (-8, 4)),
    "neck": (STILL, (-20, 20), (-10, 8)),
    "upper_neck": (STILL, (-15, 15), (-8, 8)),
    "head": ((-10, 10), (-20, 20), (-12, 10)),
    "foreleg": ((18, 36), (-8, 8), (-20, 25)),  # from the rest pose, arms half raised, to the sides
    "forearm": (STILL, (-8, 8), (0, 30)),
    "forefoot": ((-8, 8), STILL, (-12, 12)),
    "thigh": ((-8, 1), STILL, (-8, 8)),
    "shank": (STILL, STILL, (-8, 0)),
    "hindfoot": (STILL, STILL, (-5, 6)),
}
_TWO_LEGS: dict[str, Limits] = {
    "standing": _UPRIGHT,
    "walking": {
        **_UPRIGHT,
        "foreleg": ((10, 36), (-10, 10), (-40, 45)),
        "forearm": (STILL, (-8, 8), (0, 60)),
        "thigh": ((-8, 1), STILL, (-28, 38)),
        "shank": (STILL, STILL, (-60, 0)),
        "hindfoot": (STILL, STILL, (-15, 20)),
    },
    "arms": {
        **_UPRIGHT,
        "foreleg": ((-75, 30), (-25, 25), (-40, 90)),
        "forearm": ((-20, 10), (-10, 60), (0, 110)),
    },
    "sitting": {
        **_UPRIGHT,
        "foreleg": ((5, 36), (-10, 10), (0, 50)),
        "forearm": (STILL, (-8, 25), (20, 90)),
        "thigh": ((-18, 2), STILL, (65, 95)),
        "shank": (STILL, STILL, (-105, -55)),
    },
    "bending": {
        **_UPRIGHT,
        "pelvis": (STILL, STILL, (-45, 0)),
        "spine": ((-5, 5), (-15, 15), (-30, 0)),
        "chest": ((-5, 5), (-12, 12), (-25, 0)),
        "foreleg": ((-15, 30), (-10, 10), (10, 80)),
        "forearm": (STILL, (-8, 25), (0, 60)),
        "thigh": ((-10, 1), STILL, (0, 60)),
        "shank": (STILL, STILL, (-50, 0)),
    },
}
_WINGED: dict[str, Limits] = {
    "flying": {**SPECIES["bird"].limits, "foreleg": ((-45, 30), (-15, 15), STILL)},
    "perching": {
        **SPECIES["bird"].limits,
        "foreleg": ((10, 26), (-92, -78), STILL),
        "forearm": ((-5, 5), (-8, 4), STILL),
        "forefoot": ((-4, 4), (-8, 4), STILL),
        "pelvis": (STILL, STILL, (-15, 25)),
    },
}
_USUAL = {  # how often each pose is drawn
    **dict.fromkeys(("horse", "zebra"), (20, 18, 18, 11, 5, 8, 7, 4, 1, 4, 4)),
    **dict.fromkeys(("cow", "sheep", "giraffe", "elephant"), (26, 26, 6, 16, 4, 5, 8, 1, 1, 6, 1)),
    "bird": (2, 3),
    **dict.fromkeys(("dog", "cat", "lion", "bear"), (20, 19, 8, 8, 5, 5, 8, 3, 13, 9, 4)),
}


def pose_names(name: str) -> tuple[str, ...]:
    """The named poses of a species.

    Args:
        name: one of `species()`.

    Raises:
        ValueError: unknown name.
    """
    check_choice(name, tuple(sorted(SPECIES)), "name")
    return tuple(_table(name))


def draw_pose(name: str, kind: str | None = None, *, seed: int | np.random.Generator = 0) -> Angles:
    """Angles of a pose by name, drawn within its ranges.

    Args:
        name: one of `species()`.
        kind: one of `pose_names(name)`; None draws one, as often as it is usual for the species.
        seed: an int, or a generator to draw from.

    Returns:
        Degrees about x, y and z by which each bone turns, as `joint_angles` gives them and `pose_template` takes.

    Raises:
        ValueError: unknown names.
    """
    check_choice(name, tuple(sorted(SPECIES)), "name")
    rng = np.random.default_rng(seed)
    table = _table(name)
    names = tuple(table)
    if kind is None:
        weights = np.array(_USUAL.get(name, (1,) * len(names)), float)
        kind = names[int(np.searchsorted(weights.cumsum() / weights.sum(), rng.random()))]
    return angles_within(table[check_choice(kind, names, "kind")], rng)


def angles_within(limits: Mapping[str, tuple], rng: np.random.Generator) -> Angles:
    """Angles drawn evenly within limits, the whole mirrored in half of the cases."""
    names = bones().names
    share = rng.random((len(names), 3)).tolist()
    turn = 1.0 if rng.random() < 0.5 else -1.0
    out: Angles = {}
    for name, (r, s, t) in zip(names, share, strict=True):
        side, _, paired = name.partition("_")
        is_pair = side in ("left", "right")
        ranges = limits.get(paired if is_pair else name)
        if ranges is None:
            continue
        (ax, bx), (ay, by), (az, bz) = ranges
        sign = (-1.0 if side == "left" else 1.0) if is_pair else turn
        out[name] = (sign * (ax + r * (bx - ax)), sign * (ay + s * (by - ay)), az + t * (bz - az))
    return out


def _table(name: str) -> dict[str, Limits]:
    return {"human": _TWO_LEGS, "chimp": _TWO_LEGS, "bird": _WINGED}.get(name, _FOUR_LEGS)
