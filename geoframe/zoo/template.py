"""One template, many members: a canonical solid, the bijections of space that deform it, and exact correspondence.

A member's surface is the image of the canonical surface ``F(c) = 0`` under its warp. So a surface point is named
by its canonical point c: members of one structure have the counterpart ``warp_B(c)`` of ``warp_A(c)`` everywhere;
members of two structures have it where c lies on both canonical surfaces, which is where their parts agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_int, check_shape
from geoframe.surface.implicit import Field, march, project
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import sample_surface
from geoframe.zoo.deform import Warp
from geoframe.zoo.solids import Part, Point, distance, fold

_POOL = 4  # canonical surface points of a structure for each point drawn from them


@dataclass(frozen=True)
class Structure:
    """A canonical solid, symmetric in z: x forward, y up, left at -z.

    Attributes:
        name: such as "chair/four_legs/arms".
        labels: the part names of the whole category, left_ and right_ for pairs; `part_of` counts these.
        parts: in the order in which they melt together.
        landmarks: name -> canonical place near the surface; those off the plane z = 0 exist as left_ and right_.
        thinnest: thickness of the thinnest part or gap.
    """

    name: str
    labels: tuple[str, ...] = field(repr=False, hash=False, compare=False)
    parts: tuple[Part, ...] = field(repr=False, hash=False, compare=False)
    landmarks: dict[str, Point] = field(repr=False, hash=False, compare=False)
    thinnest: float = field(default=0.1, hash=False, compare=False)

    @property
    def field(self) -> Field:
        """(N, 3) canonical points to (N,) values, negative inside."""
        return distance(self.parts)

    def part_of(self, canonical: Tensor) -> Tensor:
        """(N,) int64 label of canonical surface points (N, 3): the part whose own surface is nearest."""
        number = self.labels.index
        folded, left = fold(canonical), canonical[:, 2] < 0
        best = torch.full_like(canonical[:, 0], torch.inf)
        label = torch.zeros(len(canonical), dtype=torch.int64)
        for part in self.parts:
            if part.cut:
                continue
            d = part.field(folded if part.pair else canonical)
            mine = (
                torch.where(left, number(f"left_{part.name}"), number(f"right_{part.name}"))
                if part.pair
                else torch.full_like(label, number(part.name))
            )
            label, best = torch.where(d < best, mine, label), torch.minimum(d, best)
        return label


@dataclass(frozen=True, eq=False)
class Member:
    """One shape of a structure.

    Attributes:
        structure: what is deformed. warp: canonical points to the member's.
        traits: the numbers and words that were drawn for it.
    """

    structure: Structure
    warp: Warp
    traits: dict[str, float | str | bool]


class Draw:
    """Named random traits of one member: the same category and seed give the same traits."""

    def __init__(self, category: str, seed: int) -> None:
        self._rng = np.random.default_rng([zlib.crc32(category.encode()), seed])
        self.traits: dict[str, float | str | bool] = {}

    def __call__(self, name: str, low: float, high: float) -> float:
        """A number between low and high."""
        value = self.traits[name] = float(self._rng.uniform(low, high))
        return value

    def word(self, name: str, words: Sequence[str], weights: Sequence[float]) -> str:
        """One of some words, by weight."""
        p = np.array(weights, dtype=float)
        value = self.traits[name] = str(self._rng.choice(words, p=p / p.sum()))
        return value

    def coin(self, name: str, chance: float) -> bool:
        """True with a chance."""
        value = self.traits[name] = bool(self._rng.uniform() < chance)
        return value


def counterpart(b: Member, canonical: Tensor, *, tolerance: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Where the canonical surface points (N, 3) of any member of the category lie on member `b`.

    Returns:
        points: (N, 3). exists: (N,) bool, whether they lie on its surface; False where `b` has no such part,
        or another part melts in there.
    """
    check_shape(canonical, "N 3", "canonical")
    with torch.no_grad():
        return b.warp.forward(canonical), b.structure.field(canonical).abs() <= tolerance


def surface_points(member: Member, n_points: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Points (n_points, 3) spread evenly over a member by chance; their canonical points, and labels (n_points,)."""
    check_int(n_points, "n_points", low=1)
    canonical, tangents, label = _pool(member.structure, _POOL * n_points)
    near = torch.cat([canonical, canonical + tangents[:, 0], canonical + tangents[:, 1]])
    place, ahead, aside = member.warp.forward(near).chunk(3)
    area = torch.linalg.cross(ahead - place, aside - place).norm(dim=1)
    generator = torch.Generator().manual_seed(seed)
    pick = torch.multinomial(area, n_points, generator=generator)
    return place[pick], canonical[pick], label[pick]


@lru_cache(maxsize=64)
def _pool(structure: Structure, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Evenly spread canonical surface points (n, 3), two short tangents (n, 2, 3) at each, and labels (n,)."""
    mesh = canonical_mesh(structure, max(structure.thinnest / 1.5, 0.04))
    samples = sample_surface(mesh, n, generator=0)
    points = samples.points
    for _ in range(3):
        points = project(structure.field, points)
    normal = mesh.face_normals_scaled[samples.face]
    normal = normal / normal.norm(dim=1, keepdim=True)
    across = torch.eye(3, dtype=torch.float64)[normal.abs().argmin(1)]
    ahead = torch.linalg.cross(normal, across)
    ahead = ahead / ahead.norm(dim=1, keepdim=True)
    tangents = 1e-4 * torch.stack([ahead, torch.linalg.cross(normal, ahead)], dim=1)
    return points, tangents, structure.part_of(points)


@lru_cache(maxsize=16)
def canonical_mesh(structure: Structure, spacing: float) -> Mesh:
    """Closed manifold mesh of a canonical surface on a grid, with slivers."""
    low, high = bounds(structure)
    verts, faces = march(structure.field, low, high, spacing, torch.eye(3, dtype=torch.float64))
    return Mesh(torch.as_tensor(verts), torch.as_tensor(faces))


def bounds(structure: Structure) -> tuple[Tensor, Tensor]:
    """Corners of a box around the canonical solid, found on a coarse grid."""
    reach, step = 3.0, 0.1
    axis = torch.arange(-reach, reach, step, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis, axis[axis <= 0.0])
    with torch.no_grad():
        near = grid[torch.cat([structure.field(g) for g in grid.split(2**15)]) < step]
    low, high = near.amin(0) - step, near.amax(0) + step
    high[2] = -low[2]
    return low, high
