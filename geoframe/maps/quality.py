"""How good a vertex map is: against ground truth, and by itself.

All measures are free of units: lengths are divided by the square root of the surface's area, areas by the area.
"""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_finite, check_index, check_int, check_shape
from geoframe.surface.geodesics import geodesic_distances, geodesic_pairs
from geoframe.surface.mesh import Mesh
from geoframe.surface.operators import laplacian
from geoframe.surface.sampling import spread_vertices


def geodesic_error(mesh1: Mesh, p2p_21: Tensor, truth: Tensor, *, method: str = "exact") -> Tensor:
    """(N,) geodesic distances on surface 1 between where vertices of 2 are sent and where they belong.

    Args:
        mesh1: the surface the distances are measured on.
        p2p_21: (V2,) integers, for every vertex of surface 2 a vertex of surface 1.
        truth: (N, 2) integers, rows (vertex of 1, vertex of 2) as in a landmark file; or (V2,), the true vertex
            of surface 1 for every vertex of surface 2.
        method: of `geodesic_pairs`: "exact" (extra `geometry`), "heat" or "dijkstra".

    Returns:
        Distances over ``sqrt(area of mesh1)``, in the order of `truth`; infinite across components. Their mean
        is the usual single figure.

    Raises:
        TypeError, ValueError: not integers, shapes or indices that do not fit, no area.
    """
    p2p_21 = check_map(p2p_21, mesh1, None, "p2p_21")
    truth = as_tensor(truth, "truth", like=p2p_21)
    if truth.ndim == 1:
        if truth.shape != p2p_21.shape:
            raise ValueError(
                f"truth: expected shape ({len(p2p_21)},) as p2p_21 or (N, 2), found {tuple(truth.shape)}"
            )
        true, found = truth, p2p_21
    else:
        check_shape(truth, "N 2", "truth")
        check_index(truth[:, 1], len(p2p_21), "truth[:, 1]", what="vertices of surface 2")
        true, found = truth[:, 0], p2p_21[truth[:, 1].long()]
    check_index(true, mesh1.n_verts, "truth", what="vertices of surface 1")
    return _relative_distances(mesh1, true, found, method)


def cycle_error(
    mesh2: Mesh, p2p_21: Tensor, p2p_12: Tensor, *, vertices: Tensor | None = None, method: str = "dijkstra"
) -> Tensor:
    """(N,) geodesic distances on surface 2 between vertices and where they come back to: 2 -> 1 -> 2.

    Args:
        mesh2: the surface to come back to.
        p2p_21: (V2,) integers, vertices of 2 to 1.
        p2p_12: (V1,) integers, vertices of 1 to 2.
        vertices: (N,) vertices of 2 to send round; None for all.
        method: of `geodesic_pairs`; "dijkstra" is too long by 4 to 6 %, which a mean may bear.

    Returns:
        Distances over ``sqrt(area of mesh2)``. Zero everywhere means that `p2p_21` is injective and `p2p_12`
        its inverse.

    Raises:
        TypeError, ValueError: not integers, or shapes and indices that do not fit.
    """
    p2p_12, p2p_21 = check_map(p2p_12, mesh2, None, "p2p_12"), as_tensor(p2p_21, "p2p_21", like=mesh2.verts)
    check_index(p2p_21, len(p2p_12), "p2p_21", what="entries of p2p_12")
    if p2p_21.shape != (mesh2.n_verts,):
        raise ValueError(
            f"p2p_21: expected shape ({mesh2.n_verts},), one a vertex of mesh2, found {tuple(p2p_21.shape)}"
        )
    start = torch.arange(mesh2.n_verts, device=p2p_21.device) if vertices is None else vertices
    start = as_tensor(start, "vertices", like=p2p_21)
    check_index(start, mesh2.n_verts, "vertices", what="vertices of mesh2")
    back = p2p_12[p2p_21[start.long()].long()].long()
    return _relative_distances(mesh2, start.long(), back, method)


