"""An object frame tied to a canonical surface: each vertex gets the embedding that its pixels have.

A frame is learned on a category without any surface. A few annotated pixels, or renders of the surface whose pixels
are known exactly, say which embedding belongs to some vertices; a smooth function on the surface says it for all. From
then on a picture's embedding is a `PixelMap`, through which pictures correspond and textures travel.

Source: ours. The smooth function is the ridge regression of `C` eigenfunctions, each penalised by its eigenvalue.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_float, check_index, check_shape
from geoframe.canonical.surface import Surface
from geoframe.pixels import PixelMap

_EIGENFUNCTIONS = 64
_SMOOTH = 1e-3  # of the penalty of the highest eigenfunction, in annotations
_TEMPERATURE = 0.05  # of cosines, for the confidence
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
