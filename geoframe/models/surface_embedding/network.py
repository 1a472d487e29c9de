"""The network: images to embeddings of pixels, and beside it the embeddings of the surfaces' vertices.

One image network serves all surfaces, and knows nothing of categories: what a pixel shows is said in the space that
the surfaces share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geoframe._check import check_shape
from geoframe.heads.fields import Field, FieldHead
from geoframe.layers.vertex_embedding import SharedEmbedding


class Embedded(NamedTuple):
    """What the network says.

    Attributes:
        embedding: (B, D, h, w) of squares of `stride` pixels, not normalised.
        mask: (B, h, w) logits: above 0 where the object is.
        tables: (V, D) unit embeddings of the vertices, one a surface, in their order.
    """

    embedding: Tensor
    mask: Tensor
    tables: tuple[Tensor, ...]


class SurfaceEmbedding(nn.Module):
    """An image head and the surfaces that it speaks of.

    Args:
        head: images to embeddings and masks.
        surfaces: vertex embeddings of the same dimension, by name.
        style: chance that a picture of a batch takes the means and variances of its finer feature maps in part from
            another picture, while training: what the head then learns depends less on colours and textures.

    Raises:
        ValueError: different dimensions.

    Source: Neverova et al. 2020; the exchange of styles is Zhou et al. 2021, Domain generalization with MixStyle.
    """

    def __init__(self, head: FieldHead, surfaces: SharedEmbedding, *, style: float = 0.0) -> None:
        super().__init__()
        if surfaces.dim != head.dim:
            raise ValueError(f"surfaces: expected dim {head.dim} as the head has, found {surfaces.dim}")
        if not 0 <= style <= 1:
            raise ValueError(f"style: expected a chance in [0, 1], found {style}")
        self.head, self.surfaces, self.style = head, surfaces, style

    @property
    def dim(self) -> int:
        """D."""
        return self.head.dim

    def forward(self, image: Tensor | Sequence[Tensor]) -> Embedded:
        """Embeddings of images (B, 3, H, W) in [0, 1], or of the backbone's maps of them, finest first."""
        maps = self.head.backbone(image) if isinstance(image, Tensor) and self._mixes else image
        if not isinstance(maps, Tensor) and self._mixes:
            maps = self._restyled(list(maps))
        field: Field = self.head(maps)
        return Embedded(field.embedding, field.mask, tuple(e() for e in self.surfaces.values()))

    @property
    def _mixes(self) -> bool:
        return self.training and self.style > 0

    def _restyled(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps (B, C, h, w) of which all but the coarsest have exchanged means and variances."""
        B = len(maps[-1])
        other = torch.randperm(B, device=maps[-1].device)
        share = torch.distributions.Beta(0.1, 0.1).sample((B, 1, 1, 1)).to(maps[-1])
        chosen = torch.rand(B, 1, 1, 1, device=maps[-1].device) < self.style
        share = torch.where(chosen, share, torch.zeros_like(share))
        return [_exchanged(x, x[other], share) if x.numel() else x for x in maps[:-1]] + maps[-1:]


def _exchanged(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """x (B, C, h, w) with channel means and deviations moved towards those of `other` by `share` (B, 1, 1, 1)."""
    mean, mean2 = x.mean((2, 3), keepdim=True), other.mean((2, 3), keepdim=True)
    std, std2 = (y.std((2, 3), keepdim=True) + 1e-4 for y in (x, other))
    new = std + share * (std2 - std)
    return (x - mean) / std * new + mean + share * (mean2 - mean)


def at_points(field: Tensor, points: Tensor, stride: int) -> Tensor:
    """Values of a field at points between the centres of its squares, bilinear, as `FieldHead.at_size` has them.

    Args:
        field: (B, C, h, w) of squares of `stride` pixels.
        points: (B, P, 2) pixel x, pixel y.
        stride: pixels.

    Returns:
        (B, P, C).
    """
    h, w = check_shape(field, "B C h w", "field")["h"], field.shape[-1]
    extent = points.new_tensor([w * stride, h * stride])
    grid = 2 * points / extent - 1
    found = nn.functional.grid_sample(
        field, grid[:, :, None].to(field), mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[..., 0].mT