def error_curve(errors: Tensor, thresholds: Tensor) -> Tensor:
    """Share of the errors that are at most each threshold: the PCK curve.

    Args:
        errors: (N,) as `geodesic_error` returns them.
        thresholds: (T,) in the unit of the errors.

    Returns:
        (T,) in [0, 1].

    Raises:
        TypeError, ValueError: not floating, another shape, no errors.
    """
    errors = as_floats(errors, "errors")
    thresholds = as_floats(thresholds, "thresholds").to(errors)
    check_shape(errors, "N", "errors"), check_shape(thresholds, "T", "thresholds")
    _check_some(errors)
    return (errors[None, :] <= thresholds[:, None]).to(errors.dtype).mean(1)


def error_auc(errors: Tensor, limit: float = 0.25) -> float:
    """Area under the whole `error_curve` from 0 to `limit`, over `limit`: 1 is perfect, 0 all beyond.

    Exact, the curve being a staircase: the mean of ``max(0, 1 - error / limit)``.

    Args:
        errors: (N,) as `geodesic_error` returns them.
        limit: positive, in the unit of the errors.

    Raises:
        TypeError, ValueError: not floating, another shape, no errors, a limit that is not positive.
    """
    errors = as_floats(errors, "errors")
    check_shape(errors, "N", "errors")
    _check_some(errors)
    if not limit > 0:
        raise ValueError(f"limit: expected a positive number, found {limit}")
    return float((1 - errors.double() / limit).clamp(min=0).mean())


def coverage(mesh1: Mesh, p2p_21: Tensor) -> float:
    """Share of surface 1, by area, that the map reaches: the vertices that some vertex of surface 2 is sent to.

    Args:
        mesh1: surface 1; a vertex counts with its barycentric area.
        p2p_21: (V2,) integers, for every vertex of surface 2 a vertex of surface 1.

    Returns:
        In [0, 1]; 1 where every vertex of surface 1 is reached.

    Raises:
        TypeError, ValueError: not integers, an index outside surface 1, no area.
    """
    p2p_21 = check_map(p2p_21, mesh1, None, "p2p_21")
    mass = laplacian(mesh1, kind="cotangent")[1]
    return float(mass[np.unique(p2p_21.cpu().numpy())].sum() / _area(mass.sum()))


def dirichlet_energy(mesh1: Mesh, mesh2: Mesh, p2p_21: Tensor) -> float:
    """Dirichlet energy of the map 2 -> 1: ``trace(X^T W X)``, the lower the smoother.

    X (V2, 3) holds the positions of surface 1, scaled to unit area, at the vertices ``p2p_21``; W is the
    cotangent Laplacian of surface 2, which has no unit. The energy is at least twice the area of the image, and
    just that where the map is conformal: 2 for a perfect map, 0 for all vertices sent to one.

    Args:
        mesh1: surface 1.
        mesh2: surface 2.
        p2p_21: (V2,) integers, for every vertex of surface 2 a vertex of surface 1.

    Raises:
        TypeError, ValueError: not integers, shapes or indices that do not fit, NaN, no area.
    """
    p2p_21 = check_map(p2p_21, mesh1, mesh2, "p2p_21")
    W = laplacian(mesh2, kind="cotangent")[0]
    check_finite(mesh1.verts, "verts")
    X = mesh1.verts.detach().double().cpu().numpy()[p2p_21.cpu().numpy()]
    return float((X * (W @ X)).sum() / _area(float(mesh1.area)))


def orthogonality(C_12: Tensor) -> float:
    """``|C^T C - I|_F / sqrt(K1)`` of a functional map (K2, K1) between bases at equal areas.

    Zero where the map preserves areas: it then preserves inner products. 1 for the zero map.
    """
    C_12 = as_floats(C_12, "C_12")
    K1 = check_shape(C_12, "K2 K1", "C_12")["K1"]
    C = C_12.detach().double()
    return float((C.T @ C - torch.eye(K1, dtype=C.dtype, device=C.device)).norm() / max(K1, 1) ** 0.5)


NEAR = 0.15  # distance over sqrt(area) within which a vertex comes back to where it is
COMMON = 0.2  # share of probes, at least, that do


