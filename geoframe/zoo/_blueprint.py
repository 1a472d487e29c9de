"""From the measures of a species to the vertices of its cage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from geoframe._types import Floats
from geoframe.surface.normals import vertex_normals
from geoframe.zoo import _cage
from geoframe.zoo._cage import Key
from geoframe.zoo.skeleton import Limits

Rows = Mapping[int, tuple[float, ...]]
Triple = tuple[float, float, float]

# a ring of n control points of radius 1 becomes a curve of radius (4 + 2 cos(2 pi / n)) / 6
_SHRINK = {n: (4 + 2 * np.cos(2 * np.pi / n)) / 6 for n in (4, 6, 10, 12)}


@dataclass(frozen=True)
class Ear:
    """Attributes:
    axis: where it points, right ear (z outwards); face: where its opening looks. length, thickness, cup: in
        metres; width: half widths at 0.4, 0.8 and all of its length. droop: how far its end sinks.
    """

    axis: Triple
    face: Triple
    length: float
    width: Triple
    thickness: float = 0.012
    cup: float = 0.3
    droop: float = 0.0


@dataclass(frozen=True)
class Digits:
    """Attributes:
    length: of the four digits, outermost first; zero for hooves. spread: sideways, of the outer ones.
    direction: None continues the limb. thickness: of the end, relative to the root.
    thumb: its direction and length, in the right limb (z outwards); thumb_size relative to its root.
    """

    length: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    spread: float = 0.25
    direction: Triple | None = None
    thickness: float = 1.1
    thumb: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    thumb_size: float = 1.0


@dataclass(frozen=True)
class Blueprint:
    """The measures of a species, in metres: x forwards, y up, z to its right.

    Attributes:
        body: ring -> dorsal x, y, ventral x, y, half width, height of the widest place (-1 to 1, default 0)
            and roundness of the section (1 an ellipse, less is squarer). Rings left out are interpolated.
        fore, hind: ring -> centre x, y, z of the right limb, half thickness fore-aft and sideways; where ring 0 is
            given, the limb's root has this shape, else that of the body.
        tail: 6 rows of centre x, y, radius and half width (the radius by default), or none.
        horn: 3 rows of x, y, z, radius, or none.
        nose, rump: how far the five midline vertices of the end caps stand out, top first.
        bumps: x, y, z (the right one), radius and height of smooth swellings along the normal.
        fore_out, hind_out: which way is outside at the limbs.
        root: how much of ring 0 of the fore and hind limbs is theirs, the rest the body's.
        crest: ring of the body -> height of a mane on its dorsal midline.
        eye: radius of the eyeballs.
        wool: depth of the locks on body and neck.
        limits: of the joints, see `skeleton`.
    """

    body: Rows
    fore: Rows
    hind: Rows
    tail: tuple[tuple[float, ...], ...]
    ear: Ear
    fore_digits: Digits = Digits()
    hind_digits: Digits = Digits()
    horn: tuple[tuple[float, float, float, float], ...] = ()
    nose: tuple[float, ...] = (0.01, 0.02, 0.02, 0.02, 0.01)
    rump: tuple[float, ...] = (0.01, 0.02, 0.03, 0.02, 0.01)
    bumps: tuple[tuple[float, float, float, float, float], ...] = ()
    fore_out: Triple = (0.0, 0.0, 1.0)
    hind_out: Triple = (0.0, 0.0, 1.0)
    root: tuple[float, float] = (1.0, 1.0)
    crest: Mapping[int, float] = field(default_factory=dict)
    eye: float = 0.0
    wool: float = 0.0
    limits: Limits = field(default_factory=dict)


def place_cage(plan: Blueprint) -> Floats:
    """(n, 3) positions of the cage's vertices, exactly symmetric in z."""
    c = _cage.cage()
    at: dict[Key, Floats] = {}
    _place_body(plan, at)
    for part in ("fore", "hind"):
        _place_limb(plan, part, at)
    _place_tail(plan, at)
    _place_ear(plan.ear, at)
    _place_horn(plan, at)
    for key in list(at):
        at[_cage.mirrored(key)] = at[key] * (1, 1, -1)
    out = np.array([at[key] for key in c.keys])
    out[c.mirror == np.arange(len(out)), 2] = 0
    return out


def fill_rows(rows: Rows, n: int, width: int, defaults: tuple[float, ...]) -> Floats:
    """(n, width) table whose missing rows are interpolated without overshoot, and continued at the ends."""
    from scipy.interpolate import PchipInterpolator  # half a second

    known = sorted(rows)
    table = np.array([[*rows[r], *defaults[len(rows[r]) :]][:width] for r in known])
    inside = np.clip(np.arange(n), known[0], known[-1])
    return PchipInterpolator(known, table)(inside)


