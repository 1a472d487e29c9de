"""Shell refinement: a map between surfaces by what they are in themselves and by how they lie in space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe._check import as_floats, check_finite, check_int, check_shape
from geoframe._threads import together
from geoframe.maps.quality import check_map
from geoframe.nearest import lowest_score, nearest, nearest_by_guess, patches
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import spread_vertices
from geoframe.surface.topology import edges
from geoframe.transforms import nearest_rotation

# Weights are for surfaces of unit area. They were chosen on cat to lion in an earlier session and kept.
INTRINSIC = 60  # eigenfunctions in the intrinsic coordinates
SIZES = (8, 12, 16, 20, 30, 40, 60, 80, 100, 100)  # functions of the displacement, step by step
SMOOTHNESS = 3e-4  # weight of the Dirichlet energy of the coordinates that are pulled over
PLACE = 5.0  # weight of positions
NORMALS = (1.0, 0.2)  # weight of normals in the first step and in the last
SAMPLES = 1_500  # vertices of each surface that all but the last steps run on
PER_EARLY = 36  # samples a function from which on half of the samples are enough: up to 40 functions of 1,500
OPEN = 0.3  # length of the rim over sqrt(area) from which a part of a surface may be missing
LOST = 0.15  # distance, there and back, from which a vertex has no counterpart on the other surface
FEW_LOST, MANY_LOST = 0.03, 0.7  # shares of such vertices between which these do not count
STIFF = 1e-4  # weight of the Dirichlet energy of the displacement where vertices do not count
POLISH = 2  # steps on all vertices, at the end
COARSE = torch.float32  # of the steps before: their systems are well conditioned, and half the time is saved
GUESSED = 3_000  # rows from which it is faster to look near a guess
BLOCK = 2_000_000  # scores held at a time by the search for nearest rows


def shell_refine(
    mesh1: Mesh,
    mesh2: Mesh,
    p2p_21: Tensor,
    p2p_12: Tensor,
    basis1: Eigenbasis,
    basis2: Eigenbasis,
    *,
    functions: tuple[Tensor, Tensor] | None = None,
    sizes: Sequence[int] = SIZES,
    intrinsic: int = INTRINSIC,
    normals: tuple[float, float] = NORMALS,
    samples: int = SAMPLES,
    polish: int = POLISH,
) -> tuple[Tensor, Tensor]:
    """Refine a pair of vertex maps by bending each surface onto the other.

    A step has three parts. First, each surface is rotated to where the map sends it and then moved by the first k
    functions of the displacement that is left: this takes over pose and proportions and leaves finer detail
    alone. Second, each takes over the intrinsic coordinates of the other as smoothly as possible: with X the
    eigenvectors over the square roots of their eigenvalues, surface 2 gets the Y_21 that minimises::

        |Y - X1[p2p_21]|^2_M2 + |Y[p2p_12] - X1|^2_M1 + t tr(Y^T W2 Y)

    over the functions of its basis; the second term holds extremities that smoothing alone would shrink. Third, each
    vertex moves to the nearest vertex of the other surface in the product of intrinsic coordinates, positions and
    normals, each of them both ways (surface 1 beside the bent surface 2, and the bent 1 beside 2). From step to step
    k grows and normals count less.

    Intrinsic coordinates alone do not tell where on a stretched neck or around a leg a point is. Normals do: a back
    faces up and a belly down, on a cat and on a giraffe. A start that is upside down stays so.

    Args:
        mesh1: surface 1, V1 vertices.
        mesh2: surface 2, V2 vertices. Pose, position and size do not matter; one surface may be inside out.
        p2p_21: (V2,) vertex map to start from, right on the whole.
        p2p_12: (V1,) the map the other way.
        basis1: eigenbasis of surface 1.
        basis2: eigenbasis of surface 2.
        functions: (V1, p) and (V2, p) corresponding functions without a unit, such as `landmark_coordinates`,
            compared beside the intrinsic coordinates.
        sizes: k of every step; all functions where a basis has fewer.
        intrinsic: number of eigenfunctions in the intrinsic coordinates. Few where surfaces are far from
            isometric, 128 and more where they are nearly so.
        normals: weight of normals in the first step and in the last.
        samples: number of vertices of each surface that the first steps run on; those of few functions on half.
        polish: number of steps, the last ones, that run on all vertices.

    Returns:
        The refined p2p_21 (V2,) and p2p_12 (V1,). A step on N rows of d numbers takes O(N K^2) time and, where the
        maps move little, about O(N d) for the nearest rows; memory is that of the rows.

    Raises:
        TypeError: a surface without faces, or `sizes` or `functions` of another type.
        ValueError: maps, bases or functions that do not fit the meshes, NaN, sizes below 1.

    Source: Eisenberger, Lähner & Cremers 2020, Smooth Shells (product of eigenfunctions, smoothed positions and
        normals, on a growing number of functions); here the displacement is smoothed and not the surface, with
        the energy of Ezuz, Solomon & Ben-Chen 2019, Reversible Harmonic Maps, both ways, and vertices in place
        of a functional map.
    """
    for mesh, name in ((mesh1, "mesh1"), (mesh2, "mesh2")):
        if not isinstance(mesh, Mesh):
            raise TypeError(f"{name}: expected a Mesh, found {type(mesh).__name__}; normals need faces")
    p2p_21 = check_map(p2p_21, mesh1, mesh2, "p2p_21")
    p2p_12 = check_map(p2p_12, mesh2, mesh1, "p2p_12")
    if not isinstance(sizes, Sequence) or not len(sizes):
        raise TypeError(f"sizes: expected one k a step, such as (8, 20, 60), found {sizes!r}")
    for k in sizes:
        check_int(k, "sizes", low=1)
    first, second = _check_functions(functions, mesh1, mesh2)
    one, two = together(
        lambda: _Side.of(mesh1, basis1, first, intrinsic, "1"),
        lambda: _Side.of(mesh2, basis2, second, intrinsic, "2"),
    )
    p2p_21, p2p_12 = p2p_21.long(), p2p_12.long()
    coarse = max(0, len(sizes) - check_int(polish, "polish", low=0))
    steps = list(zip(sizes, np.geomspace(*normals, len(sizes)).tolist(), strict=True))
    early = sum(k <= samples // PER_EARLY for k in sizes[:coarse])
    if min(mesh1.n_verts, mesh2.n_verts) <= 2 * samples:  # a cat to a giraffe of 1,200 vertices lost by it
        early = 0
    for n, some in ((samples // 2, steps[:early]), (samples, steps[early:coarse])):
        if some and max(mesh1.n_verts, mesh2.n_verts) > samples:
            at1, at2 = (spread_vertices(m, n) for m in (mesh1, mesh2))
            p2p_21, p2p_12 = _on_samples((one, two), (at1, at2), (p2p_21, p2p_12), some)
            steps = steps[len(some) :]
    if steps:
        all1, all2 = together(lambda: _Part.of(one), lambda: _Part.of(two))
    for k, weight in steps:
        p2p_21, p2p_12 = _step(all1, all2, p2p_21, p2p_12, k, weight)
    return p2p_21, p2p_12


def _on_samples(
    sides: tuple[_Side, _Side],
    at: tuple[Tensor, Tensor],
    maps: tuple[Tensor, Tensor],
    steps: Sequence[tuple[int, float]],
) -> tuple[Tensor, Tensor]:
    """p2p_21 (V2,) and p2p_12 (V1,) after steps on some vertices `at` of each side; the others go with the nearest."""
    (one, two), (p2p_21, p2p_12) = sides, maps
    some1, some2 = together(lambda: _Part.of(one, at[0], COARSE), lambda: _Part.of(two, at[1], COARSE))
    near1, near2 = some1.nearest(one), some2.nearest(two)
    q_21, q_12 = near1[p2p_21[some2.at]], near2[p2p_12[some1.at]]
    for k, weight in steps:
        q_21, q_12 = _step(some1, some2, q_21, q_12, k, weight)
    return some1.at[q_21][near2], some2.at[q_12][near1]


def rim_length(mesh: Mesh) -> float:
    """Length of the edges with one face, over sqrt(area): 0 for a closed surface."""
    ends = mesh.verts.detach()[rim_edges(mesh)]
    return float((ends[:, 0] - ends[:, 1]).norm(dim=1).sum() / mesh.area.sqrt())


def rim_edges(mesh: Mesh) -> Tensor:
    """(E, 2) vertices of the edges with one face; found once for a surface."""

    def compute() -> Tensor:
        table = edges(mesh.faces.cpu().numpy())
        return torch.as_tensor(table.verts[table.n_faces == 1], device=mesh.device)

    return mesh.once("rim edges", compute)


@dataclass(frozen=True, eq=False)
class _Side:
    """A surface at unit area with its middle at 0, in float64.

    faces: (F, 3). x: (V, 3) positions. normals: (V, 3). U: (V, K) eigenvectors. vals: (K,) eigenvalues. mass: (V,) of
    sum 1. X: (V, d) intrinsic coordinates and given functions. rim: length of the edges with one face. on_rim: (V,)
    whether a vertex is on such an edge.
    """

    faces: Tensor
    x: Tensor
    normals: Tensor
    U: Tensor
    vals: Tensor
    mass: Tensor
    X: Tensor
    rim: float
    on_rim: Tensor

    @classmethod
    def of(cls, mesh: Mesh, basis: Eigenbasis, functions: Tensor, intrinsic: int, which: str) -> _Side:
        if basis.n_verts != mesh.n_verts:
            raise ValueError(
                f"basis{which}: expected {mesh.n_verts} vertices like its mesh, found {basis.n_verts}"
            )
        area = basis.mass.detach().double().sum()
        mass = basis.mass.detach().double() / area
        vals, U = basis.vals.detach().double() * area, basis.vecs.detach().double() * area.sqrt()
        x = mesh.verts.detach().double() / area.sqrt()
        x = x - mass @ x
        moving = torch.nonzero(vals[:intrinsic] > 1e-6 * vals[-1].clamp_min(1e-300)).ravel()
        X = torch.cat([U[:, moving] / vals[moving].sqrt(), functions], 1)
        on_rim = torch.zeros(mesh.n_verts, dtype=torch.bool, device=x.device)
        on_rim[rim_edges(mesh)] = True
        normals = Mesh(x, mesh.faces).vertex_normals
        return cls(mesh.faces, x, normals, U, vals, mass, X, rim_length(mesh), on_rim)


@dataclass(frozen=True, eq=False)
class _Part:
    """The vertices of a surface that a step runs on, with what a step needs of them.

    at: (N,) the vertices. share: (N,) their areas, of sum 1. x, normals, U, X: rows of the side at them. gram: (K, K)
    ``U^T share U``. vals: (K,). The vertices and triangles around them, for normals once bent: x_around (A, 3),
    U_around (A, K), faces_around (., 3), own (N,) number of each vertex among those. rim: of the side. on_rim: (N,)
    whether a vertex is the nearest of these to one on the rim.
    """

    at: Tensor
    share: Tensor
    x: Tensor
    normals: Tensor
    U: Tensor
    X: Tensor
    gram: Tensor
    vals: Tensor
    x_around: Tensor
    U_around: Tensor
    faces_around: Tensor
    own: Tensor
    rim: float
    on_rim: Tensor

    @classmethod
    def of(cls, side: _Side, at: Tensor | None = None, dtype: torch.dtype = torch.float64) -> _Part:
        n, K = len(side.x), side.U.shape[1]
        gram = (1 + 1e-9) * torch.eye(K, dtype=side.U.dtype, device=side.U.device)
        if at is None:
            every = torch.arange(n, device=side.x.device)
            x, U = side.x.to(dtype), side.U.to(dtype)
            return cls(
                every, side.mass.to(dtype), x, side.normals.to(dtype), U, side.X.to(dtype), gram.to(dtype),
                side.vals.to(dtype), x, U, side.faces, every, side.rim, side.on_rim,
            )  # fmt: skip
        share = side.mass.new_full((len(at),), 1 / len(at))
        inside = torch.zeros(n, dtype=torch.bool, device=at.device)
        inside[at] = True
        faces = side.faces[inside[side.faces].any(1)]
        around = torch.unique(torch.cat([faces.ravel(), at]))
        number = torch.zeros(n, dtype=torch.int64, device=at.device)
        number[around] = torch.arange(len(around), device=at.device)
        on_rim = torch.zeros(len(at), dtype=torch.bool, device=at.device)
        on_rim[nearest(side.x[side.on_rim], side.x[at])[0]] = True
        U = side.U[at]
        gram += U.T @ (share[:, None] * U) - torch.eye(K, dtype=U.dtype, device=U.device)
        return cls(
            at, share.to(dtype), side.x[at].to(dtype), side.normals[at].to(dtype), U.to(dtype), side.X[at].to(dtype),
            gram.to(dtype), side.vals.to(dtype), side.x[around].to(dtype), side.U[around].to(dtype), number[faces],
            number[at], side.rim, on_rim,
        )  # fmt: skip

    def nearest(self, side: _Side) -> Tensor:
        """(V,) number of the nearest of these vertices, of every vertex of the side."""
        return nearest(side.x, side.x[self.at])[0]

    def met(self, other: _Part, to: Tensor, back: Tensor) -> _Part:
        """The same, in which only the vertices count that come back to near where they are, over there and back.

        Where the other surface is cut open, others may have no counterpart. Those that lie just beyond its rim come
        back to the place of the rim; they do not count either, else they would pull that place towards them. Where
        there are few such vertices or hardly others, nothing is changed.
        """
        if other.rim < OPEN:
            return self
        gap = (self.x[back[to]] - self.x).norm(dim=1)
        lost = (gap > LOST) | (other.on_rim[to] & (gap > len(self.at) ** -0.5))
        gone = float(self.share[lost].sum())
        if not FEW_LOST < gone < MANY_LOST:
            return self
        share = self.share.masked_fill(lost, 0.0)
        U = self.U[lost]
        gram = self.gram - U.T @ (self.share[lost, None] * U) + STIFF * torch.diag(self.vals)
        return replace(self, share=share, gram=gram)

    def pulled(self, other: _Part, to: Tensor, back: Tensor) -> Tensor:
        """Y (N, d): smooth coordinates here, near X of the other side at `to`, and with Y[back] near X there."""
        share = torch.zeros_like(self.share).index_add_(
            0, back, other.share
        )  # of what comes back to each vertex
        hit = torch.nonzero(share).ravel()
        U = self.U[hit]
        system = self.gram + U.T @ (share[hit, None] * U) + SMOOTHNESS * torch.diag(self.vals)
        wanted = self.share[:, None] * other.X[to]
        wanted.index_add_(0, back, other.share[:, None] * other.X)
        return self.U @ torch.linalg.solve(system, self.U.T @ wanted)

    def bending(self, other: _Part, to: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """What bends this part onto the other: a rotation (3, 3), and then k coefficients (k, 3) of a displacement."""
        target = other.x[to]
        middle = self.share @ self.x / self.share.sum()
        R = nearest_rotation((self.share[:, None] * target).T @ (self.x - middle))
        move = self.U[:, :k].T @ (self.share[:, None] * (target - self.x @ R.T))
        return R, torch.linalg.solve(self.gram[:k, :k], move)

    def beside(self, other: _Part, to: Tensor, k: int, weight: float) -> tuple[Tensor, Tensor]:
        """Positions and normals, weighted: of this part bent onto the other, and of the other as it is."""
        R, c = self.bending(other, to, k)
        bent = self.x_around @ R.T + self.U_around[:, :k] @ c
        normals = Mesh(bent, self.faces_around).vertex_normals[self.own]
        agree = (self.share[:, None] * normals * other.normals[to]).sum()
        normals = normals if agree >= 0 else -normals  # one of the two may be inside out
        place = torch.cat([PLACE * bent[self.own], weight * normals], 1)
        return place, torch.cat([PLACE * other.x, weight * other.normals], 1)


def _step(
    one: _Part, two: _Part, to_21: Tensor, to_12: Tensor, k: int, weight: float
) -> tuple[Tensor, Tensor]:
    """The maps (N2,) and (N1,) between parts after one step."""
    one, two = one.met(two, to_12, to_21), two.met(one, to_21, to_12)

    def taken_over(here: _Part, there: _Part, to: Tensor, back: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return here.pulled(there, to, back), *here.beside(there, to, k, weight)

    (Y_21, bent2, own1), (Y_12, bent1, own2) = together(
        lambda: taken_over(two, one, to_21, to_12), lambda: taken_over(one, two, to_12, to_21)
    )
    rows1 = torch.cat([one.X, Y_12, own1, bent1], 1)
    rows2 = torch.cat([Y_21, two.X, bent2, own2], 1)
    to_21, to_12 = together(
        lambda: _nearest_rows(rows2, rows1, to_21), lambda: _nearest_rows(rows1, rows2, to_12)
    )
    return to_21, to_12


class Fields(NamedTuple):
    """What a step of `shell_refine` compares of a surface, as smooth functions on its n vertices.

    Attributes:
        X: (n, d) its intrinsic coordinates.
        Y: (n, d) those of the other surface, taken over.
        R: (3, 3) and move: (n, 3), what bends it onto the other: ``x @ R.T + move`` with ``x = verts / size - middle``.
        size: () the square root of its area.
        middle: (3,) of its positions over `size`.
    """

    X: Tensor
    Y: Tensor
    R: Tensor
    move: Tensor
    size: Tensor
    middle: Tensor


def shell_fields(
    mesh1: Mesh,
    mesh2: Mesh,
    p2p_21: Tensor,
    p2p_12: Tensor,
    basis1: Eigenbasis,
    basis2: Eigenbasis,
    *,
    size: int,
    intrinsic: int,
) -> tuple[Fields, Fields]:
    """The fields of both surfaces at a pair of maps.

    Args:
        mesh1: surface 1.
        mesh2: surface 2.
        p2p_21: (V2,) map from 2 to 1.
        p2p_12: (V1,) the map the other way.
        basis1: eigenbasis of surface 1.
        basis2: eigenbasis of surface 2.
        size: number of functions of the displacement.
        intrinsic: number of eigenfunctions in the intrinsic coordinates.
    """
    none = _check_functions(None, mesh1, mesh2)
    one, two = (
        _Side.of(m, b, f, intrinsic, w)
        for m, b, f, w in zip((mesh1, mesh2), (basis1, basis2), none, "12", strict=True)
    )
    part1, part2 = _Part.of(one), _Part.of(two)
    part1, part2 = part1.met(part2, p2p_12, p2p_21), part2.met(part1, p2p_21, p2p_12)
    out = []
    for mesh, basis, mine, other, to, back in (
        (mesh1, basis1, part1, part2, p2p_12, p2p_21),
        (mesh2, basis2, part2, part1, p2p_21, p2p_12),
    ):
        R, c = mine.bending(other, to, min(size, mine.U.shape[1]))
        root = basis.mass.detach().double().sum().sqrt()
        middle = mesh.verts[0].detach().double() / root - mine.x[0]
        out.append(Fields(mine.X, mine.pulled(other, to, back), R, mine.U[:, : len(c)] @ c, root, middle))
    return out[0], out[1]


def _nearest_rows(query: Tensor, points: Tensor, guess: Tensor) -> Tensor:
    """(Q,) number of the nearest of the points; the guess is of the step before."""
    if query.device.type != "cpu" or min(len(query), len(points)) < GUESSED:
        return lowest_score(query, points)
    return nearest_by_guess(query, points, guess, patches(query), block=BLOCK)


def _check_functions(
    functions: tuple[Tensor, Tensor] | None, mesh1: Mesh, mesh2: Mesh
) -> tuple[Tensor, Tensor]:
    """Corresponding functions (V1, p) and (V2, p) as float64, without any where there are none."""
    if functions is None:
        return tuple(m.verts.new_zeros((m.n_verts, 0), dtype=torch.float64) for m in (mesh1, mesh2))  # type: ignore[return-value]
    if isinstance(functions, Tensor) or len(functions) != 2:
        raise TypeError("functions: expected two tensors, (V1, p) and (V2, p), found something else")
    names = [f"functions of surface {which}" for which in "12"]
    f1, f2 = (as_floats(f, name) for f, name in zip(functions, names, strict=True))
    for f, mesh, name in ((f1, mesh1, names[0]), (f2, mesh2, names[1])):
        check_shape(f, f"{mesh.n_verts} p", name)
        check_finite(f, name)
    if f1.shape[1] != f2.shape[1]:
        raise ValueError(
            f"functions: expected as many of surface 2 as of surface 1 ({f1.shape[1]}), found {f2.shape[1]}"
        )
    return f1.detach().double(), f2.detach().double()
