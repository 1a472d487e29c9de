"""Points chosen on or among others: farthest points, nearest neighbours, uniform samples of a surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geoframe._check import as_floats, broadcast_shapes, check_finite, check_int, check_shape
from geoframe._types import Array, Ints
from geoframe.nearest.dense import nearest
from geoframe.surface.mesh import Mesh, PointCloud


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Points on the triangles of a mesh.

    Attributes:
        points: (..., n, 3) positions.
        face: (..., n) int64, the triangle of each.
        barycentric: (..., n, 3) weights of its corners, not negative, of sum 1.
    """

    points: Tensor
    face: Tensor
    barycentric: Tensor


def farthest_points(points: Tensor | Mesh | PointCloud, n: int, *, start: int = 0) -> Tensor:
    """Indices (..., n) int64 of points, each the one farthest (straight) from all chosen before it.

    Args:
        points: (..., N, D) floating, or a mesh (its vertices) or cloud; leading dimensions are a batch.
        n: how many, at most N; no index comes twice.
        start: the first index.

    Equal distances are decided by the lowest index. The work is O(n N).

    Raises:
        TypeError, ValueError: not floating, n not in 1..N, start not in 0..N-1, NaN.

    Source: Eldar et al. 1997, "The farthest point strategy for progressive image sampling".
    """
    if isinstance(points, Mesh) and start == 0:  # the first n of more points are the same
        held: dict[str, Tensor] = points.once("farthest points", dict)
        if "indices" not in held or held["indices"].shape[-1] < n:
            held["indices"] = _farthest(points.verts, n, start)
        return held["indices"][..., :n]
    x = points.verts if isinstance(points, Mesh) else points
    return _farthest(x.points if isinstance(x, PointCloud) else as_floats(x, "points"), n, start)


def spread_vertices(mesh: Mesh, n: int) -> Tensor:
    """Vertices (n,) of one pose far from each other, the same places whatever the order of the vertices.

    `farthest_points` from the vertex that is farthest from the middle of all. A `geoframe.Surface` keeps them.

    Args:
        mesh: one pose, V vertices.
        n: how many; all where it has fewer.

    Raises:
        TypeError, ValueError: as `farthest_points`.
    """
    n = min(n, mesh.n_verts)
    held: dict[str, Tensor] = mesh.once("spread vertices", dict)
    if "indices" not in held or len(held["indices"]) < n:
        verts = mesh.verts.detach()
        start = int((verts - verts.mean(0)).square().sum(1).argmax())
        held["indices"] = _farthest(verts, n, start)
    return held["indices"][:n]


def _farthest(x: Tensor, n: int, start: int) -> Tensor:
    sizes = check_shape(x, "... N D", "points")
    N, D = sizes["N"], sizes["D"]
    check_int(n, "n", low=1, high=N)
    check_int(start, "start", low=0, high=N - 1)
    check_finite(x, "points")
    if x.ndim == 2 and D <= 3 and x.device.type == "cpu":
        return torch.from_numpy(_farthest_in_space(x.detach().numpy(), n, start))
    with torch.no_grad():
        flat = x.detach().reshape(-1, N, D).mT.contiguous()  # (B, D, N): sums over D in long strides
        rows = torch.arange(len(flat), device=x.device)
        chosen = torch.full((len(flat), n), start, dtype=torch.int64, device=x.device)
        distance = flat.new_full((len(flat), N), torch.inf)
        step, to_last = torch.empty_like(flat), torch.empty_like(distance)
        for i in range(1, n):
            last = chosen[:, i - 1]
            torch.sub(flat, flat[rows, :, last][..., None], out=step)
            torch.sum(step.square_(), dim=1, out=to_last)
            torch.minimum(distance, to_last, out=distance)
            distance[rows, last] = -1.0  # also where other points lie on the same spot
            chosen[:, i] = distance.argmax(1)
    return chosen.reshape(*x.shape[:-2], n)


