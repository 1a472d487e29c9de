"""Embeddings of pixels to vertices: the exact nearest vertex of every foreground pixel of a 256 x 256 crop.

python -m experiments.bench.embedding_decode [--json FILE] [--case CASE ...]

The surface is the horse of the zoo, of about 5,000 vertices; its embedding of dimension 16 mixes smooth functions,
as a trained one does. Pixels show it as a renderer sees it, in part with an error added that is smooth over the
image, as those of a network are. All get rows of unit length. Ours is the answer of float64; torch.cdist rounds where
two vertices are about as near, so that the note may tell a difference of under a per cent. The note also says
how near pixels are to the vertex they take (mean cosine) and how much memory ours takes. On a busy machine compare with
OMP_NUM_THREADS=1.

crop-40        40 % of the crop is foreground; the peer is torch.cdist with argmin, 4,096 pixels at a time
crop-100       nearly all of it
off-40         as crop-40, with an error of length 0.4
tree-40        as crop-40; the peer is scipy's cKDTree on all cores
tree-off-40    as off-40; likewise
image-image    two images of crop-40 compared pixel by pixel: for every pixel of one the nearest of the other
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from experiments.bench._harness import Row, compare, main, peak_memory, peer_label
from geoframe.camera import weak_view
from geoframe.data.rendered import template_surface
from geoframe.nearest import decode_embedding, unit_rows
from geoframe.pixels import PixelMap
from geoframe.render import rasterize

SIZE, DIM, FUNCTIONS = 256, 16, 64
CLOSE = {40: 0.74, 100: 0.28}  # extent of the view, in radii of the horse


@cache
def table() -> Tensor:
    """(V, DIM) embeddings of the horse's vertices: smooth functions, the smoother the stronger."""
    surface = template_surface("horse")
    basis = surface.basis(FUNCTIONS + 1)
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(FUNCTIONS, DIM, generator=draw, dtype=torch.float64)
    weight = weight / (1 + basis.vals[1:, None].double() * float(surface.area) / 40)
    return unit_rows((basis.vecs[:, 1:].double() @ weight).float())


@cache
def field(share: int, error: float = 0.0, azimuth: float = 1.2) -> tuple[Tensor, Tensor]:
    """Embedding (DIM, SIZE, SIZE) of what the crop shows, and its foreground."""
    surface = template_surface("horse")
    verts = surface.verts.double()
    middle = (verts.amin(0) + verts.amax(0)) / 2
    eye = middle + verts.new_tensor([math.cos(azimuth), 0.2, math.sin(azimuth)])
    extent = CLOSE[share] * float((verts - middle).norm(dim=1).max())
    view = weak_view(eye, (SIZE, SIZE), target=middle, extent=extent)
    seen = PixelMap.of_fragments(rasterize(verts, surface.faces, view), surface)
    wrong = torch.randn(1, DIM, 16, 16, generator=torch.Generator().manual_seed(1))
    wrong = torch.nn.functional.interpolate(wrong, size=(SIZE, SIZE), mode="bicubic")[0]
    return seen.carry(table()).movedim(-1, 0) + error / math.sqrt(DIM) * wrong, seen.mask


def _cdist(x: Tensor, points: Tensor) -> Tensor:
    return torch.cat([torch.cdist(part, points).argmin(1) for part in x.split(4096)])


def _tree(x: Tensor, points: Tensor) -> Tensor:
    return torch.from_numpy(cKDTree(points.numpy()).query(x.numpy(), workers=-1)[1])


def case(
    name: str, share: int, peer: Callable[[Tensor, Tensor], Tensor], peer_name: str, *, error: float = 0.0
) -> Callable[[], list[Row]]:
    """A function that runs one comparison."""

    def run() -> list[Row]:
        embedding, mask = field(share, error)
        points = table()
        if name == "image-image":
            other, where = field(share, error, azimuth=1.4)
            points = unit_rows(other[:, where].T)
        memory = peak_memory(lambda: decode_embedding(embedding, points, mask))[1]

        def check(ours: Tensor, theirs: Tensor) -> str:
            found = ours[mask]
            cosine = (unit_rows(embedding[:, mask].T) * points[found]).sum(1).mean()
            same = (found == theirs).double().mean()
            return (
                f"{len(found)} pixels, {len(points)} points; the same {float(same):.2%}; "
                f"cosine {float(cosine):.3f}; +{memory:.0f} MiB"
            )

        return [
            compare(
                name,
                lambda: decode_embedding(embedding, points, mask),
                lambda: peer(unit_rows(embedding[:, mask].T), points),
                peer_name=peer_name,
                check=check,
            )
        ]

    return run


CDIST, TREE = f"torch.cdist {peer_label('torch')}", f"cKDTree {peer_label('scipy')}"
CASES = {
    "crop-40": case("crop-40", 40, _cdist, CDIST),
    "crop-100": case("crop-100", 100, _cdist, CDIST),
    "off-40": case("off-40", 40, _cdist, CDIST, error=0.4),
    "tree-40": case("tree-40", 40, _tree, TREE),
    "tree-off-40": case("tree-off-40", 40, _tree, TREE, error=0.4),
    "image-image": case("image-image", 40, _cdist, CDIST),
}

if __name__ == "__main__":
    main(__doc__ or "", CASES)