class GeodesicDistortion:
    """How much a pair of maps changes distances: call it with both to get the mean change, relative to the distances.

    With probes a_i spread over surface 1 and b_j over surface 2, it is the mean over all pairs of::

        |d1(a_i, p2p_21(b_j)) - d2(p2p_12(a_i), b_j)|

    over the mean of these distances, heat geodesics at unit area; places that cannot be reached count as the farthest
    that can. No truth is needed. It is zero for an isometry and its inverse, up to the error of the heat method
    (poses of one animal were measured at 0.04 to 0.10), and grows where a map changes distances or where the two
    maps are not inverse to each other. Distances are needed from the probes alone, so that one more map costs
    next to nothing.

    Attributes:
        probes1: (n1,) int64, vertices of surface 1.
        probes2: (n2,) int64, vertices of surface 2.

    Raises:
        ValueError: meshes without triangles or with NaN, `n` less than 2.
    """

    def __init__(self, mesh1: Mesh, mesh2: Mesh, *, n: int = 100) -> None:
        check_int(n, "n", low=2)
        self._mesh1, self._mesh2 = mesh1, mesh2
        self.probes1, self.probes2 = (spread_vertices(m, n) for m in (mesh1, mesh2))
        self._rows1, self._rows2 = (
            _reachable(geodesic_distances(m, at)) / _area(float(m.area)) ** 0.5
            for m, at in ((mesh1, self.probes1), (mesh2, self.probes2))
        )

    def exchanged(self) -> GeodesicDistortion:
        """The same with mesh 2 as mesh 1."""
        out = copy(self)
        out._mesh1, out._mesh2 = self._mesh2, self._mesh1
        out.probes1, out.probes2 = self.probes2, self.probes1
        out._rows1, out._rows2 = self._rows2, self._rows1
        return out

    def __call__(self, p2p_21: Tensor, p2p_12: Tensor) -> float:
        """The distortion of vertex maps p2p_21 (V2,) and p2p_12 (V1,)."""
        return self.mean_and_spread(p2p_21, p2p_12)[0]

    def mean_and_spread(self, p2p_21: Tensor, p2p_12: Tensor) -> tuple[float, float]:
        """The distortion of vertex maps, and the root mean square of the changes over the mean distance.

        Args:
            p2p_21: (V2,) for each vertex of surface 2 a vertex of surface 1.
            p2p_12: (V1,) for each vertex of surface 1 a vertex of surface 2.
        """
        p2p_21 = check_map(p2p_21, self._mesh1, self._mesh2, "p2p_21")
        p2p_12 = check_map(p2p_12, self._mesh2, self._mesh1, "p2p_12")
        d1, d2 = self._distances(p2p_21[self.probes2], p2p_12[self.probes1])
        mean = (d1 + d2).mean() / 2
        change = (d1 - d2).abs()
        return float(change.mean() / mean), float(change.square().mean().sqrt() / mean)

    def of_common(self, places_21: Tensor, places_12: Tensor, back: Tensor) -> float:
        """The same for surfaces of which one holds more than the other, at whatever size fits best.

        Only probes of surface 1 count that come back to near where they are; of hardly any it is infinite.

        Args:
            places_21: (n2,) vertices of surface 1 that `probes2` go to.
            places_12: (n1,) vertices of surface 2 that `probes1` go to.
            back: (n1,) vertices of surface 1 that those go to.
        """
        d1, d2 = self._distances(as_tensor(places_21, "places_21"), as_tensor(places_12, "places_12"))
        common = self._rows1.gather(1, as_tensor(back, "back").to(self._rows1.device)[:, None])[:, 0] < NEAR
        if common.double().mean() < COMMON:
            return float("inf")
        d1, d2 = d1[common], d2[common]
        d2 = d2 * (d1.sum() / d2.sum())
        return float(2 * (d1 - d2).abs().sum() / (d1 + d2).sum())

    def of_probes(self, places_21: Tensor, places_12: Tensor) -> float:
        """The same for maps known at the probes alone.

        Args:
            places_21: (n2,) vertices of surface 1 that `probes2` go to.
            places_12: (n1,) vertices of surface 2 that `probes1` go to.
        """
        d1, d2 = self._distances(as_tensor(places_21, "places_21"), as_tensor(places_12, "places_12"))
        return float(2 * (d1 - d2).abs().sum() / (d1 + d2).sum())

    def _distances(self, places_21: Tensor, places_12: Tensor) -> tuple[Tensor, Tensor]:
        """(n1, n2) of all pairs of probes, on surface 1 and on surface 2."""
        return self._rows1[:, places_21], self._rows2[:, places_12].T


