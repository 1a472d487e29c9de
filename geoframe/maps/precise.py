"""Maps to points inside triangles, finer than the vertices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_index, check_int, check_shape
from geoframe.maps.convert import BLOCK, at_unit_area, check_fmap
from geoframe.nearest.dense import lowest_score
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh

CORNER = 0.8  # weight from which a point lies near a corner
COINCIDENCE = 2.0  # times the share by chance, that of the triangle's area; between TOSCA's dogs it is 2.8
NEAR_BLOCK = 4096  # vertices whose triangles are looked at together


@dataclass(frozen=True, eq=False)
class BarycentricMap:
    """For every vertex of surface 2 a point of surface 1.

    Attributes:
        face: (V2,) int64, the triangle of surface 1 it lies in.
        barycentric: (V2, 3) weights of its corners, not negative, of sum 1.
        corners: (V2, 3) int64, the vertices of surface 1 at these corners.
        n_verts: number of vertices V1 of surface 1.
    """

    face: Tensor
    barycentric: Tensor
    corners: Tensor
    n_verts: int

    def __post_init__(self) -> None:
        weights = as_floats(self.barycentric, "barycentric")
        object.__setattr__(self, "barycentric", weights)
        V2 = check_shape(weights, "V2 3", "barycentric")["V2"]
        for shape, name in (((V2,), "face"), ((V2, 3), "corners")):
            x = as_tensor(getattr(self, name), name, like=weights)
            object.__setattr__(self, name, x)
            if x.shape != shape:
                raise ValueError(
                    f"{name}: expected shape {shape} as barycentric has it, found {tuple(x.shape)}"
                )
        check_index(self.corners, self.n_verts, "corners", what="vertices of surface 1")

    def apply(self, f1: Tensor) -> Tensor:
        """(V2, ...) values on surface 2 of floating vertex functions `f1` (V1, ...) on 1, linear in triangles."""
        f1 = as_floats(f1, "f1").to(self.barycentric.device)
        if f1.ndim == 0 or len(f1) != self.n_verts:
            raise ValueError(
                f"f1: expected {self.n_verts} rows, one a vertex of surface 1, found {tuple(f1.shape)}"
            )
        weights = self.barycentric.to(f1.dtype).reshape(*self.barycentric.shape, *[1] * (f1.ndim - 1))
        return (weights * f1[self.corners]).sum(1)

    def p2p(self) -> Tensor:
        """p2p_21 (V2,) int64: the corner with the largest weight."""
        return self.corners.gather(1, self.barycentric.argmax(1, keepdim=True))[:, 0]


def precise_map(
    C_12: Tensor, basis1: Eigenbasis, mesh1: Mesh, basis2: Eigenbasis, *, block: int = BLOCK
) -> BarycentricMap:
    """Map of a functional map to points inside the triangles of surface 1, finer than its vertices.

    As `fmap_to_p2p`, but surface 1 is the triangles between the points ``C_12 u1_i`` in K2 dimensions, and each vertex
    of surface 2 goes to the nearest point on them. The search is exact: a triangle is skipped only where a bound
    proves that another one is nearer.

    Args:
        C_12: (K2, K1).
        basis1: at least K1 functions on surface 1.
        mesh1: the mesh of `basis1`.
        basis2: at least K2 functions on surface 2.
        block: number of products held at a time (8 bytes each).

    Returns:
        The map, its weights in the dtype of `basis2`. Of equally near triangles the lowest index.

    Raises:
        TypeError, ValueError: shapes that do not fit, a mesh without triangles.

    Source: Ezuz & Ben-Chen 2017, Deblurring and denoising of maps between shapes, section 4.
    """
    C_12 = check_fmap(C_12, basis1, basis2)
    check_int(block, "block", low=1)
    if mesh1.n_verts != basis1.n_verts or mesh1.n_faces == 0:
        raise ValueError(
            f"mesh1: expected {basis1.n_verts} vertices, as in basis1, and triangles between them, found {mesh1}"
        )
    C, U1, U2 = at_unit_area(C_12, basis1, basis2)
    points, query = U1[:, : C.shape[1]] @ C.T, U2[:, : C.shape[0]]
    faces = mesh1.faces.to(points.device)
    used = faces.unique()
    start = used[lowest_score(query, points[used], block=block)]
    bound = (query - points[start]).norm(dim=1)
    triangles = _Triangles.of(points, faces)
    rows = max(1, block // (len(points) + len(faces)))
    parts = zip(query.split(rows), bound.split(rows), strict=True)
    found = [triangles.nearest(q, limit) for q, limit in parts]
    face, weights = (torch.cat(x) for x in zip(*found, strict=True))
    return BarycentricMap(face, weights.to(basis2.vecs.dtype), faces[face], basis1.n_verts)


def points_near(
    p2p_21: Tensor, query: Tensor, points: Tensor, mesh1: Mesh, *, steps: int = 3
) -> BarycentricMap:
    """Sub-vertex map near a vertex map: the nearest point on the triangles of surface 1 around where a vertex goes.

    Nearest is meant in any coordinates, linear in the triangles. From those around the vertex of the map the search
    goes on around the corner of largest weight, a few steps, so that it costs O(V2) whatever the size of surface 1.

    Args:
        p2p_21: (V2,) the vertex map, good to a few edges.
        query: (V2, D) coordinates of the vertices of surface 2.
        points: (V1, D) those of surface 1.
        mesh1: its triangles; every vertex that is hit has some.
        steps: how often the search moves on.

    Source: Ezuz & Ben-Chen 2017, section 4; differs: other coordinates, and a local search.
    """
    faces = mesh1.faces.to(points.device)
    order = torch.argsort(faces.ravel(), stable=True)
    count = torch.bincount(faces.ravel(), minlength=len(points))
    around = order // 3, count.cumsum(0) - count, count
    face, weights = torch.zeros_like(p2p_21), query.new_zeros((len(query), 3))
    for rows in torch.arange(len(query), device=query.device).split(NEAR_BLOCK):
        at = p2p_21[rows]
        for _ in range(steps):
            face[rows], weights[rows] = _best_around(query[rows], points, faces, around, at)
            corner = faces[face[rows]].gather(1, weights[rows].argmax(1, keepdim=True))[:, 0]
            moved = corner != at
            rows, at = rows[moved], corner[moved]
            if not len(rows):
                break
    return BarycentricMap(face, weights.to(mesh1.dtype), faces[face], mesh1.n_verts)


def at_corners(p2p_21: Tensor, mesh1: Mesh) -> BarycentricMap:
    """A vertex map as one to points inside triangles: each point is the corner of one.

    Args:
        p2p_21: (V2,) vertices of surface 1.
        mesh1: its triangles; every vertex that is hit has some.
    """
    faces = mesh1.faces.to(p2p_21.device)
    some = torch.zeros(mesh1.n_verts, dtype=torch.int64, device=faces.device)
    some[faces.ravel()] = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    face = some[p2p_21]
    return BarycentricMap(face, (faces[face] == p2p_21[:, None]).to(mesh1.dtype), faces[face], mesh1.n_verts)


def lies_at_corners(points: BarycentricMap) -> bool:
    """Whether many more points lie near corners of triangles than would by chance: where the vertices of both surfaces
    are the same places, points inside triangles are those places with an error, and vertices are exact."""
    near = points.barycentric.amax(1) > CORNER
    return float(near.double().mean()) > COINCIDENCE * 3 * (1 - CORNER) ** 2


def _best_around(
    query: Tensor, points: Tensor, faces: Tensor, around: tuple[Tensor, Tensor, Tensor], at: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the triangles around the vertices `at` (R,): the nearest to each query (R, D), and its weights (R, 3).

    `around` has the faces at each vertex one after the other, where those of each vertex begin, and how many they are.
    """
    order, first, count = around
    size = count[at]
    j = torch.arange(len(at), device=at.device).repeat_interleave(size)
    within = torch.arange(len(j), device=j.device) - (size.cumsum(0) - size).repeat_interleave(size)
    face = order[first[at[j]] + within]
    corners = points[faces[face]]
    gram, dots = corners @ corners.mT, (corners @ query[j][..., None])[..., 0]
    weights = weights_from_products(gram, dots)
    distance = (weights * ((gram @ weights[..., None])[..., 0] - 2 * dots)).sum(1)
    best = query.new_full((len(at),), torch.inf).scatter_reduce(0, j, distance, "amin")
    pair = torch.where(distance <= best[j], torch.arange(len(j), device=j.device), len(j))
    chosen = torch.full_like(at, len(j)).scatter_reduce(0, j, pair, "amin")
    return face[chosen], weights[chosen]


