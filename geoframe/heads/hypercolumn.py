"""A head that reads all maps of a backbone at a few pixels, and makes an embedding of what it read there."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_int, check_shape
from geoframe.heads.backbone import Backbone


class HypercolumnHead(nn.Module):
    """Sparse hypercolumns: the maps of a backbone, looked up between their pixels, beside one another, then an MLP.

    Args:
        backbone: gives the maps.
        dim: D, numbers of an embedding.
        width: of the hidden layer.

    Attributes:
        channels: of the hypercolumn, all maps together.

    Source: the head of "Cross pixel optical-flow similarity" (Mahendran et al. 2018), section 3.3.
    """

    def __init__(self, backbone: Backbone, dim: int = 16, *, width: int = 128) -> None:
        super().__init__()
        check_int(dim, "dim", low=1)
        check_int(width, "width", low=1)
        self.backbone, self.dim = backbone, dim
        self.channels = sum(backbone.channels)
        self.norm = nn.LayerNorm(self.channels)
        self.hidden = nn.Linear(self.channels, width)
        self.out = nn.Linear(width, dim)

    def columns(self, image: Tensor, points: Tensor) -> Tensor:
        """Hypercolumns at points.

        Args:
            image: (B, 3, H, W) in [0, 1].
            points: (B, N, 2) x and y in pixels, the centre of the first pixel at 0.5.

        Returns:
            (B, N, C).
        """
        B = check_shape(image, "B 3 H W", "image")["B"]
        check_shape(points, f"{B} N 2", "points")
        found = []
        for level, stride in zip(self.backbone(image), self.backbone.strides, strict=True):
            size = (
                points.new_tensor([level.shape[3], level.shape[2]]) * stride
            )  # maps may cover a little more
            grid = (2 * points / size - 1)[:, None].to(level.dtype)
            read = F.grid_sample(level, grid, mode="bilinear", padding_mode="border", align_corners=False)
            found.append(read[:, :, 0].mT)
        return torch.cat(found, dim=-1)

    def forward(self, image: Tensor, points: Tensor) -> Tensor:
        """Embeddings (B, N, D) of unit length at points (B, N, 2) of images (B, 3, H, W)."""
        column = self.norm(self.columns(image, points))
        return F.normalize(self.out(F.relu(self.hidden(column))), dim=-1)

    def field(self, image: Tensor, *, stride: int = 4) -> Tensor:
        """Embeddings (B, D, h, w) at the centre of every square of `stride` pixels, ``h = ceil(H / stride)``."""
        return self._dense(image, stride, self)

    def column_field(self, image: Tensor, *, stride: int = 4) -> Tensor:
        """Hypercolumns (B, C, h, w) likewise."""
        return self._dense(image, stride, self.columns)

    def _dense(self, image: Tensor, stride: int, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        check_int(stride, "stride", low=1)
        B, (H, W) = len(image), image.shape[-2:]
        y, x = (stride * (torch.arange(-(-n // stride), device=image.device) + 0.5) for n in (H, W))
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(1, -1, 2).to(image.dtype)
        values = read(image, points.expand(B, -1, -1))
        return values.mT.reshape(B, -1, len(y), len(x))
