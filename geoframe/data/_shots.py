"""One picture's draw: who, in which pose and coat, seen from where, in which light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from geoframe._cache import cached_arrays
from geoframe._types import Floats, Ints
from geoframe.data._occluders import N_BALLS, ball, ball_faces, rider
from geoframe.zoo.coats import collar, draw_coat, tack, wardrobe
from geoframe.zoo.identity import drawn_stretches
from geoframe.zoo.people import PEOPLE, dressed
from geoframe.zoo.poses import Angles
from geoframe.zoo.rig import Rig, own_cage, rig, shaped

_LIKE = {  # whose forms a species may lean towards
    "horse": ("cow", "zebra", "dog", "giraffe"),
    "zebra": ("horse", "cow", "dog"),
    "cow": ("horse", "sheep", "bear"),
    "sheep": ("dog", "cow"),
    "giraffe": ("horse", "zebra"),
    "dog": ("lion", "cat", "bear", "sheep"),
    "cat": ("lion", "dog"),
    "lion": ("cat", "dog", "bear"),
    "bear": ("lion", "dog"),
    "elephant": ("bear",),
    "human": ("chimp",),
    "chimp": ("human",),
    "bird": (),
}
_LEAN = {"human": 0.12}  # how far at most, else 0.4
_MOUNTS = {"horse": 0.16, "zebra": 0.03, "elephant": 0.1, "cow": 0.02, "giraffe": 0.02}


@dataclass(frozen=True, eq=False)
class Individual:
    """Someone, before the pose.

    Attributes:
        rig: the species on its triangulation.
        rest: (V, 3) float32, metres.
        joints: (J, 3).
        colors: (V, 3).
        place: (V, 3) where the grain of the coat is read.
        rider: a number that all of the rider is drawn from, or None.
    """

    rig: Rig
    rest: Floats
    joints: Floats
    colors: Floats
    place: Floats
    rider: int | None


@dataclass(frozen=True, eq=False)
class Subject:
    """What is in a picture: the V vertices of the object first, then those of what it carries.

    Attributes:
        verts: (V', 3) in metres, posed.
        faces: (F', 3), the F of the object first.
        normals: (V', 3).
        colors: (V', 3).
        place: (V', 3) where the grain of the coat is read.
        open_: (V',) how much of the sky a vertex sees.
        own: V and F.
        marks: (L,) vertices of the landmarks, -1 for one that is not there.
        other_faces: (F", 3) of the category's surface, where that is another one.
        other_verts: (V", 3) where its vertices are, NaN where they are not on this object.
        cross: from faces (...) and weights (..., 3) of the object to those of that surface, -1 and 0 for none.
    """

    verts: Floats
    faces: Ints
    normals: Floats
    colors: Floats
    place: Floats
    open_: Floats
    own: tuple[int, int]
    marks: Ints
    other_faces: Ints | None = None
    other_verts: Floats | None = None
    cross: Callable[[Ints, Floats], tuple[Ints, Floats]] | None = None

    @property
    def surface_faces(self) -> Ints:
        """(F, 3) of the category's surface."""
        return self.faces[: self.own[1]] if self.other_faces is None else self.other_faces

    @property
    def surface_verts(self) -> Floats:
        """(V, 3) where the vertices of the category's surface are."""
        return self.verts[: self.own[0]] if self.other_verts is None else self.other_verts


@dataclass(frozen=True, eq=False)
class View:
    """From where a picture is taken: ``u = focal * (R_wc X + t)_xy / depth + principal``.

    Attributes:
        R_wc: (3, 3).
        t: (3,).
        focal: pixels.
        principal: (2,) pixels.
        horizon: row of the horizon in the middle column, and its slope.
    """

    R_wc: Floats
    t: Floats
    focal: float
    principal: Floats
    horizon: tuple[float, float] = field(default=(0.0, 0.0))

    def project(self, points: Floats) -> Floats:
        """(n, 3) pixel x, pixel y and depth."""
        from geoframe.data._loops import project

        out = np.empty((len(points), 3))
        project(points, self.R_wc, self.t, self.focal, *self.principal, out)
        return out


def box(points: Floats) -> Floats:
    """(2, 3) least and greatest coordinates of points (n, 3)."""
    from geoframe.data._loops import extent

    out = np.empty((2, 3))
    extent(points, out)
    return out


def draw_form(r: Rig, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Vertices (V, 3) at rest and joints (J, 3): proportions beyond the usual ranges, something of other species."""
    cage = r.cage
    like = _LIKE[r.name]
    if like and rng.random() < 0.5:
        other = own_cage(like[int(rng.integers(len(like)))])
        scale = np.ptp(cage[:, 1]) / np.ptp(other[:, 1])
        cage = cage + rng.uniform(0, _LEAN.get(r.name, 0.4)) ** 1.5 * (scale * other - cage)
    cage = shaped(cage, *drawn_stretches(rng, rng.uniform(0.5, 2.0)))
    if rng.random() < 0.5:  # fat or thin
        cage = cage * (1, 1, rng.uniform(0.82, 1.25))
    verts, joints = r.at_rest(cage)
    chance = {"horse": 0.1, "cow": 0.08}.get(r.name, 0.0)
    if rng.random() < chance:
        verts = humped(r, verts, rng)
    return verts, joints


def humped(r: Rig, verts: Floats, rng: np.random.Generator) -> Floats:
    """(V, 3) with one hump, or two, on the back, as of a camel or a zebu."""
    w = wardrobe(r)
    height = np.ptp(verts[:, 1])
    x0, x1 = verts[r.landmarks["withers"], 0], verts[r.landmarks["rump"], 0]
    back = np.clip(1 - 1.6 * w.around, 0, 1) * np.clip(1 - w.limb / 2, 0, 1) * (w.along > 0) * (w.along < 13)
    out = verts.copy()
    for t in (0.45,) if rng.random() < 0.6 else (0.22, 0.68):
        t = t + rng.uniform(-0.12, 0.12)
        wide = rng.uniform(0.18, 0.35) * abs(x1 - x0)
        bump = np.exp(-(((verts[:, 0] - (x0 + t * (x1 - x0))) / wide) ** 2))
        out[:, 1] += rng.uniform(0.07, 0.2) * height * bump * back
    return out


def draw_individual(name: str, on: str, n_verts: int | None, rng: np.random.Generator) -> Individual:
    """An animal of a species, on the triangulation of a canonical surface."""
    r = rig(name, on=on, n_verts=n_verts)
    rest, joints = draw_form(r, rng)
    rest = rest.astype(np.float32)
    w = wardrobe(r)
    ridden = rng.random() < _MOUNTS.get(name, 0.0)
    if name in PEOPLE:
        colors = dressed(r, rng)
    else:
        colors = draw_coat(w, rng)
    if ridden or (name in _MOUNTS and rng.random() < 0.08):
        colors = tack(w, colors, rng)
    elif name in ("dog", "cat") and rng.random() < 0.25:
        colors = collar(w, colors, rng)
    place = rest * np.float32(1 / np.ptp(rest[:, 0])) + np.float32(4)
    return Individual(r, rest, joints, colors, place, int(rng.integers(2**62)) if ridden else None)


def posed(x: Individual, angles: Angles) -> Subject:
    """The individual in a pose, on the ground, with its rider."""
    r = x.rig
    verts = r.bent(x.rest, x.joints, angles)
    verts[:, 1] -= box(verts)[0, 1]
    normals, n, faces = r.normals(verts), len(verts), r.faces
    if x.rider is None:
        return Subject(verts, faces, normals, x.colors, x.place, openness(r), (n, len(faces)), _marks(r))
    withers, back, rump = (verts[r.landmarks[k]] for k in ("withers", "back", "rump"))
    ahead = (withers - rump) / np.linalg.norm(withers - rump)
    up = normals[r.landmarks["back"]] - ahead * (normals[r.landmarks["back"]] @ ahead)
    near = np.abs(x.rest[:, 0] - x.rest[r.landmarks["back"], 0]) < 0.1
    wide, high = 0.5 * np.ptp(x.rest[near, 2]), np.ptp(x.rest[:, 1]) / 2.0
    rng = np.random.default_rng(x.rider)
    person = rider(rng, 0.5 * (withers + back), ahead, up / np.linalg.norm(up), wide, high)
    m = N_BALLS * len(ball()[0])

    def joined(a: Floats, b: Floats) -> Floats:
        return np.concatenate([a, b.astype(np.float32)])

    return Subject(
        joined(verts, person[0]),
        np.concatenate([faces, ball_faces(n)]),
        joined(normals, person[1]),
        joined(x.colors, person[2]),
        joined(x.place, np.full((m, 3), 4.0)),
        joined(openness(r), np.ones(m)),
        (n, len(faces)),
        _marks(r),
    )


@lru_cache(maxsize=64)
def _marks(r: Rig) -> Ints:
    return np.array(list(r.landmarks.values()))


@lru_cache(maxsize=64)
def openness(r: Rig) -> Floats:
    """(V,) share of the sky that each vertex sees at rest, 0 to 1: dark between the legs and under the belly."""
    verts, _ = r.at_rest(r.cage)
    return sky_seen(verts, r.faces)


def sky_seen(verts: Floats, faces: Ints) -> Floats:
    """(V,) share of the sky that each vertex of a surface sees, 0 to 1."""
    out: Floats = cached_arrays(("openness", 1, verts, faces), lambda: {"open": _sky_seen(verts, faces)})[
        "open"
    ]
    return out


def _sky_seen(verts: Floats, faces: Ints) -> Floats:
    import torch

    from geoframe.camera import weak_view
    from geoframe.render import rasterize, vertex_visibility
    from geoframe.zoo.rig import unit_normals

    normal = unit_normals(verts, faces)
    rng = np.random.default_rng(0)
    eyes = rng.normal(size=(48, 3))
    eyes /= np.linalg.norm(eyes, axis=1, keepdims=True)
    points, table = torch.as_tensor(verts), torch.as_tensor(faces)
    middle = tuple(((verts.max(0) + verts.min(0)) / 2).tolist())
    total, seen = np.full(len(verts), 1e-9), np.zeros(len(verts))
    for eye in eyes:
        facing = np.clip(normal @ eye, 0, None)
        view = weak_view(
            torch.as_tensor(eye) + torch.tensor(middle),
            (128, 128),
            target=middle,
            extent=1.1 * float(np.ptp(verts, axis=0).max()),
        )
        fragments = rasterize(points, table, view)
        clear = vertex_visibility(fragments, table, view.project(points)).numpy().reshape(-1)
        total += facing
        seen += facing * clear
    return (np.clip(seen / total, 0, 1) ** 0.8).astype(np.float32)


def draw_camera(rng: np.random.Generator) -> Floats:
    """(9,) of a camera: azimuth, elevation, roll, logarithm of the distance in extents, jitter (2), size, shift (2)."""
    u = rng.random(6)
    azimuth = 2 * np.pi * u[0] if rng.random() < 0.6 else rng.normal(0, 0.5) + np.pi * rng.integers(2)
    elevation = rng.gamma(2.2, 6.0) - 8 if rng.random() < 0.85 else rng.uniform(-10, 40)
    roll = rng.normal(0, 3) if rng.random() < 0.8 else rng.uniform(-15, 15)
    shift, jitter = (0.0, 0.0), rng.normal(0, 0.04, 2)
    if u[1] < 0.13:  # a part of it only
        size, shift = 0.5 + 0.35 * u[2], (0.7 * u[3] - 0.35, 0.7 * u[4] - 0.35)
    else:
        size = 1 + 0.44 * u[2] if u[3] < 0.85 else 1.5 + 0.9 * u[2]
    far = np.log(1.2) + u[5] * np.log(7.5)
    angles = (azimuth, np.radians(min(max(elevation, -10), 40)), np.radians(roll))
    return np.array([*angles, far, *jitter, size, *shift])


def placed(points: Floats, size: int, camera: Floats) -> View:
    """A camera of `draw_camera` around points (n, 3): its picture is a detector's box, more or less."""
    low, high = box(points)
    middle, extent = (low + high) / 2, float(np.linalg.norm(high - low))
    azimuth, elevation, roll, far = camera[:4].tolist()
    (sa, ca), (se, ce) = ((np.sin(a), np.cos(a)) for a in (azimuth, elevation))
    c, s = np.cos(roll), np.sin(roll)
    back, right = np.array([sa * ce, se, ca * ce]), np.array([ca, 0, -sa])
    down = np.array([sa * se, -ce, ca * se])
    R = np.stack([c * right - s * down, s * right + c * down, -back])
    t = -R @ (middle + extent * np.exp(far) * back)
    a, b = box(View(R, t, 1.0, np.zeros(2)).project(points))[:, :2]
    side = float((b - a).max())
    centre = (a + b) / 2 + camera[4:6] * side + camera[7:9] * (b - a)
    focal = size / (side * camera[6])
    principal = size / 2 - focal * centre
    flat_ahead = R @ (-back * (1, 0, 1))  # towards the horizon
    level = R @ right
    row = focal * flat_ahead[1] / flat_ahead[2] + principal[1]
    slope = level[1] / level[0]
    column = focal * flat_ahead[0] / flat_ahead[2] + principal[0]
    return View(R, t, focal, principal, (float(row + slope * (size / 2 - column)), float(slope)))


def draw_lamp(view: View, rng: np.random.Generator) -> Floats:
    """(6, 3) light, as `light_samples` takes it."""
    normal, u = rng.normal(size=12), rng.random(10)
    sun = normal[:3].copy()
    sun[1] = abs(sun[1]) + 0.1 + 1.4 * u[0]
    sun /= np.sqrt(sun @ sun)
    warm = 1 + 0.06 * normal[3] * np.array([1, 0.2, -1.2]) + 0.02 * normal[4:7]
    bright, ambient = (0.25 + u[1]) if u[2] < 0.65 else 0.4 * u[1], 0.42 + 0.5 * u[3]
    sky = ambient * (np.array([0.9, 0.97, 1.08]) if u[4] < 0.5 else 1 + 0.05 * normal[7])
    ground = ambient * (0.25 + 0.55 * u[5]) * (np.array([0.9, 0.9, 0.75]) + 0.12 * normal[8:11])
    half = sun - view.R_wc[2]
    half /= np.sqrt(half @ half)
    gloss = max(0.0, 0.14 + 0.16 * normal[11])
    return np.stack([sun, bright * warm, sky * np.ones(3), ground, half, [gloss, 5 + 20 * u[6], 0.35 * u[7]]])
