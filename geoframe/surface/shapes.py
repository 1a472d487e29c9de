"""Procedural surfaces: closed forms for tests, demonstrations and templates.

Pure functions: the same arguments give the same mesh. Float64 on the CPU (`.to()` moves and casts), centred at
the origin, counter-clockwise outward; closed shapes are watertight, without duplicate vertices.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from geoframe._check import check_int
from geoframe._types import Floats, Ints
from geoframe.surface.mesh import Mesh


def tetrahedron(radius: float = 1.0) -> Mesh:
    """Regular tetrahedron, V = 4, with its corners on a sphere."""
    v = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    return _mesh(
        _on_sphere(np.array(v, float), radius), np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    )


def icosahedron(radius: float = 1.0) -> Mesh:
    """Regular icosahedron, V = 12, with its corners on a sphere."""
    g = (1 + 5**0.5) / 2
    rectangle = [[s * 1.0, t * g, 0.0] for t in (1, -1) for s in (-1, 1)]
    v = np.array([p[i:] + p[:i] for i in (0, 2, 1) for p in rectangle])
    gap = ((v[:, None] - v) ** 2).sum(-1)
    near = (gap > 0) & (gap < 4.1)  # edges have length 2
    f = [
        (a, b, c)
        for a in range(12)
        for b in range(a)
        for c in range(b)
        if near[a, b] and near[b, c] and near[a, c]
    ]
    faces = np.array(f)
    inward = np.linalg.det(v[faces]) < 0
    faces[inward] = faces[inward][:, ::-1]
    return _mesh(_on_sphere(v, radius), faces)


def icosphere(level: int = 3, radius: float = 1.0) -> Mesh:
    """Icosahedron split `level` times, on the sphere: V = 10 * 4^level + 2 nearly equal triangles."""
    check_int(level, "level", low=0, high=9)
    mesh = icosahedron()
    v, f = mesh.verts.numpy(), mesh.faces.numpy()
    for _ in range(level):
        v, f = _split(v, f)
        v = _on_sphere(v, 1.0)
    return _mesh(v * radius, f)


def ellipsoid(axes: tuple[float, float, float] = (1.0, 0.7, 0.5), level: int = 3) -> Mesh:
    """Icosphere stretched to half axes (x, y, z)."""
    sphere = icosphere(level)
    return sphere.with_verts(sphere.verts * torch.tensor(axes, dtype=torch.float64))


def uv_sphere(n_around: int = 32, n_rings: int = 16, radius: float = 1.0) -> Mesh:
    """Sphere of meridians and parallels, one vertex a pole: V = n_around (n_rings - 1) + 2; poles on the z axis."""
    check_int(n_rings, "n_rings", low=2)
    polar = math.pi * np.arange(n_rings + 1) / n_rings
    return _revolve(radius * np.sin(polar), radius * np.cos(polar), n_around)


def capsule(
    radius: float = 0.5, length: float = 1.0, *, n_around: int = 32, n_rings: int = 8, n_along: int = 8
) -> Mesh:
    """Cylinder of `length` along z between two half spheres of n_rings rings each."""
    check_int(n_rings, "n_rings", low=1)
    check_int(n_along, "n_along", low=1)
    polar = 0.5 * math.pi * np.arange(n_rings + 1) / n_rings
    side = length * (0.5 - np.arange(1, n_along) / n_along)
    r = np.concatenate([np.sin(polar), np.ones(n_along - 1), np.sin(polar)[::-1]]) * radius
    z = radius * np.cos(polar) + length / 2
    return _revolve(r, np.concatenate([z, side, -z[::-1]]), n_around)


def cylinder(
    radius: float = 0.5,
    height: float = 1.0,
    *,
    n_around: int = 32,
    n_along: int = 8,
    n_cap: int = 4,
    caps: bool = True,
) -> Mesh:
    """Cylinder along z; with `caps` closed by discs of n_cap rings, else open with two boundary loops."""
    for n, name in ((n_along, "n_along"), (n_cap, "n_cap")):
        check_int(n, name, low=1)
    z = height * (0.5 - np.arange(n_along + 1) / n_along)
    if not caps:
        check_int(n_around, "n_around", low=3)
        return _mesh(*_lattice(np.full(n_along + 1, radius), z, n_around))
    disc = np.arange(n_cap) / n_cap * radius
    r = np.concatenate([disc, np.full(n_along + 1, radius), disc[::-1]])
    return _revolve(r, np.concatenate([np.full(n_cap, z[0]), z, np.full(n_cap, z[-1])]), n_around)


def torus(radius: float = 1.0, tube: float = 0.4, *, n_around: int = 48, n_tube: int = 24) -> Mesh:
    """Torus around z; `radius` from the centre to the middle of a tube of radius `tube`."""
    check_int(n_around, "n_around", low=3)
    check_int(n_tube, "n_tube", low=3)
    t = -2 * math.pi * np.arange(n_tube) / n_tube
    v, f = _lattice(radius + tube * np.cos(t), tube * np.sin(t), n_around, closed=True)
    return _mesh(v, f)


def grid(nx: int = 16, ny: int = 16, size: tuple[float, float] = (1.0, 1.0)) -> Mesh:
    """Flat rectangle in the plane z = 0 seen from +z: (nx + 1)(ny + 1) vertices, x fastest."""
    check_int(nx, "nx", low=1)
    check_int(ny, "ny", low=1)
    x, y = (s * (np.arange(n + 1) / n - 0.5) for s, n in ((size[0], nx), (size[1], ny)))
    verts = np.stack([np.tile(x, ny + 1), np.repeat(y, nx + 1), np.zeros((nx + 1) * (ny + 1))], axis=1)
    a = (np.arange(ny)[:, None] * (nx + 1) + np.arange(nx)).ravel()
    return _mesh(verts, _two_triangles(a, a + 1, a + nx + 2, a + nx + 1))


def box(size: tuple[float, float, float] = (1.0, 1.0, 1.0), n: int = 4) -> Mesh:
    """Closed box with n x n squares a side: V = 6 n^2 + 2."""
    check_int(n, "n", low=1)
    side = grid(n, n, (2.0, 2.0))
    plane = (
        np.rint((side.verts.numpy()[:, :2] + 1) * n / 2).astype(int) * 2 - n
    )  # integers: equal corners are equal
    parts = []
    for axis in range(3):
        for sign in (1, -1):
            corner = np.empty((len(plane), 3), int)
            corner[:, axis] = sign * n
            corner[:, (axis + 1) % 3], corner[:, (axis + 2) % 3] = plane[:, 0], sign * plane[:, 1]
            parts.append(corner)
    verts, index = np.unique(np.concatenate(parts), axis=0, return_inverse=True)
    faces = np.concatenate([side.faces.numpy() + i * len(plane) for i in range(6)])
    return _mesh(verts / (2 * n) * np.asarray(size, float), index.reshape(-1)[faces])


def _mesh(verts: Floats, faces: Ints) -> Mesh:
    return Mesh(
        torch.as_tensor(np.ascontiguousarray(verts, float)), torch.as_tensor(np.ascontiguousarray(faces))
    )


def _on_sphere(v: Floats, radius: float) -> Floats:
    return radius * v / np.linalg.norm(v, axis=1, keepdims=True)


def _split(v: Floats, f: Ints) -> tuple[Floats, Ints]:
    """Every triangle into four at the middles of its edges."""
    ends = np.sort(np.concatenate([f[:, [1, 2]], f[:, [2, 0]], f[:, [0, 1]]]), axis=1)
    edges, index = np.unique(ends, axis=0, return_inverse=True)
    a, b, c = index.reshape(3, -1) + len(v)  # middle opposite to each corner
    i, j, k = f.T
    faces = np.concatenate([np.stack(t, axis=1) for t in ((i, c, b), (j, a, c), (k, b, a), (a, b, c))])
    return np.concatenate([v, v[edges].mean(1)]), faces


def _two_triangles(a: Ints, b: Ints, c: Ints, d: Ints) -> Ints:
    """(2n, 3) faces of n counter-clockwise quads."""
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


def _lattice(r: Floats, z: Floats, n_around: int, *, closed: bool = False) -> tuple[Floats, Ints]:
    """Rings of radius r at height z around the z axis, from top to bottom, joined by quads seen from outside."""
    angle = 2 * math.pi * np.arange(n_around) / n_around
    x, y = np.outer(r, np.cos(angle)), np.outer(r, np.sin(angle))
    verts = np.stack([x, y, np.repeat(z[:, None], n_around, axis=1)], axis=-1).reshape(-1, 3)
    ring = np.arange(len(r) if closed else len(r) - 1)[:, None]
    i = np.arange(n_around)
    below, beside = (ring + 1) % len(r) * n_around, (i + 1) % n_around
    corners = (below + i, below + beside, ring * n_around + beside, ring * n_around + i)
    return verts, _two_triangles(*(x.ravel() for x in corners))


def _revolve(r: Floats, z: Floats, n_around: int) -> Mesh:
    """Surface of a profile (r, z) from the north pole (r[0] = 0) to the south pole."""
    check_int(n_around, "n_around", low=3)
    verts, faces = _lattice(r[1:-1], z[1:-1], n_around)
    i = np.arange(n_around)
    north, south, last = len(verts), len(verts) + 1, len(verts) - n_around
    top = np.stack([np.full(n_around, north), i, (i + 1) % n_around], axis=1)
    bottom = np.stack([np.full(n_around, south), last + (i + 1) % n_around, last + i], axis=1)
    poles = np.array([[0, 0, z[0]], [0, 0, z[-1]]])
    return _mesh(np.concatenate([verts, poles]), np.concatenate([faces, top, bottom]))
