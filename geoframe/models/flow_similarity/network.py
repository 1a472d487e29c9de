"""Features of pixels that are alike where pixels are likely to move together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geoframe.heads.backbone import backbone as make_backbone
from geoframe.heads.hypercolumn import HypercolumnHead
from geoframe.losses.flow import FLOW_VARIANCE


class FlowFeatures(nn.Module):
    """Sparse hypercolumns on a backbone.

    Args:
        backbone: as of `geoframe.heads.backbone.backbone`.
        dim: D.
        width: of the hidden layer of the head.
        learn_variance: whether the width of the kernel of motions is learned along.
        weights: of the backbone.
    """

    def __init__(
        self,
        backbone: str = "small",
        *,
        dim: int = 16,
        width: int = 128,
        learn_variance: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "backbone": backbone,
            "dim": dim,
            "width": width,
            "learn_variance": learn_variance,
            "weights": weights,
        }
        self.head = HypercolumnHead(make_backbone(backbone, weights=weights), dim, width=width)
        start = torch.tensor(FLOW_VARIANCE).log()
        self.log_variance = nn.Parameter(start, requires_grad=learn_variance)

    def forward(self, image: Tensor, points: Tensor) -> Tensor:
        """Features (B, N, D) of unit length at points (B, N, 2), in pixels, of images (B, 3, H, W) in [0, 1]."""
        return self.head(image, points)

    def field(self, image: Tensor, *, stride: int = 4) -> Tensor:
        """Features (B, D, h, w) at the centres of squares of `stride` pixels."""
        return self.head.field(image, stride=stride)


def build(settings: Mapping[str, Any]) -> FlowFeatures:
    """A network without its weights.

    Args:
        settings: arguments of its constructor.

    Raises:
        ValueError: a setting that it does not have.
    """
    known = tuple(inspect.signature(FlowFeatures).parameters)
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"settings: expected some of {', '.join(known)}, found {', '.join(unknown)}")
    return FlowFeatures(**settings)
