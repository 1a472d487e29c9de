"""Smooth closed surfaces from implicit functions: a field that is negative inside, zero on the surface.

`implicit_surface` cuts a fine grid of tetrahedra by the surface, which always gives a closed manifold, and
coarsens that to well-shaped triangles of the size asked for, keeping the vertices on the surface. The grid is
turned by a seeded rotation: surfaces of one field with other seeds share no connectivity.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_finite, check_int, check_shape
from geoframe._types import Bools, Floats, Ints
from geoframe.surface.mesh import Mesh
from geoframe.surface.remesh import coarsen, flip_edges

Field = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Limb:
    """A chain of balls and the hull between each two of them: a bone with its flesh.

    Attributes:
        joints: (n, 3) centres, n >= 2.
        radii: (n,) > 0.
        stretch: thickness along x, y and z relative to the radii: (1, 1, 0.5) is half as wide as it is high.
        blend: length over which it melts into the limbs before it.
    """

    joints: Tensor
    radii: Tensor
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blend: float = 0.0

    def __post_init__(self) -> None:
        n = check_shape(self.joints, "n 3", "joints")["n"]
        if n < 2:
            raise ValueError(f"joints: expected at least 2 (one bone), found {n}")
        check_shape(self.radii, str(n), "radii")
        check_finite(self.joints, "joints")
        if not bool((self.radii > 0).all()) or min(self.stretch) <= 0:
            raise ValueError("radii, stretch: expected positive numbers")

    def distance(self, points: Tensor) -> Tensor:
        """(M,) about the signed distance of `points` (M, 3) to the limb; negative inside."""
        d, _ = self._bones(points)
        out = d[0]
        for i in range(1, len(d)):
            out = smooth_minimum(out, d[i], 0.5 * float(self.radii[i]))  # melted over half a joint
        return out

    def thickness(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance (M,) to the nearest bone of the limb, and the radius (M,) of the limb there."""
        d, radius = self._bones(points)
        nearest, which = d.min(0)
        return nearest, radius.gather(0, which[None])[0]

    def _bones(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(n - 1, M) distance to each bone's flesh, and its radius at the nearest point of the axis."""
        stretch = points.new_tensor(self.stretch)
        start, axis = self.joints[:-1, None], self.joints[1:, None] - self.joints[:-1, None]
        offset = points - start
        t = ((offset * axis).sum(-1) / (axis**2).sum(-1)).clamp(0, 1)
        radius = torch.lerp(self.radii[:-1, None], self.radii[1:, None], t)
        offset = (offset - t[..., None] * axis) / stretch
        return (((offset**2).sum(-1) + 1e-18).sqrt() - radius) * stretch.min(), radius


def smooth_minimum(a: Tensor, b: Tensor, width: float) -> Tensor:
    """min(a, b), rounded where they differ by less than `width`; once continuously differentiable, never larger."""
    if width <= 0:
        return torch.minimum(a, b)
    h = (width - (a - b).abs()).clamp(min=0) / width
    return torch.minimum(a, b) - h**2 * width / 4


def body(limbs: Sequence[Limb]) -> Field:
    """Field of the union of limbs; each melts into those before it over its own `blend`."""

    def field(points: Tensor) -> Tensor:
        out = limbs[0].distance(points)
        for limb in limbs[1:]:
            out = smooth_minimum(out, limb.distance(points), limb.blend)
        return out

    return field


def girth(limbs: Sequence[Limb]) -> Field:
    """(M, 3) points to (M,) radius of the limb nearest to each: a size for `implicit_surface`."""

    def radius(points: Tensor) -> Tensor:
        d, r = (torch.stack(x) for x in zip(*(limb.thickness(points) for limb in limbs), strict=True))
        return r.gather(0, d.argmin(0)[None])[0]

    return radius


def implicit_surface(
    field: Field,
    low: Tensor,
    high: Tensor,
    n_verts: int,
    *,
    thinnest: float | None = None,
    size: Field | None = None,
    seed: int = 0,
) -> Mesh:
    """Closed manifold mesh of the zero level of `field` inside the box from `low` to `high`.

    Args:
        field: (M, 3) float64 points to (M,) values, negative inside, differentiable near the surface and
            positive on the box.
        low: (3,) the box's corner with the smallest coordinates.
        high: (3,) the one with the largest.
        n_verts: number of vertices V; a little more where the shape needs them.
        thinnest: thickness of the thinnest part or gap, which must not be lost (tips of thinner ones may).
        size: (M, 3) points to (M,) relative edge lengths; equal everywhere by default.
        seed: of the orientation of the grid: other seeds share no connectivity.

    Raises:
        ValueError: no surface in the box.

    Source: Doi and Koide 1991 (marching tetrahedra); Botsch and Kobbelt 2004 (collapse, flip, relax).
    """
    check_int(n_verts, "n_verts", low=20)
    turn = _rotation(seed)
    coarsest = min(float((high - low).max()) / 32, (thinnest or np.inf) / 1.5)
    spacing = coarsest
    for _ in range(3):
        verts, faces = march(field, low.double(), high.double(), spacing, turn)
        if len(verts) == 0:
            raise ValueError(
                "field: expected a zero level inside the box, found none; check signs, low and high"
            )
        if len(verts) > 9 * n_verts:
            break
        spacing = min(spacing * (len(verts) / (12 * n_verts)) ** 0.5, coarsest)

    def on_surface(points: Floats) -> Floats:
        return project(field, torch.as_tensor(points)).numpy()

    verts = on_surface(verts)
    wanted = None if size is None else size(torch.as_tensor(verts)).numpy()
    verts, faces, _ = coarsen(verts, faces, n_verts, on_surface=on_surface, size=wanted)
    for _ in range(12):
        faces = flip_edges(verts, faces)
        verts = on_surface(_relax(verts, faces))
    for _ in range(3):
        faces = flip_edges(verts, faces)
    verts = on_surface(on_surface(verts))
    return Mesh(torch.as_tensor(verts), torch.as_tensor(faces))


def project(field: Field, points: Tensor) -> Tensor:
    """One Newton step of `points` (M, 3) towards the zero level, along the gradient."""
    value, slope = _with_gradient(field, points)
    return points - (value / (slope**2).sum(-1).clamp(min=1e-12))[:, None] * slope


def _with_gradient(field: Field, points: Tensor) -> tuple[Tensor, Tensor]:
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        value = field(points)
        (slope,) = torch.autograd.grad(value.sum(), points)
    return value.detach(), slope


def _relax(verts: Floats, faces: Ints) -> Floats:
    """Half a step to the mean of the neighbours, without the part that leaves the surface."""
    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()  # every edge of a closed mesh, both ways
    total = np.stack([np.bincount(i, verts[j, c], minlength=len(verts)) for c in range(3)], axis=1)
    step = total / np.bincount(i, minlength=len(verts))[:, None] - verts
    normal = Mesh(torch.as_tensor(verts), torch.as_tensor(faces)).vertex_normals.numpy()
    return verts + 0.5 * (step - (step * normal).sum(1, keepdims=True) * normal)


def _rotation(seed: int) -> Tensor:
    """(3, 3) rotation drawn from a seed."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return torch.as_tensor(q * np.linalg.det(q))


def march(field: Field, low: Tensor, high: Tensor, spacing: float, turn: Tensor) -> tuple[Floats, Ints]:
    """Marching tetrahedra on a grid turned by `turn` (3, 3): closed, manifold, outward, with slivers."""
    corner = torch.cartesian_prod(*torch.stack([low, high], 1)) @ turn
    start = corner.min(0).values - spacing
    shape = ((corner.max(0).values - start) / spacing).ceil().int() + 2
    grid = torch.cartesian_prod(*(torch.arange(int(n), dtype=torch.float64) for n in shape))
    points = (start + spacing * grid) @ turn.T
    within = ((points >= low) & (points <= high)).all(1)
    value = np.full(len(points), float((high - low).norm()))  # outside of the box is outside of the surface
    with torch.no_grad():
        value[within.numpy()] = torch.cat([field(p) for p in points[within].split(2**14)]).numpy()
    tets = _crossed_tetrahedra((value < 0).reshape(shape.tolist()))
    tets = np.take_along_axis(
        tets, np.argsort(value[tets] >= 0, axis=1, kind="stable"), 1
    )  # those inside first
    n_inside = (value[tets] < 0).sum(1)
    corners, tet = (
        [],
        [],
    )  # a corner of a triangle lies on a grid edge, between two corners of the tetrahedron
    for n, between in _TRIANGLES:
        which = np.flatnonzero(n_inside == n)
        corners.append(np.sort(tets[which][:, between], axis=-1))
        tet.append(which)
    edges, faces = np.unique(np.concatenate(corners).reshape(-1, 2), axis=0, return_inverse=True)
    faces = faces.reshape(-1, 3)
    here, there = value[edges].T
    t = (here / (here - there)).clip(0.05, 0.95)[:, None]  # no triangle without area
    x = points.numpy()
    verts = (1 - t) * x[edges[:, 0]] + t * x[edges[:, 1]]

    own = tets[np.concatenate(tet)]
    weight = np.where(
        value[own] < 0,
        -1 / (value[own] < 0).sum(1, keepdims=True),
        1 / (value[own] >= 0).sum(1, keepdims=True),
    )
    outward = (weight[..., None] * x[own]).sum(1)
    a, b, c = verts[faces].transpose(1, 0, 2)
    inverted = (np.cross(b - a, c - a) * outward).sum(1) < 0
    faces[inverted] = faces[inverted][:, ::-1]
    return verts, faces


# corners inside the surface, and the grid edges that one triangle joins, by the corners' numbers, inside first
_TRIANGLES = (
    (1, [(0, 1), (0, 2), (0, 3)]),
    (2, [(0, 2), (0, 3), (1, 3)]),
    (2, [(0, 2), (1, 3), (1, 2)]),
    (3, [(0, 3), (1, 3), (2, 3)]),
)


def _crossed_tetrahedra(inside: Bools) -> Ints:
    """(T, 4) grid points of the tetrahedra, six a cube around its diagonal, in the cubes that hold both kinds."""
    n = np.array(inside.shape)
    unit = np.array([n[1] * n[2], n[2], 1])
    view = np.lib.stride_tricks.sliding_window_view(inside, (2, 2, 2)).reshape(*(n - 1), 8)
    cubes = np.argwhere(view.any(-1) & ~view.all(-1)) @ unit
    paths = [np.cumsum([0, *unit[list(order)]]) for order in itertools.permutations(range(3))]
    return (cubes[:, None, None] + np.array(paths)).reshape(-1, 4)
