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
from geoframe.surface.closest import TriangleTree
from geoframe.surface.implicit import Field, project
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import SurfaceSamples, sample_surface
from geoframe.zoo._skin import Half, right_half, skin
from geoframe.zoo.deform import Warp
from geoframe.zoo.solids import Part, Point, distance, fold

_POOL = 4  # canonical surface points of a structure for each point drawn from them


@dataclass(frozen=True)
class Structure:
    """A canonical solid, symmetric in z: x forward, y up, left at -z.

    Attributes:
        name: such as "chair/four_legs/arms".
        labels: the part names of the whole category, with left_ and right_ for most pairs; `part_of` counts these.
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

    def size(self, canonical: Tensor) -> Tensor:
        """(N,) relative edge length at canonical surface points (N, 3): that of their part."""
        solid = [p for p in self.parts if not p.on and not p.cut]
        edge = torch.tensor([p.size for p in solid], dtype=torch.float64)
        return edge[self._owner(canonical)].sqrt()

    def part_of(self, canonical: Tensor) -> Tensor:
        """(N,) int64 label of canonical surface points (N, 3): the part whose own surface is nearest, and the
        patches on it."""
        solid = [p for p in self.parts if not p.on and not p.cut]
        owner = self._owner(canonical)
        folded, left = fold(canonical), canonical[:, 2] < 0
        number = torch.tensor([[self._number(side, p.name) for side in p.sides] for p in solid])
        label = number[owner, (~left).long()]
        with torch.no_grad():
            for patch in (p for p in self.parts if p.on):
                mine = patch.field(folded if patch.pair else canonical) < 0
                mine &= torch.tensor([p.name == patch.on for p in solid])[owner]
                for side, half in zip(patch.sides, (left, ~left), strict=True):
                    label[mine & half] = self._number(side, patch.name)
        return label

    def _number(self, side: str, name: str) -> int:
        """Of a label; both parts of a pair have one label where the category does not tell them apart."""
        return self.labels.index(side + name if side + name in self.labels else name)

    def _owner(self, canonical: Tensor) -> Tensor:
        """(N,) number, among the solid parts, of the one whose surface, less what is cut away, is nearest."""
        folded, gaps = fold(canonical), list[Tensor]()
        with torch.no_grad():
            for part in (p for p in self.parts if not p.on):
                d = part.field(folded if part.pair else canonical)
                if part.cut:
                    gaps = [torch.maximum(g, -d) for g in gaps]
                else:
                    gaps.append(d)
        return torch.stack(gaps).argmin(0)


@dataclass(frozen=True, eq=False)
class Member:
    """One shape of a structure.

    Attributes:
        structure: what is deformed.
        warp: canonical points to the member's.
        traits: the numbers and words that were drawn for it.
    """

    structure: Structure
    warp: Warp
    traits: dict[str, float | str | bool]


@dataclass(frozen=True, eq=False)
class MemberMesh:
    """A member's surface as a mesh.

    Attributes:
        mesh: closed, manifold, outward; verts (V, 3) float64, exactly symmetric in z where the member is.
        canonical: (V, 3) canonical point of each vertex, which lies on the member's smooth surface.
        vertex_part: (V,) int64 into `member.structure.labels`.
        face_part: (F,) int64, likewise.
        symmetry: (V,) int64, the vertex on the other side; an involution.
        landmarks: name -> vertex.
        member: whose surface it is.
    """

    mesh: Mesh
    canonical: Tensor
    vertex_part: Tensor
    face_part: Tensor
    symmetry: Tensor
    landmarks: dict[str, int]
    member: Member


def surface_mesh(member: Member, n_verts: int = 5000, *, seed: int = 0) -> MemberMesh:
    """A member's surface with about `n_verts` vertices (V, 3) and well-shaped triangles.

    Other seeds share no connectivity; landmarks lie at the same canonical points in all of them.

    Args:
        member: of a rigid category, or a head.
        n_verts: number of vertices V, about; at least 200.
        seed: of the triangulation.

    Raises:
        ValueError: fewer than 200 vertices.
    """
    check_int(n_verts, "n_verts", low=200)
    structure = member.structure
    names = list(structure.landmarks)
    pins = landmark_points(structure)
    with torch.no_grad():
        fine = _half(structure, structure.thinnest / (2 if n_verts > 2000 else 1.4))
        s = skin(fine, member.warp, n_verts, pins, seed)
        verts = member.warp.forward(s.canonical)
        middle = project(structure.field, s.canonical[s.faces].mean(1))
    landmarks = {}
    for name, pin, vertex in zip(names, pins, s.pins, strict=True):
        if pin[2] == 0:
            landmarks[name] = vertex
        else:
            landmarks |= {f"left_{name}": int(s.mirror[vertex]), f"right_{name}": vertex}
    return MemberMesh(
        Mesh(verts, s.faces),
        s.canonical,
        structure.part_of(s.canonical),
        structure.part_of(middle),
        s.mirror,
        landmarks,
        member,
    )


def draft(member: Member) -> tuple[Mesh, Tensor]:
    """A quick fine mesh of a member for pictures, with slivers, and the part (V,) of each vertex."""
    half = _half(member.structure, member.structure.thinnest / 2)
    right, faces = torch.as_tensor(half.verts), torch.as_tensor(half.faces)
    canonical = torch.cat([right, mirror_image(right)])
    both = torch.cat([faces, faces.flip(1) + len(right)])
    return Mesh(member.warp.forward(canonical), both), member.structure.part_of(canonical)


def member_correspondence(a: MemberMesh, b: MemberMesh) -> tuple[SurfaceSamples, Tensor]:
    """The ground truth: for each vertex of `b` the same place of `a`.

    Args:
        a: the surface on which the places lie.
        b: the surface whose vertices they belong to, of the same category.

    Returns:
        Points (V_b, 3) of a's smooth surface, exact, with the face and barycentric coordinates of the nearest point of
        a's mesh; and (V_b,) bool, whether they exist, as in `counterpart`.
    """
    points, exists = counterpart(a.member, b.canonical)
    surface = TriangleTree(a.mesh.verts.numpy(), a.mesh.faces.numpy())
    face, weights = surface.closest(points.numpy(), 30)
    return SurfaceSamples(points, torch.as_tensor(face), torch.as_tensor(weights)), exists


@lru_cache(maxsize=128)
def landmark_points(structure: Structure) -> Tensor:
    """(n, 3) canonical surface points of the landmarks of the right side and the middle, in their order."""
    points = torch.tensor(list(structure.landmarks.values()), dtype=torch.float64)
    middle = points[:, 2] == 0
    for _ in range(20):
        points = project(structure.field, points)
        points[middle, 2] = 0.0
    return points


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
    """Where the surface points of any member of a category lie on another member.

    Args:
        b: the other member.
        canonical: (N, 3) canonical points, as `MemberMesh.canonical` has them.
        tolerance: distance from the surface, in canonical units, up to which a point is taken to lie on it.

    Returns:
        Points (N, 3), and (N,) bool, whether they lie on its surface: not so where `b` has no such part, or where
        another part melts in.
    """
    check_shape(canonical, "N 3", "canonical")
    with torch.no_grad():
        return b.warp.forward(canonical), b.structure.field(canonical).abs() <= tolerance


def surface_points(member: Member, n_points: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random points spread evenly over a member by area.

    Args:
        member: of a rigid category, or a head.
        n_points: how many.
        seed: of the points.

    Returns:
        points: (n_points, 3).
        canonical: (n_points, 3), equal for corresponding points of all members.
        label: (n_points,) int64 into ``member.structure.labels``.
    """
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
    half = _half(structure, structure.thinnest / 1.5)
    mesh = Mesh(torch.as_tensor(half.verts), torch.as_tensor(half.faces))
    samples = sample_surface(mesh, (n + 1) // 2, generator=0)
    points = samples.points
    for _ in range(6):
        points = project(structure.field, points)
    normal = mesh.face_normals_scaled[samples.face]
    normal = normal / normal.norm(dim=1, keepdim=True)
    across = torch.eye(3, dtype=torch.float64)[normal.abs().argmin(1)]
    ahead = torch.linalg.cross(normal, across)
    ahead = ahead / ahead.norm(dim=1, keepdim=True)
    tangents = 1e-4 * torch.stack([ahead, torch.linalg.cross(normal, ahead)], dim=1)
    settled = structure.field(points).abs() < 1e-9  # not so in a sharp groove
    points, tangents = (torch.cat([x[settled], mirror_image(x[settled])]) for x in (points, tangents))
    return points, tangents, structure.part_of(points)


@lru_cache(maxsize=64)
def _half(structure: Structure, spacing: float) -> Half:
    """The right half of a canonical surface on a grid."""
    return right_half(structure.field, structure.size, *bounds(structure), spacing)


def mirror_image(points: Tensor) -> Tensor:
    """(..., 3) points on the other side of z = 0: the counterpart of canonical points under the symmetry."""
    return points * points.new_tensor([1, 1, -1])


def bounds(structure: Structure) -> tuple[Tensor, Tensor]:
    """Corners of a box around the canonical solid, found on a coarse grid."""
    reach, step = 3.0, 0.1
    axis = torch.arange(-reach, reach, step, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis, axis[axis >= -1e-9])
    with torch.no_grad():
        near = grid[torch.cat([structure.field(g) for g in grid.split(2**15)]) < step]
    low, high = near.amin(0) - step, near.amax(0) + step
    low[2] = -high[2]
    return low, high