def _place_body(plan: Blueprint, at: dict[Key, Floats]) -> None:
    table = fill_rows(plan.body, _cage.BODY_RINGS, 7, (0, 0, 0, 0, 0, 0.0, 1.0))
    for r, (top_x, top_y, low_x, low_y, width, widest, round_) in enumerate(table):
        middle, up = (
            np.array([top_x + low_x, top_y + low_y]) / 2,
            np.array([top_x - low_x, top_y - low_y]) / 2,
        )
        for k in range(7):
            cos, sin = np.cos(np.pi * k / 6), np.sin(np.pi * k / 6)
            high = np.sign(cos) * abs(cos) ** round_ / _SHRINK[12] + widest * sin**2
            side = abs(sin) ** round_ / _SHRINK[12] * width
            at["body", "", r, k] = np.array([*(middle + high * up), side])
    for r, height in plan.crest.items():
        up = at["body", "", r, 0] - at["body", "", r, 6]
        at["body", "", r, 0] += height * up / np.linalg.norm(up)
        at["body", "", r, 1] = at["body", "", r, 1] * (1, 1, 0.8) + 0.2 * height * up / np.linalg.norm(up)
    for cap, ring, push, sense in (("nose", _cage.BODY_RINGS - 1, plan.nose, 1), ("rump", 0, plan.rump, -1)):
        up = at["body", "", ring, 0] - at["body", "", ring, 6]
        axis = sense * np.array([up[1], -up[0], 0]) / np.linalg.norm(up)
        for k in range(1, 6):
            at[cap, "", 0, k] = at["body", "", ring, k] * (1, 1, 0) + push[k - 1] * axis


