"""One picture's draw: who, in which pose and coat, seen from where, in which light."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from geoframe._types import Floats
from geoframe.data._occluders import N_BALLS, ball, rider
from geoframe.zoo.coats import collar, draw_coat, tack, wardrobe
from geoframe.zoo.identity import drawn_stretches
from geoframe.zoo.poses import draw_pose
from geoframe.zoo.rig import Rig, own_cage, rig, shaped
from geoframe.zoo.skeleton import pose_rotations

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
_MOUNTS = {"horse": 0.16, "zebra": 0.03, "elephant": 0.1, "cow": 0.02, "giraffe": 0.02}


@dataclass(frozen=True, eq=False)
class Subject:
    """Who is in a picture.

    Attributes:
        verts: (V, 3) in metres, posed.
        normals: (V, 3).
        colors: (V, 3).
        place: (V, 3) where the grain of the coat is read.
        open_: (V,) how much of the sky a vertex sees.
        tint: (F, 3) of the faces.
        rider: vertices, normals and colours of a rider, or None.
    """

    verts: Floats
    normals: Floats
    colors: Floats
    place: Floats
    open_: Floats
    tint: Floats
    rider: tuple[Floats, Floats, Floats] | None = None


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


def draw_individual(r: Rig, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Vertices (V, 3) at rest and joints (J, 3): proportions beyond the usual ranges, something of other species."""
    cage = r.cage
    like = _LIKE[r.name]
    if like and rng.random() < 0.5:
        other = own_cage(like[int(rng.integers(len(like)))])
        scale = np.ptp(cage[:, 1]) / np.ptp(other[:, 1])
        cage = cage + rng.uniform(0, 0.4) ** 1.5 * (scale * other - cage)
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


def draw_animal(
    name: str, on: str, n_verts: int | None, rng: np.random.Generator, pose: str | None
) -> Subject:
    """An animal of a species on the triangulation of a canonical surface."""
    r = rig(name, on=on, n_verts=n_verts)
    w = wardrobe(r)
    rest, joints = draw_individual(r, rng)
    rest = rest.astype(np.float32)
    verts = r.bent(rest, joints, pose_rotations(draw_pose(name, pose, seed=rng)))
    verts[:, 1] -= box(verts)[0, 1]
    normal = r.normals(verts)
    colors = draw_coat(w, rng)
    person = None
    ridden = rng.random() < _MOUNTS.get(name, 0.0)
    if ridden or (name in _MOUNTS and rng.random() < 0.08):
        colors = tack(w, colors, rng)
    elif name in ("dog", "cat") and rng.random() < 0.25:
        colors = collar(w, colors, rng)
    if ridden:
        withers, back, rump = (verts[r.landmarks[k]] for k in ("withers", "back", "rump"))
        ahead = (withers - rump) / np.linalg.norm(withers - rump)
        middle = 0.5 * (withers + back)
        up = normal[r.landmarks["back"]] - ahead * (normal[r.landmarks["back"]] @ ahead)
        wide = 0.5 * np.ptp(rest[np.abs(rest[:, 0] - rest[r.landmarks["back"], 0]) < 0.1, 2])
        person = rider(rng, middle, ahead, up / np.linalg.norm(up), wide, np.ptp(box(rest)[:, 1]) / 2.0)
    place = rest * np.float32(1 / np.ptp(box(rest)[:, 0])) + np.float32(4)
    return Subject(verts, normal, colors, place, openness(r), _plain_tint(len(r.faces)), person)


@lru_cache(maxsize=16)
def _plain_tint(n_faces: int) -> Floats:
    return np.ones((n_faces, 3), np.float32)