def _reachable(rows: Tensor) -> Tensor:
    """Distances in float64, the infinite ones as the farthest finite one."""
    rows = rows.double()
    return rows.clamp(max=rows[rows.isfinite()].max())


def flipped_triangles(mesh1: Mesh, mesh2: Mesh, p2p_21: Tensor) -> float:
    """Share of surface 2 that the map turns inside out, by area.

    The image of a triangle (a, b, c) of surface 2 is the flat triangle ``p2p_21`` of (a, b, c) on surface 1. It
    is inverted if its normal has a negative product with the sum of the three unit vertex normals of surface 1.
    Triangles whose image has no area, as where two corners go to one vertex, count neither way; nan if there are no
    others.

    Args:
        mesh1: surface 1.
        mesh2: surface 2; both are oriented alike, as counter-clockwise from outside.
        p2p_21: (V2,) integers, for every vertex of surface 2 a vertex of surface 1.

    Returns:
        In [0, 1].

    Raises:
        TypeError, ValueError: not integers, or shapes and indices that do not fit.
    """
    p2p_21 = check_map(p2p_21, mesh1, mesh2, "p2p_21")
    image = p2p_21.to(mesh2.device).long()[mesh2.faces].cpu()
    verts, normals = mesh1.verts.detach().double().cpu(), mesh1.vertex_normals.detach().double().cpu()
    a, b, c = verts[image].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    areas = mesh2.face_areas.detach().double().cpu()
    longest = torch.stack([b - a, c - b, a - c]).square().sum(-1).amax(0)
    proper = normal.norm(dim=1) > 1e-9 * longest  # rounding gives two equal edges a normal, too
    inverted = proper & ((normal * normals[image].sum(1)).sum(1) < 0)
    return float(areas[inverted].sum() / areas[proper].sum())


def _relative_distances(mesh: Mesh, a: Tensor, b: Tensor, method: str) -> Tensor:
    """Geodesic distances over sqrt(area); pairs of one vertex cost nothing."""
    out = torch.zeros(len(a), dtype=mesh.dtype, device=mesh.device)
    apart = (a != b).to(mesh.device)
    if apart.any():
        here = apart.to(a.device)
        out[apart] = geodesic_pairs(mesh, a[here], b[here], method=method)
    return out / _area(float(mesh.area)) ** 0.5


def check_map(p2p: Tensor, onto: Mesh, of: Mesh | None, name: str) -> Tensor:
    """Require a vertex map that fits its meshes.

    Args:
        p2p: (V,) integers.
        onto: the mesh whose vertices they are.
        of: the mesh that has a vertex for each of them, or None where it is not known.
        name: of the argument, for the message.

    Returns:
        The map as a tensor.

    Raises:
        TypeError, ValueError: not integers, or shapes and indices that do not fit.
    """
    p2p = as_tensor(p2p, name, like=onto.verts)
    check_index(p2p, onto.n_verts, name, what="vertices of the mesh it goes to")
    check_shape(p2p, "V", name)
    if of is not None and len(p2p) != of.n_verts:
        raise ValueError(
            f"{name}: expected shape ({of.n_verts},), one a vertex it comes from, found {tuple(p2p.shape)}"
        )
    return p2p


def _check_some(errors: Tensor) -> None:
    if errors.numel() == 0:
        raise ValueError("errors: expected at least one, found none")


def _area(area: float) -> float:
    if not area > 0:
        raise ValueError(f"mesh: expected a surface with a positive area, found {area}")
    return area
