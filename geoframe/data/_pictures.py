"""One picture of a rendered set, or a pair of them: its draws, what it shows, its light, background and truth."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe._types import Array, Bools, Floats, Ints
from geoframe.data._backgrounds import background
from geoframe.data._motion import background_flow, cut, drawn_shift, hits, inverse, object_flow
from geoframe.data._occluders import occluder
from geoframe.data._shots import (
    Individual,
    Subject,
    View,
    box,
    draw_camera,
    draw_individual,
    draw_lamp,
    placed,
    posed,
)
from geoframe.data._things import Thing, draw_member, draw_tilt, turned
from geoframe.data.augment import augment
from geoframe.zoo.poses import Angles, draw_pose
from geoframe.zoo.things import THINGS

_MOST_HIDDEN = 0.6  # of the object in the picture: what would hide more does not stand in front


@dataclass(frozen=True, eq=False)
class Draws:
    """What all pictures of a set have in common.

    Attributes:
        categories: names.
        n: number of pictures.
        size: S.
        seed: of the set.
        n_verts: of the surfaces, None for those that geoframe comes with.
        surface: the species on whose surface all animals are told, or None for their own ones.
        pose: name of a pose that all have, or None.
        photos: (h, w, 3) uint8 each, for backgrounds.
        augmentation: strength of what cameras and files do to pictures.
    """

    categories: tuple[str, ...]
    n: int
    size: int = 128
    seed: int = 0
    n_verts: int | None = None
    surface: str | None = None
    pose: str | None = None
    photos: tuple[Array, ...] = ()
    augmentation: float = 1.0


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture's draws, before it is rasterized."""

    category: int
    subject: Subject
    angles: Angles
    lens: Floats
    view: View
    lamp: Floats
    screen: Floats
    scene: np.random.Generator
    rng: np.random.Generator


class Seen(NamedTuple):
    """What a shot shows, at 2 S + 1 samples from border to border."""

    face: Array
    bary: Array
    depth: Array


class Picture(NamedTuple):
    """A picture and its truth.

    Attributes:
        image: (3, S, S).
        face: (S, S) of the category's surface, -1 for none.
        bary: (S, S, 3).
        visible: (L,) landmarks.
        hidden: (S, S) opacity of what stands in front, or None.
        empty: (S, S) bool, where the background is seen.
        own: face and weights on the object's own mesh.
    """

    image: Tensor
    face: Ints
    bary: Floats
    visible: Array
    hidden: Floats | None
    empty: Bools
    own: tuple[Ints, Floats]


def who_is_in(s: Draws, number: int) -> tuple[int, Individual | Thing]:
    """The category and the individual of a picture."""
    rng = np.random.default_rng([s.seed, number])
    category = int(rng.integers(len(s.categories)))
    name = s.categories[category]
    if name in THINGS:
        return category, draw_member(name, s.n_verts, rng)
    return category, draw_individual(name, s.surface or name, s.n_verts, rng)


def draw_shot(
    s: Draws,
    number: int,
    who: tuple[int, Individual | Thing],
    before: Shot | None = None,
    motion: float = 1.0,
) -> Shot:
    """A picture of someone; after another one, with pose and camera on the way from there to new ones."""
    rng = np.random.default_rng([s.seed, number, 1 if before is None else 3])
    category, person = who
    name = s.categories[category]
    angles = draw_pose(name, s.pose, seed=rng) if isinstance(person, Individual) else draw_tilt(name, rng)
    lens = draw_camera(rng)
    if before is not None:
        angles, lens = _between(before.angles, angles, motion), before.lens + motion * (lens - before.lens)
    subject = posed(person, angles) if isinstance(person, Individual) else turned(person, angles)
    view = placed(subject.verts[: subject.own[0]], s.size, lens)
    lamp = draw_lamp(view, rng) if before is None else before.lamp
    screen, scene = view.project(subject.verts), np.random.default_rng([s.seed, number, 2])
    return Shot(category, subject, angles, lens, view, lamp, screen, scene, rng)


def _between(a: Angles, b: Angles, t: float) -> Angles:
    still = (0.0, 0.0, 0.0)
    ends = {name: (a.get(name, still), b.get(name, still)) for name in (*a, *b)}
    mixed = {n: tuple(x + t * (y - x) for x, y in zip(*e, strict=True)) for n, e in ends.items()}
    return {n: (x, y, z) for n, (x, y, z) in mixed.items()}


def look(s: Draws, shot: Shot) -> Seen:
    """What a shot shows, in arrays that the next picture of this thread is seen in, too: fresh memory is slow."""
    from geoframe.data._light import nearest_faces

    seen, _ = _buffers(2 * s.size + 1)
    seen.face.fill(-1)
    seen.depth.fill(np.inf)
    nearest_faces(shot.screen, shot.subject.faces, *seen)
    return seen


_LOCAL = threading.local()


def _buffers(n: int) -> tuple[Seen, Floats]:
    """Of this thread: what is seen, and the colours of the samples (n, n, 4)."""
    if getattr(_LOCAL, "size", None) != n:
        _LOCAL.size = n
        seen = Seen(np.empty((n, n), np.int64), np.zeros((n, n, 3), np.float32), np.empty((n, n), np.float32))
        _LOCAL.arrays = seen, np.empty((n, n, 4), np.float32)
    found: tuple[Seen, Floats] = _LOCAL.arrays
    return found


