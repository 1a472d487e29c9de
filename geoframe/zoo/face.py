"""A human head with identity and expression: one template, so every surface point corresponds exactly.

The head looks along +x, y is up, its left is at -z; the unit is about half its height.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from geoframe._check import check_choice, check_int
from geoframe.surface.implicit import Field
from geoframe.zoo.deform import Scale, Shift, Step, Warp, push, smooth_step, stretch
from geoframe.zoo.solids import Part, Point, ball, both, carve, rod
from geoframe.zoo.template import Draw, Member, Structure

PARTS = (
    *("skin", "hair", "neck", "nose", "upper_lip", "lower_lip", "mouth"),
    *("left_ear", "right_ear", "left_brow", "right_brow", "left_eyelid", "right_eyelid"),
    *("left_eye", "right_eye", "left_iris", "right_iris"),
)
EXPRESSIONS = ("smile", "open_mouth", "raised_brows", "frown", "closed_eyes", "pucker")
_EYE: Point = (0.66, 0.10, 0.31)
_MOUTH = -0.555  # height of the line between the lips

_LANDMARKS: dict[str, Point] = {
    "crown": (-0.15, 1.3, 0),
    "forehead": (0.72, 0.62, 0),
    "nasion": (0.85, 0.17, 0),
    "nose_tip": (1.2, -0.22, 0),
    "subnasale": (0.95, -0.37, 0),
    "upper_lip_top": (0.97, -0.45, 0),
    "lower_lip_bottom": (0.9, -0.70, 0),
    "chin": (0.85, -0.95, 0),
    "throat": (0.2, -1.3, 0),
    "nape": (-0.8, -0.9, 0),
    "back_of_head": (-1.05, 0.45, 0),
    "eye_inner": (0.80, 0.10, 0.14),
    "eye_outer": (0.66, 0.10, 0.50),
    "pupil": (0.85, 0.10, 0.31),
    "brow_inner": (0.86, 0.34, 0.12),
    "brow_middle": (0.86, 0.40, 0.28),
    "brow_outer": (0.74, 0.35, 0.46),
    "nose_wing": (0.98, -0.27, 0.21),
    "mouth_corner": (0.85, _MOUTH, 0.27),
    "cheek": (0.7, -0.2, 0.5),
    "jaw_angle": (0.0, -0.62, 0.6),
    "ear_top": (-0.16, 0.36, 0.80),
    "ear_lobe": (-0.02, -0.27, 0.72),
    "temple": (0.4, 0.35, 0.65),
}


@lru_cache(maxsize=1)
def head_structure() -> Structure:
    """The canonical head, its lips a little apart."""
    skull = carve(ball((-0.12, 0.45, 0.0), (0.93, 0.82, 0.74)), _hair, -0.05, 0.03)
    parts = [
        Part("skin", skull, 0.2),
        Part("skin", ball((0.20, -0.22, 0.0), (0.62, 0.86, 0.58)), 0.14, 0.35),
        Part(
            "skin",
            rod([(-0.05, -0.42, 0.46), (0.25, -0.72, 0.32), (0.55, -0.86, 0.12)], 0.17),
            0.14,
            0.3,
            True,
        ),
        Part("skin", ball((0.64, -0.88, 0.0), (0.19, 0.16, 0.20)), 0.1, 0.22),
        Part("skin", ball((0.50, -0.08, 0.40), (0.24, 0.20, 0.18)), 0.1, 0.25, True),
        Part("skin", ball((0.72, -0.56, 0.0), (0.20, 0.22, 0.30)), 0.07, 0.2),
        Part(
            "skin",
            rod([(0.76, 0.30, 0.06), (0.72, 0.33, 0.28), (0.56, 0.28, 0.48)], [0.09, 0.10, 0.08]),
            0.08,
            0.16,
            True,
        ),
        Part("skin", ball((0.88, 0.10, 0.31), (0.20, 0.135, 0.19)), 0.06, 0.12, True, True),
        Part(
            "neck",
            rod([(-0.30, -0.4, 0), (-0.34, -1.15, 0), (-0.36, -1.62, 0)], [0.46, 0.44, 0.50]),
            0.18,
            0.22,
        ),
        Part("neck", lambda p: p[:, 1] + 1.62, 0.18, 0.06, cut=True),
        *_eyes(),
        *_nose(),
        *_lips(),
        *_ears(),
        Part(
            "brow",
            rod([(0.80, 0.335, 0.11), (0.79, 0.385, 0.27), (0.66, 0.345, 0.46)], [0.045, 0.05, 0.03]),
            0.05,
            0.02,
            True,
        ),
        Part("hair", _hair, on="skin"),
    ]
    return Structure("head", PARTS, tuple(parts), _LANDMARKS, 0.05)


def _hair(p: Tensor) -> Tensor:
    """Negative where hair grows: above the forehead and behind the temples and ears."""
    x, y, z = p[:, 0], p[:, 1], p[:, 2]
    line = 0.80 - 0.30 * smooth_step(z.abs(), 0.25, 0.62) - 0.2 * smooth_step(z.abs(), 0.55, 0.75)
    return line - (line + 0.55) * smooth_step(x, -0.18, -0.55) - y


def _eyes() -> list[Part]:
    """Eyeballs behind lids with a slit."""
    x, y, z = _EYE
    lid = ball(_EYE, (0.195, 0.165, 0.195))

    def slit(p: Tensor) -> Tensor:
        t = ((p[:, 2] - z) / 0.16) ** 2
        return torch.maximum((p[:, 1] - y).abs() - 0.062 * (1 - t), 0.03 + x - p[:, 0])

    iris = lambda p: ((p[:, 1] - y) ** 2 + (p[:, 2] - z) ** 2 + 1e-18).sqrt() - 0.058  # noqa: E731
    return [
        Part("eyelid", lid, 0.045, 0.03, True),
        Part("slit", slit, 0.04, 0.012, True, True),
        Part("eye", ball(_EYE, (0.165, 0.15, 0.165)), 0.04, 0.0, True),
        Part("iris", iris, on="eye", pair=True),
    ]


def _nose() -> list[Part]:
    """Bridge, tip, wings and nostrils."""
    return [
        Part(
            "nose", rod([(0.74, 0.20, 0), (0.88, 0.0, 0), (1.03, -0.20, 0)], [0.07, 0.085, 0.11]), 0.06, 0.09
        ),
        Part("nose", rod([(0.74, 0.10, 0), (0.89, -0.24, 0)], [0.07, 0.10]), 0.06, 0.05),
        Part("nose", ball((1.06, -0.235, 0), (0.11, 0.10, 0.105)), 0.05, 0.06),
        Part("nose", ball((0.90, -0.28, 0.118), (0.155, 0.08, 0.08)), 0.045, 0.07, True),
        Part("nostril", ball((1.03, -0.345, 0.075), (0.065, 0.06, 0.038)), 0.04, 0.02, True, True),
    ]


def _lips() -> list[Part]:
    """Lips and the mouth between them."""
    upper = [(0.895, -0.505, 0.0), (0.90, -0.490, 0.055), (0.845, -0.520, 0.165), (0.765, -0.553, 0.262)]
    lower = [(0.875, -0.620, 0.0), (0.855, -0.612, 0.10), (0.805, -0.585, 0.195), (0.76, -0.557, 0.258)]
    return [
        Part("upper_lip", rod(upper, [0.046, 0.047, 0.040, 0.02]), 0.04, 0.04, True),
        Part("lower_lip", rod(lower, [0.062, 0.058, 0.044, 0.02]), 0.04, 0.04, True),
        Part("gap", ball((0.78, _MOUTH, 0.0), (0.32, 0.032, 0.222)), 0.04, 0.015, False, True),
        Part(
            "mouth", both(ball((0.78, _MOUTH, 0.0), (0.33, 0.05, 0.235)), lambda p: p[:, 0] - 0.86), on="skin"
        ),
    ]


def _ears() -> list[Part]:
    """Shells with a hollow and a lobe."""

    def tilted(base: Field) -> Field:
        c, s = 0.966, 0.259

        def field(p: Tensor) -> Tensor:
            x, y, z = p[:, 0] + 0.13, p[:, 1] - 0.05, p[:, 2] - 0.70
            out = 0.35 * x  # the rear edge stands off the head
            return base(torch.stack([c * x + s * y, -s * x + c * y, z + out], dim=1))

        return field

    return [
        Part("ear", tilted(ball((0, 0, 0.03), (0.19, 0.33, 0.075))), 0.05, 0.03, True),
        Part("hollow", tilted(ball((0.02, 0.02, 0.12), (0.11, 0.22, 0.085))), 0.045, 0.03, True, True),
        Part("ear", tilted(ball((0.06, -0.02, 0.06), (0.045, 0.07, 0.045))), 0.04, 0.03, True),
        Part("ear", tilted(ball((0.05, -0.27, 0.04), (0.085, 0.095, 0.055))), 0.04, 0.04, True),
    ]


def sample_head(seed: int, expression: Mapping[str, float] | None = None) -> Member:
    """A head of drawn identity with an expression.

    Args:
        seed: of the identity.
        expression: strength from 0 to 1 of any of `EXPRESSIONS`; neutral by default.

    Raises:
        ValueError: negative seed, unknown expression, or a strength outside of 0..1.
    """
    strength = dict.fromkeys(EXPRESSIONS, 0.0)
    for name, value in (expression or {}).items():
        check_choice(name, EXPRESSIONS, "expression")
        if not 0 <= value <= 1:
            raise ValueError(f"expression: expected strengths from 0 to 1, found {value} for {name!r}")
        strength[name] = float(value)
    draw = Draw("head", check_int(seed, "seed", low=0))
    steps = (*_expression(strength), *_identity(draw))
    return Member(head_structure(), Warp(steps), {**draw.traits, **strength})


def _expression(e: Mapping[str, float]) -> list[Step]:
    """Mouth and lids open or closed, then brows, cheeks and corners of the mouth pushed."""
    opened, smile, pucker = 0.30 * e["open_mouth"], e["smile"], e["pucker"]
    seam = 0.006
    lips = lambda p: smooth_step(p[:, 0], 0.3, 0.55) * smooth_step(p[:, 2].abs(), 0.40, 0.22)  # noqa: E731
    jaw = lambda p: smooth_step(p[:, 0], -0.15, 0.6) * torch.exp(-((p[:, 2] / 0.55) ** 4))  # noqa: E731
    lids = lambda p: smooth_step(p[:, 0], 0.2, 0.5) * torch.exp(-(((p[:, 2].abs() - 0.31) / 0.26) ** 4))  # noqa: E731
    y = _EYE[1]
    lid = max(0.062 * (1 - e["closed_eyes"]) * (1 + 0.25 * e["raised_brows"]) * (1 - 0.2 * smile), 0.005)
    jaw_rows = {
        0.0: (-1.7, -1.1, -0.70, _MOUTH - seam, _MOUTH + seam, -0.42, -0.2),
        1.0: (-1.9, -1.1 - opened, -0.70 - opened, _MOUTH - seam - opened, _MOUTH + seam, -0.42, -0.2),
    }
    steps: list[Step] = [
        _open((_MOUTH - 0.032, _MOUTH + 0.032), (_MOUTH - seam, _MOUTH + seam), 0.1, lips),
        stretch(1, jaw_rows[0.0], jaw_rows, along=jaw),
        _open((y - 0.062, y + 0.062), (y - 0.025 - 0.6 * lid, y - 0.025 + 1.4 * lid), 0.16, lids),
    ]
    corner = (0.80, _MOUTH, 0.26)
    brow_up = 0.13 * e["raised_brows"] - 0.07 * e["frown"]
    steps += [
        push(1, 0.12 * smile, corner, (0.4, 0.22, 0.15), True),
        push(2, 0.10 * smile - 0.09 * pucker, corner, (0.4, 0.25, 0.19), True),
        push(0, -0.05 * smile, corner, (0.3, 0.2, 0.16), True),
        push(0, 0.05 * smile, (0.62, -0.15, 0.44), (0.3, 0.2, 0.18), True),
        push(1, 0.05 * smile, (0.66, -0.10, 0.42), (0.3, 0.2, 0.2), True),
        push(0, 0.10 * pucker, (0.9, _MOUTH, 0.0), (0.3, 0.18, 0.16)),
        push(1, brow_up, (0.78, 0.38, 0.30), (0.35, 0.24, 0.24), True),
        push(1, -0.04 * e["frown"], (0.8, 0.35, 0.14), (0.3, 0.14, 0.1), True),
        push(2, -0.05 * e["frown"], (0.8, 0.35, 0.15), (0.3, 0.14, 0.1), True),
    ]
    return steps


def _open(
    gap: tuple[float, float], wanted: tuple[float, float], reach: float, where: Callable[[Tensor], Tensor]
) -> Step:
    """Moves the edges of a level gap and what is within `reach` of them: fully where `where` is 1, not where 0."""
    low, high = gap
    below, above = (low - reach - 0.1, low - reach), (high + reach, high + reach + 0.1)
    return stretch(
        1,
        (*below, low, high, *above),
        {0.0: (*below, *gap, *above), 1.0: (*below, *wanted, *above)},
        along=where,
    )


def _identity(draw: Draw) -> list[Step]:
    """Proportions of the skull, then features."""
    long, jaw, wide = (
        draw("face_length", 0.9, 1.12),
        draw("jaw_width", 0.8, 1.12),
        draw("head_width", 0.92, 1.1),
    )
    deep, high = draw("head_depth", 0.92, 1.08), draw("forehead", 0.9, 1.12)
    neck = draw("neck_width", 0.78, 1.15)
    lips, nose_high = draw("lip_fullness", 0.75, 1.3), draw("nose_length", -0.07, 0.06)
    slope = draw("forehead_slope", -0.08, 0.10)
    eyes = draw("eye_size", 0.85, 1.15)
    y = _EYE[1]

    def narrow(p: Tensor) -> Tensor:
        t = smooth_step(p[:, 1], 0.0, -0.7)
        return (
            wide
            * (1 + (jaw - 1) * t * smooth_step(p[:, 1], -1.4, -1.0))
            * (1 + (neck - 1) * smooth_step(p[:, 1], -0.9, -1.3))
        )

    around_mouth = lambda p: smooth_step(p[:, 0], 0.35, 0.75) * torch.exp(-((p[:, 2] / 0.3) ** 4))  # noqa: E731
    around_eye = lambda p: smooth_step(p[:, 0], 0.2, 0.5) * torch.exp(-(((p[:, 2].abs() - 0.31) / 0.26) ** 4))  # noqa: E731
    full = 0.11 * lips
    return [
        _open((_MOUTH - 0.11, _MOUTH + 0.11), (_MOUTH - full, _MOUTH + full), 0.16, around_mouth),
        _open((y - 0.06, y + 0.06), (y - 0.06 * eyes, y + 0.06 * eyes), 0.16, around_eye),
        push(0, draw("nose_depth", -0.08, 0.10), (1.05, -0.22, 0.0), (0.28, 0.22, 0.22)),
        push(1, nose_high, (1.05, -0.25, 0.0), (0.35, 0.16, 0.2)),
        push(0, draw("nose_bridge", -0.04, 0.07), (0.92, 0.05, 0.0), (0.25, 0.2, 0.13)),
        push(2, draw("nose_width", -0.035, 0.05), (0.97, -0.28, 0.13), (0.25, 0.14, 0.12), True),
        push(0, draw("chin_depth", -0.10, 0.10), (0.75, -0.95, 0.0), (0.3, 0.25, 0.3)),
        push(1, draw("chin_length", -0.10, 0.06), (0.65, -1.0, 0.0), (0.4, 0.25, 0.3)),
        push(2, draw("cheekbones", -0.05, 0.06), (0.45, -0.05, 0.52), (0.3, 0.22, 0.25), True),
        push(0, draw("brow_ridge", -0.04, 0.07), (0.82, 0.32, 0.2), (0.25, 0.14, 0.25), True),
        push(2, draw("mouth_width", -0.04, 0.06), (0.80, _MOUTH, 0.25), (0.3, 0.16, 0.16), True),
        push(2, draw("ears_out", -0.02, 0.09), (-0.2, 0.1, 0.85), (0.25, 0.4, 0.2), True),
        push(1, draw("ear_length", -0.04, 0.10), (-0.13, 0.4, 0.78), (0.3, 0.3, 0.2), True),
        Shift(0, lambda p: -slope * (p[:, 1] - 0.3).clamp(min=0) ** 2),
        stretch(0, (-1.1, 0.1, 1.1), (0.1 - 1.2 * deep, 0.1, 1.1)),
        stretch(
            1,
            (-1.7, -1.05, _MOUTH, -0.3, y, 0.6, 1.28),
            (-1.7 * long - 0.05, -1.05 * long, _MOUTH * long, -0.3 * long, y, 0.6 * high, 1.28 * high),
        ),
        Scale(2, narrow),
    ]
