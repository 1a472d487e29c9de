"""Rigid things and heads in a picture: a member, its paint, and how it stands or flies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from geoframe._types import Array
from geoframe.data._shots import Subject, sky_seen
from geoframe.zoo.people import hair_color, skin_color
from geoframe.zoo.poses import Angles
from geoframe.zoo.rig import turned as rotations
from geoframe.zoo.rig import unit_normals
from geoframe.zoo.things import Bridge, ThingMesh, bridge, draw_thing, thing_mesh

_TILTS = {"aeroplane": (14.0, 6.0, 14.0), "head": (12.0, 0.0, 14.0), "motorbike": (7.0, 0.0, 2.0)}
_DARK = ("tyre", "wheel", "underbody", "grille", "grip", "caster")
_METAL = ("rim", "disc", "engine", "exhaust", "fork", "axle", "clamp", "strut", "column", "spoke", "cylinder")
_GLASS = ("window", "windscreen", "screen", "cockpit")


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing before it is turned.

    Attributes:
        mesh: of its structure.
        verts: (V, 3) float32, metres.
        colors: (V, 3).
        place: (V, 3) where the grain of the material is read.
        usual: the category's surface.
        surface_verts: (V', 3) where the vertices of the category's surface are, NaN where it has none of them.
        bridge: to the category's surface, None where it is on it.
    """

    mesh: ThingMesh
    verts: Array
    colors: Array
    place: Array
    usual: ThingMesh
    surface_verts: Array
    bridge: Bridge | None


def draw_member(category: str, n_verts: int | None, rng: np.random.Generator) -> Thing:
    """A member of a rigid category with its paint."""
    member = draw_thing(category, rng)
    mesh, usual = thing_mesh(category, member.structure.name, n_verts), thing_mesh(category, None, n_verts)
    verts = on_surface = mesh.of(member)
    across = bridge(category, member.structure.name, n_verts)
    if across is not None:
        on_surface = np.where(across.back[:, None], usual.of(member), np.nan)
    low = np.array([0, verts[:, 1].min(), 0])
    verts, on_surface = (x.astype(np.float32) for x in (verts - low, on_surface - low))
    place = verts * np.float32(1 / np.ptp(verts[:, 0])) + np.float32(4)
    paint = _head(mesh, rng) if category == "head" else _paint(mesh, rng)
    return Thing(mesh, verts, paint, place, usual, on_surface, across)


def draw_tilt(category: str, rng: np.random.Generator) -> Angles:
    """How far a thing is turned from upright, in degrees, as angles of its only bone."""
    x, y, z = rng.normal(size=3) * _TILTS.get(category, (0.0, 0.0, 0.0))
    return {"thing": (float(x), float(y), float(z))}


def turned(x: Thing, angles: Angles) -> Subject:
    """The thing turned by the angles of `draw_tilt`, its lowest point on the ground."""
    R = rotations(np.array([angles["thing"]]), np.full(1, -1))
    turn = R[0].T.astype(np.float32)
    verts = x.verts @ turn
    low = np.array([0, verts[:, 1].min(), 0], np.float32)
    verts -= low
    faces, n = x.mesh.faces, len(verts)
    names = x.mesh.landmarks
    marks = np.array([names.get(name, -1) for name in x.usual.landmarks])
    colors, sky = x.colors, _openness(x.mesh)
    own = Subject(verts, faces, unit_normals(verts, faces), colors, x.place, sky, (n, len(faces)), marks)
    if x.bridge is None:
        return own
    there = x.surface_verts @ turn - low
    return replace(own, other_faces=x.usual.faces, other_verts=there, cross=x.bridge.cross)


@lru_cache(maxsize=64)
def _openness(mesh: ThingMesh) -> Array:
    return sky_seen(mesh.verts, mesh.faces)


def _paint(mesh: ThingMesh, rng: np.random.Generator) -> Array:
    """(V, 3) colours by part: one paint, a second one here and there, dark tyres, glass, lights, metal."""
    base, second = _enamel(rng), _enamel(rng)
    glass, dark = rng.uniform(0.03, 0.35) * np.array([0.9, 1.0, 1.1]), rng.uniform(0.02, 0.12) * np.ones(3)
    metal = rng.uniform(0.3, 0.8) * np.ones(3)
    told = {}
    for label in mesh.labels:
        name = label.removeprefix("left_").removeprefix("right_")
        if name in told:
            continue
        told[name] = base if rng.random() < 0.75 else second
        if rng.random() < 0.06:
            told[name] = _enamel(rng)
        for words, color, chance in ((_METAL, metal, 0.8), (_DARK, dark, 0.95), (_GLASS, glass, 0.95)):
            if any(word in name for word in words) and rng.random() < chance:
                told[name] = color
        if "headlight" in name:
            told[name] = rng.uniform(0.75, 1) * np.array([1, 1, 0.92])
        elif "taillight" in name:
            told[name] = rng.uniform(0.4, 0.9) * np.array([1, 0.1, 0.08])
    table = [told[x.removeprefix("left_").removeprefix("right_")] for x in mesh.labels]
    if rng.random() < 0.06:  # all of one colour
        table = [base for _ in table]
    return np.clip(np.array(table, np.float32), 0.01, 1)[mesh.parts]


def _head(mesh: ThingMesh, rng: np.random.Generator) -> Array:
    skin, hair = skin_color(rng), hair_color(rng)
    lips = skin * (0.85, 0.6, 0.6) if rng.random() < 0.7 else np.array([0.65, 0.15, 0.18])
    told = {
        "hair": hair if rng.random() < 0.9 else skin * 0.95,
        "brow": hair * rng.uniform(0.4, 1) if rng.random() < 0.8 else 0.6 * hair + 0.4 * skin,
        "upper_lip": lips,
        "lower_lip": lips,
        "mouth": np.array([0.25, 0.08, 0.08]),
        "nose": skin * (1.02, 0.93, 0.92),
        "ear": skin * (1.0, 0.9, 0.88),
        "eyelid": skin * (0.9, 0.82, 0.82),
        "eye": np.array([0.93, 0.92, 0.9]),
        "iris": rng.uniform(0.02, 0.3) + rng.uniform(0, 0.3, 3) * rng.random(),
    }
    table = [told.get(x.removeprefix("left_").removeprefix("right_"), skin) for x in mesh.labels]
    return np.clip(np.array(table, np.float32), 0.01, 1)[mesh.parts]


def _enamel(rng: np.random.Generator) -> Array:
    """Greys, white and black half of the times, wood, or any colour."""
    kind, light = rng.random(), rng.random()
    if kind < 0.5:
        return np.full(3, 0.04 + 0.9 * light)
    if kind < 0.65:
        return np.array([0.55, 0.36, 0.2]) * (0.4 + 1.2 * light)
    color = rng.random(3)
    out: Array = color.mean() + (color - color.mean()) * (0.4 + 0.9 * light)
    return np.clip(out, 0.02, 1)
