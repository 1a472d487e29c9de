"""What the network sees of a surface: quantities of each vertex that no motion and no change of scale alters.

Everything is measured at unit area. *Even* quantities are the same on a surface and on its mirror image; *odd* ones,
triple products of directions, change their sign, and tell left from right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._types import Floats, Ints
from geoframe.canonical.surface import Surface
from geoframe.nearest import nearest
from geoframe.surface.mesh import Mesh
from geoframe.surface.operators import gradient
from geoframe.surface.sampling import farthest_points, spread_vertices

SAMPLES = 1024  # vertices that the network sees: those of its training surfaces are 600 to 1,200
HEAT_TIMES = np.geomspace(0.004, 0.3, 8)  # in units of the area; 128 eigenfunctions resolve 0.003 and more
BANDS = 8  # of the wave kernel signature
SCALES = np.array([0.003, 0.01, 0.03, 0.1])  # diffusion times after which positions are compared, unit area
NORMAL_TIME = 0.0005  # diffusion time of the normals: noise goes, limbs stay
N_EVEN = len(HEAT_TIMES) + BANDS + 2 * len(SCALES) + 2
N_ODD = 7


class Inputs(NamedTuple):
    """A surface as the network takes it: S of its vertices, at unit area.

    The network does to functions on the surface only what can be done to their coefficients in the eigenbasis and
    to their values vertex by vertex. So it needs no more than some vertices, evenly spread, however many there are.

    Attributes:
        even: (S, N_EVEN), odd: (S, N_ODD).
        vals: (K,) eigenvalues.
        vecs: (S, K) eigenfunctions.
        grad_x: (S, K) their derivatives along the first axis of each tangent plane.
        grad_y: (S, K) along the second, 90 degrees counter-clockwise seen from outside.
        mass: (S,) area that each vertex stands for, of sum 1.
        place: (S, 3) smoothed positions.
        vertex: (S,) int64, which vertices these are.
    """

    even: Tensor
    odd: Tensor
    vals: Tensor
    vecs: Tensor
    grad_x: Tensor
    grad_y: Tensor
    mass: Tensor
    place: Tensor
    vertex: Tensor


class LocalShape(NamedTuple):
    """What surrounds each vertex, seen at several scales: see the module.

    Attributes:
        even: (V, N_EVEN), the same on the mirror image of the surface.
        odd: (V, N_ODD), of the other sign there.
    """

    even: Tensor
    odd: Tensor


def local_shape(surface: Surface, k: int = 128) -> LocalShape:
    """The even and odd quantities of all vertices, float32 on the CPU, which the surface keeps.

    Args:
        surface: V vertices.
        k: number of eigenfunctions; fewer are used where the surface has fewer vertices with area.
    """

    def compute() -> LocalShape:
        even, odd, _, _ = _Core.of(surface, k).at(np.arange(surface.n_verts))
        return LocalShape(*(torch.as_tensor(x, dtype=torch.float32) for x in (even, odd)))

    return surface.once(("local shape", k), compute)


@dataclass(frozen=True, eq=False)
class _Core:
    """A surface at unit area by its lowest eigenfunctions.

    size: sqrt(area). middle: (V, 3) positions about their middle, in mesh units. mass: (V,) of sum 1. vals: (K,).
    vecs: (V, K). x: (K, 3) coefficients of the positions. normal: (K, 3) of the outward normals. smooth: sqrt of the
    area of the surface of these positions.
    """

    size: float
    middle: Floats
    mass: Floats
    vals: Floats
    vecs: Floats
    x: Floats
    normal: Floats
    smooth: float

    @classmethod
    def of(cls, surface: Surface, k: int) -> _Core:
        _, M = surface.laplacian
        basis = surface.basis(min(k, max(1, int((M > 0).sum()))))
        area = float(M.sum())
        vals = basis.vals.double().clamp(min=0).cpu().numpy() * area
        vecs = basis.vecs.double().cpu().numpy() * np.sqrt(area)
        mass = M / area
        x = surface.verts.detach().double().cpu().numpy()
        faces = surface.faces.cpu().numpy()
        x = x - mass @ x
        raw = surface.vertex_normals.detach().double().cpu().numpy() * _outward(x, faces)
        coefficients = vecs.T @ (mass[:, None] * np.concatenate([x, raw], axis=1))
        smooth = np.sqrt(
            _area(vecs @ coefficients[:, :3], faces)
        )  # noise adds area, not to the smoothed surface
        return cls(np.sqrt(area), x, mass, vals, vecs, coefficients[:, :3], coefficients[:, 3:], smooth)

    def at(self, some: Ints) -> tuple[Floats, Floats, Floats, Floats]:
        """Even and odd quantities, smoothed positions and normals of some vertices."""
        here = self.vecs[some]
        normal = _unit(here @ (np.exp(-NORMAL_TIME * self.vals)[:, None] * self.normal))
        times = (0.0, *SCALES)
        place, *moved = (here @ (np.exp(-t * self.vals)[:, None] * self.x) / self.smooth for t in times)
        even = [_heat(self.vals, here), _waves(self.vals, here), *_offsets(place, np.stack(moved), normal)]
        return np.concatenate(even, axis=1), _triple_products(place, np.stack(moved), normal), place, normal


def network_inputs(surface: Surface, k: int = 128, *, n_samples: int = SAMPLES) -> Inputs:
    """The inputs of the network, float32 on the CPU.

    Args:
        surface: V vertices. Faces that look inwards are turned outwards, as far as the enclosed volume tells.
        k: number of eigenfunctions; fewer are used where the surface has fewer vertices with area.
        n_samples: number of vertices S; all with area, where a surface has no more than a third more than that.

    Raises:
        ValueError: the surface has no area.
    """
    core = _Core.of(surface, k)
    some, share = _spread(surface, core.mass, n_samples)
    even, odd, place, normal = core.at(some)
    along, across = _frame(normal)
    slope = core.size * _gradient_at(surface, some, core.vecs)
    slopes = [np.einsum("sd,sdk->sk", axis, slope) for axis in (along, across)]
    arrays = (even, odd, core.vals, core.vecs[some], *slopes, share, place)
    tensors = [torch.as_tensor(a, dtype=torch.float32) for a in arrays]
    return Inputs(*tensors, torch.as_tensor(some))  # type: ignore[call-arg]  # mypy counts the star as all


def _spread(surface: Surface, mass: Floats, n: int) -> tuple[Ints, Floats]:
    """About `n` vertices (S,) with area, evenly spread, and the mass (S,) nearest to each."""
    used = np.flatnonzero(mass > 0)
    if len(used) <= 1.33 * n:
        return used, mass[used]
    if len(used) == surface.n_verts:
        chosen = spread_vertices(surface, n)  # which the surface keeps
    else:
        at = torch.as_tensor(used, device=surface.device)
        chosen = at[farthest_points(surface.verts.detach()[at], n)]
    near = nearest(surface.verts.detach(), surface.verts.detach()[chosen])[0]
    return chosen.cpu().numpy(), np.bincount(near.cpu().numpy(), mass, minlength=n).astype(np.float64)


def _heat(vals: Floats, vecs: Floats) -> Floats:
    """(V, T) logarithm of the heat that stays, relative to its mean over the surface."""
    weights = np.exp(-HEAT_TIMES[:, None] * vals)
    return np.log((vecs**2 @ weights.T / weights.sum(1)).clip(1e-6))


def _waves(vals: Floats, vecs: Floats) -> Floats:
    """(V, BANDS) energy of the eigenfunctions by bands of frequency, relative to its mean over the surface."""
    logs = np.log(vals[1:].clip(1e-6))
    centres = np.linspace(np.log(8.0), np.log(1300.0), BANDS)
    weights = np.exp(-((logs - centres[:, None]) ** 2) / (2 * 0.5**2)) + 1e-9
    return np.log((vecs[:, 1:] ** 2 @ weights.T / weights.sum(1)).clip(1e-4))


def _offsets(place: Floats, moved: Floats, normal: Floats) -> list[Floats]:
    """How far diffusion moves each vertex, along the normal and in all: curvature at several scales; and how far it
    is from the middle."""
    step = (moved - place) / np.sqrt(SCALES)[:, None, None]
    out = [np.einsum("svd,vd->vs", step, normal), np.linalg.norm(step, axis=2).T]
    return [*out, np.linalg.norm(place, axis=1, keepdims=True), (place * normal).sum(1, keepdims=True)]


def _triple_products(place: Floats, moved: Floats, normal: Floats) -> Floats:
    """(V, N_ODD) volumes spanned by the normal and the ways in which diffusion moves a vertex."""
    a, b, c, d = _soft_unit(moved - place)
    far = _soft_unit(-place)

    def volume(u: Floats, v: Floats, w: Floats) -> Floats:
        return np.einsum("vd,vd->v", u, np.cross(v, w))

    triples = ((normal, a, b), (normal, b, c), (normal, c, d), (normal, a, d), (normal, b, far), (b, c, d))
    return np.stack([*(volume(*t) for t in triples), volume(a, c, far)], axis=1)


def _unit(x: Floats) -> Floats:
    return x / np.linalg.norm(x, axis=-1, keepdims=True).clip(1e-12)


def _soft_unit(x: Floats) -> Floats:
    """Of length 1 where it is long beside 0.02, shorter below."""
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 0.02**2)


def _area(verts: Floats, faces: Ints) -> float:
    a, b, c = (verts[faces[:, i]] for i in range(3))
    return 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())


def _outward(verts: Floats, faces: Ints) -> float:
    """1 where the faces look away from the inside, else -1."""
    a, b, c = (verts[faces[:, i]] for i in range(3))
    return 1.0 if np.einsum("fd,fd->", a, np.cross(b, c)) >= 0 else -1.0


def _frame(normal: Floats) -> tuple[Floats, Floats]:
    """Two axes (V, 3) of each tangent plane, counter-clockwise about the normal."""
    along = np.cross(np.eye(3)[np.abs(normal).argmin(1)], normal)
    along = _unit(along)
    return along, np.cross(normal, along)


def _gradient_at(surface: Surface, some: Ints, f: Floats) -> Floats:
    """(S, 3, K) gradient of functions f (V, K) at some vertices: the mean over the triangles around, by area."""
    faces = surface.faces.cpu().numpy()
    number = np.full(surface.n_verts, -1)
    number[some] = np.arange(len(some))
    around = np.flatnonzero((number[faces] >= 0).any(1))
    faces = faces[around]
    area = surface.face_areas.detach().double().cpu().numpy()[around]
    face, corner = np.nonzero(number[faces] >= 0)
    row = number[faces[face, corner]]
    total = np.bincount(row, area[face], minlength=len(some))
    share = area[face] / np.where(total > 0, total, 1)[row]
    mean = sp.csr_matrix((share, (row, face)), shape=(len(some), len(faces)))
    G = gradient(Mesh(surface.verts, torch.as_tensor(faces, device=surface.device)))
    return np.stack([(mean @ G[c::3]) @ f for c in range(3)], axis=1)