def _frames(centres: Floats, out: Triple) -> tuple[Floats, Floats, Floats]:
    """(n, 3) tangents, forward and outward directions along a chain of centres."""
    step = np.diff(centres, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    tangent = np.concatenate([step[:1], step[1:] + step[:-1], step[-1:]])
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.array(out) - (tangent @ np.array(out))[:, None] * tangent
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return tangent, np.cross(side, tangent), side


def _place_limb(plan: Blueprint, part: str, at: dict[Key, Floats]) -> None:
    rows, digits, out = (
        (plan.fore, plan.fore_digits, plan.fore_out)
        if part == "fore"
        else (plan.hind, plan.hind_digits, plan.hind_out)
    )
    first = 0 if 0 in rows else 1
    table = fill_rows({r - first: row for r, row in rows.items()}, _cage.LIMB_RINGS - first, 5, (0,) * 5)
    tangent, front, side = _frames(table[:, :3], out)
    angle = np.arange(10) * np.pi / 5
    loop = _cage.limb_loop(part, "right")
    for j, row in enumerate(table):
        ring = (
            row[:3]
            + (row[3] * np.cos(angle)[:, None] * front[j] + row[4] * np.sin(angle)[:, None] * side[j])
            / _SHRINK[10]
        )
        for k in range(10):
            if j + first == 0:
                share = plan.root[part == "hind"]
                at[loop[k]] = share * ring[k] + (1 - share) * at[loop[k]]
            else:
                at[part, "right", j + first, k] = ring[k]
    if first == 1:  # the inner side leaves the body below its root, not within it
        shank = table[5 - first][1]
        for j, share in ((1, 0.12), (2, 0.28), (3, 0.45), (4, 0.62)):
            for k in (0, 5, 6, 7, 8, 9):
                root = at[loop[k]][1]
                low = root - share * (root - shank)
                place = at[part, "right", j, k]
                at[part, "right", j, k] = np.array([place[0], min(place[1], low), place[2]])
    forward = tangent[-1] if digits.direction is None else np.array(digits.direction)
    forward = forward / np.linalg.norm(forward)
    for d in range(5):
        base = np.array([at[k] for k in _cage.digit_loop(part, "right", d)])
        if d < 4:
            way, length = forward + digits.spread * (1.5 - d) / 1.5 * side[-1], digits.length[d]
            size = digits.thickness
        else:
            way, length = np.array(digits.thumb[:3]), digits.thumb[3]
            size = digits.thumb_size
        _place_digit(base, way * length, size, f"{part}_digit{d}", at)


def _place_digit(base: Floats, way: Floats, size: float, name: str, at: dict[Key, Floats]) -> None:
    """Two rings beyond the quad `base` (4, 3), or two within it where there is no digit."""
    centre = base.mean(0)
    flat = not way.any()
    for j, (along, scale) in enumerate(((0.55, 1.12), (1.0, size)), 1):
        scale = (0.7, 0.4)[j - 1] if flat else scale
        for k in range(4):
            at[name, "right", j, k] = centre + scale * (base[k] - centre) + along * way


def _place_tail(plan: Blueprint, at: dict[Key, Floats]) -> None:
    loop = np.array([at[k] for k in _cage.tail_loop()[:4]])
    if not plan.tail:
        centre = loop[[0, 3]].mean(0)
        for j in range(1, _cage.TAIL_RINGS):
            for k in range(4):
                at["tail", "", j, k] = centre + (1 - j / _cage.TAIL_RINGS) * (loop[k] - centre)
        return
    centres = np.array([(*(loop[[0, 3]].mean(0)[:2]), 0.0), *((row[0], row[1], 0.0) for row in plan.tail)])
    _, front, _ = _frames(centres, (0.0, 0.0, 1.0))
    for j, row in enumerate(plan.tail, 1):
        for k in range(4):
            a = np.pi * k / 3
            ring = -row[2] * np.cos(a) * front[j] + np.array([0, 0, row[-1] * np.sin(a)])
            at["tail", "", j, k] = centres[j] + ring / _SHRINK[6]


def _place_ear(ear: Ear, at: dict[Key, Floats]) -> None:
    base = np.array([at[k] for k in _cage.ear_loop("right")]).mean(0)
    axis = np.array(ear.axis) / np.linalg.norm(ear.axis)
    face = np.array(ear.face) - np.dot(ear.face, axis) * axis
    face /= np.linalg.norm(face)
    across = np.cross(face, axis)
    for j, t in enumerate((0.4, 0.8, 1.0), 1):
        width, thick = ear.width[j - 1], ear.thickness * (1, 0.8, 0.6)[j - 1]
        middle = base + t * ear.length * axis - ear.droop * t**2 * np.array([0, 1, 0])
        for k, (w, s) in enumerate(((-1, -1), (0, -1), (1, -1), (1, 1), (0, 1), (-1, 1))):
            deep = thick * s - ear.cup * width * (w == 0)
            at["ear", "right", j, k] = middle + 1.1 * w * width * across + deep * face


def _place_horn(plan: Blueprint, at: dict[Key, Floats]) -> None:
    loop = np.array([at[k] for k in _cage.horn_loop("right")])
    centre = loop.mean(0)
    if not plan.horn:
        for j, scale in enumerate((0.75, 0.5, 0.25), 1):
            for k in range(4):
                at["horn", "right", j, k] = centre + scale * (loop[k] - centre)
        return
    centres = np.array([centre, *(row[:3] for row in plan.horn)])
    step = np.diff(centres, axis=0)
    tangent = np.concatenate([step, step[-1:]])
    flat = loop - centre
    for j, row in enumerate(plan.horn, 1):
        t = tangent[j] / np.linalg.norm(tangent[j])
        around = flat - (flat @ t)[:, None] * t
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        for k in range(4):
            at["horn", "right", j, k] = centres[j] + row[3] / _SHRINK[4] * around[k]


def finish(plan: Blueprint, cage_verts: Floats) -> Floats:
    """(V, 3) vertices of the dense template from those of the cage, exactly symmetric in z, with the bumps."""
    t = _cage.template()
    verts = t.smooth @ cage_verts
    verts += _relief(plan)[:, None] * vertex_normals(verts, t.faces)
    verts[t.side == 0, 2] = 0
    left = np.flatnonzero(t.side < 0)
    verts[left] = verts[t.mirror[left]] * (1, 1, -1)
    return verts


def _relief(plan: Blueprint) -> Floats:
    """(V,) how far bumps, eyes and wool stand out of the species' own form."""
    t, c = _cage.template(), _cage.cage()
    own = t.smooth @ place_cage(plan)
    bumps = list(plan.bumps)
    if plan.eye:
        bumps.append((*own[c.number["body", "", 19, 2]], plan.eye, 0.5 * plan.eye))
    height = np.zeros(len(own))
    for x, y, z, radius, top in bumps:
        height += top * np.exp(-((own - (x, y, z)) ** 2).sum(1) / radius**2)
    if plan.wool:
        woolly = t.smooth @ np.array([float(k[0] in ("body", "rump") and k[2] < 16) for k in c.keys])
        waves = np.cos(own @ (2 * np.pi / (7 * plan.wool) * np.eye(3) + 8.0 * np.roll(np.eye(3), 1, 0))).prod(
            1
        )
        height += plan.wool * woolly**2 * waves
    return height


def ring_size(plan: Blueprint) -> Floats:
    """(n,) edge length wanted at each vertex of the cage, relative: a power of the radius of its ring."""
    c = _cage.cage()
    verts = place_cage(plan)
    rings: dict[tuple[str, str, int], list[int]] = {}
    for i, key in enumerate(c.keys):
        rings.setdefault(key[:3], []).append(i)
    radius = np.empty(len(verts))
    for members in rings.values():
        radius[members] = np.linalg.norm(verts[members] - verts[members].mean(0), axis=1).mean()
    for cap, ring_number in (("nose", _cage.BODY_RINGS - 1), ("rump", 0)):
        radius[rings[cap, "", 0]] = radius[rings["body", "", ring_number][0]]
    for (part, side, _), members in rings.items():
        limb, _, digit = part.partition("_digit")
        if digit:
            radius[members] = np.maximum(
                radius[members], 0.6 * radius[rings[limb, side, _cage.LIMB_RINGS - 1][0]]
            )
    return np.hypot(radius, 0.1 * np.quantile(radius, 0.95)) ** 0.7
