"""What stands in front of an object: grass, posts, boxes, leaves, blobs; and riders, as solids at their depth."""

from __future__ import annotations

from functools import cache

import numpy as np

from geoframe._types import Array, Ints
from geoframe.data._backgrounds import muted, noise, textured

N_BALLS = 9  # ellipsoids of a rider: trunk, head, hat, two thighs, two shanks, two arms


def occluder(rng: np.random.Generator, size: int, feet: float) -> tuple[Array, Array] | None:
    """Something in front of the picture, or nothing.

    Args:
        rng: what is drawn comes from here.
        size: S.
        feet: row of the lowest point of the object, in pixels.

    Returns:
        colours (S, S, 3) and opacity (S, S), or None.
    """
    kind = rng.random()
    if kind > 0.42:
        return None
    y, x = np.mgrid[0.5:size, 0.5:size]
    if kind < 0.2:  # grass, sand or snow up to the fetlocks, or further
        zoom = 64 / size * rng.uniform(1.5, 4)
        blades = noise(rng, np.arange(size) * zoom * rng.uniform(0.1, 0.4), np.arange(size) * zoom)
        top = feet - size * abs(rng.normal(0, 0.06)) - 0.01 * size
        alpha = _soft((y - top - rng.uniform(0.01, 0.06) * size * blades) * 0.8)
        green = np.array([0.3, 0.4, 0.15]) if rng.random() < 0.6 else 0.15 + 0.65 * muted(rng)
        return textured(rng, size, green * rng.uniform(0.5, 1.4), rng.uniform(0.05, 0.3)), alpha
    color = textured(rng, size, muted(rng), rng.uniform(0, 0.2))
    if kind < 0.3:  # posts and rails
        angle = rng.normal(0, 0.12) + (np.pi / 2 if rng.random() < 0.4 else 0)
        u = (x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle)
        step, thick = rng.uniform(0.35, 1.2) * size, rng.uniform(0.01, 0.045) * size
        away = np.abs((u + rng.uniform(0, 1) * step) % step - step / 2)
        return color, _soft(thick - away)
    angle, (cx, cy) = rng.uniform(0, np.pi), rng.uniform(0, size, 2)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    a, b = rng.uniform(0.05, 0.24, 2) * size
    if kind < 0.36:  # a box
        return color, _soft(np.minimum(a - abs(u), b - abs(v)))
    zoom = 64 / size * rng.uniform(0.5, 3)
    edge = noise(rng, np.arange(size) * zoom, np.arange(size) * zoom)  # a blob, or leaves
    gap = (1 - np.sqrt((u / a) ** 2 + (v / b) ** 2)) * min(a, b)
    return color, _soft(gap + rng.uniform(0.02, 0.12) * size * edge)


def _soft(pixels_inside: Array) -> Array:
    out: Array = np.clip(0.5 + pixels_inside, 0, 1).astype(np.float32)
    return out


@cache
def ball() -> tuple[Array, Ints]:
    """Vertices (42, 3) and faces (80, 3) of a unit ball."""
    from geoframe.surface.shapes import icosphere

    mesh = icosphere(1)
    verts = mesh.verts.numpy()
    return verts / np.linalg.norm(verts, axis=1, keepdims=True), mesh.faces.numpy()


@cache
def ball_faces(n_verts: int) -> Ints:
    """(80 N_BALLS, 3) faces of the balls, whose vertices follow `n_verts` others."""
    verts, faces = ball()
    return np.concatenate([faces + n_verts + i * len(verts) for i in range(N_BALLS)])


def rider(
    rng: np.random.Generator, seat: Array, ahead: Array, up: Array, width: float, scale: float
) -> tuple[Array, Array, Array]:
    """A person astride.

    Args:
        rng: what is drawn comes from here.
        seat: (3,) where the person sits.
        ahead: (3,) unit vector.
        up: (3,) unit vector.
        width: half of the mount's.
        scale: 1 for an adult in metres.

    Returns:
        vertices, normals and colours, (42 N_BALLS, 3) each.
    """
    side = np.cross(ahead, up)
    axes = np.stack([ahead, up, side])
    lean, bend = rng.uniform(-0.15, 0.5), rng.uniform(0.2, 0.9)
    top = np.array([0.55 * np.sin(lean), 0.55 * np.cos(lean) + 0.05, 0])
    head = top + np.array([0.12 * np.sin(lean) + 0.04, 0.17, 0])
    rows = [
        ((0.5 * top[0], 0.5 * top[1], 0), top / 0.6, (0.16, 0.36, 0.21)),
        (head, (0, 1, 0), (0.11, 0.14, 0.1)),
    ]
    rows.append((head + np.array([0, 0.07, 0]), (0, 1, 0), (0.14, 0.10, 0.13)))
    for s in (-1.0, 1.0):
        knee = np.array([0.42 * np.cos(bend) * 0.8, -0.22, s * (width + 0.08)])
        hip = np.array([0.0, 0.05, s * 0.12])
        foot = knee + np.array([rng.uniform(-0.3, 0.1), -0.42, 0])
        hand = np.array([rng.uniform(0.3, 0.6), rng.uniform(0.15, 0.4), s * 0.1])
        shoulder = top + np.array([0, -0.08, s * 0.2])
        for a, b, thick in ((hip, knee, 0.1), (knee, foot, 0.07), (shoulder, hand, 0.06)):
            rows.append(((a + b) / 2, b - a, (thick, 0.5 * float(np.linalg.norm(b - a)) + 0.04, thick)))
    shirt, trousers, skin, hat = (
        rng.random(3),
        rng.random(3) * 0.7,
        np.array([0.8, 0.6, 0.5]),
        rng.random(3) * 0.6,
    )
    skin = skin * rng.uniform(0.35, 1.1)
    colors = [shirt, skin, hat, trousers, trousers * 0.5, shirt, trousers, trousers * 0.5, shirt]
    unit, _ = ball()
    centres = np.array([row[0] for row in rows], float)
    along = np.array([row[1] for row in rows], float)
    radii = np.array([row[2] for row in rows], float)[:, None]
    y = along / np.linalg.norm(along, axis=1, keepdims=True)
    x = np.stack([y[:, 1], -y[:, 0], np.zeros(len(y))], 1)  # y x (0, 0, 1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    frame = np.stack([x, y, np.cross(x, y)], 1)
    verts = seat + scale * ((unit * radii) @ frame + centres[:, None]) @ axes
    normals = (unit / radii) @ frame @ axes
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    shade = np.repeat(np.clip(colors, 0, 1), len(unit), axis=0)
    return verts.reshape(-1, 3), normals.reshape(-1, 3), shade