@dataclass(frozen=True)
class _Triangles:
    """Triangles (F, 3) between points (V, K), with their centres (F, K), radii (F,) and products (F, 3, 3)."""

    points: Tensor
    faces: Tensor
    centre: Tensor
    radius: Tensor
    gram: Tensor

    @classmethod
    def of(cls, points: Tensor, faces: Tensor) -> _Triangles:
        corners = points[faces]
        centre = corners.mean(1)
        radius = (corners - centre[:, None]).norm(dim=2).max(1).values
        return cls(points, faces, centre, radius, corners @ corners.mT)

    def nearest(self, query: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest triangle (Q,) and weights (Q, 3) of the nearest point, known to be within `bound` (Q,)."""
        squares = (query**2).sum(1)[:, None] + (self.centre**2).sum(1)
        # |q - centre| <= bound + radius, squared, with some room for rounding
        reach = (bound[:, None] + self.radius) ** 2 + 1e-9 * squares
        j, f = (squares - 2 * query @ self.centre.T <= reach).nonzero(as_tuple=True)
        products = query @ self.points.T
        dots = products[j[:, None], self.faces[f]]
        weights = weights_from_products(self.gram[f], dots)
        distance = (weights * ((self.gram[f] @ weights[..., None])[..., 0] - 2 * dots)).sum(1)
        best = torch.full_like(bound, torch.inf).scatter_reduce(0, j, distance, "amin")
        tied = (
            distance <= (best + 1e-12 * squares.max())[j]
        )  # one edge or corner, seen from several triangles
        pair = torch.where(tied, torch.arange(len(j), device=j.device), len(j))
        first = torch.full(bound.shape, len(j), device=j.device).scatter_reduce(0, j, pair, "amin")
        return f[first], weights[first]


def weights_from_products(gram: Tensor, dots: Tensor) -> Tensor:
    """Barycentric weights (N, 3) of the points of triangles nearest to query points, in any dimension.

    Args:
        gram: (N, 3, 3) products of the corners with each other.
        dots: (N, 3) products of the corners with the query point.

    A triangle without area is treated as its edges.
    """
    # Inside: with edges e1 = b - a, e2 = c - a and d = q - a solve the 2 x 2 system of their products.
    aa, ab, ac = gram[:, 0, 0], gram[:, 0, 1], gram[:, 0, 2]
    e11 = gram[:, 1, 1] - 2 * ab + aa
    e22 = gram[:, 2, 2] - 2 * ac + aa
    e12 = gram[:, 1, 2] - ab - ac + aa
    d1 = dots[:, 1] - dots[:, 0] - ab + aa
    d2 = dots[:, 2] - dots[:, 0] - ac + aa
    det = e11 * e22 - e12**2
    proper = det > 1e-12 * e11 * e22
    safe = torch.where(proper, det, 1.0)
    s, t = (e22 * d1 - e12 * d2) / safe, (e11 * d2 - e12 * d1) / safe
    inside = torch.stack([1 - s - t, s, t], 1)
    is_inside = proper & (inside >= 0).all(1)
    # Outside: the nearest point on one of the three edges.
    best, on_edge = torch.full_like(s, torch.inf), inside
    for i, k in ((0, 1), (1, 2), (2, 0)):
        length = gram[:, i, i] - 2 * gram[:, i, k] + gram[:, k, k]
        along = dots[:, k] - dots[:, i] - gram[:, i, k] + gram[:, i, i]
        x = torch.where(length > 0, along / torch.where(length > 0, length, 1.0), 0.0).clamp(0, 1)
        w = torch.zeros_like(inside)
        w[:, i], w[:, k] = 1 - x, x
        distance = gram[:, i, i] - 2 * dots[:, i] - 2 * x * along + x**2 * length
        on_edge = torch.where((distance < best)[:, None], w, on_edge)
        best = torch.minimum(best, distance)
    return torch.where(is_inside[:, None], inside, on_edge)
