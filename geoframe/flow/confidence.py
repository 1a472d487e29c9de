"""How likely each pixel of a flow is right."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe.flow.descriptors import smooth
from geoframe.flow.warp import values_at, warp_back

_WEIGHTS = (-0.291, -1.163, -1.521, 1.206, 0.355)  # of `flow_signs`, and a constant


def flow_signs(first: Tensor, second: Tensor, flow: Tensor, points0: Tensor, points1: Tensor) -> Tensor:
    """What tells whether a flow is right.

    Args:
        first: (3, H, W) image 0.
        second: (3, H1, W1) image 1.
        flow: (2, H, W).
        points0: (N, 2) matches that the flow was made of.
        points1: (N, 2).

    Returns:
        (4, H, W): how different the images are along the flow, on a scale of logarithms, and the same beside the
        contrast of image 0; how far the matches near by are off the flow; whether it leads out of image 1.
    """
    warped, inside = warp_back(second[None], flow[None])
    change = smooth((warped[0] - first).abs().mean(0)[None, None], 2.0)[0, 0]
    contrast = smooth((first - smooth(first[None], 4.0)[0]).abs().mean(0)[None, None], 4.0)[0, 0]
    off = torch.log1p((points1 - points0 - values_at(flow, points0)).norm(dim=1))
    away = torch.zeros(3, *flow.shape[1:])  # sums of weight, of weighted disagreement
    x, y = (points0[:, k].long().clamp(0, flow.shape[2 - k] - 1) for k in (0, 1))
    away[0].index_put_((y, x), torch.ones_like(off), accumulate=True)
    away[1].index_put_((y, x), off, accumulate=True)
    spread = smooth(away[None, :2], 8.0)[0]
    near = spread[1] / spread[0].clamp(min=1e-6)
    return torch.stack(
        [
            torch.log(change + 0.003),
            torch.log((change + 0.003) / (contrast + 0.003)),
            near,
            (~inside[0]).float(),
        ]
    )


def confidence_from_signs(signs: Tensor) -> Tensor:
    """How likely a flow is right to 3 pixels: a logistic function of `flow_signs` (4, H, W), fitted to the zoo."""
    weight = signs.new_tensor(_WEIGHTS)
    return torch.sigmoid((weight[:4, None, None] * signs).sum(0) + weight[4])