def picture(s: Draws, shot: Shot, seen: Seen, behind: Floats | None = None) -> Picture:
    """Image (3, S, S), true face (S, S) and weights (S, S, 3), what of the landmarks is seen, and the opacity of
    occluders (S, S) or None.
    """
    from geoframe.data._light import compose, light_samples

    sub, rng = shot.subject, shot.rng
    u, normal = rng.random(2), rng.normal(size=2)
    grain = np.array([20 + 40 * u[0], 60 + 140 * u[1]]), abs(normal * (0.045, 0.055))
    _, samples = _buffers(2 * s.size + 1)
    light_samples(
        *(seen.face, seen.bary, sub.faces, sub.colors, sub.normals, sub.place, sub.open_, sub.own[1]),
        *(_grain(), *grain, shot.lamp, samples),
    )
    if behind is None:
        behind = background(shot.scene, s.size, shot.view.horizon, s.photos)
    image = np.empty((s.size, s.size, 3), np.float32)
    compose(samples, behind, _shadow(shot, s.size), image)
    face, bary = seen.face[1::2, 1::2].copy(), seen.bary[1::2, 1::2].copy()
    empty = face < 0
    front = occluder(rng, s.size, float(box(shot.screen)[1, 1]))
    hidden = None
    if front is not None and _tells((face >= 0) & (face < sub.own[1]), front[1]):
        color, hidden = front
        image += hidden[..., None] * (color - image)
        face[hidden > 0.5] = -1
        empty &= hidden <= 0.5
    face[face >= sub.own[1]] = -1
    bary[face < 0] = 0
    out = torch.from_numpy(image).movedim(-1, 0)
    if s.augmentation:
        out = augment(out.contiguous(), seed=rng, strength=s.augmentation)
    visible = _landmarks_seen(shot, shot.screen[sub.marks], seen, hidden)
    own = face, bary
    if sub.cross is not None:
        face, bary = sub.cross(face, bary)
    return Picture(out.clamp(0, 1), face, bary, visible, hidden, empty, own)


def _tells(own: Bools, hidden: Floats) -> bool:
    """Whether enough of the object (S, S) is left by what stands in front to tell what it is."""
    return float((own & (hidden > 0.5)).sum()) <= _MOST_HIDDEN * own.sum()


@lru_cache(maxsize=1)
def _grain() -> Floats:
    """(32, 32, 32) noise."""
    return np.random.default_rng(3).normal(size=(32, 32, 32)).clip(-2, 2).astype(np.float32)


def _shadow(shot: Shot, size: int) -> Floats:
    """(S, S) what the object leaves of the light on the ground."""
    from geoframe.data._loops import shadow

    lamp, view = shot.lamp, shot.view
    sun = lamp[0] / max(lamp[0, 1], 0.35)
    out: Floats = np.ones((size, size), np.float32)
    where = (view.R_wc, view.t, view.focal, *view.principal, max(1, size // 32))
    verts, dense = shot.subject.verts, (size / 64) ** 2 * 5000 / len(shot.subject.verts)
    shadow(verts, sun[0], sun[2], *where, np.array([0.5 * min(1.0, lamp[1, 0]), dense]), out)
    shadow(verts, 0.0, 0.0, *where, np.array([0.35, dense]), out)
    return out


def _landmarks_seen(shot: Shot, at: Floats, seen: Seen, hidden: Floats | None) -> Array:
    """(L,) whether the landmarks at (L, 3) are in the picture, by the buffer of depths, and before all occluders."""
    sub, last, F = shot.subject, len(seen.face) - 1, shot.subject.own[1]
    size = last // 2
    inside = ((at[:, :2] >= 0) & (at[:, :2] < size)).all(1)
    col, row = np.minimum(np.maximum(np.round(2 * at[:, :2]), 0), last).astype(np.int64).T
    f, z = seen.face[row, col], seen.depth[row, col]
    own = (sub.faces[f] == sub.marks[:, None]).any(1) & (f >= 0) & (f < F)
    slack = 0.01 * np.ptp(shot.screen[: shot.subject.own[0], 2])
    faced = sub.normals[sub.marks] @ shot.view.R_wc[2] < 0.1
    out = inside & (sub.marks >= 0) & np.where(f < 0, faced, own | (at[:, 2] <= z + slack))
    if hidden is not None:
        x, y = np.minimum(np.maximum(at[:, :2], 0), size - 1).astype(np.int64).T
        out &= hidden[y, x] <= 0.5
    return out


class Pair(NamedTuple):
    """Two shots and pictures of one individual, the flow (S, S, 2) between them, and where it is known and seen."""

    shots: tuple[Shot, Shot]
    pictures: tuple[Picture, Picture]
    flow: Floats
    known: Bools
    seen: Bools


def pair(s: Draws, number: int, motion: float) -> Pair:
    """Two pictures of an individual before a background that moves: see `RenderedSet.pairs`."""
    who, margin = who_is_in(s, number), s.size // 2
    a = draw_shot(s, number, who)
    b = draw_shot(s, number, who, a, motion)
    row, slope = a.view.horizon
    canvas = background(a.scene, s.size + 2 * margin, (row + margin, slope), s.photos)
    moved = drawn_shift(b.scene, s.size, motion)
    first = picture(s, a, look(s, a), cut(canvas, s.size))
    seen = look(s, b)
    reach = 0.01 * float(np.ptp(b.screen[: b.subject.own[0], 2]))
    of_object, clear = object_flow(*first.own, b.subject, b.view, seen.depth, reach)
    second = picture(s, b, seen, cut(canvas, s.size, inverse(moved)))
    of_ground, bare = background_flow(moved, ~second.empty)
    flow = np.where(first.empty[..., None], of_ground, of_object)
    known = first.empty | (first.own[0] >= 0)
    if second.hidden is not None:
        at = np.arange(s.size) + 0.5
        there = flow + np.stack(np.broadcast_arrays(at, at[:, None]), -1)
        clear &= ~hits(there, second.hidden > 0.5, beyond=False)
    return Pair((a, b), (first, second), flow, known, np.where(first.empty, bare, clear) & known)