def _farthest_in_space(x: Array, n: int, start: int) -> Ints:
    """`_farthest` of one set of few columns (N, D): a tensor operation takes longer to begin than to be done."""
    columns = np.ascontiguousarray(x.T)
    chosen = np.full(n, start, np.int64)
    distance = np.full(len(x), np.inf, x.dtype)
    step, to_last = np.empty_like(distance), np.empty_like(distance)
    for i in range(1, n):
        last = chosen[i - 1]
        to_last[:] = 0
        for column in columns:
            np.subtract(column, column[last], out=step)
            np.multiply(step, step, out=step)
            np.add(to_last, step, out=to_last)
        np.minimum(distance, to_last, out=distance)
        distance[last] = -1.0  # also where other points lie on the same spot
        chosen[i] = distance.argmax()
    return chosen


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest points of every query, exactly.

    Args:
        query: (..., Q, D) floating.
        points: (..., N, D); leading dimensions broadcast.
        k: how many, at most N.

    Returns:
        index: (..., Q, k) int64 into the points of the same batch entry, nearest first, then lowest index.
        distance: (..., Q, k) Euclidean (not squared), in the dtype of `query`, without gradient.

    Raises:
        TypeError, ValueError: not floating, shapes or devices that do not fit, k not in 1..N, NaN.
    """
    query, points = as_floats(query, "query"), as_floats(points, "points")
    D = check_shape(query, "... Q D", "query")["D"]
    check_shape(points, f"... N {D}", "points")
    batch = broadcast_shapes(points=points.shape[:-2], query=query.shape[:-2])
    if not batch:
        index, distance = nearest(query, points, k=k)
        return index.reshape(-1, k), distance.reshape(-1, k)
    queries = query.expand(*batch, -1, -1).flatten(0, -3)
    clouds = points.expand(*batch, -1, -1).flatten(0, -3)
    found = [nearest(q, p, k=k) for q, p in zip(queries, clouds, strict=True)]
    index, distance = (torch.stack(x).reshape(*batch, -1, k) for x in zip(*found, strict=True))
    return index, distance


def sample_surface(mesh: Mesh, n: int, *, generator: torch.Generator | int | None = None) -> SurfaceSamples:
    """n points uniformly distributed over the area of a mesh.

    All poses of a batch use the same random numbers, so that the samples of one pose do not depend on the
    others (and poses of equal area ratios are sampled at the same places). Gradients flow from the points
    to the vertices; face and weights are constants.

    Args:
        mesh: verts (..., V, 3).
        n: how many points.
        generator: a torch generator, or a seed (the same points on every device), or None for torch's own state.

    Raises:
        TypeError, ValueError: n < 1, NaN, no faces or no area.
    """
    check_int(n, "n", low=1)
    check_finite(mesh.verts, "verts")
    if mesh.n_faces == 0:
        raise ValueError(
            "mesh: expected faces to sample, found none; a PointCloud is sampled by farthest_points"
        )
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    device = generator.device if generator is not None else mesh.device
    u = torch.rand(3, n, generator=generator, device=device, dtype=torch.float64).to(mesh.device)

    with torch.no_grad():
        edge = mesh.face_areas.double().cumsum(-1)  # (..., F), ends of the faces laid out on a line
        total = edge[..., -1:].contiguous()
        if not bool((total > 0).all()):
            raise ValueError("mesh: expected a positive area, found 0; all faces are degenerate")
        at = (u[0] * total).contiguous()
        last = torch.searchsorted(edge, total)  # the last face that has any area
        face = torch.minimum(torch.searchsorted(edge, at, right=True), last)
        r = u[1].sqrt()
        weights = torch.stack([1 - r, r * (1 - u[2]), r * u[2]], dim=-1).to(mesh.dtype)
        weights = weights.expand(*face.shape, 3)
    corners = mesh.faces[face]  # (..., n, 3)
    index = corners.flatten(-2)[..., None].expand(*corners.shape[:-2], -1, 3)
    triangles = mesh.verts.gather(-2, index).unflatten(-2, (n, 3))
    return SurfaceSamples((weights[..., None] * triangles).sum(-2), face, weights)
