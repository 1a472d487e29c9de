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
    chosen, places = _bent(surface, vertices, points, direction, up, margin)
    flat, depth = _view(surface, direction, up)
    low, size = flat.amin(0), (flat.amax(0) - flat.amin(0)).amax() / _VIEW
    screen = torch.cat([(flat - low) / size, depth[:, None]], 1)
    face = rasterize(screen, surface.faces, (_VIEW + 1, _VIEW + 1)).face_id
    seen = torch.isin(chosen, surface.faces[face[face >= 0].unique()])
    return chosen[seen], places[:, seen]


def map_by_landmarks(
    surface: Surface,
    vertices: Tensor,
    points: Tensor,
    size: tuple[int, int],
    *,
    direction: Sequence[float],
    up: Sequence[float] = (0.0, 1.0, 0.0),
    margin: float = 0.3,
    confidence: float = 1.0,
) -> PixelMap:
    """The pixel map of a picture by landmarks alone: the surface between them, bent so that they agree.

    It is as good as the landmarks, smooth, and knows points inside triangles, so that textures travel well.

    Args:
        surface: the canonical surface.
        vertices: (L,) int64, the vertex of each landmark.
        points: (L, 2) pixel x, pixel y of the landmarks.
        size: (H, W) of the picture.
        direction: see `spread_landmarks`.
        up: see `spread_landmarks`.
        margin: see `spread_landmarks`.
        confidence: of the landmarks.
    """
    inside, places = _bent(surface, vertices, points[None], direction, up, margin)
    known = torch.zeros(surface.n_verts, dtype=torch.bool)
    known[inside] = True
    kept = torch.nonzero(known[surface.faces].all(1))[:, 0]
    screen = torch.zeros(surface.n_verts, 3, dtype=torch.float64)
    screen[inside, :2], screen[:, 2] = places[0].double(), _view(surface, direction, up)[1]
    found = rasterize(screen, surface.faces[kept], size)  # what lies behind is hidden there
    face = torch.where(found.face_id >= 0, kept[found.face_id.clamp_min(0)], -1)
    there = PixelMap.of_points(face, found.barycentric.float(), surface)
    return there.replace(confidence=there.confidence * confidence)


def _bent(
    surface: Surface,
    vertices: Tensor,
    points: Tensor,
    direction: Sequence[float],
    up: Sequence[float],
    margin: float,
) -> tuple[Tensor, Tensor]:
    """Vertices (M,) within the landmarks' hull, hidden ones too, and where each picture has them (n, M, 2)."""
    L = check_shape(vertices, "L", "vertices")["L"]
    check_index(vertices, surface.n_verts, "vertices", what="vertices of the surface")
    check_shape(check_float(points, "points"), f"n {L} 2", "points")
    if L < 3:
        raise ValueError(f"vertices: expected at least three landmarks, found {L}")
    flat = _view(surface, direction, up)[0]
    chosen = torch.nonzero(_in_hull(flat, flat[vertices], margin))[:, 0]
    return chosen, spline_warp(flat[vertices], points.double())(flat[chosen]).to(points)


def _view(surface: Surface, direction: Sequence[float], up: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Vertices as seen from a direction: right and down (V, 2), and how far they are (V,)."""
    to_viewer, upright = (F.normalize(torch.tensor(x).double(), dim=0) for x in (direction, up))
    right = F.normalize(torch.linalg.cross(upright, to_viewer), dim=0)
    verts = surface.verts.double()
    return verts @ torch.stack([right, -torch.linalg.cross(to_viewer, right)], 1), -(verts @ to_viewer)


def _in_hull(points: Tensor, corners: Tensor, margin: float) -> Tensor:
    """Which points (N, 2) lie within the convex hull of corners (L, 2), enlarged about their middle."""
    from scipy.spatial import Delaunay

    middle = corners.mean(0)
    hull = Delaunay(((corners - middle) * (1 + margin) + middle).numpy())
    return torch.as_tensor(hull.find_simplex(points.numpy()) >= 0)


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
