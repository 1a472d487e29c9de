"""An object frame tied to a canonical surface: each vertex gets the embedding that its pixels have.

A frame is learned on a category without any surface. A few annotated pixels, or renders of the surface whose pixels
are known exactly, say which embedding belongs to some vertices; a smooth function on the surface says it for all. From
then on a picture's embedding is a `PixelMap`, through which pictures correspond and textures travel.

Source: ours. The smooth function is the ridge regression of `C` eigenfunctions, each penalised by its eigenvalue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_float, check_index, check_shape
from geoframe.canonical.surface import Surface
from geoframe.pixels import PixelMap
from geoframe.render import rasterize
from geoframe.warps import spline_warp

_EIGENFUNCTIONS = 64
_SMOOTH = 1e-3  # of the penalty of the highest eigenfunction, in annotations
_TEMPERATURE = 0.05  # of cosines, for the confidence
_VIEW = 256  # pixels of the view that tells which vertices are seen
_MARGIN = 0.7  # a pixel is foreground from this share of the annotated pixels' usual cosine on


@dataclass(frozen=True, eq=False)
class SurfaceFrame:
    """Embeddings of the vertices of a surface.

    Attributes:
        surface: of V vertices.
        table: (V, D) unit vectors.
        least: cosine from which a pixel counts as foreground where no mask is given.
    """

    surface: Surface
    table: Tensor
    least: float

    def pixel_map(
        self, embedding: Tensor, size: tuple[int, int] | None = None, *, mask: Tensor | None = None
    ) -> PixelMap:
        """The pixel map of a picture.

        Args:
            embedding: (D, h, w) of the frame.
            size: (H, W) of the map; h and w by default, otherwise the embedding is enlarged.
            mask: (H, W) bool, the foreground; by default pixels whose embedding is like some vertex's.
        """
        check_shape(check_float(embedding, "embedding"), f"{self.table.shape[1]} h w", "embedding")
        field = F.normalize(embedding, dim=0)
        if size is not None:
            big = F.interpolate(field[None], size=size, mode="bilinear", align_corners=False)
            field = F.normalize(big[0], dim=0)
        if mask is None:
            rows = field.flatten(1).mT.split(4096)
            best = torch.cat([(x @ self.table.mT).amax(-1) for x in rows])
            mask = (best >= self.least).unflatten(0, field.shape[1:])
        return PixelMap.of_embedding(field, self.table, mask, self.surface, temperature=_TEMPERATURE)


def spread_landmarks(
    surface: Surface,
    vertices: Tensor,
    points: Tensor,
    *,
    direction: Sequence[float],
    up: Sequence[float] = (0.0, 1.0, 0.0),
    margin: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Where the surface between landmarks is seen in pictures: thin-plate splines of a view of the surface.

    A picture's landmarks tell where a few vertices are seen. The view of the surface in which they lie most like that
    is bent until they agree; then it tells where all vertices between them are.

    Args:
        surface: the canonical surface.
        vertices: (L,) int64, the vertex of each landmark; at least three that are seen from `direction`.
        points: (n, L, 2) the landmarks in pictures that show the surface roughly from there; any unit, y down.
        direction: from the surface to the viewer.
        up: what is upright in the pictures.
        margin: how far around the landmarks' hull vertices are taken, in parts of its size.

    Returns:
        vertices: (M,) int64 that are seen from `direction`, within the hull.
        points: (n, M, 2) where they are seen in each picture.

    Raises:
        ValueError: fewer than three landmarks, vertices that the surface does not have.
    """
    from scipy.spatial import Delaunay

    L = check_shape(vertices, "L", "vertices")["L"]
    check_index(vertices, surface.n_verts, "vertices", what="vertices of the surface")
    check_shape(check_float(points, "points"), f"n {L} 2", "points")
    if L < 3:
        raise ValueError(f"vertices: expected at least three landmarks, found {L}")
    to_viewer, upright = (F.normalize(torch.tensor(x).double(), dim=0) for x in (direction, up))
    right = F.normalize(torch.linalg.cross(upright, to_viewer), dim=0)
    below = -torch.linalg.cross(to_viewer, right)
    view = surface.verts.double() @ torch.stack([right, below, -to_viewer], 1)
    flat = view[:, :2]
    low, size = flat.amin(0), (flat.amax(0) - flat.amin(0)).amax() / _VIEW
    seen = rasterize(torch.cat([(flat - low) / size, view[:, 2:]], 1), surface.faces, (_VIEW + 1, _VIEW + 1))
    shown = surface.faces[seen.face_id[seen.face_id >= 0].unique()].unique()
    marks = flat[vertices]
    middle = marks.mean(0)
    hull = Delaunay(((marks - middle) * (1 + margin) + middle).numpy())
    inside = torch.as_tensor(hull.find_simplex(flat[shown].numpy()) >= 0)
    chosen = shown[inside]
    bent = spline_warp(marks, points.double())(flat[chosen])
    return chosen, bent.to(points)


def tie_to_surface(
    descriptors: Tensor, vertices: Tensor, surface: Surface, *, eigenfunctions: int = _EIGENFUNCTIONS
) -> SurfaceFrame:
    """Tie a frame to a surface by pixels whose vertices are known.

    Args:
        descriptors: (N, D) embeddings of annotated or rendered pixels of any pictures.
        vertices: (N,) int64, the vertex that each of them shows.
        surface: the canonical surface.
        eigenfunctions: at most so many carry the embedding over the surface; of N annotations at most N are used.

    Raises:
        ValueError: no annotation, a vertex that the surface does not have.
    """
    n = check_shape(check_float(descriptors, "descriptors"), "N D", "descriptors")["N"]
    check_shape(vertices, f"{n}", "vertices")
    if not n:
        raise ValueError("descriptors: expected at least one annotated pixel, found none")
    check_index(vertices, surface.n_verts, "vertices", what="vertices of the surface")
    k = max(1, min(eigenfunctions, n, surface.n_verts - 1))
    basis = surface.basis(k)
    vals, vecs = (torch.as_tensor(x).double() for x in (basis.vals, basis.vecs))
    vecs = vecs[:, :k] / vecs[:, :1].abs().mean()  # so that the first is 1
    d = F.normalize(descriptors, dim=-1).double()
    phi = vecs[vertices]
    penalty = _SMOOTH * n * vals[:k] / vals[k - 1].clamp_min(1e-12)
    W = torch.linalg.solve(phi.T @ phi + torch.diag(penalty + 1e-9 * n), phi.T @ d)
    table = F.normalize(vecs @ W, dim=-1).to(descriptors)
    usual = (table[vertices] * d.to(table)).sum(-1).median()
    return SurfaceFrame(surface, table, float(usual) * _MARGIN)
