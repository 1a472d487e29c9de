"""The mirror plane of a nearly symmetric surface, and the vertex map that goes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geoframe._check import check_shape
from geoframe._types import Floats
from geoframe.nearest.dense import nearest
from geoframe.surface.closest import TriangleTree
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import sample_surface

Plane = tuple[Floats, float]  # normal, offset
_COARSE, _FINE = 300, 1500  # samples that rank the candidate planes, and that move and judge them
_TIE = 1e-9  # of sqrt(area): residuals that differ by rounding


@dataclass(frozen=True, eq=False)
class Symmetry:
    """A mirror plane ``normal . x = offset``.

    Attributes:
        normal: (3,) unit; its largest entry is positive (which side is left is not decided).
        offset: () in mesh units.
        vertex_map: (V,) int64, the vertex nearest to the mirror image of each; an involution where the
            vertices are exactly symmetric.
        residual: mean distance from the mirrored surface to the surface (over 1,500 uniform samples), divided
            by sqrt(area): 0 for exact symmetry, about 0.001 for a symmetric model that is triangulated
            freely. Animals in motion and shapes without symmetry have 0.01 to 0.03: look before trusting those.
    """

    normal: Tensor
    offset: Tensor
    vertex_map: Tensor
    residual: float

    def reflect(self, points: Tensor) -> Tensor:
        """Mirror images of `points` (..., 3)."""
        return points - 2 * ((points @ self.normal - self.offset)[..., None] * self.normal)


def reflective_symmetry(mesh: Mesh) -> Symmetry:
    """The plane in which a mesh is its own mirror image, as nearly as it can be, in any pose and triangulation.

    Principal axes and 200 directions through the centroid are ranked; the best are refined by iterated
    closest points with a reflection in place of a rigid motion (the plane that maps points x to y best has
    the lowest eigenvector of the symmetric part of sum (x - c)(y - c)^T as normal, c the mean of all) and
    then by Gauss-Newton steps on the distances to the surface, far points weighing less.
    Where several planes are equally good (sphere, box) one of them is returned.

    Raises:
        ValueError: a batch, NaN, no faces or no area.
    """
    check_shape(mesh.verts, "V 3", "verts")
    return mesh.once("symmetry", lambda: _best_plane(mesh))


def _best_plane(mesh: Mesh) -> Symmetry:
    samples = sample_surface(mesh.to(torch.float64), _FINE, generator=0).points.numpy(force=True)
    verts = mesh.verts.double().numpy(force=True)
    surface = TriangleTree(verts, mesh.faces.numpy(force=True), spread=True)
    scale = math.sqrt(float(mesh.area))
    centre = samples.mean(0)
    axes = np.linalg.eigh(np.cov((samples - centre).T))[1].T
    normals = np.concatenate([axes, _hemisphere(200)])
    tree = cKDTree(samples)
    scores = [tree.query(_mirror(samples[:_COARSE], n, n @ centre))[0].mean() for n in normals]

    refined: list[tuple[float, Plane]] = []
    some = samples[: 2 * _COARSE]
    for n in _distinct(normals[np.argsort(scores, kind="stable")], 8):
        plane = _iterate_closest(some, samples, tree, (n, float(n @ centre)), scale)
        refined.append((float(tree.query(_mirror(samples, *plane))[0].mean()), plane))
    refined.sort(key=lambda r: r[0])

    judged = []
    for _, start in refined[:3]:
        plane = _slide(samples, surface, start, scale)
        judged += [plane, _snap(verts, plane)]
    residuals = np.array([_closest(surface, _mirror(samples, *plane))[1].mean() / scale for plane in judged])
    best = int(
        np.argmax(residuals <= np.min(residuals) + _TIE)
    )  # of equal planes the first, whatever the rounding
    n, d = judged[best]
    sign = np.sign(n[np.abs(n).argmax()])
    images = torch.as_tensor(_mirror(verts, n, d))
    vertex_map = nearest(images, torch.as_tensor(verts))[0].to(mesh.device)
    normal, offset = (torch.as_tensor(sign * x).to(mesh.verts) for x in (n, d))
    return Symmetry(normal, offset, vertex_map, float(residuals[best]))


def _mirror(x: Floats, n: Floats, d: float) -> Floats:
    return x - 2 * (x @ n - d)[:, None] * n


def _fit(x: Floats, y: Floats, weights: Floats) -> Plane:
    """The plane whose reflection takes x to y with the least weighted squares."""
    w = weights / weights.sum()
    c = w @ (x + y) / 2
    moment = (x - c).T @ (w[:, None] * (y - c))
    n = np.linalg.eigh(moment + moment.T)[1][:, 0]
    return n, float(n @ c)


def _iterate_closest(x: Floats, points: Floats, tree: cKDTree, plane: Plane, scale: float) -> Plane:
    """Iterated closest points; far partners weigh less (as in least absolute distances)."""
    for _ in range(20):
        image = _mirror(x, *plane)
        far, y = tree.query(image)
        plane = _fit(x, points[y], 1 / np.maximum(far, 1e-3 * scale))
        if np.abs(_mirror(x, *plane) - image).max() < 1e-3 * scale:
            break
    return plane


def _slide(x: Floats, surface: TriangleTree, plane: Plane, scale: float) -> Plane:
    """Gauss-Newton steps on the distances to the tangent planes, as long as the mean distance falls."""
    least, best = math.inf, plane
    for _ in range(25):
        n, d = plane
        image = _mirror(x, n, d)
        y, far, normal = _closest(surface, image)
        normal = normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-300)
        if far.mean() >= 0.9999 * least:
            break
        least, best = far.mean(), plane
        # image = x - 2 (n . x - d) n, and n moves to n + frame a
        frame = np.linalg.svd(n[None])[2][1:]
        depth, facing = (x @ n - d)[:, None], (normal @ n)[:, None]
        J = -2 * np.concatenate([facing * (x @ frame.T) + depth * (normal @ frame.T), -facing], axis=1)
        w = 1 / np.maximum(far, 1e-3 * scale)
        A = J.T @ (w[:, None] * J)
        step = np.linalg.solve(
            A + 1e-6 * np.diag(np.diag(A)) + 1e-300 * np.eye(3), -J.T @ (w * ((image - y) * normal).sum(1))
        )
        turned = n + step[:2] @ frame
        length = np.linalg.norm(turned)
        plane = turned / length, float((d + step[2]) / length)
    return best


def _snap(verts: Floats, plane: Plane) -> Plane:
    """The plane from pairs of vertices: exact where the mesh is, and the given one was nearly right."""
    tree = cKDTree(verts)
    for _ in range(3):
        partner = tree.query(_mirror(verts, *plane))[1]
        plane = _fit(verts, verts[partner], np.ones(len(verts)))
    return plane


def _hemisphere(n: int) -> Floats:
    """(n, 3) evenly spread unit vectors with z > 0, on a Fibonacci spiral."""
    z = 1 - (np.arange(n) + 0.5) / n
    angle = math.pi * (3 - math.sqrt(5)) * np.arange(n)
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)


def _distinct(normals: Floats, n: int) -> list[Floats]:
    """The first n directions that are at least 12 degrees from all before them."""
    kept: list[Floats] = []
    for v in normals:
        if all(abs(v @ k) < math.cos(math.radians(12)) for k in kept):
            kept.append(v)
        if len(kept) == n:
            break
    return kept


def _closest(surface: TriangleTree, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Closest points (n, 3) to x (n, 3), their distances (n,), and the scaled normals (n, 3) there."""
    face, weights = surface.closest(x, 12)
    places = surface.places(face, weights)
    return places, np.linalg.norm(places - x, axis=1), surface.face_normals_scaled[face]
