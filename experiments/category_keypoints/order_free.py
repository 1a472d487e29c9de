"""Keypoints without order, stable under rotation: the baseline that category keypoints are compared with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from geoframe.layers import NodeBranch


class OrderFreeKeypoints(nn.Module):
    """The node branch alone, to be trained so that it finds the same nodes on rotated copies of a cloud.

    Args:
        n_keypoints: how many nodes.

    Source: in the manner of Li and Lee 2019, "USIP: unsupervised stable interest point detection from 3D point
        clouds"; without its uncertainties, and with the widths of the category keypoints' node branch.
    """

    def __init__(self, n_keypoints: int = 10) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"n_keypoints": n_keypoints}
        self.nodes = NodeBranch(n_keypoints)

    def forward(self, points: Tensor) -> Tensor:
        """Keypoints (B, K, 3) of clouds (B, N, 3), in no order."""
        return self.nodes(points)