@lru_cache(maxsize=64)
def openness(r: Rig) -> Floats:
    """(V,) share of the sky that each vertex sees at rest, 0 to 1: dark between the legs and under the belly."""
    import torch

    from geoframe.camera import weak_view
    from geoframe.render import rasterize, vertex_visibility

    verts, _ = r.at_rest(r.cage)
    normal = r.normals(verts)
    rng = np.random.default_rng(0)
    eyes = rng.normal(size=(48, 3))
    eyes /= np.linalg.norm(eyes, axis=1, keepdims=True)
    points, faces = torch.as_tensor(verts), torch.as_tensor(r.faces)
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
        fragments = rasterize(points, faces, view)
        clear = vertex_visibility(fragments, faces, view.project(points)).numpy().reshape(-1)
        total += facing
        seen += facing * clear
    return (np.clip(seen / total, 0, 1) ** 0.8).astype(np.float32)


def draw_view(points: Floats, size: int, rng: np.random.Generator) -> View:
    """A camera all around, its picture a detector's box around the points, more or less; (n, 3) points in metres."""
    low, high = box(points)
    middle, extent = (low + high) / 2, float(np.linalg.norm(high - low))
    azimuth = (
        rng.uniform(0, 2 * np.pi) if rng.random() < 0.6 else rng.normal(0, 0.5) + np.pi * rng.integers(2)
    )
    elevation = np.radians(
        np.clip(rng.gamma(2.2, 6.0) - 8 if rng.random() < 0.85 else rng.uniform(-10, 40), -10, 40)
    )
    roll = np.radians(rng.normal(0, 3) if rng.random() < 0.8 else rng.uniform(-15, 15))
    distance = extent * np.exp(rng.uniform(np.log(1.2), np.log(9)))
    back = np.array(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
    down = -np.cross(back, right)
    c, s = np.cos(roll), np.sin(roll)
    R = np.stack([c * right - s * down, s * right + c * down, -back])
    t = -R @ (middle + distance * back)
    a, b = box(View(R, t, 1.0, np.zeros(2)).project(points))[:, :2]
    side = float((b - a).max())
    centre = (a + b) / 2 + rng.normal(0, 0.04, 2) * side
    if rng.random() < 0.13:  # a part of it only
        side *= rng.uniform(0.5, 0.85)
        centre = centre + rng.uniform(-0.35, 0.35, 2) * (b - a)
    else:
        side *= 1 + 2 * rng.uniform(0.0, 0.22) if rng.random() < 0.85 else rng.uniform(1.5, 2.4)
    focal = size / side
    principal = size / 2 - focal * centre
    flat_ahead = R @ (-back * (1, 0, 1))  # towards the horizon
    level = R @ right
    row = focal * flat_ahead[1] / flat_ahead[2] + principal[1]
    slope = level[1] / level[0]
    column = focal * flat_ahead[0] / flat_ahead[2] + principal[0]
    return View(R, t, focal, principal, (float(row + slope * (size / 2 - column)), float(slope)))


def draw_lamp(view: View, rng: np.random.Generator) -> Floats:
    """(6, 3) light, as `light_samples` takes it."""
    sun = rng.normal(size=3)
    sun[1] = abs(sun[1]) + rng.uniform(0.1, 1.5)
    sun /= np.linalg.norm(sun)
    warm = np.array([1, 1, 1]) + rng.normal(0, 0.06) * np.array([1, 0.2, -1.2]) + rng.normal(0, 0.02, 3)
    bright, ambient = rng.uniform(0.1, 1.15), rng.uniform(0.3, 0.85)
    sky = ambient * (np.array([0.9, 0.97, 1.08]) if rng.random() < 0.5 else rng.normal(1, 0.05, 3))
    ground = ambient * rng.uniform(0.25, 0.8) * np.clip(rng.normal([0.9, 0.9, 0.75], 0.12), 0.2, 1.2)
    half = sun - view.R_wc[2]
    half /= np.linalg.norm(half)
    gloss = max(0.0, rng.normal(0.08, 0.15))
    return np.stack(
        [sun, bright * warm, sky, ground, half, [gloss, rng.uniform(4, 30), rng.uniform(0, 0.35)]]
    )


def extra_verts() -> int:
    """Vertices that a rider adds to a scene."""
    return N_BALLS * len(ball()[0])
